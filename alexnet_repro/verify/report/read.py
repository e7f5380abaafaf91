"""The results file, read back: what a run wrote, or one line that says why it can't be read and what to do."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np

from alexnet_repro.verify.benchmark.telemetry import Samples
from alexnet_repro.verify.finding import GROUPS, Finding, Status, overall
from alexnet_repro.verify.report.run_record import SCHEMA

RERUN = "make a new one: pytest benchmarks"
INVALIDATING = (
    "valid",
    "synchronized",
    "no_thermal_drift",
)  # a timing that fails one is no measurement
CONDITIONS = ("load", "cpu_mhz", "gpu_mhz", "temperature")
COLUMNS = ("seconds", *CONDITIONS, "clock_limits")
WORST_FIRST: tuple[Status, ...] = ("FAIL", "INCONCLUSIVE", "PASS")


# Controls but for tab and new line, halves of characters, and what Unicode calls none.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
LONGEST = 1e9  # seconds of a round


class UnreadableError(OSError):
    """The file can't be read, or isn't what a run writes; one line that names it and says what to do."""


@dataclass(frozen=True)
class Case:
    """A benchmark case as it was timed: the fields of `Timing` that a report shows. All but four may be absent."""

    case: str
    device: str
    precision: str
    rounds: tuple[float, ...]
    images: float = 0
    flop: float = 0
    peak: float | None = None
    """The device's own rate on a product, FLOP/s."""
    bottleneck: str = ""
    """What limits it most."""
    void: bool = False
    """Whether it failed: how fast a wrong answer came is no throughput."""
    bytes: float = 0
    """Of memory that a round reads and writes at the least."""
    first: float = 0
    """Seconds of the very first round."""
    pipelined: float = 0
    """Seconds a round where several are dispatched in a row; 0 where each was waited for anyway."""
    peak_memory: float = 0
    """Bytes."""
    conditions: Mapping[str, float] = field(default_factory=dict)
    """Right after it, what was told of `CONDITIONS`."""
    samples: Samples = field(default_factory=dict)
    """While it was timed, what was told of `COLUMNS`."""

    @property
    def median(self) -> float:
        """Seconds a round."""
        return float(np.median(self.rounds))

    @property
    def iqr(self) -> float:
        """Seconds between the rounds' first and third quartile."""
        first, third = np.quantile(self.rounds, (0.25, 0.75))
        return float(third - first)

    def rate(self, amount: float) -> float:
        """Return how much of an amount that each round handles is done a second; NaN if that can't be told."""
        return amount / self.median if self.median > 0 else math.nan


@dataclass(frozen=True)
class Rates:
    """What a device reaches by itself."""

    matmul: Mapping[str, float]
    """By precision, FLOP/s."""
    memory: float
    """Bytes/s."""


@dataclass(frozen=True)
class Results:
    """What a run found and measured."""

    path: Path
    complete: bool
    """Whether the run came to its end."""
    stated: Status
    """The verdict that the file states."""
    machine: Mapping[str, Any]
    findings: Mapping[str, Sequence[Finding]]
    """By group; each of `GROUPS` is there, and any further one that the file has."""
    timings: tuple[Case, ...]
    rates: Mapping[str, Rates] = field(default_factory=dict)
    """By device, where it was calibrated."""

    @property
    def verdict(self) -> Status:
        """The worst of what the file states, what its findings add up to, and the doubt that a broken run leaves."""
        said = {self.stated, overall(self.findings), *([] if self.complete else ["INCONCLUSIVE"])}
        return next(status for status in WORST_FIRST if status in said)


def read_results(path: Path) -> Results:
    """Return what a run wrote into `results.json`.

    Raises:
        UnreadableError: there is no such file, or it isn't one that this version reads.
    """
    content = _load(path)
    schema = content.get("schema")
    if schema != SCHEMA:
        known = f"its schema is {schema!r}, this version reads {SCHEMA}" if "schema" in content else "it has no schema"
        raise UnreadableError(f"{path} can't be read: {known}; read it with the version that wrote it, or {RERUN}")
    try:
        return _results(path, content)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UnreadableError(f"{path} isn't what a run writes: {what}; {RERUN}") from error


def _load(path: Path) -> dict[str, Any]:
    try:
        content: Any = _printable(json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise UnreadableError(f"{path}: no such file; `pytest benchmarks` prints where it writes results") from error
    except IsADirectoryError as error:
        raise UnreadableError(f"{path} is a folder; name the file in it: {path / 'results.json'}") from error
    except OSError as error:
        raise UnreadableError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"{path} isn't JSON, or was cut off; name a results.json, or {RERUN}") from error
    if not isinstance(content, dict):
        raise UnreadableError(f"{path} isn't a results file, but other JSON; name a results.json")
    cleaned: dict[str, Any] = content
    return cleaned


