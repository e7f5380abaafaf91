"""The verdict of plan and findings: one per group, one of the run, and the exit status that follows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet_repro.verify.finding import GROUPS, Finding
from alexnet_repro.verify.verdict import Planned, overall, pytest_exit_status, verdicts

STATUSES = {"P": "PASS", "F": "FAIL", "I": "INCONCLUSIVE"}
NAME = "test_correct.py::test_correct[device=cpu:0-check=layers-precision=float32]"


def found(letters):
    """Return findings of these statuses, by their first letters."""
    return [Finding(f"check {i}", STATUSES[letter], "a cause") for i, letter in enumerate(letters)]


def groups(correct, repeatable, fast, reference, doctor="P"):
    """Return the five groups' findings."""
    return {
        "doctor": found(doctor),
        "correct": found(correct),
        "repeatable": found(repeatable),
        "fast": found(fast),
        "reference": found(reference),
    }


def answered(findings):
    """Return a plan of as many parts as there are findings, each answered by one; the doctor isn't planned."""
    return [
        Planned(f"test_{group}.py::test_{each.check}", group, "cpu:0", "answered", status=each.status)
        for group, several in findings.items()
        if group != "doctor"
        for each in several
    ]


def of(findings):
    """Return the verdict of a complete run with these findings, all of them planned."""
    return overall(findings, answered(findings), complete=True)


@pytest.mark.parametrize(
    ("letters", "status"),
    [("P", "PASS"), ("PPP", "PASS"), ("PIP", "INCONCLUSIVE"), ("IFP", "FAIL"), ("F", "FAIL")],
)
@pytest.mark.parametrize("group", ["doctor", "correct", "repeatable", "fast", "reference"])
def test_worst_finding_is_its_groups_verdict(group, letters, status):
    """FAIL outweighs INCONCLUSIVE, and that PASS. Other groups have no say."""
    others = groups("F", "P", "I", "P", "I")
    by_group = {
        "doctor": "INCONCLUSIVE",
        "correct": "FAIL",
        "repeatable": "PASS",
        "fast": "INCONCLUSIVE",
        "reference": "PASS",
    }
    findings = {**others, group: found(letters)}
    assert verdicts(findings, answered(findings)) == {**by_group, group: status}


def test_group_without_findings_is_not_pass():
    """No findings are INCONCLUSIVE, in each group."""
    assert set(verdicts({}, []).values()) == {"INCONCLUSIVE"}


@pytest.mark.parametrize(
    ("group", "status", "verdict"),
    [
        pytest.param("correct", "FAIL", "FAIL", id="correct=FAIL"),
        pytest.param("correct", "INCONCLUSIVE", "INCONCLUSIVE", id="correct=INCONCLUSIVE"),
        pytest.param("fast", None, "INCONCLUSIVE", id="fast=no status"),
        pytest.param("reference", "FAIL", "FAIL", id="reference=FAIL"),
        pytest.param("reference", "INCONCLUSIVE", "PASS", id="reference=INCONCLUSIVE"),
    ],
)
def test_plan_has_a_say_of_its_own(group, status, verdict):
    """A part of the plan that isn't PASS lowers the verdict, though no finding does."""
    findings = groups("P", "P", "P", "P")
    plan = [*answered(findings), Planned(NAME, group, "cpu:0", "answered", status=status)]
    assert overall(findings, plan, complete=True) == verdict


@pytest.mark.parametrize("state", ["waiting", "running", "not asked", "lost"])
def test_group_without_an_answer_is_not_pass(state):
    """A group of which a planned check wasn't answered is inconclusive at best; the others keep theirs."""
    findings = groups("P", "P", "P", "P")
    plan = [*answered(findings), Planned(NAME, "correct", "cpu:0", state)]
    by_group = verdicts(findings, plan)
    assert (by_group["correct"], by_group["repeatable"]) == ("INCONCLUSIVE", "PASS")
    assert overall(findings, plan, complete=True) == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("correct", "repeatable", "fast", "reference", "status"),
    [
        ("P", "P", "P", "P", "PASS"),
        ("P", "P", "P", "", "PASS"),  # there is no reference for this machine
        ("P", "P", "P", "I", "PASS"),  # it is another environment's
        ("P", "P", "P", "F", "FAIL"),
        ("F", "P", "P", "P", "FAIL"),
        ("P", "F", "", "", "FAIL"),
        ("I", "P", "F", "", "FAIL"),
        ("", "P", "P", "P", "INCONCLUSIVE"),
        ("P", "", "P", "P", "INCONCLUSIVE"),
        ("P", "P", "", "P", "INCONCLUSIVE"),
        ("P", "I", "P", "P", "INCONCLUSIVE"),
    ],
)
def test_verdict_follows_from_the_groups(correct, repeatable, fast, reference, status):
    """PASS is all three and no fault; a reference can fail a machine, but its absence takes nothing from it."""
    assert of(groups(correct, repeatable, fast, reference)) == status


