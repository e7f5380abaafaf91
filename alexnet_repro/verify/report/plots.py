"""Plots of a run as SVG: throughput, rooflines, times relative to the reference, step times, and learning curves.

A plot is as wide as a phone, wider only where a name needs it, with letters as large as the page's. It can be read
without colour. The same numbers give the same bytes, in any process. Matplotlib is imported when something is drawn;
its global state and the user's settings stay as they are.
"""

import io
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from html import escape
from itertools import chain, count, islice
from typing import Any, NamedTuple, ParamSpec, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import TypeAdapter, ValidationError

from alexnet_repro.verify.benchmark.timing import Calibration, Timing
from alexnet_repro.verify.doctor.health import describe_throttling
from alexnet_repro.verify.finding import Finding, Number
from alexnet_repro.verify.report import text as wording

PHONE_WIDTH = 3.39  # inches: the 360 CSS pixels of a narrow phone, without its margins
LETTERS = 32  # in a line of text
LINE = 0.27  # inches
MAX_DRAWINGS, MAX_CASES = 24, 60  # of a kind on a page, and in one drawing: more than any real run has
INK = "#1b1f24"
DASHED: dict[str, Any] = {"color": INK, "linewidth": 0.8, "dashes": (4, 3)}
# Fill and hatch of a bar, marker of a point, dashes of a roof: precisions differ without colour, too.
LOOKS: Mapping[str, tuple[str, str, str, str | tuple[int, tuple[int, ...]]]] = {
    "float32": ("#dbe9f6", "", "o", "-"),
    "tf32": ("#fde3c8", "\\\\\\", "s", (0, (6, 2))),
    "mixed_bfloat16": ("#cfe8dc", "///", "^", (0, (3, 2))),
    "mixed_float16": ("#eddcee", "xxx", "v", (0, (1, 2))),
}
MAX_MARKED, MAX_POINTS = 60, 200  # points of a line: with a marker each, and at all
WINDOWS = 40  # of a running mean, end to end, in a curve

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
Points = Sequence[tuple[float, float]]
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
        painted = re.sub(r"(?<=: )#[0-9a-f]{6}", lambda found: COLORS.get(found[0], found[0]), self.svg)
        return painted.replace("<svg", '<svg aria-hidden="true"', 1)

    @property
    def standalone(self) -> str:
        """The drawing as a file: on white, since the viewer may be dark, with its description as the title."""
        attributes, _, rest = self.svg.removeprefix("<svg").partition(">")
        return f'<svg style="background: white"{attributes}><title>{escape(self.description)}</title>{rest}'


def _drawings(make: Callable[Inputs, Iterable[Named]]) -> Callable[Inputs, list[Drawing]]:
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


@_drawings
def throughput(timings: Sequence[Timing], invalid: Collection[str] = ()) -> Iterator[Named]:
    """Return, for each device and kind of case, a bar of images/s per batch and precision; none for `invalid` cases."""
    for device, kind, cases in _grouped(case for case in timings if case.precision):
        batches = dict.fromkeys(map(_batch, cases))
        rows = len(cases) + 1.3 * len(batches)
        figure = _figure(LINE * rows, f"{kind}, {device}: images/s")
        axes, place, names = figure.subplots(), 0.0, {}
        for batch in batches:
            _name_row(axes, place, f"batch {batch}")
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


