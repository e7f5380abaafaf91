"""Drawings of a run as SVG: the same bytes for the same numbers, and readable without colour.

They are as wide as a phone, and their letters as large as the page's. Nothing here touches pyplot's global state or
the user's Matplotlib settings.
"""

import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib import style
from matplotlib.figure import Figure

from alexnet_repro.results import wording
from alexnet_repro.results.read import Case
from alexnet_repro.results.two_runs import Ratio

INCH = 96  # CSS pixels
WIDTH = 3.7  # inches: a phone's, margins aside
LETTER = 9.6 / INCH  # inches a letter takes, at the most on average, with which room for labels is reckoned
LINE = 0.27  # inches
INK, BLUE = "#1b1f24", "#0b5cad"
# Fill, hatch: told apart by the hatch, and named beside each bar.
FILLS = {
    "float32": ("#dbe9f6", ""),
    "tf32": ("#fde3c8", "\\\\\\"),
    "mixed_bfloat16": ("#cfe8dc", "///"),
    "mixed_float16": ("#eddcee", "..."),
}
MARKED = 60  # points of a series, at the most, that have a marker each
POINTS = 200  # of a series; more rounds are shown by their blocks' medians
SETTINGS = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 12.0,
    "hatch.color": "#57606a",
    "hatch.linewidth": 0.7,
    "svg.fonttype": "none",  # text stays text: to be searched, copied and read aloud
    "text.color": INK,
    "text.parse_math": False,  # names come from a file
    "xtick.color": INK,
    "ytick.color": INK,
}
METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@dataclass(frozen=True)
class Drawing:
    """A figure."""

    name: str
    """Of its file, without `.svg`."""
    says: str
    """What it shows, for those who don't see it."""
    svg: str


def throughput(timings: Sequence[Case]) -> list[Drawing]:
    """Return, for each device and kind of case, a bar of images/s for each batch size and precision."""
    panels: dict[tuple[str, str], list[Case]] = {}
    for case in timings:
        title, chosen = wording.parameters(case.case)
        if case.precision and "batch" in chosen:
            panels.setdefault((case.device, title), []).append(case)
    return list(_named(_bars(device, title, cases) for (device, title), cases in panels.items()))


def step_times(timings: Sequence[Case]) -> list[Drawing]:
    """Return, for each case of `train_step`, the seconds of round after round."""
    cases = [case for case in timings if wording.parameters(case.case)[0] == "train_step"]
    alone = wording.one_device([case.case for case in cases])
    return list(_named(_series(case, wording.label(case.case, ["device"] if alone else [])) for case in cases))


def ratios(compared: Sequence[Ratio]) -> list[Drawing]:
    """Return one figure of all ratios with their intervals; none where there is no ratio."""
    shown = [each for each in compared if math.isfinite(each.ratio)]
    if not shown:
        return []
    return list(_named(_intervals(each) for each in [shown]))


def _intervals(shown: Sequence[Ratio]) -> tuple[str, str, Figure]:
    omit = ["device"] if wording.one_device([each.first.case for each in shown]) else []
    labels = [wording.label(each.first.case, omit) for each in shown]
    width = max(WIDTH, max(map(len, labels)) * LETTER + 0.2)
    height = (2.1 * len(shown) + 2) * LINE
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.02, 1.6 * LINE / height, 0.96, 1 - 1.6 * LINE / height))
    axes.spines["left"].set_visible(False)
    axes.axvline(1, color=INK, linewidth=0.8, dashes=(4, 3))
    aside = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    for place, each, text in zip(range(len(shown), 0, -1), shown, labels, strict=True):
        axes.text(0, place + 0.42, text, transform=axes.get_yaxis_transform(), va="center", bbox=aside)
        known = not math.isnan(each.low)
        if known:
            axes.plot([each.low, each.high], [place, place], "|-", color=BLUE, linewidth=2, markersize=10)
        marker = {"slower": ">", "faster": "<"}.get(each.word, "o")  # which way B's time has moved
        axes.plot(each.ratio, place, marker, color=BLUE, markerfacecolor=BLUE if known else "white", markersize=8)
    ends = [end for each in shown for end in (each.low, each.high, each.ratio) if math.isfinite(end)]
    span = max(0.02, 1.1 * max(abs(end - 1) for end in ends))
    axes.set(yticks=[], xlim=(max(0, 1 - span), 1 + span), ylim=(0.5, len(shown) + 0.8))
    axes.locator_params(axis="x", nbins=4)
    return "ratios", f"Second run's time over the first's with its interval, of {len(shown)} cases", figure


