"""The verdict of a run: what was planned, what became of each part of the plan, and what all that adds up to."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from alexnet_repro.verify.finding import DOCTOR, GROUPS, MACHINE_GROUPS, REFERENCE, Finding, Findings, Status, worst

State = Literal["waiting", "running", "answered", "not asked", "lost"]


@dataclass
class Planned:
    """A check or benchmark case that the run is to answer, and what became of it.

    It ends as `answered`, `not asked` (it was left out, or the run ended before it) or `lost` (it began, and died).
    """

    name: str  # as `test_correct.py::test_correct[device=cpu:0-check=shapes]`
    group: str  # of `GROUPS`
    device: str = ""
    state: State = "waiting"
    why: str = ""  # it wasn't asked, or was lost
    status: Status | None = None  # the worst of its findings; None if it has none

    @property
    def short(self) -> str:
        """The check's name, or else the benchmark's."""
        check = re.search(r"check=(\w+)", self.name)
        return check[1] if check else self.name.partition("[")[0].rpartition("::test_")[2]


Plan = Sequence[Planned]


def verdicts(findings: Findings, plan: Plan) -> dict[str, Status]:
    """Return each group's verdict: the worst finding; never PASS without findings, or with a part left unanswered."""
    unanswered = {each.group for each in plan if each.state != "answered"}
    return {
        group: worst(findings.get(group, ()), at_best="INCONCLUSIVE" if group in unanswered else "PASS")
        if findings.get(group)
        else "INCONCLUSIVE"
        for group in dict.fromkeys((*GROUPS, *findings))
    }


def overall(findings: Findings, plan: Plan, *, complete: bool) -> Status:
    """Return the verdict of a run, the one place where it is decided.

    FAIL if there is a FAIL anywhere. PASS if the run is `complete`, its whole plan was answered, and doctor and
    machine's groups are PASS. A reference lowers it only by a FAIL: there may be none for this machine. A doctor that
    didn't run lowers nothing.
    """
    by_group = verdicts(findings, plan)
    if "FAIL" in by_group.values() or any(each.status == "FAIL" for each in plan):
        return "FAIL"
    planned = {each.group for each in plan}.issuperset(MACHINE_GROUPS)
    answered = complete and planned and all(each.state == "answered" for each in plan)
    well = all(each.status == "PASS" for each in plan if each.group != REFERENCE)
    required = (*MACHINE_GROUPS, *([DOCTOR] if findings.get(DOCTOR) else []))
    return "PASS" if answered and well and all(by_group[group] == "PASS" for group in required) else "INCONCLUSIVE"


def pytest_exit_status(verdict: Status, pytest_status: int, *, fail_inconclusive: bool) -> int:
    """Return the exit status of `pytest benchmarks`: 0 only where the verdict doesn't fail the run.

    What pytest says of itself stays: 2 interrupted, 3 internal error, 4 usage, 5 nothing selected, 128 + a signal.
    """
    fails = verdict == "FAIL" or (fail_inconclusive and verdict == "INCONCLUSIVE")
    return 1 if fails and pytest_status in (0, 5) else pytest_status


def missing(plan: Plan) -> list[str]:
    """Return what wasn't answered: a line per reason and device, which names each."""
    lines = []
    left = [each for each in plan if each.state != "answered"]
    for device, state, why in dict.fromkeys((each.device, each.state, each.why) for each in left):
        names = Counter(each.short for each in left if (each.device, each.state, each.why) == (device, state, why))
        listed = ", ".join(name if count == 1 else f"{name} ×{count}" for name, count in names.items())
        lines.append(f"{device or 'machine'}: {state}{f' ({why})' if why else ''}: {listed}")
    return lines


def verdict_in_words(
    verdict: Status, findings: Findings, plan: Plan, *, machines: int = 1, level: str = "standard", fast: str = "fast"
) -> str:
    """Return the verdict of one machine, or of several, as half a sentence; one of a lower level says so.

    `fast` says by what measure a machine is.
    """
    these, are = ("this machine", "is") if machines == 1 else (f"these {machines} machines", "are")
    failed = sum(finding.status == "FAIL" for found in findings.values() for finding in found)
    as_far = "" if level == "standard" else f" as far as --level={level} asks; --level=standard asks the rest"
    checks = f"{failed or 'some'} check{'s' * (failed != 1)} failed, listed with the fix"
    left = sum(each.state != "answered" for each in plan)
    doubt = f"{left} of {len(plan)} planned checks weren't answered" if left else "not every check was conclusive"
    return {
        "PASS": f"{these} {are} correct, repeatable and {fast}" + as_far,
        "FAIL": f"something is wrong with {these}: {checks}",
        "INCONCLUSIVE": f"nothing failed, but {doubt if plan else 'nothing was planned'}",
    }[verdict]


def group_counts(found: Iterable[Finding], group: str, plan: Plan) -> str:
    """Return how many of a group's findings passed, and how much of its plan wasn't answered."""
    statuses = [each.status for each in found]
    others = (("FAIL", "failed"), ("INCONCLUSIVE", "inconclusive"))
    parts = [f"{statuses.count(status)} {word}" for status, word in others if status in statuses]
    passed = [f"{statuses.count('PASS')} of {len(statuses)} passed"] if statuses else []
    planned = [each for each in plan if each.group == group]
    left = sum(each.state != "answered" for each in planned)
    unanswered = [f"{left} of {len(planned)} not answered"] if left else []
    return ", ".join([*passed, *parts, *unanswered]) or "not run"


def summary(findings: Findings, plan: Plan, sentence: str) -> list[str]:
    """Return the lines for the terminal: each group, what didn't pass below it, what is missing, and the verdict."""
    lines = []
    for group, status in verdicts(findings, plan).items():
        found = findings.get(group, ())
        lines.append(f"{group:<12}{status:<14}{group_counts(found, group, plan)}")
        lines += [f"  {line}" for finding in found if finding.status != "PASS" for line in str(finding).splitlines()]
    return [*lines, *missing(plan), sentence]


def per_machine(name: str, plan: Plan) -> list[Planned]:
    """Return a machine's plan with its name before each device."""
    return [replace(each, device=f"{name}/{each.device}" if each.device else name) for each in plan]
