"""Predictions and updates that aren't read are those of Keras's own `predict_on_batch` and `train_on_batch`."""

import keras
import numpy as np
import pytest
from keras import ops

from alexnet_repro.backend.dispatch import predictor, updater

IMAGES = np.arange(24, dtype=np.float32).reshape(4, 6) / 24
LABELS = np.array([0, 1, 2, 1])
UNREAD = keras.backend.backend() == "tensorflow"


@pytest.fixture
def network():
    """A function that builds and compiles the same small network each time."""

    def build():
        layers = [keras.Input((6,)), keras.layers.Dense(3, kernel_initializer="ones")]
        network = keras.Sequential(layers)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        network.compile("sgd", loss, metrics=["accuracy"], jit_compile=False)
        return network

    return build


def test_updates_are_those_of_train_on_batch(network):
    """Three updates give the same losses and weights; where the backend allows it, losses aren't read."""
    one, other = network(), network()
    update = updater(one)
    losses = [update(ops.convert_to_tensor(IMAGES), ops.convert_to_tensor(LABELS)) for _ in range(3)]
    right = [other.train_on_batch(IMAGES, LABELS)[0] for _ in range(3)]
    assert [float(loss) for loss in losses] == [float(loss) for loss in right]
    assert right[0] > right[1] > right[2]
    for found, expected in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected, strict=True)
    assert ops.is_tensor(losses[-1]) == UNREAD


def test_predictions_are_those_of_predict_on_batch(network):
    """The same outputs; where the backend allows it, they aren't read."""
    one = network()
    found = predictor(one)(ops.convert_to_tensor(IMAGES))
    np.testing.assert_array_equal(ops.convert_to_numpy(found), one.predict_on_batch(IMAGES))
    assert ops.is_tensor(found) == UNREAD
