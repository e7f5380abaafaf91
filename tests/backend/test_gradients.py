"""Pullbacks of layers: of one program where it is compiled as in training; on JAX of two in any case."""

import logging

import keras
import numpy as np
import pytest
from keras import ops

from alexnet_repro.backend.gradients import with_pullback


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="KERAS_BACKEND isn't jax")
@pytest.mark.parametrize(("compiled", "programs"), [(False, 2), (True, 1)])
def test_a_layer_is_compiled_whole_on_jax(caplog, compiled, programs):
    """A layer's forward pass is one compilation and its pullback another, or both are one."""
    import jax

    layer, x, dy = one_layer()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        found = both_ways(layer, x, dy, compiled)
    done = [each for each in caplog.records if "Finished XLA compilation" in each.message]
    assert sum("zeros" not in each.message and "broadcast" not in each.message for each in done) == programs
    check(found)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="KERAS_BACKEND isn't jax")
def test_a_layer_is_compiled_though_jit_is_off(caplog):
    """What is to be compiled is one program where JAX_DISABLE_JIT has each operation run by itself, too."""
    import jax

    layer, x, dy = one_layer()
    with jax.disable_jit(), jax.log_compiles(), caplog.at_level(logging.WARNING):
        found = both_ways(layer, x, dy, True)
    assert sum("XLA compilation of jit(both)" in each.message for each in caplog.records) == 1
    check(found)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="KERAS_BACKEND isn't tensorflow")
def test_a_layer_is_one_program_on_tensorflow(monkeypatch):
    """A layer's forward pass and pullback are one function, which XLA compiles."""
    import tensorflow as tf

    made, function = [], tf.function
    monkeypatch.setattr(tf, "function", lambda *given, **how: made.append(function(*given, **how)) or made[-1])
    check(both_ways(*one_layer(), True))
    (program,) = [each for each in made if each._jit_compile]
    assert program.experimental_get_tracing_count() == 1


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="KERAS_BACKEND isn't torch")
def test_nothing_is_compiled_on_pytorch():
    """Keras trains there without a compiler by default: a layer's own pullback is what trains."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    assert not model.jit_compile
    check(both_ways(*one_layer(), False))


def one_layer():
    """Return a layer of ones with what goes into it, forward and back."""
    layer = keras.layers.Dense(3, "relu", kernel_initializer="ones")
    layer.build((2, 4))
    return layer, ops.ones((2, 4)), ops.ones((2, 3))


def both_ways(layer, x, dy, compiled):
    """Return its output and gradients: by input, kernel and bias."""
    y, pullback = with_pullback(layer, x, compiled=compiled)
    dx, (by_kernel, by_bias) = pullback(dy)
    return y, dx, by_kernel, by_bias


def check(found):
    """Compare them with what they should be."""
    for array, right in zip(found, (4, 3, 2, 2), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(array), np.full(array.shape, right, np.float32))
