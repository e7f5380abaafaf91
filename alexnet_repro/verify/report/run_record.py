"""The results file, `results.json`: written after each finding, so that a run that dies leaves it, and read back."""

import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from alexnet_repro.files import atomic_write
from alexnet_repro.layout import VERIFY
from alexnet_repro.verify.benchmark.layer_timing import LayerTiming
from alexnet_repro.verify.benchmark.timing import Calibration, Timing
from alexnet_repro.verify.benchmark.tolerances import first_error
from alexnet_repro.verify.checks.overhead_cell import OverheadCell
from alexnet_repro.verify.doctor.serials import unhashed
from alexnet_repro.verify.finding import GROUPS, Finding, Status, worst_status
from alexnet_repro.verify.report.results_schema import READ_SCHEMAS, RESULTS_SCHEMA, ResultsFile
from alexnet_repro.verify.verdict import Planned, overall, verdicts

RERUN = f"make a new one: {VERIFY}"
LARGEST_RESULTS = 1 << 25  # bytes; a run's are a few hundred thousand
# A timing that fails one is no measurement.
INVALIDATING = ("valid", "synchronized", "no_thermal_drift", "no_throttling")
# Control characters except tab and new line, surrogates, and Unicode's noncharacters.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class UnreadableError(OSError):
    """The file can't be read, or isn't a results file; one line that names it and says what to do."""


@dataclass
class RunRecord:
    """The findings and timings of a run, written to `path` with each addition.

    The file is one JSON object, typed in `alexnet_repro.verify.report.results_schema`: `schema` (4), `complete`
    (whether the run came to its end), `verdict` and `verdicts` (PASS, FAIL or INCONCLUSIVE, of the whole and of each
    group in `alexnet_repro.verify.finding.GROUPS`), `run` (its `id`, the `node`, who, where, when, how long, which
    version and command; `ended`, why it ended early), `plan` (the fields of `Planned`), `machine` (what is known of it
    and of its devices), `findings` (by group, the fields of `Finding`), `timings` (one per benchmark case, the fields
    of `Timing`), `calibrations` (one per device, the fields of `Calibration`), `layers` (of `--profile`, one per layer
    and direction, the fields of `LayerTiming`) and `overheads` (one per combination of determinism, precision and XLA,
    the fields of `OverheadCell`). Later versions add fields.
    Numbers that aren't finite are the strings `inf`, `-inf` and `nan`.
    """

    path: Path
    machine: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    """Who ran what, where, when and for how long; `ended`, why it ended early."""
    plan: list[Planned] = field(default_factory=list)
    findings: dict[str, list[Finding]] = field(default_factory=dict)
    """By group; each of `GROUPS` is there."""
    timings: list[Timing] = field(default_factory=list)
    calibrations: list[Calibration] = field(default_factory=list)
    layers: list[LayerTiming] = field(default_factory=list)
    overheads: list[OverheadCell] = field(default_factory=list)
    complete: bool = False
    """Whether the run finished."""
    stated: Status | None = None
    """The verdict in the file that the run was read from; None where it wasn't."""
    began: float | None = None
    """When the run began, by `time.monotonic`; None where it was read."""
    hide: Callable[[Any], Any] = unhashed
    """Returns what may be written of a value, at each write here as well: `--hash-serials`."""

    def __post_init__(self) -> None:
        """Give each group a list."""
        self.findings = {group: [] for group in GROUPS} | self.findings

    @property
    def verdict(self) -> Status:
        """What plan and findings add up to; of a file that states a worse one, that."""
        found = overall(self.findings, self.plan, complete=self.complete and not self.run.get("ended"))
        return worst_status([found, self.stated or found])

    @property
    def level(self) -> str:
        """How much the run asked, of `alexnet_repro.verify.finding.LEVELS`."""
        return str(self.run.get("level", self.machine.get("level", "standard")))  # there in earlier files

    @property
    def invalid(self) -> frozenset[str]:
        """The cases whose timing is no measurement: the result was wrong, or a check in `INVALIDATING` failed."""
        failed = {each.case for each in self.findings["fast"] if each.status == "FAIL" and each.check in INVALIDATING}
        return frozenset(each.case for each in self.timings if each.fault is not None or each.case in failed)

    def add(self, group: str, *findings: Finding) -> None:
        """Add findings, and write the file."""
        self.findings[group] += findings
        self.write()

    def add_timing(self, timing: Timing) -> None:
        """Add a timing, in place of an earlier one of its case, and write the file."""
        self.timings = [*(each for each in self.timings if each.case != timing.case), timing]
        self.write()

    def add_calibration(self, calibration: Calibration) -> None:
        """Add a device's rates, the first time only."""
        if calibration.device not in {each.device for each in self.calibrations}:
            self.calibrations.append(calibration)

    def add_layers(self, layers: Sequence[LayerTiming]) -> None:
        """Add a device's layers in one precision, in place of earlier ones."""
        new = {(each.device, each.precision) for each in layers}
        self.layers = [*(each for each in self.layers if (each.device, each.precision) not in new), *layers]

    def as_data(self) -> dict[str, Any]:
        """Return what the file holds, as JSON can hold it."""
        content = {
            "schema": RESULTS_SCHEMA,
            "complete": self.complete,
            "verdict": self.verdict,
            "verdicts": verdicts(self.findings, self.plan),
            "run": self.run,
            "plan": self.plan,
            "machine": self.machine,
            "findings": self.findings,
            "timings": self.timings,
            "calibrations": self.calibrations,
            "layers": self.layers,
            "overheads": self.overheads,
        }
        return {name: _as_json(value) for name, value in content.items()}

    def _hide_all(self) -> None:
        """Leave out here what isn't to be written: what is printed, and drawn on the page, is taken from here."""
        if self.hide is unhashed:
            return
        self.run, self.machine, self.timings = self.hide(self.run), self.hide(self.machine), self.hide(self.timings)
        for each in self.plan:
            each.why = self.hide(each.why)
        for found in self.findings.values():
            found[:] = self.hide(found)

    def as_text(self) -> str:
        """Return the file's text."""
        return json.dumps(self.as_data(), indent=1) + "\n"

    def write(self, *, complete: bool = False) -> None:
        """Write the file in one step; OSError names it if it can't be written."""
        self.complete = complete
        self._hide_all()
        if self.began is not None:
            self.run["seconds"] = round(time.monotonic() - self.began, 1)
        atomic_write(self.path, self.as_text(), "name another folder: --report=DIR")


