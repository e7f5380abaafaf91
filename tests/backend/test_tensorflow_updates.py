"""Updates by TensorFlow's kernels: the bits of Keras's own, on a CPU."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("KERAS_BACKEND isn't tensorflow", allow_module_level=True)

import tensorflow as tf

from alexnet_repro.backend.tensorflow_updates import fuse_updates

ADAM = {"beta_1": 0.875, "beta_2": 0.984375}  # 1 - 1/8, 1 - 1/64


def decaying():
    """Return a learning rate that differs at each update."""
    return keras.optimizers.schedules.CosineDecay(0.0, 20, warmup_target=0.01, warmup_steps=3)


def updated(optimizer, fuse):
    """Return a weight array, and the optimizer's state, after twelve updates in a graph, and the graph's operations."""
    random = np.random.default_rng(0)
    weights = keras.Variable(random.normal(size=(37, 113)).astype(np.float32))
    gradients = tf.constant(random.normal(size=(12, 37, 113)).astype(np.float32) ** 3)
    optimizer.build([weights])
    if fuse:
        fuse_updates(optimizer)
    apply = tf.function(lambda gradient: optimizer.apply([gradient], [weights]), autograph=False)
    for gradient in gradients:
        apply(gradient)
    kinds = {each.type for each in apply.get_concrete_function(gradients[0]).graph.get_operations()}
    return [np.asarray(each) for each in (weights, *optimizer.variables)], kinds


@pytest.mark.parametrize(
    ("kind", "options", "kernel"),
    [
        ("SGD", {}, "ResourceApplyGradientDescent"),
        ("SGD", {"global_clipnorm": 1.0}, "ResourceApplyGradientDescent"),
        ("Adam", ADAM, "ResourceApplyAdam"),
        ("Adam", {**ADAM, "weight_decay": 0.01}, "ResourceApplyAdam"),
    ],
)
def test_same_bits(kind, options, kernel):
    """Weights and the optimizer's state are those of Keras's operations, bit for bit; the kernel made them."""
    optimizer = getattr(keras.optimizers, kind)
    expected, apart = updated(optimizer(decaying(), **options), fuse=False)
    found, kinds = updated(optimizer(decaying(), **options), fuse=True)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert kernel in kinds
    assert kernel not in apart


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.SGD(momentum=0.9),
        keras.optimizers.Adam(),  # 1 - 0.9 in float32 isn't 0.1 in float32
        keras.optimizers.Adam(beta_1=0.875),  # beta_2 is 0.999
        keras.optimizers.Adam(**ADAM, amsgrad=True),
        keras.optimizers.Nadam(**ADAM),
    ],
    ids=["sgd=momentum", "adam=defaults", "adam=one-beta", "adam=amsgrad", "nadam=exact"],
)
def test_other_bits(optimizer):
    """An optimizer whose bits the kernels don't have stays as Keras made it."""
    before = optimizer.update_step
    assert not fuse_updates(optimizer)
    assert optimizer.update_step == before
