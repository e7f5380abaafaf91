"""Asynchronous predictions: Keras's compiled function, without waiting for what it returns."""

from collections.abc import Callable
from typing import Any

import keras


def predictor(model: keras.Model) -> Callable[[Any], Any]:
    """Return `model.predict_on_batch`, on TensorFlow without its conversion to NumPy, which waits for the device."""
    if keras.backend.backend() != "tensorflow":
        return model.predict_on_batch  # type: ignore[no-any-return]  # Keras isn't typed
    model.make_predict_function()
    return lambda images: model.predict_function([(images,)])
