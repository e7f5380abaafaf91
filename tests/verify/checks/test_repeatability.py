"""Two runs agree in every bit or not, and the finding names them."""

import dataclasses
from types import SimpleNamespace

import pytest

from alexnet_repro.verify.checks import repeatability
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.repeatability import agreement, reference_gpu
from alexnet_repro.verify.doctor.environment import Environment
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.numerics.replay import StepDigest
from benchmarks import test_repeatable as benchmarks

STEPS = [
    {"loss": "0x1.0p+1", "gradients": {"head": "g1"}, "weights": {"head": "w1"}},
    {"loss": "0x1.8p+0", "gradients": {"head": "g2"}, "weights": {"head": "w2"}},
]
FIRST = Finding("replay", "PASS", "3 runs", device="gpu:0", precision="tf32", data={"steps": STEPS})
BROKEN = Finding("replay", "FAIL", "it hangs", device="gpu:0", precision="tf32", kind="crash")
DIGESTS = [StepDigest(**step) for step in STEPS]
OTHER = [DIGESTS[0], StepDigest("0x1.8p+0", {"head": "g2"}, {"head": "other"})]


def digest(*steps):
    """Return what another run found, on another device."""
    return Finding("digest", "PASS", "one run", device="gpu:1", precision="tf32", data={"steps": steps})


def test_same_bits_agree():
    """Equal digests pass, in the other run's name; they are kept once, by `replay`."""
    found = agreement("processes", FIRST, digest(*STEPS), "another process")
    assert (found.check, found.status, found.device, found.precision) == ("processes", "PASS", "gpu:1", "tf32")
    assert found.message == "another process has the same bits"
    assert found.evidence == "losses 2.000000, 1.500000"
    assert found.data == {}


@pytest.mark.parametrize(
    ("step", "where"),
    [
        pytest.param({"loss": "0x1.80001p+0"}, "loss at step 2", id="changed=loss"),
        pytest.param({"gradients": {"head": "other"}}, "gradient of head at step 2", id="changed=gradient"),
        pytest.param({"weights": {"head": "other"}}, "weight head at step 2", id="changed=weight"),
    ],
)
def test_other_bits_are_named(step, where):
    """One other digest fails, with the run, the step and the layer."""
    other = [STEPS[0], {**STEPS[1], **step}]
    found = agreement("gpu_bitwise_parity", FIRST, digest(*other), "gpu:1")
    assert (found.check, found.status, found.device, found.precision) == ("gpu_bitwise_parity", "FAIL", "gpu:1", "tf32")
    assert found.message == f"gpu:1 differs from the first run in the {where}"
    assert "suspect the hardware" in found.fix
    assert found.data == {"steps": other}


MODELS = {"gpu:0": "Tesla T4", "gpu:1": "NVIDIA H100", "gpu:2": "NVIDIA H100", "gpu:3": "Tesla T4"}


@pytest.mark.parametrize(
    ("device", "devices", "first"),
    [
        ("gpu:3", ["cpu:0", *MODELS], "gpu:0"),
        ("gpu:2", ["cpu:0", *MODELS], "gpu:1"),
        ("gpu:2", ["gpu:1", "gpu:2"], "gpu:1"),
        ("gpu:2", ["gpu:0", "gpu:2"], "gpu:2"),
        ("gpu:1", ["cpu:0", *MODELS], "gpu:1"),
        ("cpu:0", ["cpu:0", *MODELS], "cpu:0"),
    ],
)
def test_reference_gpu(device, devices, first):
    """A GPU is compared with the first checked one of its own model, whichever are checked; else with itself."""
    assert reference_gpu(device, devices, MODELS) == first


def test_run_that_failed_is_the_failure():
    """A run that crashed fails with its own message, under the name of the comparison."""
    found = agreement("processes", FIRST, BROKEN, "another process")
    assert (found.check, found.status, found.message, found.kind) == ("processes", "FAIL", "it hangs", "crash")