@_drawings
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
        figure = _figure(3.1 + LINE * len(peaks), f"{kind}, {device}: roofline")
        axes = figure.subplots()
        keys: list[Any] = axes.loglog([left, top / rates.memory], [left * rates.memory, top], color=INK)
        names = [f"memory, {EngFormatter('B/s')(float(f'{rates.memory:.3g}'))}"]
        ends = []
        for name, peak in peaks.items():
            *_, marker, dashes = LOOKS[name]
            path = [each for each in points if each[2] == name]
            xs, ys = [each[0] for each in path], [each[1] for each in path]
            axes.plot(xs, ys, linewidth=0.7)
            roof = axes.plot([peak / rates.memory, right], [peak, peak], color=INK, linestyle=dashes)
            keys.append((*roof, *axes.plot(xs, ys, marker)))
            names.append(f"{name}, {EngFormatter('FLOP/s')(float(f'{peak:.3g}'))}")
            ends += path[:1] + path[1:][-1:]
        axes.set(xlim=(left, right), ylim=(min(y) / 2.5, max(y) * 1.6), xlabel="FLOP per byte", title="FLOP/s")
        for axis, values in ((axes.xaxis, x), (axes.yaxis, y)):
            axis.set_major_locator(LogLocator(subs=(1, 3) if max(values) < 100 * min(values) else (1,), numticks=8))
        axes.minorticks_off()
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter(EngFormatter())
        figure.legend(keys, names, loc="outside lower left")
        figure.draw_without_rendering()  # so that places are known, and no batch size covers a marker or another one
        taken = [Bbox.from_bounds(a - 5, b - 5, 10, 10) for a, b in axes.transData.transform([p[:2] for p in points])]
        for intensity, rate, _, batch in ends:
            for up, va in ((-6, "top"), (6, "bottom")):
                text = axes.annotate(batch, (intensity, rate), (0, up), textcoords="offset points", ha="center", va=va)
                if not text.get_window_extent().count_overlaps(taken):
                    taken.append(text.get_window_extent())
                    break
                text.remove()
        roofs_named = f"below the roofs of memory and of {', '.join(peaks)}"
        yield f"roofline-{device}-{kind}", f"FLOP/s of {kind} on {device} over FLOP per byte, {roofs_named}", figure


@_drawings
def against_reference(findings: Sequence[Finding]) -> Iterator[Named]:
    """Return, for each device, each case's time relative to its reference, its noise interval, and its bound.

    Only findings of `alexnet_repro.verify.benchmark.gate` have these: `low` and `high` in their data.
    """
    devices: dict[str, list[tuple[Finding, Floats]]] = {}
    for each in findings:
        ends = _numbers([each.data.get("low"), each.data.get("high"), each.number, each.bound])
        if each.check == "speed" and len(ends) and ((ends > 0) & (ends < math.inf)).all():
            devices.setdefault(each.device, []).append((each, ends))
    for device, every in devices.items():
        rows = every[:MAX_CASES]
        figure = _figure(LINE * (2.1 * len(rows) + 1), device)
        axes, names = figure.subplots(), []
        axes.axvline(1, **DASHED)
        for place, (finding, (low, high, ratio, bound)) in enumerate(rows):
            fill = "white" if finding.status == "INCONCLUSIVE" else None
            axes.errorbar((low + high) / 2, place, xerr=abs(high - low) / 2, linewidth=2)
            axes.plot(ratio, place, "X" if finding.status == "FAIL" else "o", markerfacecolor=fill)
            axes.plot(bound, place, "|", color=INK, markersize=16, markeredgewidth=2)
            _name_row(axes, place - 0.45, wording.label(finding.case, ["device"]))
            names.append(f"{ratio:.3f}" + ("" if finding.status == "PASS" else f" {wording.SIGNS[finding.status]}"))
        span = max(0.02, *(1.1 * abs(end - 1) for _, ends in rows for end in ends))
        axes.set(xlim=(max(0, 1 - span), 1 + span), ylim=(len(rows) - 0.6, -0.8))
        axes.set_yticks(range(len(rows)), names)
        axes.yaxis.tick_right()
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=4)
        axes.spines["left"].set_visible(False)
        description = f"Time relative to the reference, with noise interval and bound, of {len(rows)} cases on {device}"
        yield f"reference-{device}", description, figure


