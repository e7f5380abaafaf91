"""The model's dense layers in products that TensorFlow computes fast on a CPU, with the same results but for rounding.

The layers stay Keras's own: saved models load without this package.
"""

import functools
from typing import Any

import keras


def kernel_first(layer: keras.layers.Dense) -> keras.layers.Dense:
    """Have a float32 dense layer on TensorFlow without a GPU compute its input's gradient from its kernel's rows.

    TensorFlow's own product, of the output's gradient and the transposed kernel, takes three to four times as long at a
    batch of 32 (two cores of an AMD EPYC: 47 ms in the first hidden layer, and so 12). In bfloat16 it is the
    faster one. Shapes and dtypes are the layer's own, which is returned.
    """
    if keras.backend.backend() == "tensorflow" and layer.compute_dtype == "float32":
        import tensorflow as tf

        if not tf.config.get_visible_devices("GPU"):
            layer.call = functools.partial(_dense, layer)
    return layer


def _dense(layer: keras.layers.Dense, inputs: Any, training: bool | None = None) -> Any:  # noqa: ARG001 as Keras calls it
    """Return `(n, units)` from inputs `(n, k)`."""
    import tensorflow as tf

    def product(x: Any, kernel: Any) -> Any:
        def gradient(dy: Any) -> Any:
            return tf.transpose(tf.matmul(kernel, dy, transpose_b=True)), tf.matmul(x, dy, transpose_a=True)

        return tf.matmul(x, kernel), gradient

    kernel = tf.convert_to_tensor(layer.kernel)
    return layer.activation(tf.add(tf.custom_gradient(product)(inputs, kernel), layer.bias))
