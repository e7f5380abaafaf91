"""Plots of a run's timings: throughput, rooflines, times relative to the reference, and step times."""

import math
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alexnet_repro.verify.benchmark.timing import Calibration, Timing
from alexnet_repro.verify.doctor.health import describe_throttling
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report import text as wording
from alexnet_repro.verify.report.drawing import (
    INK,
    LETTERS,
    LINE,
    MAX_CASES,
    MAX_POINTS,
    Floats,
    Named,
    as_drawings,
    draw_line,
    in_lines,
    name_row,
    new_figure,
    new_panels,
    numbers_of,
)

DASHED: dict[str, Any] = {"color": INK, "linewidth": 0.8, "dashes": (4, 3)}
# Fill and hatch of a bar, marker of a point, dashes of a roof: precisions differ without colour, too.
LOOKS: Mapping[str, tuple[str, str, str, str | tuple[int, tuple[int, ...]]]] = {
    "float32": ("#dbe9f6", "", "o", "-"),
    "tf32": ("#fde3c8", "\\\\\\", "s", (0, (6, 2))),
    "mixed_bfloat16": ("#cfe8dc", "///", "^", (0, (3, 2))),
    "mixed_float16": ("#eddcee", "xxx", "v", (0, (1, 2))),
}
MEASURABLE = 1e-6, 1e24  # any device's rates, per second, and any round's work
# Where the number of a batch may stand beside its point.
SIDES = (
    ((0, -6), "center", "top"),
    ((0, 6), "center", "bottom"),
    ((7, 0), "left", "center"),
    ((-7, 0), "right", "center"),
)


