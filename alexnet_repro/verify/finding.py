"""One check's finding; what all of them add up to is in `verdict.py`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

Status = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Kind = Literal["result", "crash"]
Scope = Literal["device", "machine", "cluster"]
Number = Annotated[
    float,
    BeforeValidator(lambda read: float(read) if read in ("nan", "inf", "-inf") else read),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"enum": ["nan", "inf", "-inf"]}]}),
]
"""In a file, what JSON has no number for is one of these words."""
CaseName = Annotated[str, AfterValidator(lambda read: " ".join(read.split()))]
"""A benchmark case, as `train_step[device=gpu:0-batch=128-precision=float32]`; one line."""

DOCTOR, REFERENCE = "doctor", "reference"
IGNORED = "ignored"  # in `data` of what the doctor failed, and the run went on all the same
MACHINE_GROUPS = ("correct", "repeatable", "fast")
GROUPS = (DOCTOR, *MACHINE_GROUPS, REFERENCE)
LEVELS = ("quick", "standard", "long")  # how much a run asks


@dataclass(frozen=True)
class Finding:
    """One check's result.

    `message` is what is wrong, or what was found; `evidence` what was read or measured; `fix` what to do, as commands
    and prose that `alexnet_repro.verify.report.fixes` separates. A PASS with a `fix` works, and could be better. A
    measured `number` has a limit, `bound`; `data` holds any further values.
    """

    check: str
    status: Status
    message: str
    evidence: str = ""
    fix: str = ""
    device: str = ""
    precision: str = ""
    number: Number | None = None
    bound: Number | None = None
    data: Mapping[str, Any] = field(default_factory=dict, hash=False)
    case: CaseName = ""  # the benchmark case that it is about, as `Timing.case`; empty for a check
    kind: Kind = "result"  # `crash`: there is no result, for the check crashed, timed out, or gave something invalid
    scope: Scope = "device"  # what it is about; of several workers, all have the findings about the `cluster`

    def __str__(self) -> str:
        """Return it for the terminal: one line, and one each for evidence and fix."""
        name = " ".join(filter(None, (self.device, self.check, self.precision)))
        lines = [f"{self.status:<13} {name:<24} {self.message}"]
        lines += [f"{'':<14}{name}: {text}" for name, text in (("evidence", self.evidence), ("fix", self.fix)) if text]
        return "\n".join(lines)


Findings = Mapping[str, Sequence[Finding]]  # findings by group


def worst(findings: Iterable[Finding], at_best: Status = "PASS") -> Status:
    """Return the findings' worst status; never better than `at_best`."""
    return worst_status([at_best, *(finding.status for finding in findings)])


def worst_status(statuses: Iterable[Status]) -> Status:
    """Return FAIL if it is among them, else INCONCLUSIVE, else PASS."""
    return max(statuses, key=("PASS", "INCONCLUSIVE", "FAIL").index)


def exit_status(status: Status) -> int:
    """Return the doctor's exit status: 0 for PASS, 1 for FAIL, 3 for INCONCLUSIVE (2 is for wrong arguments)."""
    return {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}[status]
