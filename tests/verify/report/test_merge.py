"""One record of several machines: devices named by machine, cluster findings once, GPUs of one model compared."""

from dataclasses import asdict, replace

import pytest

from alexnet_repro.verify.benchmark.timing import Calibration, Timing
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.numerics.replay import StepDigest
from alexnet_repro.verify.report.merge import merged
from alexnet_repro.verify.report.run_record import RunRecord, read_results
from alexnet_repro.verify.verdict import Planned

CASE = "train_step[device=gpu:0-batch=256-precision=float32]"
ALONE = {"seconds": {"gpu:0": 1.0, "gpu:1": 1.1}, "slow": ["gpu:1"]}
BITS = ("00" * 32, "11" * 32)


def replay(bits):
    """Return a device's replay of one step that came to these bits."""
    step = StepDigest((1.5).hex(), {"conv2d/kernel": bits}, {"conv2d/kernel": bits})
    return Finding("replay", "PASS", "the same", device="gpu:0", precision="float32", data={"steps": [asdict(step)]})


def recorded(folder, seconds=1.0, bits=BITS[0], bottleneck="compute", driver="580"):
    """Return the record of a machine with one GPU."""
    machine = {"devices": ["cpu:0", "gpu:0"], "gpus": ["Fast GPU"]}
    machine["inventory"] = {"gpu:0": {"kind": "Fast GPU", "bits": {"driver": driver}}}
    record = RunRecord(folder / "results.json", machine)
    record.add("doctor", Finding("driver", "PASS", "is new enough"))
    record.add("correct", Finding("layers", "PASS", "all within", device="gpu:0"))
    record.add("repeatable", replay(bits))
    record.add("fast", Finding("valid", "PASS", f"{CASE}: learned", device="gpu:0", case=CASE))
    record.add("fast", Finding("gpu_speed_parity", "PASS", "of this machine alone"))
    record.add("fast", Finding("scaling", "PASS", "of all", scope="cluster"))
    record.add(
        "fast",
        Finding("stragglers", "PASS", "gpu:1 is last", data=ALONE),
    )
    record.add_timing(Timing("draw_train[batch=8]", "cpu:0", "", [seconds] * 5))
    record.add_timing(Timing(CASE, "gpu:0", "float32", [seconds] * 5, 0.1, bottleneck=bottleneck))
    record.add_calibration(Calibration("gpu:0", {"float32": 5e13}, 3e12))
    record.write(complete=True)
    return read_results(record.path)


@pytest.fixture
def whole(tmp_path):
    """Return the merged record of two machines, of which the second is recorded with the given arguments."""

    def whole(**second):
        records = {"node1": recorded(tmp_path / "a"), "node2": recorded(tmp_path / "b", **second)}
        return merged(tmp_path / "whole" / "results.json", records)

    return whole


def test_devices_are_named_by_machine(whole):
    """Findings, their data, timings, cases and rates name the machine; messages stay; no device means the machine."""
    record = whole()
    assert [each.device for each in record.findings["correct"]] == ["node1/gpu:0", "node2/gpu:0"]
    assert [each.device for each in record.findings["doctor"]] == ["node1", "node2"]
    case = "train_step[device=node2/gpu:0-batch=256-precision=float32]"
    assert (record.timings[3].case, record.timings[3].device) == (case, "node2/gpu:0")
    assert record.timings[0].case == "node1/draw_train[batch=8]"
    valid = [each for each in record.findings["fast"] if each.check == "valid"][1]
    assert (valid.message, valid.case) == (f"{CASE}: learned", case)
    first, second = (each for each in record.findings["fast"] if each.check == "stragglers")
    assert (second.device, second.message) == ("node2", "gpu:1 is last")
    assert first.data == {"seconds": {"node1/gpu:0": 1.0, "node1/gpu:1": 1.1}, "slow": ["node1/gpu:1"]}
    assert [each.device for each in record.calibrations] == ["node1/gpu:0", "node2/gpu:0"]
    assert (record.machine["machines"], record.machine["node2"]["gpus"]) == (["node1", "node2"], ["Fast GPU"])


def test_cluster_findings_are_there_once(whole):
    """All workers have the same findings of all of them: they count once, and stay as they are."""
    found = [each for each in whole().findings["fast"] if each.check == "scaling"]
    assert found == [Finding("scaling", "PASS", "of all", scope="cluster")]


@pytest.mark.parametrize(("seconds", "status"), [(1.04, "PASS"), (1.06, "INCONCLUSIVE"), (1.24, "FAIL")])
def test_gpus_are_compared_across_machines(whole, seconds, status):
    """GPUs of one model are compared across machines, by name; machines' own comparisons are gone."""
    (found,) = [each for each in whole(seconds=seconds).findings["fast"] if each.check == "gpu_speed_parity"]
    assert found.status == status
    if status != "PASS":
        assert found.device == "node2/gpu:0"
        assert found.message.startswith(f"node2/gpu:0 is {seconds - 1:.1%} slower than node1/gpu:0, the best Fast GPU")
        assert found.fix.startswith("nvidia-smi -q -d ")


