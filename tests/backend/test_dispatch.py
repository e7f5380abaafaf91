"""Predictions that aren't read back are those of Keras's own `predict_on_batch`."""

import keras
import numpy as np
from keras import ops

from alexnet_repro.backend.dispatch import predictor

IMAGES = np.arange(24, dtype=np.float32).reshape(4, 6) / 24


def test_predictions_are_those_of_predict_on_batch():
    """The same outputs; where the backend allows it, they aren't read back."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, kernel_initializer="ones")])
    model.compile(optimizer=None, jit_compile=False)
    found = predictor(model)(ops.convert_to_tensor(IMAGES))
    np.testing.assert_array_equal(ops.convert_to_numpy(found), model.predict_on_batch(IMAGES))
    assert ops.is_tensor(found) == (keras.backend.backend() == "tensorflow")
