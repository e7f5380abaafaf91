"""What was found out about one thing, and what all findings mean together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["PASS", "FAIL", "INCONCLUSIVE"]


@dataclass(frozen=True)
class Finding:
    """One check's result.

    `cause` is what is wrong, or what was found; `evidence` what was read or measured; `mend` what
    to type. A PASS with a `mend` works, and could be better. Where something was measured, `number`
    is it and `bound` what it was held against; `data` is whatever else is kept of it.
    """

    check: str
    status: Status
    cause: str
    evidence: str = ""
    mend: str = ""
    device: str = ""
    precision: str = ""
    number: float | None = None
    bound: float | None = None
    data: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        """Return it for the terminal: one line, and one each for evidence and mend."""
        name = " ".join(filter(None, (self.device, self.check, self.precision)))
        lines = [f"{self.status:<13} {name:<24} {self.cause}"]
        lines += [
            f"{'':<14}{name}: {text}" for name, text in (("evidence", self.evidence), ("mend", self.mend)) if text
        ]
        return "\n".join(lines)


def verdict(findings: Iterable[Finding]) -> Status:
    """Return FAIL if anything failed, else INCONCLUSIVE if anything is in doubt, else PASS."""
    statuses = {finding.status for finding in findings}
    return "FAIL" if "FAIL" in statuses else "INCONCLUSIVE" if "INCONCLUSIVE" in statuses else "PASS"


def exit_status(overall: Status) -> int:
    """Return the process's exit status: 0 healthy, 1 a fault, 3 in doubt (2 is for wrong arguments)."""
    return {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}[overall]
