"""The bottleneck of a case follows from its work and the device's own rates."""

from dataclasses import replace

import pytest

from alexnet_repro.verify.benchmark.roofline import ACTIVATIONS, Work, bottleneck, forward, train_step
from alexnet_repro.verify.benchmark.timing import Calibration, Timing, peak_fraction

RATES = Calibration("gpu:0", {"float32": 1e12}, memory=1e11, call_overhead=1e-4, kernel_launch=5e-6)


def test_activations():
    """A 224x224 image and the documented outputs, counted by hand."""
    assert (
        ACTIVATIONS == 50_176 + 279_936 + 64_896 + 173_056 + 36_864 + 2 * 55_296 + 36_864 + 2 * 6_400 + 4 * 4_096 + 10
    )


@pytest.mark.parametrize(
    ("work", "flop", "least", "most"),
    [
        pytest.param(forward(1, "float32"), 1_876_292_352, 187e6, 200e6, id="work=forward"),
        pytest.param(forward(128, "mixed_bfloat16"), 128 * 1_876_292_352, 450e6, 520e6, id="work=forward-128"),
        pytest.param(train_step(128, "float32"), 128 * 5_561_132_544, 3.0e9, 3.3e9, id="work=train-128"),
    ],
)
def test_work(work, flop, least, most):
    """Operations as documented; bytes: 187 MB of weights as often as they are touched, and the activations."""
    assert work.flop == flop
    assert least < work.bytes < most


@pytest.mark.parametrize(
    ("work", "seconds", "name"),
    [
        pytest.param(Work(10**12, 10**9, 20), 1.2, "compute", id="bottleneck=compute"),
        pytest.param(Work(10**10, 10**10, 20), 0.15, "memory", id="bottleneck=memory"),
        pytest.param(Work(10**8, 10**6, 100), 0.0012, "launch", id="bottleneck=launch"),
        pytest.param(Work(10**8, 10**6, 100), 0.0013, "other", id="bottleneck=other than launch"),
        pytest.param(Work(10**12, 10**9, 20), 2.1, "other", id="bottleneck=other"),
    ],
)
def test_bottleneck(work, seconds, name):
    """The part that takes longest at calibrated rates, where it explains half of it; a call counts as launches do."""
    assert bottleneck(work, seconds, "float32", RATES) == name


# An H100's rates, and its train steps of 512 images: docs/gpu.md.
H100 = Calibration("gpu:0", {"mixed_bfloat16": 717e12}, memory=2.57e12, call_overhead=81e-6, kernel_launch=10e-6)


@pytest.mark.parametrize(
    ("kernel_launch", "name"), [(10e-6, "compute"), (81e-6, "launch")], ids=["launch=a kernel", "launch=a call"]
)
def test_bottleneck_of_an_h100(kernel_launch, name):
    """A step of 512 images in bfloat16 is limited by compute, not by launches, which are a kernel's, not a call's."""
    rates = replace(H100, kernel_launch=kernel_launch)
    assert bottleneck(train_step(512, "mixed_bfloat16"), 7.23e-3, "mixed_bfloat16", rates) == name


def test_share_of_an_h100():
    """Arithmetic and memory explain 0.83 of that step's time; of arithmetic alone it is 0.55."""
    work = train_step(512, "mixed_bfloat16")
    timed = Timing("train_step", "gpu:0", "mixed_bfloat16", (7.23e-3,), flop=work.flop, bytes=work.bytes)
    found = peak_fraction(timed, 717e12, 2.57e12)
    assert (found.status, round(found.number, 2)) == ("PASS", 0.83)
    assert "an MFU of 55%" in found.evidence
