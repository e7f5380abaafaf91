"""The verdict of a run: what was planned, what became of each part of the plan, and what all that adds up to."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from alexnet_repro.verify.finding import DOCTOR, GROUPS, MACHINE_GROUPS, REFERENCE, Findings, Status, worst

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


def fails_the_run(verdict: Status, *, fail_inconclusive: bool) -> bool:
    """Return whether a verdict fails a run, for its exit status and for JUnit."""
    return verdict == "FAIL" or (fail_inconclusive and verdict == "INCONCLUSIVE")


def pytest_exit_status(verdict: Status, pytest_status: int, *, fail_inconclusive: bool) -> int:
    """Return the exit status of `pytest benchmarks`: 0 only where the verdict doesn't fail the run.

    What pytest says of itself stays: 2 interrupted, 3 internal error, 4 usage, 5 nothing selected, 128 + a signal.
    """
    fails = fails_the_run(verdict, fail_inconclusive=fail_inconclusive)
    return 1 if fails and pytest_status in (0, 5) else pytest_status


def per_machine(name: str, plan: Plan) -> list[Planned]:
    """Return a machine's plan with its name before each device."""
    return [replace(each, device=f"{name}/{each.device}" if each.device else name) for each in plan]
