"""One record of many machines: every device by its machine's name, what is of all once, siblings side by side."""

import json
from dataclasses import asdict

import pytest

from alexnet_repro.verify.benchmark.timing import Timing
from alexnet_repro.verify.finding import Finding, overall
from alexnet_repro.verify.numerics.replay import StepDigest
from alexnet_repro.verify.report.merge import merged
from alexnet_repro.verify.report.read import read_results
from alexnet_repro.verify.report.run_record import Record

CASE = "train_step[device=gpu:0-batch=256-precision=float32]"
BITS = ("00" * 32, "11" * 32)


def replay(bits):
    """Return a device's replay of one step that came to these bits."""
    step = StepDigest((1.5).hex(), {"conv2d/kernel": bits}, {"conv2d/kernel": bits})
    return Finding("replay", "PASS", "the same", device="gpu:0", precision="float32", data={"steps": [asdict(step)]})


def content(folder, seconds=1.0, bits=BITS[0], bottleneck="compute", driver="580"):
    """Return what a machine with one GPU recorded."""
    machine = {"devices": ["cpu:0", "gpu:0"], "gpus": ["Fast GPU"], "gpu_environment": {"driver": driver}}
    record = Record(folder / "results.json", machine)
    record.add("doctor", Finding("driver", "PASS", "is new enough"))
    record.add("correct", Finding("layers", "PASS", "all within", device="gpu:0"))
    record.add("repeatable", replay(bits))
    record.add("fast", Finding("valid", "PASS", f"{CASE}: learned", device="gpu:0", case=CASE))
    record.add("fast", Finding("gpu_speed_parity", "PASS", "of this machine alone"))
    record.add("fast", Finding("scaling", "PASS", "of all", scope="cluster"))
    record.add("fast", Finding("stragglers", "PASS", "gpu:1 is last", data={"seconds": {"gpu:0": 1.0, "gpu:1": 1.1}}))
    record.add_timing(Timing(CASE, "gpu:0", "float32", [seconds] * 5, 0.1, bottleneck=bottleneck))
    record.add_calibration({"device": "gpu:0", "matmul": {"float32": 5e13}, "memory": 3e12})
    record.write(complete=True)
    return json.loads(record.path.read_text())


@pytest.fixture
def whole(tmp_path):
    """Return what two machines come to; the second one's as it is asked for."""

    def whole(**second):
        recorded = {"node1": content(tmp_path / "a"), "node2": content(tmp_path / "b", **second)}
        return merged(tmp_path / "whole" / "results.json", recorded)

    return whole


def test_devices_are_named_by_machine(whole):
    """Findings, timings, their cases and rates say whose they are; a finding of no device is the machine's."""
    record = whole()
    assert [each.device for each in record.findings["correct"]] == ["node1/gpu:0", "node2/gpu:0"]
    assert [each.device for each in record.findings["doctor"]] == ["node1", "node2"]
    case = "train_step[device=node2/gpu:0-batch=256-precision=float32]"
    assert (record.timings[1]["case"], record.timings[1]["device"]) == (case, "node2/gpu:0")
    valid = [each for each in record.findings["fast"] if each.check == "valid"][1]
    assert (valid.message, valid.case) == (f"{case}: learned", case)
    first, second = (each for each in record.findings["fast"] if each.check == "stragglers")
    assert (second.device, second.message) == ("node2", "node2/gpu:1 is last")
    assert list(first.data["seconds"]) == ["node1/gpu:0", "node1/gpu:1"]
    assert [each["device"] for each in record.calibrations] == ["node1/gpu:0", "node2/gpu:0"]
    assert (record.machine["machines"], record.machine["node2"]["gpus"]) == (["node1", "node2"], ["Fast GPU"])


def test_what_is_of_all_is_there_once(whole):
    """All workers have the same findings of all of them: they count once, and stay as they are."""
    found = [each for each in whole().findings["fast"] if each.check == "scaling"]
    assert found == [Finding("scaling", "PASS", "of all", scope="cluster")]


@pytest.mark.parametrize(("seconds", "status"), [(1.04, "PASS"), (1.06, "FAIL")])
def test_siblings_are_those_of_all_machines(whole, seconds, status):
    """GPUs of one model are held against each other across machines, by name; machines' own comparisons are gone."""
    (found,) = [each for each in whole(seconds=seconds).findings["fast"] if each.check == "gpu_speed_parity"]
    assert found.status == status
    if status == "FAIL":
        assert found.device == "node2/gpu:0"
        assert found.message.startswith("node2/gpu:0 is 6.0% slower than node1/gpu:0, the best Fast GPU")
        assert found.fix.startswith("nvidia-smi -q -i 0 ")


def test_what_waits_for_the_host_is_not_compared(whole):
    """Across machines a case that its GPU doesn't limit says nothing of the GPU."""
    assert [
        each for each in whole(seconds=2.0, bottleneck="launch").findings["fast"] if each.check == "gpu_speed_parity"
    ] == []


def test_other_bits_under_another_driver_are_in_doubt(whole):
    """Where drivers or libraries differ, bits may."""
    (found,) = [
        each for each in whole(bits=BITS[1], driver="570").findings["repeatable"] if each.check == "gpu_bitwise_parity"
    ]
    assert (found.status, found.fix) == ("INCONCLUSIVE", "make them the same")


def test_odd_one_out_is_named(tmp_path):
    """Of three machines it is the one with other bits that fails, be it the first."""
    recorded = {f"node{i}": content(tmp_path / str(i), bits=BITS[0 if i == 1 else 1]) for i in (1, 2, 3)}
    found = merged(tmp_path / "results.json", recorded).findings["repeatable"]
    failed = [each.device for each in found if each.check == "gpu_bitwise_parity" and each.status == "FAIL"]
    assert failed == ["node1/gpu:0"]


def test_machine_of_which_nothing_was_asked_is_in_doubt(tmp_path):
    """One machine's answers don't stand for another's that has none: nothing is green by omission."""
    silent = content(tmp_path / "b")
    silent["findings"]["correct"] = []
    record = merged(tmp_path / "results.json", {"node1": content(tmp_path / "a"), "node2": silent})
    assert [(each.device, each.status) for each in record.findings["correct"]] == [
        ("node1/gpu:0", "PASS"),
        ("node2", "INCONCLUSIVE"),
    ]
    assert overall(record.findings) == "INCONCLUSIVE"


@pytest.mark.parametrize(("bits", "status"), [(BITS[0], "PASS"), (BITS[1], "FAIL")], ids=["bits=same", "bits=other"])
def test_same_bits_on_all_machines(whole, bits, status):
    """GPUs of one model answer with the same bits on all machines."""
    (found,) = [each for each in whole(bits=bits).findings["repeatable"] if each.check == "gpu_bitwise_parity"]
    assert (found.status, found.device, found.precision) == (status, "node2/gpu:0", "float32")
    assert "node2/gpu:0, beside node1/gpu:0," in found.message


def test_verdict_is_of_all(whole):
    """One machine's failure is that of the whole; the written file reads as any other."""
    record = whole()
    record.findings["correct"].append(Finding("layers", "FAIL", "off", device="node2/gpu:0"))
    record.write(complete=True)
    assert overall(record.findings) == "FAIL"
    assert read_results(record.path).verdict == "FAIL"
