"""Weights in TensorFlow's own format, a checkpoint of several files, as `save_weights` and `save` wrote by default."""

import functools
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import keras

from alexnet_repro.training.weights_file import Layers, Refused, StoredArray

VARIABLE = re.compile(r"(?P<layer>(?:\w+/)?layer_with_weights-\d+)/(?P<variable>\w+)/\.ATTRIBUTES/VARIABLE_VALUE")


def stored_layers(prefix: Path) -> Layers:
    """Return the arrays of each layer in a checkpoint, in the model's order; what a SavedModel computes isn't read.

    Raises:
        Refused: Keras has another backend than TensorFlow, or no Keras model is in it.
        ValueError, OSError: it is corrupt.
    """
    if keras.backend.backend() != "tensorflow":
        raise Refused("it is a TensorFlow checkpoint, which TensorFlow alone reads: export KERAS_BACKEND=tensorflow")
    import tensorflow as tf

    for part in prefix.parent.glob(f"{prefix.name}.*"):
        if not part.is_file():  # a pipe would be waited for
            raise Refused(f"{part.name} isn't a regular file")

    def read(call: Any, *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except (tf.errors.OpError, LookupError) as error:
            raise ValueError(str(error)) from error

    reader = read(tf.train.load_checkpoint, str(prefix))
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    found: dict[str, dict[str, StoredArray]] = defaultdict(dict)
    for name, shape in shapes.items():
        if match := VARIABLE.fullmatch(name):
            tensor = functools.partial(read, reader.get_tensor, name)
            found[match["layer"]][match["variable"]] = StoredArray(tuple(shape), dtypes[name].name, tensor)
    if not found:
        raise Refused(f"it is a TensorFlow checkpoint, but of no Keras model's layers: it has {sorted(shapes)[:3]}")
    in_order = sorted(found, key=lambda name: int(name.rpartition("-")[2]))
    # The kernel before the bias, as Keras counts them.
    return {layer: [array for _, array in sorted(found[layer].items(), reverse=True)] for layer in in_order}
