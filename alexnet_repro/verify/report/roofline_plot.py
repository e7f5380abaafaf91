"""How near a case comes to what its device can do: FLOP/s over FLOP a byte, under calibrated roofs.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore architectures",
Communications of the ACM 52(4), 2009. A case is limited by its roof: that of memory, which rises with the intensity, or
that of products in its precision. Both are those that the run calibrated, so that a case may lie above by what its own
products are better than those; bytes are the least that must be moved.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from alexnet_repro.verify.report import text as wording
from alexnet_repro.verify.report.drawing import BESIDE, BLUE, INK, LINE, WIDTH, Drawing, Named, drawn
from alexnet_repro.verify.report.read import Case, Rates

HEIGHT = 2.7  # inches of the axes
LEFT, RIGHT, BOTTOM = 0.62, 0.2, 0.5  # inches around them
# Marker, dashes of the roof: told apart without colour, and named.
SHAPES: Mapping[str, tuple[str, str | tuple[int, tuple[int, ...]]]] = {
    "float32": ("o", "-"),
    "tf32": ("s", (0, (6, 2))),
    "mixed_bfloat16": ("^", (0, (3, 2))),
    "mixed_float16": ("v", (0, (1, 2))),
}
FEW_DECADES = 100  # below which an axis has numbers between powers of ten as well
NUMBER, TALL, MARKER = 0.1, 0.08, 0.07  # inches: a digit's width, half its height, and half of a marker
NEAR = 0.3  # inches within which one number is enough for two points


@dataclass(frozen=True)
class Point:
    """A case, as it is drawn."""

    precision: str
    batch: str
    intensity: float
    """FLOP/byte."""
    rate: float
    """FLOP/s."""


def rooflines(timings: Sequence[Case], rates: Mapping[str, Rates]) -> list[Drawing]:
    """Return, for each calibrated device and kind of case, its batches and precisions under their roofs."""
    figures: dict[tuple[str, str], list[Point]] = {}
    for case in timings:
        batch, known = wording.parameters(case.case)[1].get("batch"), rates.get(case.device)
        if known and not case.void and batch and _usable(case, known):
            point = Point(case.precision, batch, case.flop / case.bytes, case.rate(case.flop))
            figures.setdefault((case.device, wording.kind(case.case)), []).append(point)
    return drawn(_roofline(device, title, found, rates[device]) for (device, title), found in figures.items())


def _usable(case: Case, rates: Rates) -> bool:
    """Return whether a logarithm can be taken of all that is needed."""
    numbers = (case.flop, case.bytes, case.rate(case.flop), rates.memory, rates.matmul.get(case.precision, 0))
    return case.precision in SHAPES and all(math.isfinite(each) and each > 0 for each in numbers)


def _roofline(device: str, title: str, points: Sequence[Point], rates: Rates) -> Named:
    roofs = {name: rates.matmul[name] for name in SHAPES if any(point.precision == name for point in points)}
    key = 1.2 * LINE + (len(roofs) + 1) * LINE
    height = key + HEIGHT + BOTTOM
    figure = Figure(figsize=(WIDTH, height))
    figure.text(0, 1 - 0.5 * LINE / height, f"{title}, {device}: roofline", va="center", weight="bold")
    place = (LEFT / WIDTH, BOTTOM / height, 1 - (LEFT + RIGHT) / WIDTH, HEIGHT / height)
    axes = figure.add_axes(place)
    _limits(axes, points, roofs, rates.memory)
    for row, (name, peak) in enumerate(roofs.items()):
        marker, dashes = SHAPES[name]
        y = 1 - (1.2 * LINE + (row + 0.5) * LINE) / height
        beside = figure.add_axes((0, y - 0.5 * LINE / height, 0.75 / WIDTH, LINE / height))
        beside.set_axis_off()
        beside.plot([0, 1], [0, 0], linestyle=dashes, color=INK, linewidth=1.5)
        beside.plot([0.5], [0], marker, color=BLUE, markersize=8)
        figure.text(0.85 / WIDTH, y, f"{name}, {_rate(peak)}FLOP/s", va="center")
        _roof(axes, peak, rates.memory, dashes)
        chosen = sorted((point for point in points if point.precision == name), key=lambda point: point.intensity)
        x, rate = [point.intensity for point in chosen], [point.rate for point in chosen]
        axes.plot(x, rate, marker, linestyle="-", color=BLUE, linewidth=0.7, markersize=8)
    _number(axes, points)
    y = 1 - (1.2 * LINE + (len(roofs) + 0.5) * LINE) / height
    figure.text(0, y, f"slope: memory, {_rate(rates.memory)}B/s", va="center")
    says = f"FLOP/s of {title} on {device} over FLOP a byte, under the roofs of memory and of {', '.join(roofs)}"
    return f"roofline-{device}-{title}", says, figure


def _limits(axes: Axes, points: Sequence[Point], roofs: Mapping[str, float], memory: float) -> None:
    """Give the axes logarithmic scales that hold all points, roofs, and where these bend."""
    x = [*(point.intensity for point in points), *(peak / memory for peak in roofs.values())]
    y = [*(point.rate for point in points), *roofs.values()]
    axes.set(xscale="log", yscale="log", xlim=(min(x) / 2, max(x) * 3), ylim=(min(y) / 2.5, max(y) * 1.6))
    axes.set_xlabel("FLOP a byte", labelpad=1)
    for axis, numbers, between in ((axes.xaxis, x, (1, 3)), (axes.yaxis, y, (1, 2, 5))):
        few = max(numbers) / min(numbers) < FEW_DECADES
        axis.set_major_locator(LogLocator(subs=between if few else (1,), numticks=8))
        axis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(lambda value, _: _rate(value))


def _roof(axes: Axes, peak: float, memory: float, dashes: str | tuple[int, tuple[int, ...]]) -> None:
    bend, (left, right) = peak / memory, axes.get_xlim()
    axes.plot([left, bend], [left * memory, peak], color=INK, linewidth=1)
    axes.plot([bend, right], [peak, peak], color=INK, linewidth=1.5, linestyle=dashes)


def _number(axes: Axes, points: Sequence[Point]) -> None:
    """Write the smallest and the largest batch of each precision beside its point, where there is room.

    A number covers neither another one nor a marker, and stands once where two precisions meet.
    """
    inches = axes.transData + axes.figure.dpi_scale_trans.inverted()
    places = {point: inches.transform((point.intensity, point.rate)) for point in points}
    taken = [(x - MARKER, x + MARKER, y - MARKER, y + MARKER) for x, y in places.values()]
    written: list[tuple[str, np.ndarray]] = []
    for name in SHAPES:
        path = sorted((point for point in points if point.precision == name), key=lambda point: point.intensity)
        for point in dict.fromkeys([*path[:1], *path[-1:]]):
            x, y = places[point]
            if any(batch == point.batch and math.dist(place, (x, y)) < NEAR for batch, place in written):
                continue
            half = NUMBER * len(point.batch) / 2
            beside = ((MARKER + half, 0.0), (-MARKER - half, 0.0), (0.0, MARKER + TALL), (0.0, -MARKER - TALL))
            for across, up in beside:
                box = (x + across - half, x + across + half, y + up - TALL, y + up + TALL)
                if not any(_overlap(box, each) for each in taken):
                    taken.append(box)
                    written.append((point.batch, places[point]))
                    where = inches.inverted().transform((x + across, y + up))
                    axes.text(*where, point.batch, ha="center", va="center", bbox={**BESIDE, "pad": 0})
                    break


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


def _rate(value: float) -> str:
    """Return a rate with its unit's prefix, as `222 G`."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g} "
