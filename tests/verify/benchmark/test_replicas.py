"""Measurements of several devices, real ones on parts of this machine's CPU; a wrong sum is noticed."""

import keras
import numpy as np
import pytest

from alexnet_repro.verify.benchmark import replicas
from alexnet_repro.verify.benchmark.replicas import Request, answers_to
from alexnet_repro.verify.doctor.device_probe import NO_GPU

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="KERAS_BACKEND isn't tensorflow")


@pytest.mark.slow
def test_steps_of_two_devices():
    """Two parts of this CPU, a small model: as many rounds of each alone as together, all right, none instantly."""
    (answer,) = answers_to(Request("steps", ("cpu:0", "cpu:1"), 2, images=2, side=67, seconds=0.1), 120, NO_GPU)
    assert answer["fault"] is None
    assert sorted(answer["alone"]) == ["cpu:0", "cpu:1"]
    every = [answer["together"], *answer["alone"].values()]
    assert {len(each) for each in every} == {5}
    assert all(0.001 < seconds < 60 for each in every for seconds in each)


@pytest.mark.slow
def test_all_reduces_of_two_devices():
    """Their gradients and four sizes are summed up right; 86 MB in 16 tensors, slower than 4 kB."""
    found = list(answers_to(Request("all-reduce", ("cpu:0", "cpu:1"), 2, side=67), 120, NO_GPU))
    assert [(each["bytes"], each["tensors"]) for each in found] == [
        (4096, 1),
        (65_536, 1),
        (1_048_576, 1),
        (16_777_216, 1),
        (86_395_688, 16),
    ]
    assert {(each["devices"], each["fault"], len(each["seconds"])) for each in found} == {(2, None, 5)}
    assert min(found[-1]["seconds"]) > min(found[0]["seconds"]) > 0


@pytest.mark.slow
def test_copies_of_two_devices():
    """Each part of this CPU has both its rates, far from nothing and from what no memory reaches."""
    (answer,) = answers_to(Request("copies", ("cpu:0", "cpu:1"), 2), 120, NO_GPU)
    assert (list(answer["rates"]), answer["fault"]) == (["cpu:0", "cpu:1"], None)
    assert all(1e7 < rate < 1e13 for both in answer["rates"].values() for rate in both)


@pytest.mark.slow
def test_device_that_isnt_there_is_a_finding():
    """A child that fails says so: one finding, no exception."""
    (found,) = answers_to(Request("steps", ("cpu:0", "cpu:7"), 2, images=2, side=67), 120, NO_GPU)
    assert (found.check, found.status, found.kind) == ("steps", "FAIL", "crash")
    assert "cpu:7" in found.evidence.lower()


@pytest.mark.parametrize(
    ("added", "fault"), [(0.0, None), (1.0, "the sum of 1 to 1 came out as 2.0"), (np.nan, "came out as nan")]
)
def test_wrong_sum_is_noticed(monkeypatch, added, fault):
    """An all-reduce that adds up wrong has its sum named; one device's sum is its own value."""
    import tensorflow as tf

    right = tf.distribute.ReplicaContext.all_reduce
    wrong = lambda *given: [each + added for each in right(*given)]  # noqa: E731
    monkeypatch.setattr(tf.distribute.ReplicaContext, "all_reduce", wrong)
    found = replicas._time_all_reduce(tf.distribute.OneDeviceStrategy("cpu:0"), [(4,), (2, 3)])
    assert (found["bytes"], found["tensors"], len(found["seconds"])) == (40, 2, 5)
    assert found["fault"] is None if fault is None else fault in found["fault"]
