"""Keras's compiled predictions and updates, without reading what they return, where the backend allows it.

`predict_on_batch` and `train_on_batch` convert what they return, and so wait for the device. On TensorFlow the compiled
functions that they call can be called themselves; on JAX and PyTorch it is these two all the same.
"""

from collections.abc import Callable
from typing import Any

import keras


def predictor(model: keras.Model) -> Callable[[Any], Any]:
    """Return `model.predict_on_batch`, on TensorFlow without its conversion to NumPy."""
    if keras.backend.backend() != "tensorflow":
        return model.predict_on_batch  # type: ignore[no-any-return]  # Keras isn't typed
    model.make_predict_function()
    return lambda images: model.predict_function([(images,)])


def updater(network: keras.Model) -> Callable[[Any, Any], Any]:
    """Return `network.train_on_batch` of images and labels, of which it returns the loss; on TensorFlow as a tensor.

    It is the same compiled function, `network.train_function`, whichever of the two is called.
    """

    def update(images: Any, labels: Any) -> Any:
        if keras.backend.backend() != "tensorflow" or network.train_function is None:  # the first call builds it
            return network.train_on_batch(images, labels)[0]
        network.reset_metrics()
        return network.train_function([(images, labels, None)])["loss"]

    return update
