"""What all findings mean together: is this machine correct, repeatable, fast?"""

from collections.abc import Mapping, Sequence

from alexnet_repro.hardware.finding import Finding, Status, verdict

DOCTOR = "doctor"
ABOUT_THE_MACHINE = ("correct", "repeatable", "fast")
REFERENCE = "reference"
GROUPS = (DOCTOR, *ABOUT_THE_MACHINE, REFERENCE)

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
