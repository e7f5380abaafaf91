"""Which measurements of several devices are made, once each; and how workers' answers become one."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace

import keras
import pytest

from alexnet_repro.training.distributed.cluster import Cluster, ClusterError
from alexnet_repro.verify.benchmark import scaling_run as module
from alexnet_repro.verify.benchmark.scaling import find_stragglers, judge_scaling
from alexnet_repro.verify.doctor.nvidia import Gpu
from alexnet_repro.verify.finding import Finding
from tests.helpers.paths import ROOT


@pytest.mark.parametrize(
    ("devices", "counts", "batch"),
    [
        pytest.param(2, [1, 2], 512, id="devices=2"),
        pytest.param(6, [1, 2, 4, 6], 516, id="devices=6"),
        pytest.param(8, [1, 2, 4, 8], 512, id="devices=8"),
    ],
)
def test_numbers_of_devices(devices, counts, batch):
    """1, 2, 4, … and all of them; the batch is the next that all these numbers can share."""
    assert module.device_counts(devices) == counts
    assert module.common_batch(512, counts) == batch


class Answers:
    """A stand-in for the children: two devices, of which gpu:1 takes a quarter longer; `broken` is never answered."""

    def __init__(self, broken=""):
        self.broken, self.requests = broken, []

    def __call__(self, request, _deadline, _environ) -> list[Finding | Mapping]:
        self.requests.append((request.kind, len(request.devices), request.images))
        if request.kind == self.broken:
            return [Finding(request.kind, "FAIL", "no answer", kind="crash")]
        if request.kind == "all-reduce":
            small = {"bytes": 10**6, "tensors": 1, "devices": 2, "seconds": [0.001] * 5, "fault": None}
            return [small, {**small, "bytes": 10**8, "seconds": [0.02] * 5}]
        if request.kind == "copies":
            return [copied({"gpu:0": (10e9, 10e9), "gpu:1": (5e9, 10e9)})]
        alone = {device: [0.1 if device == "gpu:0" else 0.125] * 5 for device in request.devices}
        return [{"together": [0.13] * 5 if len(alone) > 1 else [], "alone": alone, "fault": None}]


def copied(rates):
    """Return the answer of a child that copied to devices, and from them, at these rates."""
    return {"rates": rates, "fault": None}


def two_devices(monkeypatch, answers, cpu_replicas=0):
    """Return a run of two devices whose children answer so."""
    monkeypatch.setattr(module, "answers_to", answers)
    return module.ScalingRun(["gpu:0", "gpu:1"], cpu_replicas, deadline=60.0, seconds=1.0)


def measure_all(run):
    """Return stragglers, then scaling, as the benchmarks find them."""
    return [
        *run.findings("stragglers", lambda count: find_stragglers(run.alone(count), run.images, {}), [2]),
        *run.findings("scaling", lambda count: [judge_scaling(run.point("weak", count))], [2]),
        *run.findings("scaling", lambda count: [judge_scaling(run.point("strong", count))], [2]),
    ]


def test_each_measurement_is_made_once(monkeypatch):
    """Stragglers and weak scaling are of the same process; strong scaling has half of the images on each, and one."""
    answers = Answers()
    found = measure_all(two_devices(monkeypatch, answers))
    assert answers.requests == [("steps", 2, 512), ("all-reduce", 2, 0), ("steps", 2, 256), ("steps", 1, 512)]
    assert [(each.check, each.status) for each in found] == [
        ("stragglers", "FAIL"),
        ("scaling", "PASS"),
        ("scaling", "PASS"),  # no faster than one device, but nor is half of the images
    ]


@pytest.mark.parametrize(
    ("broken", "statuses"),
    [
        pytest.param("steps", ["FAIL", "INCONCLUSIVE", "INCONCLUSIVE"], id="broken=steps"),
        pytest.param("all-reduce", ["FAIL", "FAIL", "INCONCLUSIVE"], id="broken=all-reduce"),
    ],
)
def test_failed_measurement_fails_once(monkeypatch, broken, statuses):
    """A failed measurement isn't repeated; what builds on it is inconclusive, and says what caused that."""
    answers = Answers(broken)
    found = measure_all(two_devices(monkeypatch, answers))
    assert [each.status for each in found] == statuses
    assert len(answers.requests) == len(set(answers.requests))
    doubtful = next(each for each in found if each.status == "INCONCLUSIVE")
    assert doubtful.message.startswith(f"caused by failed check '{broken}': ")


