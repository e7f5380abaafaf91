"""Tables of a run's results, as text: for the terminal, for the page, and for the comparison of two runs."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from alexnet_repro.verify.benchmark.layer_timing import LayerTiming, most_lost_in_words
from alexnet_repro.verify.benchmark.roofline import DIRECTIONS
from alexnet_repro.verify.benchmark.timing import Timing, relative_iqr
from alexnet_repro.verify.checks.overhead_cell import OverheadCell, cost
from alexnet_repro.verify.finding import Finding, Status
from alexnet_repro.verify.report import text as wording
from alexnet_repro.verify.report.compare_runs import Comparison
from alexnet_repro.verify.report.run_record import RunRecord
from alexnet_repro.verify.report.text import NONE, TERMINAL_WIDTH, percent, quantity, seconds
from alexnet_repro.verify.verdict import verdicts

NAME_WIDTH, GAP = 20, 2  # characters: of a row's name at least, and between columns
# Headings of columns that aren't numbers, besides the first.
LONG_WORDS = ("finding", "evidence")
WORDS = ("output shape", "verdict", "checks", "note", "bottleneck", "B is", *LONG_WORDS, "measured")
CONDITIONS = {
    "load": ("load", "{:.2f}"),
    "CPU clock": ("cpu_mhz", "{:,.0f} MHz"),
    "GPU clock": ("gpu_mhz", "{:,.0f} MHz"),
    "temperature": ("temperature", "{:.0f} °C"),
}
LEGEND = (
    "median: of single rounds, each waited for; images/s and both percentages follow from it\n"
    "% peak: of the device's own matmul rate (MFU)\n"
    "% roofline: of the speed at which each layer would be bound by arithmetic or memory alone\n"
    "pipelined: per round of several that are waited for once"
)


class TextTable(NamedTuple):
    """Headings, and rows of as many cells; the first column names the row."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        """Return aligned lines of at most `TERMINAL_WIDTH` characters, without colours; long names are wrapped."""
        return self.fitted(TERMINAL_WIDTH)

    def fitted(self, width: int) -> str:
        """Return lines of at most `width` characters: names are wrapped, and the last columns left out, not cut."""
        if not self.rows:
            return ""
        columns = list(zip(self.headings, *self.rows, strict=True))
        needs = [max(len(line) for cell in column for line in cell.splitlines() or [""]) for column in columns]
        needs[0] = min(needs[0], NAME_WIDTH)
        count = len(needs)
        while count > 2 and sum(needs[:count]) + GAP * (count - 1) > width:  # noqa: PLR2004 - a name and a number
            count -= 1
        grid = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="")
        for place, heading in enumerate(self.headings[:count]):
            justify: Literal["left", "right"] = "right" if place and heading not in WORDS else "left"
            grid.add_column(Text(heading), justify=justify, no_wrap=place > 0, overflow="fold")
        for row in self.rows:
            grid.add_row(*map(Text, row[:count]))
        printed = io.StringIO()
        Console(file=printed, width=width, color_system=None, force_terminal=False).print(grid)
        return "\n".join(line.rstrip() for line in printed.getvalue().splitlines())


def group_table(record: RunRecord) -> TextTable:
    """Return a row per group of findings; one that wasn't run, or not all of it, is inconclusive."""
    by_group = verdicts(record.findings, record.plan)
    rows = [(group, by_group[group], wording.group_counts(record, group)) for group in record.findings]
    return TextTable(("group", "verdict", "checks"), rows)


def throughput_table(timings: Sequence[Timing], invalid: frozenset[str] = frozenset()) -> TextTable:
    """Return a row per timing: time, throughput, how near it is to the device's own rates, and what limits it.

    An invalid one has no throughput.
    """
    headings = ("case", "median", "IQR", "images/s", "% peak", "% roofline", "bottleneck")
    rows = []
    for each in timings:
        noise = percent(relative_iqr(each.rounds) if each.median else math.nan, 1)
        peak = each.rate(each.flop) / each.peak if each.peak and each.flop else None
        roofline = each.rate(each.roofline) if each.roofline else None
        rates = (quantity(each.rate(each.images)), percent(peak), percent(roofline))
        shown = ("invalid", NONE, NONE) if each.case in invalid else rates
        limit = ", ".join(filter(None, (each.bottleneck, each.layer))) or NONE
        rows.append((wording.label(each.case), seconds(each.median), noise, *shown, limit))
    return TextTable(headings, rows)


