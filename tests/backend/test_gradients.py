"""Pullbacks of layers: on JAX each is two compiled functions, as in training, not a kernel an operation."""

import logging

import keras
import numpy as np
import pytest
from keras import ops

from alexnet_repro.backend.gradients import with_pullback


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="KERAS_BACKEND isn't jax")
def test_a_layer_is_compiled_whole_on_jax(caplog):
    """A layer's forward pass is one compilation, and its pullback another."""
    import jax

    layer = keras.layers.Dense(3, "relu", kernel_initializer="ones")
    layer.build((2, 4))
    x, dy = ops.ones((2, 4)), ops.ones((2, 3))
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        y, pullback = with_pullback(layer, x)
        dx, (by_kernel, by_bias) = pullback(dy)
    assert sum("Finished XLA compilation" in each.message for each in caplog.records) == 2
    for found, right in ((y, 4), (dx, 3), (by_kernel, 2), (by_bias, 2)):
        np.testing.assert_array_equal(found, np.full(found.shape, right, np.float32))
