"""The verdict of all findings together: one per group, one of the machine, and the lines for the terminal."""

import pytest

from alexnet_repro.verify.finding import Finding, overall, summary, verdicts

STATUSES = {"P": "PASS", "F": "FAIL", "I": "INCONCLUSIVE"}


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


@pytest.mark.parametrize(
    ("letters", "status"),
    [("P", "PASS"), ("PPP", "PASS"), ("PIP", "INCONCLUSIVE"), ("IFP", "FAIL"), ("F", "FAIL"), ("", "INCONCLUSIVE")],
)
@pytest.mark.parametrize("group", ["doctor", "correct", "repeatable", "fast", "reference"])
def test_worst_finding_is_its_groups_verdict(group, letters, status):
    """FAIL outweighs INCONCLUSIVE, and that PASS; no findings are INCONCLUSIVE. Other groups have no say."""
    others = groups("F", "P", "I", "P", "I")
    by_group = {
        "doctor": "INCONCLUSIVE",
        "correct": "FAIL",
        "repeatable": "PASS",
        "fast": "INCONCLUSIVE",
        "reference": "PASS",
    }
    assert verdicts({**others, group: found(letters)}) == {**by_group, group: status}


def test_missing_group_is_inconclusive():
    """A group that wasn't run is INCONCLUSIVE, as one without findings is."""
    assert verdicts({"fast": found("P")}) == {
        "doctor": "INCONCLUSIVE",
        "correct": "INCONCLUSIVE",
        "repeatable": "INCONCLUSIVE",
        "fast": "PASS",
        "reference": "INCONCLUSIVE",
    }
    assert overall({}) == "INCONCLUSIVE"


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
    assert overall(groups(correct, repeatable, fast, reference)) == status


@pytest.mark.parametrize(("doctor", "status"), [("P", "PASS"), ("", "PASS"), ("PI", "INCONCLUSIVE"), ("F", "FAIL")])
def test_doctor_lowers_the_verdict(doctor, status):
    """What the doctor finds counts; where it wasn't run, that takes nothing away."""
    assert overall(groups("P", "P", "P", "P", doctor)) == status


def test_doctor_alone_makes_nothing_correct():
    """A machine on which only the doctor was run isn't called correct."""
    assert verdicts({"doctor": found("PPP")})["correct"] == "INCONCLUSIVE"


def test_summary_lists_what_did_not_pass():
    """A line per group, below it what didn't pass with its fix, and at the end the verdict in words."""
    findings = groups("P", "PP", "PI", "")
    findings["correct"].append(
        Finding("layers", "FAIL", "conv1 is off", "3e-3", "fix it", device="gpu:1", precision="tf32")
    )
    assert summary(findings) == [
        "doctor      PASS          1 of 1 checks passed",
        "correct     FAIL          1 of 2 checks passed",
        "  FAIL          gpu:1 layers tf32        conv1 is off",
        "                evidence: 3e-3",
        "                fix: fix it",
        "repeatable  PASS          2 of 2 checks passed",
        "fast        INCONCLUSIVE  1 of 2 checks passed",
        "  INCONCLUSIVE  check 1                  a cause",
        "reference   INCONCLUSIVE  not run",
        "FAIL: something is wrong with this machine: 1 check failed, listed with the fix",
    ]


@pytest.mark.parametrize(
    ("letters", "line"),
    [
        ("P", "PASS: this machine is correct, repeatable and fast"),
        ("I", "INCONCLUSIVE: nothing failed, but not every check was run and conclusive"),
        ("", "INCONCLUSIVE: nothing failed, but not every check was run and conclusive"),
    ],
)
def test_last_line_is_the_verdict_in_words(letters, line):
    """Only a machine that passes all three is called so."""
    assert summary(groups("P", letters, "P", "P"))[-1] == line