def cost_table(timings: Sequence[Timing], *, conditions: bool = True) -> TextTable:
    """Return a row per timing: pipelined and first rounds, memory, conditions; a column without values is left out."""
    columns = {
        "pipelined": [seconds(each.pipelined) if each.pipelined else NONE for each in timings],
        "first round": [seconds(each.first) if each.first else NONE for each in timings],
        "memory": [f"{each.peak_memory / 1e9:.2f} GB" if each.peak_memory else NONE for each in timings],
    }
    for heading, (name, form) in CONDITIONS.items() if conditions else ():
        values = (getattr(each.conditions, name) for each in timings)
        columns[heading] = [NONE if value is None else form.format(value) for value in values]
    shown = {heading: column for heading, column in columns.items() if set(column) - {NONE}}
    names = [wording.label(each.case) for each in timings]
    return TextTable(("case", *shown), list(zip(names, *shown.values(), strict=True)) if shown else [])


def device_table(found: Sequence[Finding]) -> TextTable:
    """Return a row per device of what `stragglers` found, each measured alone."""
    rows = []
    for finding in found:
        if finding.check != "stragglers":
            continue
        times, images = _positive(finding.data.get("seconds")), _number(finding.data.get("images")) or 0
        slow = finding.data.get("slow")
        best, worst = min(times.values(), default=0), max(times, key=lambda device: times[device], default="")
        for device, each in times.items():
            well = finding.status == "FAIL" and not (isinstance(slow, list) and device in slow)
            status: Status = "PASS" if well else finding.status
            note = "slowest" if device == worst and each > best else ""
            rows.append((device, f"{images / each:,.1f}", percent(best / each, 1), status, note))
    return TextTable(("device alone", "images/s", "of the best", "verdict", "note"), rows)


def scaling_table(found: Sequence[Finding]) -> TextTable:
    """Return a row per number of devices of what `scaling` found, all of them together."""
    headings = ("scaling", "devices", "images each", "images/s", "efficiency", "at least", "communicating", "verdict")
    rows = []
    for finding in found:
        data = finding.data
        devices, images, time = (_number(data.get(key)) or 0 for key in ("devices", "images", "seconds"))
        if finding.check == "scaling" and finding.number is not None and min(devices, images, time) > 0:
            kind = " ".join(filter(None, (finding.device, str(data.get("kind")))))
            numbers = (f"{devices:.0f}", f"{images:.0f}", f"{devices * images / time:,.1f}")
            shares = map(percent, (finding.number, finding.bound, _number(data.get("communicating"))), (1, 1, 1))
            rows.append((kind, *numbers, *shares, finding.status))
    return TextTable(headings, rows)


def overhead_tables(cells: Sequence[OverheadCell]) -> dict[str, TextTable]:
    """Return by device a row per precision and XLA: an update's time, and what each of the three costs.

    Determinism costs beside the same without it; XLA beside the same without XLA, and a precision beside float32, both
    without determinism.
    """
    return {
        device: _overhead_table([each for each in cells if each.device == device])
        for device in dict.fromkeys(each.device for each in cells)
    }


def _overhead_table(cells: Sequence[OverheadCell]) -> TextTable:
    by_place = {(each.precision, each.xla, each.deterministic): each for each in cells}
    headings = ("precision", "XLA", "ms", "deterministic", "determinism", "XLA costs", "against float32")
    rows = []
    for precision, xla in dict.fromkeys((each.precision, each.xla) for each in cells):
        here, deterministic = (by_place.get((precision, xla, each)) for each in (False, True))
        compared = (
            _cost(deterministic, here),
            _cost(here, by_place.get((precision, False, False)) if xla else None),
            _cost(here, by_place.get(("float32", xla, False)) if precision != "float32" else None),
        )
        rows.append((precision, "on" if xla else "off", *map(_milliseconds, (here, deterministic)), *compared))
    return TextTable(headings, rows)


def _milliseconds(cell: OverheadCell | None) -> str:
    return NONE if cell is None or math.isnan(cell.median) else f"{cell.median * 1e3:,.1f}"


def _cost(cell: OverheadCell | None, other: OverheadCell | None) -> str:
    """Return what a cell costs beyond another; what noise may have made is none."""
    found = cost(cell, other) if cell and other else None
    if found is None or not math.isfinite(found.extra + found.noise):
        return NONE
    if found.noise > 1:
        return "too noisy"
    noise = f"(±{found.noise * 100:.0f} %)"
    return f"{found.extra * 100:+.0f} % {noise}" if found.seen else f"none seen {noise}"