@_drawings
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
        sampled = {label: values for label, values in recorded.items() if timed and np.isfinite(values).any()}
        reasons = [int(each or 0) for each in case.samples.get("throttle_reasons", ())] or [0] * len(seconds)
        if sampled:
            x = np.array([block.mean() for block in np.array_split(np.cumsum(rounds) - rounds, len(blocks))])
            throttled = describe_throttling(int(np.bitwise_or.reduce(reasons)))
            below = ["seconds", f"× throttled by {throttled}" * bool(throttled), f"rounds{medians}" * bool(medians)]
        else:
            x, below = np.linspace(1, len(rounds), len(blocks)), [f"round{medians}", "no clock or temperature recorded"]
        figure, axes = _panels([f"{text.removeprefix('train_step, ')}: {unit}", *sampled], 0.8, below)
        _line(axes[0], x, times, 0.1)
        if np.isfinite(times).all():
            axes[0].axhline(case.median / size, **DASHED)
        for panel, (label, values) in zip(axes[1:], sampled.items(), strict=True):
            _line(panel, seconds, values, 0.05)
            if label.startswith("clock"):
                crossed = [place for place, bits in enumerate(reasons) if describe_throttling(bits)]
                panel.plot(seconds[crossed], values[crossed], "x", color=INK, markeredgewidth=1.5)
        axes[-1].locator_params(axis="x", integer=not sampled)
        beside = "".join(f"; {label} below it" for label in sampled) or "; neither clock nor temperature was recorded"
        description = f"Time of {len(rounds)} rounds of {text}, median {wording.seconds(case.median)}{beside}"
        yield f"steps-{case.case}", description, figure


@_drawings
def learning_curves(findings: Sequence[Finding]) -> Iterator[Named]:
    """Return the learning curves of findings that hold losses (`alexnet_repro.verify.checks.learning`)."""
    for each in findings:
        kept = each.data.get("losses"), each.data.get("accuracies"), [each.data.get("batch")]
        losses, accuracies, batch = map(_numbers, kept)
        if each.check == "learning" and len(losses) and len(batch) and 0 < batch[0] < math.inf:
            images = batch[0] * np.arange(1, len(losses) + 1)
            shares = accuracies if len(accuracies) == len(losses) else accuracies[:0]
            yield _curve(f"{each.device}, {each.precision}", images, losses, shares, ())


def learning_curve(
    title: str, images: ArrayLike, losses: ArrayLike, accuracies: ArrayLike = (), points: Points = ()
) -> Drawing:
    """Return loss and accuracy over the images seen; for many updates, a running mean and the band most lie in.

    Images seen up to and including each update, rising, and losses (NaN leaves a gap) are `(updates,)`; so are
    accuracies, from 0 to 1, or there are none. Points: images seen, and the accuracy on the test images after them.

    Raises:
        ValueError: there is no update, or arrays differ in length.
    """
    x, y, shares = (np.asarray(each, np.float64) for each in (images, losses, accuracies))
    if not len(x) or len(y) != len(x) or len(shares) not in (0, len(x)):
        raise ValueError(f"{len(x)} updates can't have {len(y)} losses and {len(shares)} accuracies: one each, or none")
    return _drawings(lambda: [_curve(title, x, y, shares, points)])()[0]


def _grouped(cases: Iterable[Timing]) -> list[tuple[str, str, list[Timing]]]:
    """Return each device and kind of case with its cases, of those that have a batch size."""
    groups: dict[tuple[str, str], list[Timing]] = {}
    for case in cases:
        if _batch(case):
            groups.setdefault((case.device, wording.kind(case.case)), []).append(case)
    return [(*group, found[:MAX_CASES]) for group, found in groups.items()]


def _wrapped(text: str) -> str:
    return textwrap.fill(text, LETTERS, break_long_words=False)


def _batch(case: Timing) -> str:
    return wording.parameters(case.case)[1].get("batch", "")


def _has_roof(case: Timing, rates: Calibration | None) -> bool:
    known = rates and (case.flop, case.bytes, case.rate(case.flop), rates.memory, rates.matmul.get(case.precision, 0))
    return case.precision in LOOKS and all(0 < each < math.inf for each in known or [0])


def _numbers(values: Any) -> Floats:
    """Return a list of numbers from a finding's data, None as NaN; none where it is anything else."""
    try:
        return np.array(NUMBERS.validate_python(values), np.float64)
    except ValidationError:
        return np.array([])


