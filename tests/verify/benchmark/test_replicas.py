"""Real measurements of several devices, on parts of this machine's CPU."""

import keras
import pytest

from alexnet_repro.verify.benchmark.replicas import Request, answers_to
from alexnet_repro.verify.benchmark.scaling_run import CPU_ONLY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="KERAS_BACKEND isn't tensorflow"),
]


def test_steps_of_two_devices():
    """Two parts of this CPU, a small model: as many rounds of each alone as together, all right, none instantly."""
    (answer,) = answers_to(Request("steps", ("cpu:0", "cpu:1"), 2, images=2, side=67, seconds=0.1), 120, CPU_ONLY)
    assert answer["fault"] is None
    assert sorted(answer["alone"]) == ["cpu:0", "cpu:1"]
    every = [answer["together"], *answer["alone"].values()]
    assert {len(each) for each in every} == {5}
    assert all(0.001 < seconds < 60 for each in every for seconds in each)


def test_all_reduces_of_two_devices():
    """Their gradients and four sizes are summed up right; 86 MB in 16 tensors, slower than 4 kB."""
    found = list(answers_to(Request("all-reduce", ("cpu:0", "cpu:1"), 2, side=67), 120, CPU_ONLY))
    assert [(each["bytes"], each["tensors"]) for each in found] == [
        (4096, 1),
        (65_536, 1),
        (1_048_576, 1),
        (16_777_216, 1),
        (86_395_688, 16),
    ]
    assert {(each["devices"], each["fault"], len(each["seconds"])) for each in found} == {(2, None, 5)}
    assert min(found[-1]["seconds"]) > min(found[0]["seconds"]) > 0


def test_device_that_isnt_there_is_a_finding():
    """A child that fails says so: one finding, no exception."""
    (found,) = answers_to(Request("steps", ("cpu:0", "cpu:7"), 2, images=2, side=67), 120, CPU_ONLY)
    assert (found.check, found.status, found.kind) == ("steps", "FAIL", "crash")
    assert "cpu:7" in found.evidence.lower()