def _printable(value: Any) -> Any:
    """Return JSON without the characters that a terminal obeys, or that no file may hold."""
    if isinstance(value, str):
        return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, list):
        return list(map(_printable, value))
    return {_printable(key): _printable(each) for key, each in value.items()} if isinstance(value, dict) else value


def _results(path: Path, content: Mapping[str, Any]) -> Results:
    groups = _field(content, "findings", dict)
    findings = dict.fromkeys(GROUPS, ()) | {
        group: tuple(map(_finding, _field(groups, group, list))) for group in groups
    }
    failed = [each for each in findings["fast"] if each.status == "FAIL" and each.check in INVALIDATING]
    return Results(
        path=path,
        complete=_field(content, "complete", bool),
        stated=_status(_field(content, "verdict", str)),
        machine=_field(content, "machine", dict),
        findings=findings,
        timings=tuple(_case(each, failed) for each in _field(content, "timings", list)),
        rates=dict(map(_rates, content.get("calibrations") or ())),
    )


def _finding(content: Mapping[str, Any]) -> Finding:
    known = {field.name: content[field.name] for field in fields(Finding) if field.name in content}
    texts = {name: _field(known, name, str) for name in known.keys() - {"status", "number", "bound", "data"}}
    return Finding(
        **{"check": _field(content, "check", str), "message": _field(content, "message", str), **texts},
        status=_status(_field(content, "status", str)),
        number=_number(content.get("number")),
        bound=_number(content.get("bound")),
        data=known.get("data", {}),
    )


def _case(content: Mapping[str, Any], failed: Sequence[Finding]) -> Case:
    case = " ".join(_field(content, "case", str).split())
    rounds = [_number(each) for each in _field(content, "rounds", list)]
    if not rounds or None in rounds:
        raise ValueError(f"rounds of {case!r} aren't numbers, at least one")
    if any(each is not None and LONGEST < abs(each) < math.inf for each in rounds):
        raise ValueError(f"a round of {case!r} is said to have taken over {LONGEST:g} s")
    return Case(
        case=case,
        device=_field(content, "device", str),
        precision=_field(content, "precision", str),
        rounds=tuple(float(each) for each in rounds if each is not None),
        images=_number(content.get("images")) or 0,
        flop=_number(content.get("flop")) or 0,
        peak=_number(content.get("peak")),
        bottleneck=str(content.get("bottleneck") or ""),
        void=content.get("fault") is not None or any(each.case == case for each in failed),
        bytes=_number(content.get("bytes")) or 0,
        first=_number(content.get("first")) or 0,
        pipelined=_number(content.get("pipelined")) or 0,
        peak_memory=_number(content.get("peak_memory")) or 0,
        conditions=_conditions(content),
        samples=_samples(content, case),
    )


def _conditions(content: Mapping[str, Any]) -> dict[str, float]:
    told = _field({"conditions": {}, **content}, "conditions", dict)
    numbers = {name: _number(told.get(name)) for name in CONDITIONS}
    return {name: value for name, value in numbers.items() if value is not None}


def _samples(content: Mapping[str, Any], case: str) -> Samples:
    told = _field({"samples": {}, **content}, "samples", dict)
    columns = {name: tuple(map(_finite, _field(told, name, list))) for name in COLUMNS if name in told}
    if columns and {len(each) for each in columns.values()} != {len(columns.get("seconds", ()))}:
        raise ValueError(f"samples of {case!r} aren't columns of equal length")
    return columns


def _rates(content: Mapping[str, Any]) -> tuple[str, Rates]:
    matmul = {str(name): _number(rate) or 0 for name, rate in _field(content, "matmul", dict).items()}
    return _field(content, "device", str), Rates(matmul, _number(content.get("memory")) or 0)


def _field(content: Mapping[str, Any], name: str, kind: type) -> Any:
    if not isinstance(content, Mapping):
        raise TypeError(f"{str(content)[:40]!r} stands where fields should")
    if not isinstance(content[name], kind):
        raise TypeError(f"{name} is {str(content[name])[:40]!r}")
    return content[name]


def _status(text: str) -> Status:
    for status in get_args(Status):
        if text == status:
            return text  # type: ignore[return-value]  # a Literal, by the comparison
    raise ValueError(f"{text[:40]!r} is no verdict")


def _number(value: Any) -> float | None:
    """Return a number, of which those that JSON doesn't have are words; None stays None."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if value in ("nan", "inf", "-inf"):
        return float(value)
    raise ValueError(f"{str(value)[:40]!r} is no number")


def _finite(value: Any) -> float | None:
    """Return a finite number; None where it is another."""
    number = _number(value)
    return None if number is None or not math.isfinite(number) else number


def numbers(values: Any) -> list[float]:
    """Return the numbers in a list that a finding keeps as data; none where it is anything else."""
    try:
        return [math.nan if each is None else each for each in map(_number, values if isinstance(values, list) else ())]
    except (ValueError, OverflowError):
        return []