def test_child_sees_the_chosen_gpus_alone(monkeypatch):
    """There they are its first ones; what comes of it has the names that they have here."""
    asked = []

    def answers(request, _deadline, environ):
        asked.append((request.devices, environ))
        if request.kind == "steps":
            return [{"together": [0.1], "alone": {"gpu:0": [0.1], "gpu:1": [0.2]}, "fault": None}]
        return [Finding(request.kind, "FAIL", "gpu:1 is lost", kind="crash")]

    monkeypatch.setattr(module, "answers_to", answers)
    environ = {"CUDA_VISIBLE_DEVICES": "1,3"}
    run = module.ScalingRun(["gpu:1", "gpu:3"], deadline=60.0, seconds=1.0, environ=environ)
    assert run.alone(2) == {"gpu:1": [0.1], "gpu:3": [0.2]}
    with pytest.raises(module.MeasurementError) as error:
        run.all_reduces(2)
    assert error.value.finding.message == "gpu:3 is lost"
    assert asked == [(["gpu:0", "gpu:1"], environ)] * 2


def test_way_through_the_host_is_measured_by_the_child(monkeypatch):
    """This process uses no GPU: a child copies, once for all numbers of devices; of parts of a CPU it means nothing."""
    answers = Answers()
    run = two_devices(monkeypatch, answers)
    assert [run.simple_all_reduce_seconds(count) for count in (1, 2)] == pytest.approx(
        [0.0561176952] * 2
    )  # 37.4 + 18.7
    assert answers.requests == [("copies", 2, 0)]
    assert module.ScalingRun(["cpu:0", "cpu:1"], 2, deadline=60.0, seconds=1.0).simple_all_reduce_seconds(2) is None


def test_way_between_gpus_is_of_those_that_take_part(monkeypatch):
    """Two of four H100s have the 18 NVLinks of each; where a record is missing, and of one GPU, it isn't known."""
    h100 = Gpu(0, capability=(9, 0), nvlinks=("switch",) * 18)
    records = {f"gpu:{number}": replace(h100, index=number) for number in range(3)}
    run = module.ScalingRun([f"gpu:{number}" for number in range(4)], deadline=60.0, seconds=1.0, records=records)
    assert run.way(2).way == "18 NVLinks of each"
    assert (run.way(4), run.way(1)) == (None, None)
    assert three_workers(monkeypatch).way(3) is None


def test_nothing_is_green_on_parts_of_a_cpu(monkeypatch):
    """There every finding is inconclusive."""
    found = measure_all(two_devices(monkeypatch, Answers(), cpu_replicas=2))
    assert {each.status for each in found} == {"INCONCLUSIVE"}


ADDRESSES = ("node1:2222", "node2:2222", "node3:2222")


def three_workers(monkeypatch, others=(), **options):
    """Return the first worker's run, whose own child answers as two devices' does.

    Args:
        monkeypatch: pytest's.
        others: the second and third worker's seconds and answers; without them, all answer alike.
        options: of the run.
    """

    def all_gather(point, own, _timeout):
        alike = not others or point.startswith("before")
        return [own] * 3 if alike else [own, *others]

    monkeypatch.setattr(module, "answers_to", Answers())
    return module.ClusterScalingRun(
        Cluster(ADDRESSES, 0),
        all_gather,
        ["gpu:0", "gpu:1"],
        deadline=60.0,
        seconds=1.0,
        models=dict.fromkeys(("gpu:0", "gpu:1"), "NVIDIA H100"),
        environ={},
        **options,
    )


def answer(**changes):
    """Return a worker's answer to all-reduces."""
    return {"bytes": 10**8, "tensors": 1, "devices": 6, "seconds": [0.02] * 5, "fault": None} | changes


def failure(evidence):
    """Return a worker's answer that its child crashed or timed out."""
    return {"failed": {"check": "all-reduce", "status": "FAIL", "message": "crashed", "evidence": evidence}}


