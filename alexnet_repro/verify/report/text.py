"""What a page says of a run: numbers and names as text, verdicts as words. Nothing here knows HTML or Markdown."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alexnet_repro.verify.finding import Finding, Status, verdict, verdict_in_words
from alexnet_repro.verify.report.compare_runs import Comparison, Ratio
from alexnet_repro.verify.report.read import Case, Results

SIGNS: dict[Status, str] = {"PASS": "✓", "FAIL": "✗", "INCONCLUSIVE": "?"}
UNFINISHED = "The run didn't come to its end: what is shown is what was known by then."
NONE = "–"
GIGABYTE = 1e9
FEW_DIGITS = 100


@dataclass(frozen=True)
class Group:
    """A group of findings, and what it adds up to."""

    name: str
    status: Status
    counts: str
    passed: Sequence[Finding]


@dataclass(frozen=True)
class Row:
    """A timed case as text."""

    case: str
    median: str
    iqr: str
    images: str
    tflops: str
    share: str
    bottleneck: str


@dataclass(frozen=True)
class Costs:
    """What timed cases cost beside the time of a round, and what they were timed under, as a table of text."""

    headings: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]
    """Of each case: its name, and a cell a heading."""


def headline(results: Results) -> str:
    """Return the verdict as a sentence."""
    return f"{verdict_in_words(results.verdict, results.findings, machines(results)).capitalize()}."


def machines(results: Results) -> int:
    """Return how many machines a run was of."""
    named = results.machine.get("machines")
    return len(named) if isinstance(named, list) else 1


def groups(results: Results) -> list[Group]:
    """Return every group with its counts; one that wasn't asked is in doubt, as the verdict has it."""
    return [
        Group(
            name,
            verdict(found) if found else "INCONCLUSIVE",
            _counts(found) if found else "not run",
            [each for each in found if each.status == "PASS"],
        )
        for name, found in results.findings.items()
    ]


def _counts(found: Sequence[Finding]) -> str:
    statuses = [each.status for each in found]
    parts = [f"{statuses.count('PASS')} of {len(found)} passed"]
    parts += [
        f"{statuses.count(status)} {words}"
        for status, words in (("FAIL", "failed"), ("INCONCLUSIVE", "in doubt"))
        if status in statuses
    ]
    return ", ".join(parts)


def unwell(results: Results) -> list[Finding]:
    """Return every finding that isn't PASS: failures first, then doubts, each in their order."""
    every = [each for found in results.findings.values() for each in found if each.status != "PASS"]
    return sorted(every, key=lambda finding: finding.status != "FAIL")


def improvable(results: Results) -> list[Finding]:
    """Return the findings that are well and have a fix all the same: they work, and could be better."""
    return [each for found in results.findings.values() for each in found if each.status == "PASS" and each.fix]


def name(finding: Finding) -> str:
    """Return what was asked, as `gpu:0 layers float32`."""
    return " ".join(filter(None, (finding.device, finding.check, finding.precision)))


def held_against(finding: Finding) -> str:
    """Return the number and its bound, where there are any."""
    if finding.number is None:
        return ""
    return f"{finding.number:.6g}" + ("" if finding.bound is None else f", held against {finding.bound:.6g}")


def facts(machine: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, str]]:
    """Return names and values of what a run recorded of its machine."""
    for key, value in machine.items():
        label = f"{under}{key}".replace("_", " ")
        if isinstance(value, Mapping) and value:
            yield from facts(value, f"{label}, ")
        elif isinstance(value, list | tuple | Mapping):
            yield label, ", ".join(map(str, value)) or "none"
        else:
            yield label, "none" if value is None else str(value)


def parameters(case: str) -> tuple[str, dict[str, str]]:
    """Return a case's name and its parameters: `forward[batch=1-device=cpu:0]` is `forward`, and those two."""
    title, _, rest = case.partition("[")
    return title, dict(re.findall(r"(\w+)=(.*?)(?=-\w+=|\]?$)", rest))


def label(case: str, omit: Sequence[str] = ()) -> str:
    """Return a case's name for people, as `forward, batch 1, float32`."""
    title, chosen = parameters(case)
    named = {"batch": "batch ", "side": "side ", "xla": "XLA "}
    return ", ".join([title, *(f"{named.get(key, '')}{value}" for key, value in chosen.items() if key not in omit)])


