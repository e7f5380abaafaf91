"""The results file: what was found, written anew with each finding, so that a run that dies leaves what it knew."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alexnet_repro.files import atomic_write
from alexnet_repro.verify.benchmark.timing import Timing
from alexnet_repro.verify.finding import GROUPS, Finding, overall, verdicts

SCHEMA = 2


@dataclass
class Record:
    """Findings by group, and where they are written to.

    The file is one JSON object: `schema` (2), `machine` (what is here), `verdict` and `verdicts` (PASS,
    FAIL or INCONCLUSIVE, of the whole and of each of `doctor`, `correct`, `repeatable`, `fast` and
    `reference`),
    `complete` (whether the run came to its end), `findings` (by group; the fields of
    `alexnet_repro.verify.finding.Finding`) and `timings` (one a benchmark case: the fields of
    `alexnet_repro.verify.benchmark.timing.Timing`) and `calibrations` (one a device: those of
    `alexnet_repro.verify.benchmark.calibration.Calibration`). Later versions add fields, and readers pass over what
    they don't
    know. Numbers that aren't finite are the strings `inf`, `-inf` and `nan`.
    """

    path: Path
    machine: dict[str, Any] = field(default_factory=dict)
    findings: dict[str, list[Finding]] = field(default_factory=lambda: {group: [] for group in GROUPS})
    timings: list[dict[str, Any]] = field(default_factory=list)
    calibrations: list[dict[str, Any]] = field(default_factory=list)

    def add(self, group: str, finding: Finding) -> None:
        """Keep a finding, and write it down."""
        self.findings[group].append(finding)
        self.write()

    def add_timing(self, timing: Timing) -> None:
        """Keep a timing, and write it down."""
        self.timings.append(asdict(timing))
        self.write()

    def add_calibration(self, calibration: Mapping[str, Any]) -> None:
        """Keep a device's rates: the first time only, as they are measured once."""
        if calibration["device"] not in {each["device"] for each in self.calibrations}:
            self.calibrations.append(dict(calibration))

    def write(self, *, complete: bool = False) -> None:
        """Write the file in one step.

        Raises:
            OSError: it can't be written; the message names it.
        """
        content = {
            "schema": SCHEMA,
            "complete": complete,
            "verdict": overall(self.findings),
            "verdicts": verdicts(self.findings),
            "machine": self.machine,
            "findings": {group: [asdict(each) for each in found] for group, found in self.findings.items()},
            "timings": self.timings,
            "calibrations": self.calibrations,
        }
        text = json.dumps(_finite(content), indent=1) + "\n"
        atomic_write(self.path, text, "name another folder: --report=DIR")


def _finite(value: Any) -> Any:
    """Return what JSON can hold of it."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
