"""Throughput as bars, and times over other times with what they are held against."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report import text as wording
from alexnet_repro.verify.report.compare_runs import Ratio
from alexnet_repro.verify.report.drawing import BESIDE, BLUE, INK, LETTER, LINE, NARROW, WIDTH, Drawing, Named, drawn
from alexnet_repro.verify.report.read import Case, numbers

NUMBER = 0.8  # inches that a ratio takes
# Fill, hatch: told apart by the hatch, and named beside each bar.
FILLS = {
    "float32": ("#dbe9f6", ""),
    "tf32": ("#fde3c8", "\\\\\\"),
    "mixed_bfloat16": ("#cfe8dc", "///"),
    "mixed_float16": ("#eddcee", "xxx"),
}


def throughput(timings: Sequence[Case]) -> list[Drawing]:
    """Return, for each device and kind of case, a bar of images/s for each batch size and precision."""
    panels: dict[tuple[str, str], list[Case]] = {}
    for case in timings:
        if case.precision and "batch" in wording.parameters(case.case)[1]:
            panels.setdefault((case.device, wording.kind(case.case)), []).append(case)
    return drawn(_bars(device, title, cases) for (device, title), cases in panels.items())


@dataclass(frozen=True)
class _Row:
    """A time over another one."""

    text: str
    said: str
    """The ratio, and what is to be said of it in a sign."""
    ratio: float
    low: float
    """The interval's ends; NaN where there is none."""
    high: float
    marker: str
    filled: bool
    bound: float = math.nan
    """Beyond it, the first is slower; NaN where nothing is said."""


def ratios(compared: Sequence[Ratio]) -> list[Drawing]:
    """Return one figure of all ratios with their intervals; none where there is no ratio."""
    shown = [each for each in compared if math.isfinite(each.ratio)]
    omit = ["device"] if wording.one_device([each.first.case for each in shown]) else []
    markers = {"slower": ">", "faster": "<"}  # which way B's time has moved
    rows = [
        _Row(
            wording.label(each.first.case, omit),
            wording.ratio(each),
            each.ratio,
            each.low,
            each.high,
            markers.get(each.word, "o"),
            not math.isnan(each.low),
        )
        for each in shown
    ]
    says = f"Second run's time over the first's with its interval, of {len(rows)} cases"
    return drawn(("ratios", says, _intervals(rows)) for _ in rows[:1])


def against_reference(findings: Sequence[Finding]) -> list[Drawing]:
    """Return, for each device, each case's time over its reference's, with what noise explains and the bound.

    Args:
        findings: of any group; those of `alexnet_repro.verify.benchmark.gate` hold `case`, `low` and `high` in their
        data.
    """
    devices: dict[str, list[_Row]] = {}
    for each in findings:
        row = _held(each) if each.check == "speed" else None
        if row:
            devices.setdefault(each.device, []).append(row)
    return drawn(_held_against(device, rows) for device, rows in devices.items())


def _held(finding: Finding) -> _Row | None:
    """Return a finding of the gate as a row; None where it, or whoever wrote it, holds no numbers."""
    data = finding.data if isinstance(finding.data, dict) else {}
    held = numbers([data.get("low"), data.get("high"), finding.number, finding.bound])
    if not held or not all(0 < each < math.inf for each in held):
        return None
    low, high, ratio, bound = held
    text = wording.label(finding.case, ["device"])
    sign = "" if finding.status == "PASS" else f" {wording.SIGNS[finding.status]}"
    marker, filled = "X" if finding.status == "FAIL" else "o", finding.status != "INCONCLUSIVE"
    return _Row(text, f"{ratio:.3f}{sign}", ratio, low, high, marker, filled, bound)


def _held_against(device: str, rows: Sequence[_Row]) -> Named:
    says = f"Time over that of the reference, with what noise explains and its bound, of {len(rows)} cases on {device}"
    return f"reference-{device}", says, _intervals(rows, device)


def _intervals(rows: Sequence[_Row], title: str = "") -> Figure:
    above = 1.3 * LINE if title else 0.0
    width = max(WIDTH, max(len(row.text) for row in rows) * NARROW)
    height = (2.1 * len(rows) + 2) * LINE + above
    figure = Figure(figsize=(width, height))
    figure.text(0, 1 - 0.5 * LINE / height, title, va="center", weight="bold")
    left, bottom = NUMBER / width, 1.6 * LINE / height
    axes = figure.add_axes((left, bottom, 0.98 - left, 1 - bottom - above / height))
    axes.spines["left"].set_visible(False)
    axes.axvline(1, color=INK, linewidth=0.8, dashes=(4, 3))
    for place, row in zip(range(len(rows), 0, -1), rows, strict=True):
        beside = blended_transform_factory(figure.transFigure, axes.transData)
        axes.text(0, place + 0.42, row.text, transform=beside, va="center", bbox=BESIDE)
        axes.text(0, place, row.said, transform=beside, va="center")
        if not math.isnan(row.low):
            axes.plot([row.low, row.high], [place, place], "|-", color=BLUE, linewidth=2, markersize=10)
        fill = BLUE if row.filled else "white"
        axes.plot(row.ratio, place, row.marker, color=BLUE, markerfacecolor=fill, markersize=8)
        axes.plot([row.bound, row.bound], [place - 0.28, place + 0.2], color=INK, linewidth=2)
    ends = [end for row in rows for end in (row.low, row.high, row.ratio, row.bound) if math.isfinite(end)]
    span = max(0.02, 1.1 * max(abs(end - 1) for end in ends))
    axes.set(yticks=[], xlim=(max(0, 1 - span), 1 + span), ylim=(0.5, len(rows) + 0.8))
    axes.locator_params(axis="x", nbins=4)
    return figure


def _bars(device: str, title: str, cases: Sequence[Case]) -> Named:
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