def kind(case: str) -> str:
    """Return what cases of all devices, batches and precisions have in common, as `train_step, XLA on`."""
    return label(case, ("device", "batch", "precision"))


def one_device(cases: Sequence[str]) -> bool:
    """Return whether all cases that name a device name the same: then no label needs to."""
    return len({parameters(case)[1].get("device") for case in cases} - {None}) <= 1


def rows(results: Results) -> list[Row]:
    """Return the table of timings; how fast a wrong answer came is void."""
    return list(map(_row, results.timings))


def _row(case: Case) -> Row:
    time = (seconds(case.median), percent(case.iqr / case.median if case.median else math.nan, 1))
    if case.void:
        return Row(case.case, *time, "void", "void", "void", case.bottleneck or NONE)
    tflops = f"{case.rate(case.flop) / 1e12:.3g}" if case.flop else NONE
    return Row(
        case.case, *time, quantity(case.rate(case.images)), tflops, percent(share(case)), case.bottleneck or NONE
    )


def costs(results: Results) -> Costs:
    """Return rounds in a row, first rounds, peak memory and conditions; what isn't told of any case has no column."""
    every: list[tuple[str, list[str]]] = [
        ("in a row", [seconds(case.pipelined) if case.pipelined else NONE for case in results.timings]),
        ("first round", [seconds(case.first) if case.first else NONE for case in results.timings]),
        ("memory", [f"{case.peak_memory / GIGABYTE:.2f} GB" if case.peak_memory else NONE for case in results.timings]),
        ("load", _told(results, "load", "{:.2f}")),
        ("CPU clock", _told(results, "cpu_mhz", "{:,.0f} MHz")),
        ("GPU clock", _told(results, "gpu_mhz", "{:,.0f} MHz")),
        ("temperature", _told(results, "temperature", "{:.0f} °C")),
    ]
    shown = [(heading, column) for heading, column in every if set(column) - {NONE}]
    cells = [[column[place] for _, column in shown] for place in range(len(results.timings))]
    names = [case.case for case in results.timings]
    return Costs([heading for heading, _ in shown], list(zip(names, cells, strict=True)) if shown else [])


def _told(results: Results, name: str, form: str) -> list[str]:
    values = [case.conditions.get(name) for case in results.timings]
    return [NONE if value is None else form.format(value) for value in values]


def share(case: Case) -> float | None:
    """Return what part of the device's own rate the median round reached, where the run can tell."""
    return case.rate(case.flop) / case.peak if case.peak and case.flop else None


def seconds(value: float) -> str:
    """Return a duration with four significant digits, in the largest unit that it reaches."""
    if not math.isfinite(value):
        return str(value)
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.4g} {unit}" if value < 9999 * size else f"{value / size:,.0f} {unit}"
    return f"{value * 1e6:.4g} µs"


def quantity(value: float) -> str:
    """Return a rate, with decimals where there are few digits before them."""
    return f"{value:,.0f}" if value >= FEW_DIGITS else f"{value:.3g}"


def percent(value: float | None, digits: int = 0) -> str:
    """Return a part of one; a dash where there is none."""
    return NONE if value is None else f"{value * 100:.{digits}f} %"


def ratio(value: Ratio) -> str:
    """Return a ratio for people; a dash where it is void."""
    return NONE if math.isnan(value.ratio) else f"{value.ratio:.3f}"


def interval(value: Ratio) -> str:
    """Return its interval; a dash where there is none."""
    return NONE if math.isnan(value.low) else f"{value.low:.3f} to {value.high:.3f}"


def lines(compared: Comparison) -> list[str]:
    """Return a comparison for the terminal: aligned columns, then the cases that one run alone has."""
    cells = [("case", "A", "B", "B over A", "95 % interval", "B is")]
    for each in compared.ratios:
        times = (seconds(each.first.median), seconds(each.second.median))
        cells.append((each.first.case, *times, ratio(each), interval(each), each.word))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    shown = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:5], widths[1:5]), row[5]]) for row in cells]
    only = (("A", compared.only_first), ("B", compared.only_second))
    return [
        *(shown if compared.ratios else ["no case was timed in both"]),
        *(f"only in {run}: {case}" for run, cases in only for case in cases),
    ]
