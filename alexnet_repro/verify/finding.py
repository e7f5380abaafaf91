"""One check's finding, and the verdict that all findings give together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator

Status = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Kind = Literal["result", "crash"]
Scope = Literal["device", "machine", "cluster"]
Number = Annotated[float, BeforeValidator(lambda read: float(read) if read in ("nan", "inf", "-inf") else read)]
"""In a file, what JSON has no number for is one of these words."""
CaseName = Annotated[str, AfterValidator(lambda read: " ".join(read.split()))]
"""A benchmark case, as `train_step[device=gpu:0-batch=128-precision=float32]`; one line."""

DOCTOR, REFERENCE = "doctor", "reference"
MACHINE_GROUPS = ("correct", "repeatable", "fast")
GROUPS = (DOCTOR, *MACHINE_GROUPS, REFERENCE)
LEVELS = ("quick", "standard")  # how much a run asks


@dataclass(frozen=True)
class Finding:
    """One check's result.

    `message` is what is wrong, or what was found; `evidence` what was read or measured; `fix` what to type. A PASS with
    a `fix` works, and could be better. A measured `number` has a limit, `bound`; `data` holds any further values.
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


def verdict(findings: Iterable[Finding]) -> Status:
    """Return the worst status: FAIL, else INCONCLUSIVE, else PASS."""
    return max((finding.status for finding in findings), key=("PASS", "INCONCLUSIVE", "FAIL").index, default="PASS")


def verdicts(findings: Findings) -> dict[str, Status]:
    """Return each group's verdict; a group without findings is INCONCLUSIVE, never PASS."""
    return {group: verdict(found) if (found := findings.get(group)) else "INCONCLUSIVE" for group in GROUPS}


def overall(findings: Findings) -> Status:
    """Return the machine's verdict: FAIL if any group fails, PASS if it is correct, repeatable and fast.

    The doctor's findings lower it; a doctor that didn't run doesn't. A reference lowers it only by
    a FAIL: there may be none for this machine.
    """
    by_group = verdicts(findings)
    if "FAIL" in by_group.values():
        return "FAIL"
    required = (*MACHINE_GROUPS, *([DOCTOR] if findings.get(DOCTOR) else []))
    return "PASS" if all(by_group[group] == "PASS" for group in required) else "INCONCLUSIVE"


def exit_status(status: Status) -> int:
    """Return the doctor's exit status: 0 for PASS, 1 for FAIL, 3 for INCONCLUSIVE (2 is for wrong arguments)."""
    return {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}[status]


def summary(findings: Findings, machines: int = 1, level: str = "standard") -> list[str]:
    """Return the lines for the terminal: each group with what didn't pass below it, then the verdict in words."""
    lines = []
    for group, status in verdicts(findings).items():
        found = findings.get(group, ())
        passed = sum(finding.status == "PASS" for finding in found)
        lines.append(f"{group:<12}{status:<14}{f'{passed} of {len(found)} checks passed' if found else 'not run'}")
        lines += [f"  {line}" for finding in found if finding.status != "PASS" for line in str(finding).splitlines()]
    whole = overall(findings)
    return [*lines, f"{whole}: {verdict_in_words(whole, findings, machines, level)}"]


def verdict_in_words(whole: Status, findings: Findings, machines: int = 1, level: str = "standard") -> str:
    """Return the verdict of one machine, or of several, as half a sentence; one of a lower level says so."""
    these, are = ("this machine", "is") if machines == 1 else (f"these {machines} machines", "are")
    failed = sum(finding.status == "FAIL" for found in findings.values() for finding in found)
    as_far = "" if level == "standard" else f" as far as --level={level} asks; --level=standard asks the rest"
    checks = f"{failed or 'some'} check{'s' * (failed != 1)} failed, listed with the fix"
    return {
        "PASS": f"{these} {are} correct, repeatable and fast" + as_far,
        "FAIL": f"something is wrong with {these}: {checks}",
        "INCONCLUSIVE": "nothing failed, but not every check was run and conclusive",
    }[whole]