def _bars(device: str, title: str, cases: Sequence[Case]) -> tuple[str, str, Figure]:
    batches: dict[str, list[Case]] = {}
    for case in cases:
        batches.setdefault(wording.parameters(case.case)[1]["batch"], []).append(case)
    height = (len(cases) + 1.3 * len(batches) + 1.7) * LINE
    figure = Figure(figsize=(WIDTH, height))
    room = max(len(case.precision) for case in cases) * LETTER + 0.1
    left, right = min(room, 0.6 * WIDTH) / WIDTH, 0.75 / WIDTH
    axes = figure.add_axes((left, 0, 1 - left - right, 1))
    axes.set_axis_off()
    rates = [0.0 if case.void else case.rate(case.images) for case in cases]
    most = max([each for each in rates if math.isfinite(each)], default=0) or 1
    axes.set(xlim=(0, most), ylim=(height / LINE, 0))
    figure.text(0, 1 - 0.6 * LINE / height, f"{title}, {device}: images/s", va="center", weight="bold")
    place = 1.6
    for batch, group in batches.items():
        figure.text(0, 1 - (place + 0.6) * LINE / height, f"batch {batch}", va="center")
        place += 1.3
        for case in group:
            rate = case.rate(case.images)
            void = case.void or not math.isfinite(rate)
            fill, hatch = FILLS.get(case.precision, ("white", "xx"))
            if not void:
                axes.barh(place + 0.4, rate, 0.72, color=fill, hatch=hatch, edgecolor=INK, linewidth=0.8)
            axes.text(-0.02 * most, place + 0.4, case.precision, ha="right", va="center")
            text = "void" if void else wording.quantity(rate)
            axes.text((0 if void else rate) + 0.03 * most, place + 0.4, text, va="center")
            place += 1
    return f"throughput-{device}-{title}", f"Images a second of {title} on {device}, by batch and precision", figure


def _series(case: Case, text: str) -> tuple[str, str, Figure]:
    unit, size = ("s", 1.0) if case.median >= 1 else ("ms", 1e-3)
    title = f"{text.removeprefix('train_step, ')}: {unit}"
    width, height = max(WIDTH, len(title) * LETTER), 1.75
    figure = Figure(figsize=(width, height))
    figure.text(0, 1 - 0.5 * LINE / height, title, va="center")
    axes = figure.add_axes((0.6 / width, 0.48 / height, 1 - 0.7 / width, 1 - (0.48 + 1.3 * LINE) / height))
    parts = np.array_split(np.asarray(case.rounds) / size, min(POINTS, len(case.rounds)))
    times = np.array([np.median(part) for part in parts])
    if np.isfinite(times).all():
        middle = case.median / size
        room = (
            1.15 * max(0.1 * middle, *np.abs(times - middle)) or 1.0
        )  # a tenth at the least: noise is to look like noise
        axes.set_ylim(middle - room, middle + room)
        axes.axhline(middle, color=INK, linewidth=0.8, dashes=(4, 3))
    numbers = np.linspace(1, len(case.rounds), len(times))
    axes.plot(numbers, times, color=BLUE, linewidth=1.5, marker="o" if len(times) <= MARKED else "", markersize=5)
    axes.locator_params(axis="x", nbins=5, integer=True)
    axes.locator_params(axis="y", nbins=3)
    axes.set_xlabel(
        "round" if len(times) == len(case.rounds) else f"round, by medians of up to {len(parts[0])}", labelpad=1
    )
    says = f"Time of {len(case.rounds)} rounds of {text}, median {wording.seconds(case.median)}"
    return f"steps-{case.case}", says, figure


def _named(figures: Iterator[tuple[str, str, Figure]]) -> Iterator[Drawing]:
    """Make each figure under this module's settings, give it a file name of its own, and draw it."""
    taken: set[str] = set()
    with style.context(["default", SETTINGS]):
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