@as_drawings
def throughput(timings: Sequence[Timing], invalid: Collection[str] = ()) -> Iterator[Named]:
    """Return, for each device and kind of case, a bar of images/s per batch and precision; none for `invalid` cases."""
    for device, kind, cases in _grouped(case for case in timings if case.precision):
        batches = dict.fromkeys(map(_batch, cases))
        rows = len(cases) + 1.3 * len(batches)
        figure = new_figure(LINE * rows, f"{kind}, {device}: images/s")
        axes, place, names = figure.subplots(), 0.0, {}
        for batch in batches:
            name_row(axes, place, f"batch {batch}")
            for case in (each for each in cases if _batch(each) == batch):
                place += 1
                names[place] = textwrap.fill(case.precision, LETTERS // 2)
                rate = math.nan if case.case in invalid else case.rate(case.images)
                if math.isfinite(rate):
                    color, hatch, *_ = LOOKS.get(case.precision, ("white", "xx"))
                    bar = axes.barh(place, rate, 0.72, color=color, hatch=hatch)
                    axes.bar_label(bar, [wording.quantity(rate)], padding=4)
                else:
                    axes.annotate("invalid", (0, place), (4, 0), textcoords="offset points", va="center")
            place += 1.3
        axes.set_yticks(list(names), names.values())
        axes.set(xmargin=0, ylim=(rows - 0.8, -0.5))
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_visible(False)
        axes.spines[:].set_visible(False)
        yield f"throughput-{device}-{kind}", f"Images per second of {kind} on {device}, by batch and precision", figure


@as_drawings
def rooflines(
    timings: Sequence[Timing], calibrations: Sequence[Calibration], invalid: Collection[str] = ()
) -> Iterator[Named]:
    """Return, for each calibrated device and kind of case, the FLOP/s of its valid cases below the device's roofs.

    Williams, Waterman and Patterson, "Roofline", Communications of the ACM 52(4), 2009. The slope is memory bandwidth;
    the level lines are matrix products in each precision. Both were measured in the run, and bytes are the fewest that
    must be moved, so a case may lie above its roof by as much as its own kernels are better than those measured.
    """
    from matplotlib.ticker import EngFormatter, LogLocator
    from matplotlib.transforms import Bbox

    roofs = {each.device: each for each in calibrations}
    known = (case for case in timings if case.case not in invalid and _has_roof(case, roofs.get(case.device)))
    for device, kind, cases in _grouped(known):
        rates = roofs[device]
        points = sorted((case.flop / case.bytes, case.rate(case.flop), case.precision, _batch(case)) for case in cases)
        peaks = {name: rates.matmul[name] for name in LOOKS if any(name == precision for *_, precision, _ in points)}
        x = [*(intensity for intensity, *_ in points), *(peak / rates.memory for peak in peaks.values())]
        y = [*(rate for _, rate, *_ in points), *peaks.values()]
        left, right, top = min(x) / 3, max(x) * 4, max(peaks.values())
        figure = new_figure(3.1 + LINE * (len(peaks) + 1), f"{kind}, {device}: roofline")
        axes = figure.subplots()
        keys: list[Any] = axes.loglog([left, top / rates.memory], [left * rates.memory, top], color=INK)
        names = [f"memory, {EngFormatter('B/s')(float(f'{rates.memory:.3g}'))}"]
        above = dict[str, list[str]]()
        for name, peak in peaks.items():
            *_, marker, dashes = LOOKS[name]
            path = [each for each in points if each[2] == name]
            xs, ys = [each[0] for each in path], [each[1] for each in path]
            axes.plot(xs, ys, linewidth=0.7)
            roof = axes.plot([peak / rates.memory, right], [peak, peak], color=INK, linestyle=dashes)
            keys.append((*roof, *axes.plot(xs, ys, marker)))
            names.append(f"{name}, {EngFormatter('FLOP/s')(float(f'{peak:.3g}'))}")
            above[name] = [each[3] for each in path if each[1] > min(peak, each[0] * rates.memory)]
        axes.set(xlim=(left, right), ylim=(min(y) / 2.5, max(y) * 1.6), xlabel="FLOP per byte", title="FLOP/s")
        for axis, values in ((axes.xaxis, x), (axes.yaxis, y)):
            axis.set_major_locator(LogLocator(subs=(1, 3) if max(values) < 100 * min(values) else (1,), numticks=8))
        axes.minorticks_off()
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter(EngFormatter())
        batches_above = {name: ", ".join(batches) for name, batches in above.items() if batches}
        if beyond := [f"{name}, batch\N{NO-BREAK SPACE}{batches}" for name, batches in batches_above.items()]:
            keys.append(axes.plot([], [], linestyle="none")[0])
            names.append(in_lines(f"above its roof: {'; '.join(beyond)}"))
        figure.legend(keys, names, loc="outside lower left")
        figure.draw_without_rendering()  # so that places are known, and no batch size covers a marker or another one
        taken = [Bbox.from_bounds(a - 5, b - 5, 10, 10) for a, b in axes.transData.transform([p[:2] for p in points])]
        for intensity, rate, _, batch in points:
            for offset, ha, va in SIDES:
                text = axes.annotate(batch, (intensity, rate), offset, textcoords="offset points", ha=ha, va=va)
                if not text.get_window_extent().count_overlaps(taken):
                    taken.append(text.get_window_extent())
                    break
                text.remove()
        roofs_named = f"below the roofs of memory and of {', '.join(peaks)}"
        yield f"roofline-{device}-{kind}", f"FLOP/s of {kind} on {device} over FLOP per byte, {roofs_named}", figure


@as_drawings
def against_reference(findings: Sequence[Finding]) -> Iterator[Named]:
    """Return, for each device, each case's time relative to its reference, its noise interval, and its bound.

    Only findings of `alexnet_repro.verify.benchmark.gate` have these: `low` and `high` in their data.
    """
    devices: dict[str, list[tuple[Finding, Floats]]] = {}
    for each in findings:
        ends = numbers_of([each.data.get("low"), each.data.get("high"), each.number, each.bound])
        if each.check == "speed" and len(ends) and ((ends > 0) & (ends < math.inf)).all():
            devices.setdefault(each.device, []).append((each, ends))
    for device, every in devices.items():
        rows = every[:MAX_CASES]
        figure = new_figure(LINE * (2.1 * len(rows) + 1), device)
        axes, names = figure.subplots(), []
        axes.axvline(1, **DASHED)
        for place, (finding, (low, high, ratio, bound)) in enumerate(rows):
            fill = "white" if finding.status == "INCONCLUSIVE" else None
            axes.errorbar((low + high) / 2, place, xerr=abs(high - low) / 2, linewidth=2)
            axes.plot(ratio, place, "X" if finding.status == "FAIL" else "o", markerfacecolor=fill)
            axes.plot(bound, place, "|", color=INK, markersize=16, markeredgewidth=2)
            name_row(axes, place - 0.45, wording.label(finding.case, ["device"]))
            names.append(f"{ratio:.3f} ×" + ("" if finding.status == "PASS" else f" {wording.SIGNS[finding.status]}"))
        span = max(0.02, *(1.1 * abs(end - 1) for _, ends in rows for end in ends))
        axes.set(xlim=(max(0, 1 - span), 1 + span), ylim=(len(rows) - 0.6, -0.8))
        axes.set_yticks(range(len(rows)), names)
        axes.yaxis.tick_right()
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=4)
        axes.spines["left"].set_visible(False)
        description = f"Time relative to the reference, with noise interval and bound, of {len(rows)} cases on {device}"
        yield f"reference-{device}", description, figure


