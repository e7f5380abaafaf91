"""The JUnit file of a run: a test case for each part of the plan, and one for the verdict, which it can't better."""

import xml.etree.ElementTree as ET

import pytest

from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.junit import write_junit
from alexnet_repro.verify.report.run_record import RunRecord
from alexnet_repro.verify.verdict import Planned

SHAPES = "test_correct.py::test_correct[device=cpu:0-check=shapes]"
FORWARD = "test_forward.py::test_forward[device=cpu:0-batch=1-precision=float32]"
RUN = {"host": "here", "version": "0.1.0", "command": "pytest benchmarks", "started": "2026-11-27T06:00:00+00:00"}
GROUPS = ("correct", "repeatable", "fast")


def written(path, record):
    """Write a run's file, and return its test suite."""
    write_junit(record, path)
    (suite,) = ET.parse(path).getroot()
    return suite


def outcomes(suite):
    """Return kind and message of each test case's outcome, by name; nothing for one that passed."""
    cases = suite.iter("testcase")
    return {each.get("name"): [(outcome.tag, outcome.get("message")) for outcome in each] for each in cases}


ENTRIES = [
    pytest.param("answered", "PASS", "", [], id="state=passed"),
    pytest.param("answered", "FAIL", "", [("failure", "a message")], id="state=failed"),
    pytest.param("answered", "INCONCLUSIVE", "", [("skipped", "a message")], id="state=inconclusive"),
    pytest.param("answered", None, "", [("skipped", "it has no finding")], id="state=without a finding"),
    pytest.param("not asked", None, "-k", [("skipped", "-k")], id="state=not run"),
    pytest.param("waiting", None, "", [("skipped", "it has no finding")], id="state=waiting"),
    pytest.param("running", None, "", [("failure", "it has no finding")], id="state=running"),
    pytest.param("lost", "FAIL", "it died", [("failure", "it died")], id="state=lost"),
    pytest.param("lost", None, "it died", [("failure", "it died")], id="state=lost without a finding"),
]


@pytest.mark.parametrize(("state", "status", "why", "outcome"), ENTRIES)
def test_case_is_what_became_of_its_part(tmp_path, state, status, why, outcome):
    """Only what was answered PASS has passed; what failed or was lost has failed, and anything else is skipped."""
    found = [Finding("shapes", status, "a message", device="cpu:0")] if status else []
    plan = [Planned(SHAPES, "correct", "cpu:0", state, why, status)]
    suite = written(
        tmp_path / "junit.xml", RunRecord(tmp_path / "results.json", plan=plan, findings={"correct": found})
    )
    assert outcomes(suite)["test_correct[device=cpu:0-check=shapes]"] == outcome


def test_failure_has_its_own_findings(tmp_path):
    """A failure's text has what was found by that check on that device, or of that case, with evidence and fix."""
    record = RunRecord(tmp_path / "results.json")
    record.plan = [
        Planned(SHAPES, "correct", "cpu:0", "answered", status="FAIL"),
        Planned(FORWARD, "fast", "cpu:0", "answered", status="FAIL"),
    ]
    record.findings["correct"] = [
        Finding("shapes", "FAIL", "13 layers", "one is missing", "pip check", "cpu:0"),
        Finding("shapes", "FAIL", "another device", device="gpu:0"),
        Finding("layers", "FAIL", "another check", device="cpu:0"),
    ]
    case = "forward[device=cpu:0-batch=1-precision=float32]"
    record.findings["fast"] = [
        Finding("valid", "FAIL", "NaN", device="cpu:0", case=case),
        Finding("valid", "FAIL", "another case", device="cpu:0", case=case.replace("=1-", "=32-")),
    ]
    shapes, forward, _ = written(tmp_path / "junit.xml", record).iter("failure")
    assert [line.split() for line in shapes.text.splitlines()] == [
        ["FAIL", "cpu:0", "shapes", "13", "layers"],
        ["evidence:", "one", "is", "missing"],
        ["fix:", "pip", "check"],
    ]
    assert (shapes.get("message"), forward.get("message")) == ("13 layers", "NaN")
    assert "another" not in shapes.text + forward.text


VERDICTS = [
    pytest.param("PASS", {}, [], id="verdict=PASS"),
    pytest.param("PASS", {"complete": False}, ["skipped"], id="verdict=unfinished"),
    pytest.param("INCONCLUSIVE", {}, ["skipped"], id="verdict=INCONCLUSIVE"),
    pytest.param(
        "INCONCLUSIVE", {"run": {"fail_inconclusive": True}}, ["failure"], id="verdict=INCONCLUSIVE that fails"
    ),
    pytest.param("FAIL", {}, ["failure"], id="verdict=FAIL"),
]


@pytest.mark.parametrize(("status", "fields", "outcome"), VERDICTS)
def test_last_case_is_the_verdict(tmp_path, status, fields, outcome):
    """The case `verdict` passes, is skipped or fails as the record's verdict and the option say, with its words."""
    plan = [
        Planned(f"test_a.py::test_{group}[device=cpu:0]", group, "cpu:0", "answered", "", status) for group in GROUPS
    ]
    findings = {group: [Finding("shapes", status, "a message", device="cpu:0")] for group in GROUPS}
    record = RunRecord(tmp_path / "results.json", plan=plan, findings=findings, **{"complete": True, **fields})
    last = list(written(tmp_path / "junit.xml", record).iter("testcase"))[-1]
    assert (last.get("name"), [each.tag for each in last]) == ("verdict", outcome)
    for each in last:
        assert each.get("message").startswith(f"{'INCONCLUSIVE' if status == 'PASS' else status}: ")


def test_suite_says_who_and_counts(tmp_path):
    """Host, version, command and start are properties; the counts are those of pytest's own file."""
    plan = [
        Planned(SHAPES, "correct", "cpu:0", "answered", status="PASS"),
        Planned(FORWARD, "fast", "cpu:0", "lost", "it died", "FAIL"),
        Planned(FORWARD.replace("=1-", "=32-"), "fast", "cpu:0", "not asked", "the run ended"),
    ]
    suite = written(
        tmp_path / "junit.xml", RunRecord(tmp_path / "results.json", run={**RUN, "seconds": 1.5}, plan=plan)
    )
    assert {each.get("name"): each.get("value") for each in suite.iter("property")} == RUN
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped", "time", "hostname")}
    assert counts == {"tests": "4", "failures": "2", "errors": "0", "skipped": "1", "time": "1.5", "hostname": "here"}
    case = next(suite.iter("testcase"))
    assert case.get("classname") == "benchmarks.test_correct"
    assert case.get("name") == "test_correct[device=cpu:0-check=shapes]"


def test_whatever_was_found_is_xml(tmp_path):
    """Characters that XML can't hold don't make a file that nobody can read."""
    finding = Finding("shapes", "FAIL", 'a \x00 \x1b[31m \ud800 "<&>" ]]>', device="cpu:0")
    plan = [Planned(SHAPES, "correct", "cpu:0", "answered", status="FAIL")]
    record = RunRecord(tmp_path / "results.json", plan=plan, findings={"correct": [finding]})
    failure = next(written(tmp_path / "junit.xml", record).iter("failure"))
    assert failure.get("message") == 'a � �[31m � "<&>" ]]>'