def read_results(path: Path) -> RunRecord:
    """Return what a run wrote into `results.json`; UnreadableError: no such file, or none that this version reads."""
    try:
        content = _printable(json.loads(_read(path)))
    except FileNotFoundError as error:
        raise UnreadableError(f"{path}: no such file; `{VERIFY}` prints where it writes results") from error
    except IsADirectoryError as error:
        raise UnreadableError(f"{path} is a folder; name the file in it: {path / 'results.json'}") from error
    except OSError as error:
        raise UnreadableError(f"{path} can't be read: {error.strerror}") from error
    except OverflowError as error:
        raise UnreadableError(f"{path} isn't a results file: a number in it is too large; {RERUN}") from error
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"{path} isn't JSON, or was cut off; name a results.json, or {RERUN}") from error
    return from_data(path, content)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(LARGEST_RESULTS + 1)
    if len(content) > LARGEST_RESULTS:
        raise OSError(0, f"it has more than {LARGEST_RESULTS:,} bytes, which no run writes")
    return content


def from_data(path: Path, content: Any) -> RunRecord:
    """Return the record of JSON as `RunRecord.as_data` returns it; UnreadableError: it isn't, or of another version."""
    if not isinstance(content, dict):
        raise UnreadableError(f"{path} isn't a results file, but other JSON; name a results.json")
    if "recipe" in content:
        raise UnreadableError(f"{path} is the record of a training, drawn in learning_curve.svg; name a results.json")
    if (schema := content.get("schema")) not in READ_SCHEMAS:
        stated = f"its schema is {schema!r}, this version reads {' and '.join(map(str, READ_SCHEMAS))}"
        known = stated if "schema" in content else "it has no schema"
        raise UnreadableError(f"{path} can't be read: {known}; read it with the version that wrote it, or {RERUN}")
    try:
        # As JSON again: there, strict validation takes an object for a dataclass, and `true` for no number.
        read = ResultsFile.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        raise UnreadableError(f"{path} isn't a results file: {first_error(error)}; {RERUN}") from error
    # What identifies run and machine stays as it is, with the fields that this version doesn't know.
    own = {"run": content["run"], "machine": content["machine"], "stated": read.verdict}
    return RunRecord(path, **{name: value for name, value in read if name not in ("verdict", "verdicts")} | own)


def _printable(value: Any) -> Any:
    """Return JSON without characters that a terminal obeys or no file may hold; OverflowError: a number too large."""
    if isinstance(value, str):
        return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, list):
        return list(map(_printable, value))
    if isinstance(value, int):
        float(value)
    return {_printable(key): _printable(each) for key, each in value.items()} if isinstance(value, dict) else value


def _as_json(value: Any) -> Any:
    """Return what JSON can hold of a value: dataclasses as objects, numbers that aren't finite as words."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if is_dataclass(value):
        return _as_json(vars(value))
    if isinstance(value, Mapping):
        return {key: _as_json(each) for key, each in value.items()}
    return list(map(_as_json, value)) if isinstance(value, list | tuple) else value