@as_drawings
def step_times(timings: Sequence[Timing]) -> Iterator[Named]:
    """Return, for each case of `train_step`, the time of each round above clock and temperature."""
    cases = [case for case in timings if wording.parameters(case.case)[0] == "train_step"]
    omit = ["device"] if len({case.device for case in cases}) == 1 else []
    for case in cases:
        text, rounds = wording.label(case.case, omit), np.asarray(case.rounds)
        unit, size = ("s", 1.0) if case.median >= 1 else ("ms", 1e-3)
        blocks = np.array_split(rounds, min(MAX_POINTS, len(rounds)))
        times = np.array([np.median(block) for block in blocks]) / size
        medians = f", by medians of up to {len(blocks[0])}" if len(blocks) < len(rounds) else ""
        clock, whose = ("cpu_mhz", "processors") if case.device.startswith("cpu") else ("gpu_mhz", "GPU")
        columns = (case.samples.get(name, ()) for name in ("seconds", clock, "temperature"))
        seconds, mhz, degrees = (np.asarray(column, np.float64) for column in columns)
        recorded = {f"clock of the {whose}: GHz": mhz / 1e3, "temperature: °C": degrees}
        timed = np.isfinite(rounds).all() and rounds.sum() > 0
        known = {label: values for label, values in recorded.items() if timed and np.isfinite(values).any()}
        sampled = {label: values for label, values in known.items() if _changes(values)}
        steady = [
            f"{what}: {np.nanmedian(known[label]):.3g} {unit_of} throughout"
            for label, (what, unit_of) in ((label, label.split(": ")) for label in known if label not in sampled)
        ]
        reasons = [int(each or 0) for each in case.samples.get("throttle_reasons", ())] or [0] * len(seconds)
        if sampled:
            x = np.array([block.mean() for block in np.array_split(np.cumsum(rounds) - rounds, len(blocks))])
            throttled = describe_throttling(int(np.bitwise_or.reduce(reasons)))
            below = [
                "seconds",
                f"× throttled by {throttled}" * bool(throttled),
                f"rounds{medians}" * bool(medians),
                *steady,
            ]
        else:
            x = np.linspace(1, len(rounds), len(blocks))
            below = [f"round{medians}", *(steady or ["no clock or temperature recorded"])]
        figure, axes = new_panels([f"{text.removeprefix('train_step, ')}: {unit}", *sampled], 0.8, below)
        draw_line(axes[0], x, times, 0.1)
        if np.isfinite(times).all():
            axes[0].axhline(case.median / size, **DASHED)
        for panel, (label, values) in zip(axes[1:], sampled.items(), strict=True):
            draw_line(panel, seconds, values, 0.05)
            if label.startswith("clock"):
                crossed = [place for place, bits in enumerate(reasons) if describe_throttling(bits)]
                panel.plot(seconds[crossed], values[crossed], "x", color=INK, markeredgewidth=1.5)
        axes[-1].locator_params(axis="x", integer=not sampled)
        beside = "".join([*(f"; {label} below it" for label in sampled), *(f"; {each}" for each in steady)])
        beside = beside or "; neither clock nor temperature was recorded"
        description = f"Time of {len(rounds)} rounds of {text}, median {wording.seconds(case.median)}{beside}"
        yield f"steps-{case.case}", description, figure


def _grouped(cases: Iterable[Timing]) -> list[tuple[str, str, list[Timing]]]:
    """Return each device and kind of case with its cases, of those that have a batch size."""
    groups: dict[tuple[str, str], list[Timing]] = {}
    for case in cases:
        if _batch(case):
            groups.setdefault((case.device, wording.kind(case.case)), []).append(case)
    return [(*group, found[:MAX_CASES]) for group, found in groups.items()]


def _batch(case: Timing) -> str:
    return wording.parameters(case.case)[1].get("batch", "")


def _changes(values: Floats) -> bool:
    """Return whether values differ by more than 2 % of their median."""
    return bool(np.nanmax(values) - np.nanmin(values) > 0.02 * abs(np.nanmedian(values)))


def _has_roof(case: Timing, rates: Calibration | None) -> bool:
    known = rates and (case.flop, case.bytes, case.rate(case.flop), rates.memory, rates.matmul.get(case.precision, 0))
    return case.precision in LOOKS and all(MEASURABLE[0] < each < MEASURABLE[1] for each in known or [0])