def _figure(height: float, title: str = "") -> Figure:
    """Return an empty figure of a height in inches, and its title above."""
    from matplotlib.figure import Figure

    title = _wrapped(title)
    figure = Figure(figsize=(PHONE_WIDTH, height + LINE * len(title.splitlines())), layout="constrained")
    figure.suptitle(title, x=0, ha="left")
    return figure


def _curve(title: str, images: Floats, losses: Floats, accuracies: Floats, points: Points) -> Named:
    from matplotlib.ticker import EngFormatter

    many, window = len(images) > MAX_MARKED, max(10, len(images) // WINDOWS)
    labels = [f"{title}: loss", *(["accuracy; ◆ on test images"] if points else ["accuracy"] * bool(len(accuracies)))]
    below = ["images seen", *[f"line: mean of {window} updates;", "band: the middle 80 %"] * many]
    figure, axes = _panels(labels, 1.3, below)
    for panel, values in zip(axes, filter(len, (losses, accuracies)), strict=False):
        if many:
            chosen, means, *band = _smoothed(values, window)
            few = np.linspace(0, len(chosen) - 1, WINDOWS + 1).astype(int)  # the band's own points, one per window
            panel.fill_between(images[chosen[few]], *(each[few] for each in band), color="#b9cfe6", linewidth=0)
            panel.plot(images[chosen], means)
        else:
            _line(panel, images, values)
    axes[0].set_ylim(bottom=0)
    for panel in axes[1:]:
        panel.set_ylim(0, 1.05)
    if points:
        size = max(2.0, min(7.0, 90 / len(points)))  # so small that the line stays visible
        axes[1].plot(*zip(*points, strict=True), "D", color=INK, markersize=size)
        last = points[-1]
        axes[1].annotate(f"{last[1]:.4f}", last, (0, -10), textcoords="offset points", ha="right", va="top")
    axes[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
    description = f"Loss and accuracy of {title} over {images[-1]:,.0f} images, {len(images)} updates"
    return f"learning-{title}", description, figure


def _name_row(axes: Axes, place: float, name: str) -> None:
    """Write a name across the axes; it may reach beyond them, which the layout ignores and the drawing includes."""
    behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
    axes.figure.text(0, place, name, transform=axes.get_yaxis_transform(), va="center", bbox=behind)


def _panels(labels: Sequence[str], height: float, below: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """Return a figure of axes of a height in inches that share x, each under its label, with text below them."""
    titles, under = list(map(_wrapped, labels)), "\n".join(map(_wrapped, filter(None, below)))
    lines = 1 + sum(len(text.splitlines()) for text in (*titles, under))
    figure = _figure(height * len(titles) + LINE * lines)
    axes: list[Axes] = list(figure.subplots(len(titles), sharex=True, squeeze=False).flat)
    for panel, title in zip(axes, titles, strict=True):
        panel.set_title(title)
        panel.locator_params(axis="y", nbins=3)
    axes[-1].set_xlabel(under)
    axes[-1].locator_params(axis="x", nbins=5)
    return figure, axes


def _line(axes: Axes, x: Floats, y: Floats, reach: float = 0.0) -> None:
    """Draw a line; its axis reaches at least that fraction of the median up and down: noise looks like noise."""
    axes.plot(x, y, marker="o" if len(x) <= MAX_MARKED else "", markersize=5)
    if len(known := y[np.isfinite(y)]):
        axes.update_datalim([(x[0], np.median(known) * (1 + end)) for end in (-reach, reach)], updatex=False)
        axes.autoscale_view()


def _smoothed(values: Floats, window: int) -> tuple[NDArray[np.int_], Floats, Floats, Floats]:
    """Return at most `MAX_POINTS` indices, and mean and quantiles of the finite values in the window around each."""
    chosen = np.linspace(0, len(values) - 1, min(MAX_POINTS, len(values))).astype(int)
    finite = np.where(np.isfinite(values), values, math.nan)
    padded = np.pad(finite, (window // 2, (window - 1) // 2), constant_values=math.nan)
    around = np.lib.stride_tricks.sliding_window_view(padded, window)[chosen]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # windows without a finite value are gaps
        return chosen, np.nanmean(around, axis=1), *np.nanquantile(around, (0.1, 0.9), axis=1)