@pytest.mark.parametrize(
    ("others", "device", "evidence"),
    [
        pytest.param(
            [[61.0, [failure("no answer within 60 s")]], [5.0, [failure("SIGSEGV")]]],
            "node3", "SIGSEGV; node2: crashed", id="first=the crash",
        ),
        pytest.param(
            [[3.0, [failure("no answer within 3 s")]], [5.0, [failure("connection closed")]]],
            "node2", "no answer within 3 s; node3: crashed", id="first=the timeout",
        ),
        pytest.param([[9.0, [failure("")]], [1.0, [answer()]]], "node2", "", id="first=the only one"),
    ],
)  # fmt: skip
def test_worker_that_fails_first_is_named(monkeypatch, others, device, evidence):
    """The others only wait for it: the first by the clock is the finding, whatever its text, and the rest evidence."""
    run = three_workers(monkeypatch, others)
    with pytest.raises(module.MeasurementError) as error:
        run.all_reduces(3)
    assert (error.value.finding.device, error.value.finding.evidence) == (device, evidence)


def test_wrong_sum_of_a_worker_is_invalid(monkeypatch):
    """Whichever worker has it is named."""
    run = three_workers(monkeypatch, [[1.0, [answer()]], [1.0, [answer(fault="the sum came out as 9.0")]]])
    (found,) = run.findings("all-reduce", run.all_reduces, [3])
    assert (found.message, found.scope) == ("invalid: node3: the sum came out as 9.0", "cluster")


def test_lost_worker_is_a_finding(monkeypatch):
    """Where one is gone, nothing is measured, and the finding names it."""

    def lose(*_):
        raise ClusterError("worker 1 (node2:2222) disconnected")

    run = three_workers(monkeypatch)
    monkeypatch.setattr(run, "_all_gather", lose)
    (found,) = run.findings("scaling", run.all_reduces, [3])
    assert (found.check, found.status, found.message) == ("scaling", "FAIL", "worker 1 (node2:2222) disconnected")


@pytest.mark.parametrize(
    ("gbps", "seconds"),
    [
        # 187,058,984 bytes: 46.8 ms at 4 GB/s and 18.7 at 10; 4/3 of them at 25 GB/s are 10.0 ms.
        pytest.param(200.0, 0.046764746 + 0.0187058984 + 4 / 3 * 187058984 / 25e9, id="gbps=200"),
        pytest.param(None, None, id="gbps=unknown"),
    ],
)
def test_bound_across_machines(monkeypatch, gbps, seconds):
    """To the host and back by the slowest worker, 2(n-1)/n of the bytes by the named link; else no bound."""
    others = [[1.0, [copied({"gpu:0": (rate, 10e9)})]] for rate in (4e9, 6e9)]
    found = three_workers(monkeypatch, others, link_gbps=gbps).simple_all_reduce_seconds(3)
    assert found == (seconds and pytest.approx(seconds))


@pytest.mark.parametrize(
    ("doubt", "statuses"),
    [
        pytest.param(None, ["FAIL", "FAIL"], id="doubt=none"),
        pytest.param(module.VIRTUAL_MACHINES, ["INCONCLUSIVE", "FAIL"], id="doubt=virtual"),
        pytest.param(module.SHARED_MACHINE, ["INCONCLUSIVE", "INCONCLUSIVE"], id="doubt=shared"),
    ],
)
def test_machines_whose_speed_means_little(monkeypatch, doubt, statuses):
    """Workers on one machine judge no speed; those of virtual machines no stragglers."""
    run = three_workers(monkeypatch, doubt=doubt)
    checks = ("stragglers", "all-reduce")
    found = [next(run.findings(check, lambda _: [Finding(check, "FAIL", "slow")], [3])) for check in checks]  # noqa: B023
    assert [each.status for each in found] == statuses


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="KERAS_BACKEND isn't tensorflow")
@pytest.mark.slow
def test_one_device_is_reported_as_not_scaling(tmp_path):
    """Without two devices nothing is measured together, and the end of the run says so, once."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "benchmarks/test_scaling.py"]
    options = ["--device=cpu:0", f"--report={tmp_path}"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert [line.partition(";")[0] for line in done.stdout.splitlines()].count("scaling: not run") == 1
    assert "4 skipped" in done.stdout
