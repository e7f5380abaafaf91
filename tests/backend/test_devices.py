"""The devices that the backend can use, their names, and waiting for them."""

import keras

from alexnet_repro.backend.devices import gpu_names, synchronize, usable_devices


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
