"""Drawings of a run's numbers as SVG: their size, their colours on the page, and the parts that plots are made of.

A drawing is as wide as a phone, wider only where a name needs it, with letters as large as the page's. It can be read
without colour. The same numbers give the same bytes, in any process. Matplotlib is imported when something is drawn;
its global state and the user's settings stay as they are.
"""

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from html import escape
from itertools import chain, count, islice
from typing import Any, NamedTuple, ParamSpec, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from alexnet_repro.verify.finding import Number

PHONE_WIDTH = 3.39  # inches: the 360 CSS pixels of a narrow phone, without its margins
LETTERS = 32  # in a line of text
LINE = 0.27  # inches
MAX_DRAWINGS, MAX_CASES = 24, 60  # of a kind on a page, and in one drawing: more than any real run has
MAX_MARKED, MAX_POINTS = 60, 200  # points of a line: with a marker each, and at all
INK = "#1b1f24"
COLORS: Mapping[str, str] = {  # of drawings, and the page's own for them
    INK: "currentColor",
    "#0b5cad": "var(--plot)",
    "#b9cfe6": "var(--band)",
    "#57606a": "var(--hatch)",
    "#ffffff": "var(--paper)",
    "#dbe9f6": "var(--float32)",
    "#fde3c8": "var(--tf32)",
    "#cfe8dc": "var(--bfloat16)",
    "#eddcee": "var(--float16)",
}

Floats = NDArray[np.float64]
NUMBERS = TypeAdapter(list[Number | None], config={"strict": True})
Axes: TypeAlias = Any  # Matplotlib's
Figure: TypeAlias = Any
Named = tuple[str, str, Figure]  # what its file is named after, its description, and itself
Inputs = ParamSpec("Inputs")


class Drawing(NamedTuple):
    """An SVG drawing: its file name without `.svg`, its description for those who can't see it, and itself."""

    name: str
    description: str
    svg: str

    @property
    def width(self) -> str:
        """The width at which letters have the page's size, as CSS has it."""
        found = re.match(r'<svg [^>]*?\bwidth="([\d.]+)pt"', self.svg)
        return f"{found[1]}pt" if found else "0"

    @property
    def inline(self) -> str:
        """The drawing as part of a page: in its colours, light or dark, and silent beside its description."""
        styled = re.sub(r' fill="(#[0-9a-f]{6})"', r' style="fill: \1"', self.svg)
        painted = re.sub(r"(?<=: )#[0-9a-f]{6}", lambda found: COLORS.get(found[0], found[0]), styled)
        return painted.replace("<svg", '<svg aria-hidden="true"', 1)

    @property
    def standalone(self) -> str:
        """The drawing as a file: on white, since the viewer may be dark, with its description as the title."""
        attributes, _, rest = self.svg.removeprefix("<svg").partition(">")
        return f'<svg style="background: white"{attributes}><title>{escape(self.description)}</title>{rest}'


def as_drawings(make: Callable[Inputs, Iterable[Named]]) -> Callable[Inputs, list[Drawing]]:
    """Return a function that makes the same figures in this module's style, and returns them as SVG.

    Each has a file name of its own, and ids that differ from those of other drawings on a page.
    """

    @wraps(make)
    def drawn(*args: Inputs.args, **kwargs: Inputs.kwargs) -> list[Drawing]:
        from matplotlib import style

        drawings: dict[str, Drawing] = {}
        unstated = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        with style.context(["default", "alexnet_repro.verify.report.plots"]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numbers that no run measures; what shows the SVG has its own fonts
            for title, description, figure in islice(make(*args, **kwargs), MAX_DRAWINGS):
                stem = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:80]
                name = next(each for each in chain([stem], (f"{stem}-{n}" for n in count(2))) if each not in drawings)
                file = io.StringIO()
                figure.savefig(file, format="svg", metadata=unstated, bbox_inches="tight", pad_inches=0.02)
                svg = "<svg" + file.getvalue().partition("<svg")[2]
                svg = re.sub(r'( id="|url\(#|xlink:href="#)', rf"\g<1>{name}-", svg)
                drawings[name] = Drawing(name, description, svg)
        return list(drawings.values())

    return drawn


def in_lines(text: str) -> str:
    """Return a text in lines that fit a drawing."""
    return textwrap.fill(text, LETTERS, break_long_words=False)


def numbers_of(values: Any) -> Floats:
    """Return a list of numbers from a finding's data, None as NaN; none where it is anything else."""
    try:
        return np.array(NUMBERS.validate_python(values), np.float64)
    except ValidationError:
        return np.array([])


def new_figure(height: float, title: str = "") -> Figure:
    """Return an empty figure of a height in inches, and its title above."""
    from matplotlib.figure import Figure

    title = in_lines(title)
    figure = Figure(figsize=(PHONE_WIDTH, height + LINE * len(title.splitlines())), layout="constrained")
    figure.suptitle(title, x=0, ha="left")
    return figure


def name_row(axes: Axes, place: float, name: str) -> None:
    """Write a name across the axes; it may reach beyond them, which the layout ignores and the drawing includes."""
    behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
    axes.figure.text(0, place, name, transform=axes.get_yaxis_transform(), va="center", bbox=behind)


def new_panels(labels: Sequence[str], height: float, below: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """Return a figure of axes of a height in inches that share x, each under its label, with text below them."""
    titles, under = list(map(in_lines, labels)), "\n".join(map(in_lines, filter(None, below)))
    lines = 1 + sum(len(text.splitlines()) for text in (*titles, under))
    figure = new_figure(height * len(titles) + LINE * lines)
    axes: list[Axes] = list(figure.subplots(len(titles), sharex=True, squeeze=False).flat)
    for panel, title in zip(axes, titles, strict=True):
        panel.set_title(title)
        panel.locator_params(axis="y", nbins=3)
    axes[-1].set_xlabel(under)
    axes[-1].locator_params(axis="x", nbins=5)
    return figure, axes


def draw_line(axes: Axes, x: Floats, y: Floats, reach: float = 0.0) -> None:
    """Draw a line; its axis reaches at least that fraction of the median up and down: noise looks like noise."""
    axes.plot(x, y, marker="o" if len(x) <= MAX_MARKED else "", markersize=5)
    if len(known := y[np.isfinite(y)]):
        axes.update_datalim([(x[0], np.median(known) * (1 + end)) for end in (-reach, reach)], updatex=False)
        axes.autoscale_view()
