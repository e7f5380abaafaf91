"""The JUnit file of a fleet: a test case for each node, and one for the verdict."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from alexnet_repro.fleet.junit import write_fleet_junit
from tests.helpers.fleets import (
    EMPTY,
    GPU,
    HARMFUL,
    SLOW,
    device,
    faulty_fleet,
    fleet_answer,
    harmful_fleet,
    healthy_fleet,
    large_fleet,
    node_run,
)
from tests.helpers.junit_files import outcomes

# What pytest's and Jenkins's schema of such files knows, by element.
KNOWN = {
    "testsuites": {"name"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time", "hostname", "timestamp"},
    "properties": set(),
    "property": {"name", "value"},
    "testcase": {"classname", "name", "time"},
    "failure": {"message"},
    "skipped": {"message"},
}


def written(folder, answer):
    """Write a fleet's file, and return its path and its test suite."""
    path = folder / "fleet.junit.xml"
    write_fleet_junit(answer, path)
    (suite,) = ET.parse(path).getroot()
    return path, suite


def test_node_is_a_case(tmp_path):
    """A node that failed is a failure, an inconclusive or missing one is skipped, and the verdict is the last case."""
    path, suite = written(tmp_path, faulty_fleet())
    failed = dict.fromkeys(("n03", "n05"), "failed")
    skipped = dict.fromkeys(("n02", "n07", "n09", "n12"), "skipped")
    passed = dict.fromkeys(("n01", "n04", "n06", "n08", "n10", "n11"), "passed")
    assert outcomes(path) == {**failed, **skipped, **passed, "fleet": "failed"}
    counts = {name: suite.get(name) for name in ("name", "tests", "failures", "skipped", "errors")}
    assert counts == {"name": "fleet", "tests": "13", "failures": "3", "skipped": "4", "errors": "0"}
    classes = {each.get("name"): each.get("classname") for each in suite.iter("testcase")}
    assert (classes["n03"], classes["n12"], classes["fleet"]) == (f"fleet.{GPU}", "fleet.not heard of", "fleet")


def test_failure_says_what_and_what_to_do(tmp_path):
    """A node's text has its own findings with evidence and fix, and its message is the worst one's."""
    _, suite = written(tmp_path, faulty_fleet())
    texts = {case.get("name"): each for case in suite.iter("testcase") for each in case}
    assert texts["n03"].get("message").startswith("takes 1.12 × the others' time in all 12 cases")
    assert texts["n03"].text.splitlines() == [
        "FAIL gpu:1 speed: takes 1.12 × the others' time in all 12 cases; its clock is 1,410 MHz, the others' 1,755",
        "  evidence: noise explains up to 1.02 ×; tolerance 3 %",
        "  fix: nvidia-smi -q -d CLOCK,POWER,TEMPERATURE",
        "FAIL gpu:0 health: 3 uncorrectable ECC errors",
        "  fix: replace the GPU, or reset it: nvidia-smi -r -i 0",
    ]
    assert "n03" not in texts["n05"].text
    assert texts["fleet"].get("message").startswith("FAIL: 2 of 12 nodes failed (n[03,05]); ")


def test_nodes_of_a_slow_group_fail(tmp_path):
    """Each node of a slow rack fails with the rack's finding, and the fleet's case has it, too."""
    path, suite = written(tmp_path, large_fleet(racks=8, per_rack=4))
    failed = [name for name, outcome in outcomes(path).items() if outcome == "failed"]
    assert failed == ["r07n01", "r07n02", "r07n03", "r07n04", "fleet"]
    texts = {case.get("name"): each.text for case in suite.iter("testcase") for each in case}
    assert "FAIL rack=r07 speed: its 40 nodes take 1.09 ×" in texts["r07n02"]
    assert "FAIL rack=r07 speed: its 40 nodes take 1.09 ×" in texts["fleet"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (healthy_fleet(3), {"n1": "passed", "n2": "passed", "n3": "passed", "fleet": "passed"}),
        (EMPTY, {"fleet": "skipped"}),
        (fleet_answer([node_run("n1", device(), seconds=float("nan"))]), {"n1": "passed", "fleet": "passed"}),
    ],
    ids=["fleet=healthy", "fleet=none", "fleet=no duration"],
)
def test_fleet_is_no_better_than_its_verdict(tmp_path, answer, expected):
    """A fleet that passed has passed cases alone; of no node, the verdict's case is skipped."""
    path, _ = written(tmp_path, answer)
    assert outcomes(path) == expected


@pytest.mark.parametrize(
    "answer", [faulty_fleet(), harmful_fleet(), EMPTY], ids=["fleet=faulty", "fleet=harmful", "fleet=none"]
)
def test_file_is_what_ci_systems_read(tmp_path, answer):
    """The file has no element and attribute that their schema doesn't know, and durations are decimal numbers."""
    path, suite = written(tmp_path, answer)
    for each in ET.parse(path).iter():
        assert set(each.attrib) <= KNOWN[each.tag], each.tag
    assert all(float(each.get("time")) >= 0 for each in suite.iter("testcase"))


@pytest.mark.parametrize("text", HARMFUL.values(), ids=[f"text={name}" for name in HARMFUL])
def test_whatever_a_node_is_named_is_xml(tmp_path, text):
    """A name, kind or message of any characters is one case, and what XML can't hold is replaced."""
    one = replace(SLOW, node=text, message=text, fix=text)
    path, _ = written(tmp_path, fleet_answer([node_run(text, device(kind=text))], [one]))
    assert list(outcomes(path).values()) == ["failed", "failed"]
