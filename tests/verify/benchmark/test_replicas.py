"""Which measurements of several devices are made, once each; and real ones, of parts of this machine's CPU."""

import subprocess
import sys
from collections.abc import Mapping

import keras
import pytest

from alexnet_repro.verify.benchmark import scaling
from alexnet_repro.verify.benchmark.replicas import Question, ask
from alexnet_repro.verify.finding import Finding
from benchmarks import together as bench_together
from tests.helpers.paths import ROOT

tensorflows = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="KERAS_BACKEND isn't tensorflow")
CPU = {"CUDA_VISIBLE_DEVICES": "-1"}


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
    assert bench_together.numbers(devices) == counts
    assert bench_together.shareable(512, counts) == batch


class Answers:
    """A stand-in for the children: two devices, of which gpu:1 takes a tenth longer; `broken` is never answered."""

    def __init__(self, broken=""):
        self.broken, self.asked = broken, []

    def __call__(self, question, _deadline, _environ) -> list[Finding | Mapping]:
        self.asked.append((question.ask, len(question.devices), question.images))
        if question.ask == self.broken:
            return [Finding(question.ask, "FAIL", "no answer", kind="crash")]
        if question.ask == "all-reduce":
            small = {"bytes": 10**6, "tensors": 1, "devices": 2, "seconds": [0.001] * 5, "fault": None}
            return [small, {**small, "bytes": 10**8, "seconds": [0.02] * 5}]
        alone = {device: [0.1 if device == "gpu:0" else 0.11] * 5 for device in question.devices}
        return [{"together": [0.12] * 5, "alone": alone, "fault": None}]


def together(monkeypatch, answers, cpu_replicas=0):
    """Return two devices whose children answer so."""
    monkeypatch.setattr(bench_together, "ask", answers)
    return bench_together.Together(["gpu:0", "gpu:1"], cpu_replicas, 60.0, 1.0)


def ask_all(devices):
    """Ask for stragglers, then scaling, as the benchmarks do."""
    return [
        *devices.findings("stragglers", [lambda: scaling.stragglers(devices.alone(), devices.images, {})]),
        *devices.findings("scaling", [lambda: [scaling.scaling(devices.point("weak", 2))]]),
        *devices.findings("scaling", [lambda: [scaling.scaling(devices.point("strong", 2))]]),
    ]


def test_each_measurement_is_made_once(monkeypatch):
    """Stragglers and weak scaling are of the same process; strong scaling has half of the images on each, and one."""
    answers = Answers()
    found = ask_all(together(monkeypatch, answers))
    assert answers.asked == [("steps", 2, 512), ("all-reduce", 2, 0), ("steps", 2, 256), ("steps", 1, 512)]
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
def test_what_came_to_nothing_fails_once(monkeypatch, broken, statuses):
    """A child without an answer is asked no second time; who builds on it says from what it follows."""
    answers = Answers(broken)
    found = ask_all(together(monkeypatch, answers))
    assert [each.status for each in found] == statuses
    assert len(answers.asked) == len(set(answers.asked))
    doubtful = next(each for each in found if each.status == "INCONCLUSIVE")
    assert doubtful.message.startswith(f"caused by failed check '{broken}': ")


def test_nothing_is_green_on_parts_of_a_cpu(monkeypatch):
    """There every finding is in doubt."""
    found = ask_all(together(monkeypatch, Answers(), cpu_replicas=2))
    assert {each.status for each in found} == {"INCONCLUSIVE"}


@tensorflows
@pytest.mark.slow
def test_steps_of_two_devices():
    """Two parts of this CPU, a small model: as many rounds of each alone as together, all right, none instantly."""
    (answer,) = ask(Question("steps", ("cpu:0", "cpu:1"), 2, images=2, side=67, seconds=0.1), 120, CPU)
    assert answer["fault"] is None
    assert sorted(answer["alone"]) == ["cpu:0", "cpu:1"]
    every = [answer["together"], *answer["alone"].values()]
    assert {len(each) for each in every} == {5}
    assert all(0.001 < seconds < 60 for each in every for seconds in each)


@tensorflows
@pytest.mark.slow
def test_all_reduces_of_two_devices():
    """Their gradients and four sizes are summed up right; 86 MB in 16 tensors, slower than 4 kB."""
    found = list(ask(Question("all-reduce", ("cpu:0", "cpu:1"), 2, side=67), 120, CPU))
    assert [(each["bytes"], each["tensors"]) for each in found] == [
        (4096, 1),
        (65_536, 1),
        (1_048_576, 1),
        (16_777_216, 1),
        (86_395_688, 16),
    ]
    assert {(each["devices"], each["fault"], len(each["seconds"])) for each in found} == {(2, None, 5)}
    assert min(found[-1]["seconds"]) > min(found[0]["seconds"]) > 0


@tensorflows
@pytest.mark.slow
def test_device_that_isnt_there_is_a_finding():
    """A child that fails says so: one finding, no exception."""
    (found,) = ask(Question("steps", ("cpu:0", "cpu:7"), 2, images=2, side=67), 120, CPU)
    assert (found.check, found.status, found.kind) == ("steps", "FAIL", "crash")
    assert "cpu:7" in found.evidence.lower()


@tensorflows
@pytest.mark.slow
def test_one_device_is_said_not_to_scale(tmp_path):
    """Without two devices nothing is measured together, and the end of the run says so, once."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "benchmarks/test_scaling.py"]
    options = ["--device=cpu:0", f"--report={tmp_path}"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert [line.partition(";")[0] for line in done.stdout.splitlines()].count("scaling: not run") == 1
    assert "4 skipped" in done.stdout