def overhead_reasons(cells: Sequence[OverheadCell]) -> list[str]:
    """Return why combinations have no time, each reason once."""
    return list(dict.fromkeys(each.why for each in cells if each.why))


def layer_tables(layers: Sequence[LayerTiming]) -> dict[str, TextTable]:
    """Return by device, precision and batch, as a title, a row per layer and one for all of them.

    For each direction: milliseconds at the device's own rates, as measured, and the first as a share of the second;
    last the seconds that lie between them.
    """
    return {title: _layer_table(own) for title, own in _profiles(layers).items()}


def worst_layers(layers: Sequence[LayerTiming]) -> dict[str, str]:
    """Return by the same titles what loses most time, in words; empty where nothing is lost."""
    return {title: most_lost_in_words(own) for title, own in _profiles(layers).items()}


def _profiles(layers: Sequence[LayerTiming]) -> dict[str, list[LayerTiming]]:
    found: dict[str, list[LayerTiming]] = {}
    for each in layers:
        found.setdefault(f"{each.device}, {each.precision}, batch {each.batch}", []).append(each)
    return found


def _layer_table(layers: Sequence[LayerTiming]) -> TextTable:
    headings = ["layer"]
    for direction in DIRECTIONS:
        headings += [f"{direction}\nbound, ms", "\nms", "\n%"]
    names = dict.fromkeys(each.layer for each in layers)
    groups = [(name, [each for each in layers if each.layer == name]) for name in names]
    rows = []
    for name, own in (*groups, ("all", layers)):
        row = [name]
        for direction in DIRECTIONS:
            here = [each for each in own if each.direction == direction and each.seconds]
            bound, taken = sum(each.roofline for each in here), sum(each.seconds for each in here)
            share = percent(bound / taken if taken > 0 and math.isfinite(bound / taken) else None)
            row += [*map(_short_milliseconds, (bound, taken)), share.removesuffix(" %")] if here else [NONE] * 3
        lost = sum(each.lost for each in own if each.seconds)
        rows.append((*row, _short_milliseconds(lost)))
    return TextTable((*headings, "\nlost, ms"), rows)


def _short_milliseconds(value: float) -> str:
    return quantity(value * 1e3) if math.isfinite(value) else str(value)


def layer_lines(layers: Sequence[LayerTiming]) -> list[str | TextTable]:
    """Return the tables for the terminal, each with what loses most time below it."""
    lines: list[str | TextTable] = []
    worst = worst_layers(layers)
    for title, table in layer_tables(layers).items():
        words = worst[title]
        lines += ["", f"layer by layer on {title}", table, *([f"most time is lost in {words}"] if words else [])]
    return lines


def overhead_lines(cells: Sequence[OverheadCell]) -> list[str | TextTable]:
    """Return the tables for the terminal, with the reasons for what is missing."""
    lines: list[str | TextTable] = []
    for device, table in overhead_tables(cells).items():
        own = [each for each in cells if each.device == device]
        title = f"overhead of determinism, precision and XLA on {device}, per update of {own[0].batch}"
        lines += ["", title, table, *(f"{NONE}: {reason}" for reason in overhead_reasons(own))]
    return lines


def comparison_table(compared: Comparison) -> TextTable:
    """Return a row per case that both runs timed."""
    rows = []
    for each in compared.ratios:
        times = (seconds(each.first.median), seconds(each.second.median))
        ratio = NONE if math.isnan(each.ratio) else f"{each.ratio:.3f}"
        interval = NONE if math.isnan(each.low) else f"{each.low:.3f} to {each.high:.3f}"
        rows.append((wording.label(each.first.case), *times, ratio, interval, each.result))
    return TextTable(("case", "A", "B", "B/A", "95 % interval", "B is"), rows)


def comparison_lines(compared: Comparison) -> list[str]:
    """Return the comparison for the terminal: the table, and the cases that only one run has."""
    only = [f"only in {run}: {case}" for run, cases in compared.only.items() for case in cases]
    return [str(comparison_table(compared)) or "no case was timed in both", *only]


def _number(value: Any) -> float | None:
    """Return a finite number of a finding's data; None where it is anything else."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None


def _positive(value: Any) -> dict[str, float]:
    """Return the names that have a number above zero."""
    known = {str(name): _number(each) for name, each in value.items()} if isinstance(value, Mapping) else {}
    return {name: each for name, each in known.items() if each is not None and each > 0}
