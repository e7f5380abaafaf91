"""Is a run as fast as its reference? What is compared, what is timed again, and what is inconclusive."""

from dataclasses import replace

import pytest

from alexnet_repro.verify.benchmark.reference import Baseline, Place, path_of, write_reference
from alexnet_repro.verify.benchmark.regression import speed_findings
from tests.helpers.references import FROM, HERE, PLACES, PROCESSES, STORED, stored_in, timing


@pytest.fixture
def folder(tmp_path):
    """A folder with tolerances and one reference."""
    return stored_in(tmp_path)


def test_start_decides_whether_a_reference_is_of_here(folder):
    """A reference of this start of a virtual machine fails what is slower; of another it leaves it inconclusive."""
    provenance = {**FROM, "boot": "2c26b46b68ff"}
    stored = replace(STORED, cases={"resize": Baseline("cpu:0", "float32", PROCESSES, provenance)})
    write_reference(path_of(folder, stored.device, HERE), stored)
    for boot, status in (("2c26b46b68ff", "FAIL"), ("another", "INCONCLUSIVE")):
        places = {"cpu:0": Place(STORED.device, HERE, boot)}
        (found,) = speed_findings([timing(2.0)], places, [folder], lambda _: ({"resize": [2.0] * 6}, 0.0))
        assert found.status == status


def test_same_speed_passes(folder):
    """A run as fast as its reference passes, with the day of it."""
    (found,) = speed_findings([timing(1.0)], PLACES, [folder])
    assert (found.check, found.status, found.message) == ("speed", "PASS", "resize")
    assert "8 processes of 2026-11-24" in found.evidence


def test_a_sites_references_come_first(tmp_path, folder):
    """Each file is the first folder's that has it: the site's, and the suite's where the site has none."""
    site = tmp_path / "site"
    site.mkdir()
    (found,) = speed_findings([timing(1.0)], PLACES, [site, folder])
    assert (found.status, found.data["result"]) == ("PASS", "same")
    stored = replace(STORED, cases={"resize": Baseline("cpu:0", "float32", [[2.0] * 6] * 8, FROM)})
    write_reference(path_of(site, STORED.device, HERE), stored)
    (found,) = speed_findings([timing(1.0)], PLACES, [site, folder])
    assert (found.status, found.data["result"]) == ("PASS", "faster")
    path_of(site, STORED.device, HERE).write_text("")
    (found,) = speed_findings([timing(1.0)], PLACES, [site, folder])
    named = path_of(site, STORED.device, HERE)
    assert (found.status, found.fix) == ("FAIL", f"restore {named}, or remove it")


@pytest.mark.parametrize(
    ("again", "busy", "status", "measurements"),
    [
        pytest.param([1.2, 1.2], 0.04, "FAIL", 3, id="again=slower, slower"),
        pytest.param([1.2, 1.2], 0.06, "INCONCLUSIVE", 3, id="again=slower, slower, busy"),
        pytest.param([1.2, 1.0], 0.06, "PASS", 3, id="again=slower, the same"),
        pytest.param([1.0], 0.0, "PASS", 2, id="again=the same"),
    ],
)
def test_slower_is_measured_again(folder, again, busy, status, measurements):
    """What is slower is timed in other processes, as long as it is and until there are three; nothing else is."""
    requested, left = [], list(again)

    def remeasure(cases):
        requested.append(list(cases))
        return {case: [left.pop(0)] * 6 for case in cases}, busy

    stored = replace(STORED, cases={**STORED.cases, "forward": STORED.cases["resize"]})
    write_reference(path_of(folder, STORED.device, HERE), stored)
    found = speed_findings([timing(1.2), timing(1.0, "forward")], PLACES, [folder], remeasure)
    assert requested == [["resize"]] * len(again)
    assert [each.status for each in found] == [status, "PASS"]
    assert found[0].data["measurements"] == measurements


@pytest.mark.parametrize(
    ("output", "why", "fix"),
    [
        pytest.param("", "nothing is kept of a process that fails", "run it again", id="output=none"),
        pytest.param(
            "\nF0000 00:00:1 2 x.cc:1] Unknown flag in XLA_FLAGS: --bogus\n",
            *(
                "XLA_FLAGS has --bogus, which this version doesn't know",
                "take it out of XLA_FLAGS, or: unset XLA_FLAGS",
            ),
            id="output=flag",
        ),
    ],
)
def test_failed_remeasurement_is_inconclusive(folder, output, why, fix):
    """Where another process can't be had, what is slower is inconclusive, says why, and has the fix of that first."""

    def broken(_):
        raise ValueError(f"nothing is kept of a process that fails{output}")

    (found,) = speed_findings([timing(1.2)], PLACES, [folder], broken)
    assert found.status == "INCONCLUSIVE"
    assert found.message.endswith(f"; it couldn't be measured again: {why}")
    assert found.fix.startswith(fix)
    assert ("; then: " in found.fix) == bool(output)


@pytest.mark.parametrize(
    ("places", "case", "message"),
    [
        pytest.param(
            {"cpu:0": Place("Tesla T4", HERE)},
            "resize",
            "no reference is on file for Tesla T4 and tensorflow 2.21.0",
            id="device=none",
        ),
        pytest.param(
            PLACES,
            "forward",
            "no reference is on file for this case on AMD EPYC, 2 processors",
            id="case=none",
        ),
        pytest.param(
            {"cpu:0": Place(STORED.device, {**HERE, "packages": {**HERE["packages"], "numpy": "3"}})},
            "resize",
            "the reference on file for AMD EPYC, 2 processors is of another environment: packages numpy 3 (was 2.4.6)",
            id="environment=another",
        ),
    ],
)
def test_unlike_is_never_compared(folder, places, case, message):
    """Another device, case or environment is inconclusive, however slow, with what is missing and how to make it."""
    (found,) = speed_findings([timing(9.0, case)], places, [folder])
    assert (found.status, found.number) == ("INCONCLUSIVE", None)
    assert found.message == f"{case}: {message}"
    assert found.fix.startswith("python -m alexnet_repro verify --benchmark-only --update-reference")


def test_invalid_timings_are_left_out(folder):
    """How fast a wrong answer came is compared with nothing."""
    assert speed_findings([timing(9.0, fault="wrong")], PLACES, [folder]) == []


def test_tolerances_that_cant_be_read_fail(folder):
    """The run says so; it never goes on with tolerances of its own."""
    (folder / "tolerances.toml").write_text("false_alarms = 1\n")
    (found,) = speed_findings([timing(1.0)], PLACES, [folder])
    assert (found.status, "false_alarms" in found.evidence) == ("FAIL", True)
