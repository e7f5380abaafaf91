"""The devices that the backend can use, their names, predictions on them, and waiting for them."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

from alexnet_repro.backend.devices import (
    device_of,
    gpu_names,
    on_device,
    predictor,
    split_cpu,
    synchronize,
    thread_counts,
    usable_devices,
)


def test_usable_devices_are_named_as_keras_names_them() -> None:
    """The CPU first, then each GPU by its number, and a product name for each GPU."""
    cpu, *gpus = usable_devices()
    assert cpu == "cpu:0"
    assert gpus == [f"gpu:{i}" for i in range(len(gpus))]
    assert len(gpu_names()) == len(gpus)


def test_waiting_for_the_devices_passes_nothing_on() -> None:
    """`synchronize` can stand before and after any work, with or without results."""
    assert synchronize() is None
    assert synchronize(keras.ops.ones(3)) is None


def test_tensors_and_variables_lie_on_the_processor():
    """What this processor computed lies on it, an array or a weight."""
    with on_device("cpu:0"):
        assert device_of(ops.ones(3)) == "cpu:0"
        assert device_of(keras.Variable(np.ones(3)).value) == "cpu:0"


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX raises errors of its own")
def test_a_device_that_is_not_there():
    """TensorFlow's processor doesn't stand in for a GPU that isn't there; on PyTorch the first tensor fails."""
    with pytest.raises((ValueError, AssertionError, RuntimeError)), on_device("gpu:7"):
        ops.ones(3)


PLACES = {
    "tensorflow": SimpleNamespace(backing_device="/job:localhost/replica:0/task:0/device:GPU:1"),
    "jax": SimpleNamespace(devices=lambda: [SimpleNamespace(platform="gpu", id=1)]),
    "torch": SimpleNamespace(device=SimpleNamespace(type="cuda", index=1)),
}


@pytest.mark.parametrize("backend", PLACES)
def test_tensors_lie_on_a_gpu(monkeypatch, backend):
    """Each backend's own name of a GPU is read."""
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    assert device_of(PLACES[backend]) == "gpu:1"


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="KERAS_BACKEND isn't tensorflow")
def test_parts_of_the_processor_are_beside_no_gpu(monkeypatch):
    """Where the CPU is split for TensorFlow, no GPU is seen: what asks for one would take the parts for it."""
    import tensorflow as tf

    done = []
    for name in ("set_visible_devices", "set_logical_device_configuration"):
        monkeypatch.setattr(tf.config, name, lambda *arguments: done.append(arguments))
    split_cpu(2)
    assert done[0] == ([], "GPU")
    assert len(done[1][1]) == 2


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="KERAS_BACKEND isn't tensorflow")
def test_waits_of_tensorflow(monkeypatch):
    """Each device of the values is waited for, on that device; without values, every device."""
    import tensorflow as tf

    waits = []
    monkeypatch.setattr(tf.raw_ops, "SyncDevice", lambda: waits.append(tf.constant(0).device.rpartition("/")[2]))
    monkeypatch.setattr(tf.test.experimental, "sync_devices", lambda: waits.append("every device"))
    synchronize()
    with tf.device("CPU:0"):
        values = {"a": tf.ones(3), "b": [tf.zeros(2), 1.5]}
    synchronize(values)
    assert waits == ["every device", "device:CPU:0"]


def test_predictions_are_those_of_predict_on_batch():
    """The same outputs; where the backend allows it, they aren't copied to the host."""
    images = np.arange(24, dtype=np.float32).reshape(4, 6) / 24
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, kernel_initializer="ones")])
    model.compile(optimizer=None, jit_compile=False)
    found = predictor(model)(ops.convert_to_tensor(images))
    np.testing.assert_array_equal(ops.convert_to_numpy(found), model.predict_on_batch(images))
    assert ops.is_tensor(found) == (keras.backend.backend() == "tensorflow")


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="KERAS_BACKEND isn't tensorflow")
@pytest.mark.parametrize(
    ("variable", "set_by_program", "expected"),
    [
        (None, 0, 0),
        ("3", 0, 3),
        ("1", 3, 3),
        (" 3 ", 0, 3),
        ("+3", 0, 3),
        ("99999999999", 0, 0),
        ("0", 0, 0),
        ("two", 0, 0),
        ("3.0", 0, 0),
        ("6", 0, 0),
        ("3", 6, 0),
    ],
)
@pytest.mark.parametrize("pool", ["intra_op", "inter_op"])
def test_threads_are_those_that_tensorflow_ends_up_with(monkeypatch, pool, variable, set_by_program, expected):
    """What the program set, else the variable; a thread for each of six processors is TensorFlow's default, 0."""
    from tensorflow.python.eager.context import context

    for name in ("intra_op", "inter_op"):
        monkeypatch.delenv(f"TF_NUM_{name.upper().replace('_', '')}_THREADS", raising=False)
        monkeypatch.setattr(context(), f"_{name}_parallelism_threads", None)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(6), raising=False)
    if variable is not None:
        monkeypatch.setenv(f"TF_NUM_{pool.upper().replace('_', '')}_THREADS", variable)
    monkeypatch.setattr(context(), f"_{pool}_parallelism_threads", set_by_program)
    assert thread_counts() == {"processors": 6, "intra_op": 0, "inter_op": 0} | {pool: expected}
