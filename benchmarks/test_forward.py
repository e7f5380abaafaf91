"""How fast the documented model answers: compiled inference on images that are on the device already."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from alexnet_repro import DataLoader, build_alexnet
from alexnet_repro.documented import FORWARD_FLOP
from alexnet_repro.hardware.devices import on_device
from alexnet_repro.hardware.precision import precision as numerics

BATCHES = {"cpu": (1, 32, 128), "gpu": (1, 32, 128, 256, 512)}


def test_forward(device: str, batch: int, precision: str, loader: DataLoader, measure: Callable[..., Any]) -> None:
    """From float images (batch, 224, 224, 1) to finite sigmoid outputs (batch, 10)."""
    with on_device(device), numerics(precision):
        keras.utils.set_random_seed(0)
        model = build_alexnet()
        images = ops.convert_to_tensor(loader.get_batch_train(batch)[0])
        outputs = measure(lambda: model.predict_on_batch(images), images=batch, flop=batch * FORWARD_FLOP)
    assert outputs.shape == (batch, 10)
    assert np.isfinite(outputs).all()
