"""Findings, and the verdict: what one check found, and what all findings mean together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Kind = Literal["result", "crash"]
Scope = Literal["device", "machine", "cluster"]

DOCTOR = "doctor"
ABOUT_THE_MACHINE = ("correct", "repeatable", "fast")
REFERENCE = "reference"
GROUPS = (DOCTOR, *ABOUT_THE_MACHINE, REFERENCE)


@dataclass(frozen=True)
class Finding:
    """One check's result.

    `message` is what is wrong, or what was found; `evidence` what was read or measured; `fix` what
    to type. A PASS with a `fix` works, and could be better. Where something was measured, `number`
    is it and `bound` what it was held against; `data` is whatever else is kept of it.
    """

    check: str
    status: Status
    message: str
    evidence: str = ""
    fix: str = ""
    device: str = ""
    precision: str = ""
    number: float | None = None
    bound: float | None = None
    data: Mapping[str, Any] = field(default_factory=dict, hash=False)
    case: str = ""
    """The benchmark case that it is about, as `Timing.case`; empty for a check."""
    kind: Kind = "result"
    """`crash`: there is no result, for the check crashed, timed out, or gave something invalid."""
    scope: Scope = "device"
    """What it is about; where several workers run, all of them have the findings about the `cluster`."""

    def __str__(self) -> str:
        """Return it for the terminal: one line, and one each for evidence and fix."""
        name = " ".join(filter(None, (self.device, self.check, self.precision)))
        lines = [f"{self.status:<13} {name:<24} {self.message}"]
        lines += [f"{'':<14}{name}: {text}" for name, text in (("evidence", self.evidence), ("fix", self.fix)) if text]
        return "\n".join(lines)


def verdict(findings: Iterable[Finding]) -> Status:
    """Return FAIL if anything failed, else INCONCLUSIVE if anything is in doubt, else PASS."""
    statuses = {finding.status for finding in findings}
    return "FAIL" if "FAIL" in statuses else "INCONCLUSIVE" if "INCONCLUSIVE" in statuses else "PASS"


def exit_status(overall: Status) -> int:
    """Return the process's exit status: 0 healthy, 1 a fault, 3 in doubt (2 is for wrong arguments)."""
    return {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}[overall]


Findings = Mapping[str, Sequence[Finding]]


def verdicts(findings: Findings) -> dict[str, Status]:
    """Return each group's verdict; nothing found is INCONCLUSIVE, never PASS."""
    return {group: verdict(findings.get(group) or [_nothing(group)]) for group in GROUPS}


def overall(findings: Findings) -> Status:
    """Return the machine's: FAIL if any group fails, PASS if it is correct, repeatable and fast.

    The doctor lowers it by what he finds, not where he isn't asked; comparison with a reference lowers
    nothing where there is none for this machine.
    """
    by_group = verdicts(findings)
    if "FAIL" in by_group.values():
        return "FAIL"
    asked = (*ABOUT_THE_MACHINE, *([DOCTOR] if findings.get(DOCTOR) else []))
    return "PASS" if all(by_group[group] == "PASS" for group in asked) else "INCONCLUSIVE"


def summary(findings: Findings, machines: int = 1) -> list[str]:
    """Return the lines for the terminal: one a group, what isn't well below it, then the whole in words."""
    lines = []
    for group, status in verdicts(findings).items():
        found = findings.get(group, ())
        passed = sum(finding.status == "PASS" for finding in found)
        lines.append(
            f"{group:<12}{status:<14}{passed} of {len(found)} checks passed"
            if found
            else f"{group:<12}{status:<14}not run"
        )
        lines += [f"  {line}" for finding in found if finding.status != "PASS" for line in str(finding).splitlines()]
    whole = overall(findings)
    these, are = ("this machine", "is") if machines == 1 else (f"these {machines} machines", "are")
    words = {
        "PASS": f"{these} {are} correct, repeatable and fast",
        "FAIL": f"something is wrong with {these}; what it is, and what to type, is said above",
        "INCONCLUSIVE": "nothing is wrong as far as was asked, but not everything could be told",
    }
    return [*lines, f"{whole}: {words[whole]}"]


def _nothing(group: str) -> Finding:
    return Finding(group, "INCONCLUSIVE", "not run")
