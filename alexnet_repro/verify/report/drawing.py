"""How every figure is drawn, as SVG: the same bytes for the same numbers, and readable without colour.

Figures are as wide as a phone, and their letters as large as the page's. Nothing here touches pyplot's global state or
the user's Matplotlib settings.
"""

import io
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape

import matplotlib as mpl
from matplotlib import style
from matplotlib.figure import Figure

INCH = 96  # CSS pixels
WIDTH = 3.39  # inches: a narrow phone's 360 pixels, margins aside
LETTER = 9.6 / INCH  # inches a letter takes, at the most on average, with which room for labels is reckoned
NARROW = 8.4 / INCH  # inches a letter of a case's name takes, which has few wide ones
LINE = 0.27  # inches
INK, BLUE, PALE, SOFT = "#1b1f24", "#0b5cad", "#b9cfe6", "#57606a"
BESIDE = {"facecolor": "white", "edgecolor": "none", "pad": 1}
"""The box of a text that lies over lines."""
SETTINGS = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 12.0,
    "hatch.color": SOFT,
    "hatch.linewidth": 0.7,
    "svg.fonttype": "none",  # text stays text: to be searched, copied and read aloud
    "text.color": INK,
    "text.parse_math": False,  # names come from a file
    "xtick.color": INK,
    "ytick.color": INK,
}
METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))

Named = tuple[str, str, Figure]
"""What a figure is named by, what it shows for those who don't see it, and itself."""


@dataclass(frozen=True)
class Drawing:
    """A figure."""

    name: str
    """Of its file, without `.svg`."""
    says: str
    """What it shows, for those who don't see it."""
    svg: str

    @property
    def alone(self) -> str:
        """It as a file of its own: on white, since what shows it may be dark, and with what it says as its title."""
        return re.sub(
            r"<svg ([^>]*)>",
            lambda found: f'<svg style="background: white" {found[1]}><title>{escape(self.says)}</title>',
            self.svg,
            count=1,
        )


def drawn(figures: Iterable[Named]) -> list[Drawing]:
    """Make each figure under this module's settings, give it a file name of its own, and draw it.

    Args:
        figures: an iterator that makes each when it is asked for.
    """
    with style.context(["default", SETTINGS]):
        return list(_drawn(figures))


def wrapped(text: str) -> list[str]:
    """Return a text as lines that fit a figure's width."""
    return textwrap.wrap(text, int(WIDTH / LETTER))


def _drawn(figures: Iterable[Named]) -> Iterator[Drawing]:
    taken: set[str] = set()
    for title, says, figure in figures:
        stem = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:80]
        name = next(each for each in (stem, *(f"{stem}-{n}" for n in range(2, 10_000))) if each not in taken)
        taken.add(name)
        yield Drawing(name, says, _svg(figure, name))


def _svg(figure: Figure, name: str) -> str:
    """Return the drawing without what differs from run to run, its ids apart from other drawings' on one page."""
    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata=METADATA)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    return re.sub(r'( id="|url\(#|xlink:href="#)', rf"\g<1>{name}-", text)
