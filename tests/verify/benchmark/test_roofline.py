"""The bottleneck of a case follows from its work and the device's own rates."""

import pytest

from alexnet_repro.verify.benchmark.roofline import ACTIVATIONS, Work, bottleneck, forward, train_step
from alexnet_repro.verify.benchmark.timing import Calibration

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