def test_host_bound_cases_are_not_compared(whole):
    """Across machines, a case whose bottleneck isn't the GPU isn't compared."""
    assert [
        each for each in whole(seconds=2.0, bottleneck="launch").findings["fast"] if each.check == "gpu_speed_parity"
    ] == []


def test_other_bits_under_another_driver_are_inconclusive(whole):
    """Where drivers or libraries differ, different bits are inconclusive."""
    (found,) = [
        each for each in whole(bits=BITS[1], driver="570").findings["repeatable"] if each.check == "gpu_bitwise_parity"
    ]
    assert (found.status, found.fix) == ("INCONCLUSIVE", "make them the same")


def test_minority_fails(tmp_path):
    """Of three machines the one with other bits fails, even if it is the first."""
    records = {f"node{i}": recorded(tmp_path / str(i), bits=BITS[0 if i == 1 else 1]) for i in (1, 2, 3)}
    found = merged(tmp_path / "results.json", records).findings["repeatable"]
    failed = [each.device for each in found if each.check == "gpu_bitwise_parity" and each.status == "FAIL"]
    assert failed == ["node1/gpu:0"]


def test_machine_without_checks_is_inconclusive(tmp_path):
    """A machine without findings in a group that others have is inconclusive there, never PASS."""
    silent = recorded(tmp_path / "b")
    silent.findings["correct"] = []
    record = merged(tmp_path / "results.json", {"node1": recorded(tmp_path / "a"), "node2": silent})
    assert [(each.device, each.status) for each in record.findings["correct"]] == [
        ("node1/gpu:0", "PASS"),
        ("node2", "INCONCLUSIVE"),
    ]
    assert record.verdict == "INCONCLUSIVE"


@pytest.mark.parametrize(("bits", "status"), [(BITS[0], "PASS"), (BITS[1], "FAIL")], ids=["bits=same", "bits=other"])
def test_same_bits_on_all_machines(whole, bits, status):
    """GPUs of one model have the same bits on all machines, or the check fails."""
    (found,) = [each for each in whole(bits=bits).findings["repeatable"] if each.check == "gpu_bitwise_parity"]
    assert (found.status, found.device, found.precision) == (status, "node2/gpu:0", "float32")
    assert "node2/gpu:0, beside node1/gpu:0," in found.message


def test_verdict_is_of_all(whole):
    """One machine's failure fails the whole; the written file reads as any other."""
    record = whole()
    record.findings["correct"].append(Finding("layers", "FAIL", "off", device="node2/gpu:0"))
    record.write(complete=True)
    assert record.verdict == "FAIL"
    assert read_results(record.path).verdict == "FAIL"


def well(folder, **changes):
    """Return the record of a machine that passed, but for what is changed of it."""
    groups = ("correct", "repeatable", "fast")
    fields = {
        "machine": {"devices": ["gpu:0"]},
        "run": {"host": folder.name},
        "plan": [Planned(f"test_{group}.py::test_any", group, "gpu:0", "answered", status="PASS") for group in groups],
        "findings": {group: [Finding("any", "PASS", "as it should be", device="gpu:0")] for group in groups},
        "complete": True,
    }
    return RunRecord(folder / "results.json", **{**fields, **changes})


INTERRUPTED = {"complete": False, "run": {"host": "b", "ended": "interrupted by SIGTERM"}}
WRONG = Finding("sum", "FAIL", "wrong")


@pytest.mark.parametrize(
    ("second", "verdict"),
    [
        pytest.param({}, "PASS", id="second=well"),
        pytest.param({"plan": []}, "INCONCLUSIVE", id="second=without a plan"),
        pytest.param(INTERRUPTED, "INCONCLUSIVE", id="second=interrupted"),
        pytest.param({"stated": "FAIL"}, "FAIL", id="second=states FAIL"),
        pytest.param(
            {"findings": {"fast": [replace(WRONG, scope="cluster")]}}, "FAIL", id="second=failure of the cluster"
        ),
        pytest.param({"findings": {"another": [WRONG]}}, "FAIL", id="second=failure in another group"),
    ],
)
def test_no_better_than_any_machine(tmp_path, second, verdict):
    """The verdict of all machines is no better than any machine's own, whatever shows in it alone."""
    records = {"node1": well(tmp_path / "a"), "node2": well(tmp_path / "b", **second)}
    whole = merged(tmp_path / "whole" / "results.json", records)
    whole.complete = all(each.complete for each in records.values())
    assert whole.verdict == verdict
    assert whole.run["hosts"] == ["a", "b"]