@pytest.mark.parametrize(("doctor", "status"), [("P", "PASS"), ("", "PASS"), ("PI", "INCONCLUSIVE"), ("F", "FAIL")])
def test_doctor_lowers_the_verdict(doctor, status):
    """What the doctor finds counts; where it wasn't run, that takes nothing away."""
    assert of(groups("P", "P", "P", "P", doctor)) == status


def test_nothing_planned_is_not_pass():
    """Findings without a plan, and an unfinished run, are inconclusive."""
    findings = groups("P", "P", "P", "P")
    assert overall(findings, [], complete=True) == "INCONCLUSIVE"
    assert overall(findings, answered(findings), complete=False) == "INCONCLUSIVE"
    assert overall({}, [], complete=True) == "INCONCLUSIVE"


PLANS = st.lists(
    st.builds(
        Planned,
        name=st.just(NAME),
        group=st.sampled_from(["correct", "repeatable", "fast", "reference"]),
        device=st.sampled_from(["", "cpu:0", "gpu:0"]),
        state=st.sampled_from(["waiting", "running", "answered", "not asked", "lost"]),
        status=st.sampled_from([None, "PASS", "INCONCLUSIVE", "FAIL"]),
    ),
    max_size=6,
)
LETTERS = st.sampled_from(["P"] * 6 + ["PPP", "PIP", "I", "F", ""])  # mostly PASS, or no run would be
FOUND = st.fixed_dictionaries({group: LETTERS.map(found) for group in GROUPS})


@given(FOUND, PLANS, st.booleans(), st.booleans(), st.sampled_from([0, 1, 2, 3, 4, 5, 129, 143]))
def test_pass_implies_that_all_was_answered(findings, plan, complete, fail_inconclusive, pytest_status):
    """PASS: complete, each planned part answered and PASS but for references, no finding FAIL. FAIL never exits 0."""
    verdict = overall(findings, plan, complete=complete)
    statuses = {each.status for several in findings.values() for each in several}
    if verdict == "PASS":
        assert complete
        assert plan
        assert {each.state for each in plan} == {"answered"}
        assert {each.status for each in plan if each.group != "reference"} <= {"PASS"}
        assert "FAIL" not in statuses
    assert (verdict == "FAIL") == ("FAIL" in statuses or any(each.status == "FAIL" for each in plan))
    status = pytest_exit_status(verdict, pytest_status, fail_inconclusive=fail_inconclusive)
    assert status != 0 or verdict == "PASS" or (verdict == "INCONCLUSIVE" and not fail_inconclusive)


@pytest.mark.parametrize(
    ("verdict", "pytest_status", "fail_inconclusive", "status"),
    [
        pytest.param("PASS", 0, False, 0, id="verdict=PASS"),
        pytest.param("FAIL", 0, False, 1, id="verdict=FAIL"),
        pytest.param("INCONCLUSIVE", 0, False, 0, id="verdict=INCONCLUSIVE"),
        pytest.param("INCONCLUSIVE", 0, True, 1, id="verdict=INCONCLUSIVE that fails"),
        pytest.param("PASS", 0, True, 0, id="verdict=PASS with the option"),
        pytest.param("INCONCLUSIVE", 5, False, 5, id="pytest=nothing selected"),
        pytest.param("INCONCLUSIVE", 5, True, 1, id="pytest=nothing selected and fails"),
        pytest.param("FAIL", 2, False, 2, id="pytest=interrupted"),
        pytest.param("INCONCLUSIVE", 143, True, 143, id="pytest=SIGTERM"),
    ],
)
def test_exit_status(verdict, pytest_status, fail_inconclusive, status):
    """1 where the verdict fails the run, and pytest's own for how it ended."""
    assert pytest_exit_status(verdict, pytest_status, fail_inconclusive=fail_inconclusive) == status
