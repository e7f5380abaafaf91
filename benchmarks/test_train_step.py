"""How fast the documented model learns: one compiled update, on a batch that is on the device already."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from alexnet_repro import DataLoader, Recipe, build_alexnet, keras_step
from alexnet_repro.documented import TRAIN_STEP_FLOP
from alexnet_repro.hardware.devices import on_device
from alexnet_repro.hardware.precision import precision as numerics

BATCHES = {"cpu": (32, 128), "gpu": (32, 128, 256, 512)}


def test_train_step(device: str, batch: int, precision: str, loader: DataLoader, measure: Callable[..., Any]) -> None:
    """An update by the documented rule: the loss stays finite, and every weight array changes."""
    recipe = dataclasses.replace(Recipe.documented(), draw_size=batch, batch_size=batch)
    with on_device(device), numerics(precision):
        keras.utils.set_random_seed(0)
        model = build_alexnet(kernel_initializer=recipe.kernel_initializer)
        before = model.get_weights()
        step = keras_step(model, recipe)
        images, labels = map(ops.convert_to_tensor, loader.draw_train(batch))
        loss, _ = measure(lambda: step(images, labels), images=batch, flop=batch * TRAIN_STEP_FLOP)
        after = model.get_weights()
    assert math.isfinite(loss)
    names = [weight.path for weight in model.weights]
    assert [name for name, old, new in zip(names, before, after, strict=True) if np.array_equal(old, new)] == []