def test_no_first_run_is_no_second_failure():
    """Without a first run nothing can be compared: inconclusive, and the cause is named."""
    found = agreement("processes", BROKEN, digest(*STEPS), "another process")
    assert (found.status, found.device, found.precision) == ("INCONCLUSIVE", "gpu:1", "tf32")
    assert found.message == "caused by failed check 'replay': there are no digests of the first run to compare with"
    assert (found.evidence, found.fix) == ("it hangs", "fix that check first")


@pytest.mark.parametrize(
    ("runs", "status", "message"),
    [
        pytest.param([DIGESTS, DIGESTS, DIGESTS], "PASS", "3 runs of 2 steps", id="runs=same"),
        pytest.param([DIGESTS, OTHER, DIGESTS], "FAIL", "replay 2 differs from the first run in the weight head",
                     id="runs=second"),
        pytest.param([DIGESTS, DIGESTS, OTHER], "FAIL", "replay 3 differs from the first run in the weight head",
                     id="runs=last"),
    ],
)  # fmt: skip
def test_every_replay_is_compared(monkeypatch, runs, status, message):
    """As many runs as configured are made, and the first that differs is named."""

    class Runs:
        left = iter(runs)

        def run(self):
            return next(self.left)

    monkeypatch.setattr(repeatability, "new_replay", lambda _config: Runs())
    found = repeatability.replay(CheckConfig(steps=2, replays=3))
    assert (found.status, found.message.startswith(message)) == (status, True)


@pytest.mark.slow
@pytest.mark.usefixtures("narrow")
def test_this_processor_repeats_itself():
    """Here, replays agree, another replay of the same seed agrees with them, and one of another seed doesn't."""
    small = CheckConfig(side=67, steps=1, replays=2)
    first = repeatability.replay(small)
    assert (first.status, first.message) == ("PASS", "2 runs of 1 step")
    assert agreement("again", first, repeatability.digest(small), "once more").status == "PASS"
    other = repeatability.digest(CheckConfig(side=67, steps=1, seed=1))
    assert agreement("again", first, other, "another seed").status == "FAIL"


class Runs:
    """A runner whose replay on each device is as planned, and every other run has other bits."""

    here = Environment(settings={"TF_MATMUL_AUTOTUNE_ENABLE": "1"})

    def __init__(self):
        self.asked = []

    def result(self, device, check):
        assert str(check) == "replay tf32"
        return dataclasses.replace(FIRST, device=device)

    def digests(self, devices):
        self.asked.append(devices)
        return {device: {"tf32": dataclasses.replace(digest(STEPS[1], STEPS[1]), device=device)} for device in devices}


@pytest.mark.parametrize(
    ("test", "fixture", "asked", "run"),
    [
        ("test_processes", "once_more", [["gpu:0"], ["gpu:1"]], "another process"),
        ("test_busy", "all_at_once", [["gpu:0", "gpu:1"]], "the run with all GPUs busy"),
        ("test_gpu_bitwise_parity", "once_more", [["gpu:0"], ["gpu:1"]], "gpu:1, beside gpu:0,"),
    ],
    ids=lambda value: None if isinstance(value, str) else f"asked={len(value)}",
)
def test_other_runs_are_compared(test, fixture, asked, run):
    """Each test of repeatability asks for runs of its own, of one device or of all at once, and compares their bits.

    A setting by which bits may differ is named before the hardware.
    """
    runs, reported, devices = Runs(), [], ("gpu:0", "gpu:1")
    machine = SimpleNamespace(seen_gpus=dict.fromkeys(devices, "NVIDIA H100"))
    session = SimpleNamespace(devices=devices, machine=machine, report_findings=lambda *found: reported.append(found))
    others = getattr(benchmarks, fixture).__wrapped__(session, runs)
    getattr(benchmarks, test)("gpu:1", "tf32", runs, others, session)
    assert runs.asked == asked
    ((group, found),) = reported
    assert (group, found.check, found.status) == ("repeatable", test.removeprefix("test_"), "FAIL")
    assert found.message == f"{run} differs from the first run in the loss at step 1"
    assert found.evidence == "with TF_MATMUL_AUTOTUNE_ENABLE=1"
    assert found.fix.startswith("run it without TF_MATMUL_AUTOTUNE_ENABLE; then: run it again: ")
