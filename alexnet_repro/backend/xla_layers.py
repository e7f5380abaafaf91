"""The model's layers in operations that XLA compiles well, with the same results.

XLA runs a strided convolution of few channels in a library's slowest kernels, keeps what goes into a ReLU for its
gradient, searches the windows of max pooling a second time, and draws other dropout masks. The layers stay Keras's own:
saved models load without this package.
"""

import functools
import itertools
import math
from typing import Any

import keras
import numpy as np
from keras import ops


def strides_as_channels(layer: keras.layers.Conv2D) -> keras.layers.Conv2D:
    """Have a convolution, channels last and without padding, move its strides into channels; return it.

    Each block of input pixels becomes one place: an 11x11 convolution with stride 4 of one channel is a 3x3
    convolution with stride 1 of sixteen. Its sums are the same, with zeros in the kernel's twelfth row and column.
    """
    if (layer.padding, layer.data_format, layer.groups) == ("valid", "channels_last", 1):
        layer.convolution_op = functools.partial(_convolution, layer)
    return layer


def relu_by_result(layer: keras.layers.Conv2D) -> keras.layers.Conv2D:
    """Have a convolution, channels last and with ReLU, mask its gradient by what ReLU returned; return it.

    As nothing needs what went into ReLU, cuDNN convolves, adds the bias and rectifies in one kernel. Shapes, dtypes and
    values, of NaN too, are the layer's own; on PyTorch, which has no XLA, the layer stays as it is.
    """
    own = keras.activations.relu, True, "channels_last"
    if (layer.activation, layer.use_bias, layer.data_format) == own and keras.backend.backend() != "torch":
        layer.call = functools.partial(_rectified_convolution, layer)
    return layer


def kept_winners(layer: keras.layers.MaxPooling2D) -> keras.layers.MaxPooling2D:
    """Have 3x3 max pooling with stride 2, channels last and without padding, keep which places win; return it.

    For the gradient, each place asks the at most four windows that it is in. Of equal places the first wins, row by
    row, as in Keras's; NaN is larger than all else. Shapes and dtypes are its own; on PyTorch it stays as it is.
    """
    ours = (3, 3), (2, 2), "valid", "channels_last"
    own = layer.pool_size, layer.strides, layer.padding, layer.data_format
    if own == ours and keras.backend.backend() != "torch":
        layer.call = functools.partial(_max_pooling, layer)
    return layer


def same_masks(layer: keras.layers.Dropout) -> keras.layers.Dropout:
    """Have dropout on TensorFlow drop the same units whether XLA compiles it or not; return it.

    XLA makes other fractions of the same random bits: of the highest, where TensorFlow's own kernels take the lowest.
    """
    if keras.backend.backend() == "tensorflow":
        layer.call = functools.partial(_dropout, layer)
    return layer


def _convolution(layer: keras.layers.Conv2D, inputs: Any, kernel: Any) -> Any:
    """Return `(n, rows, columns, filters)` from inputs `(n, height, width, c)`."""
    inputs, kernel = ops.convert_to_tensor(inputs), ops.convert_to_tensor(kernel)
    taps = [-(-size // stride) for size, stride in zip(layer.kernel_size, layer.strides, strict=True)]
    outputs = layer.compute_output_shape(inputs.shape)[1:3]
    places = [output - 1 + tap for output, tap in zip(outputs, taps, strict=True)]
    channels, filters = kernel.shape[2:]

    rows, columns = layer.strides
    kernel = _resized(kernel, 0, [taps[0] * rows, taps[1] * columns])
    kernel = ops.reshape(kernel, (taps[0], rows, taps[1], columns, channels, filters))
    kernel = ops.reshape(ops.transpose(kernel, (0, 2, 1, 3, 4, 5)), (*taps, rows * columns * channels, filters))

    inputs = _resized(inputs, 1, [places[0] * rows, places[1] * columns])
    inputs = ops.reshape(inputs, (-1, places[0], rows, places[1], columns, channels))
    inputs = ops.reshape(ops.transpose(inputs, (0, 1, 3, 2, 4, 5)), (-1, *places, rows * columns * channels))
    return ops.conv(inputs, kernel, padding="valid", data_format="channels_last")


def _rectified_convolution(layer: keras.layers.Conv2D, inputs: Any) -> Any:
    """Return `(n, rows, columns, filters)` from inputs `(n, height, width, c)`."""

    def relu(x: Any) -> Any:
        y = ops.relu(x)

        def gradient(dy: Any) -> Any:
            # Not `y > 0`: XLA makes `x > 0` of it, and keeps x. Of NaN it is zero, as Keras's.
            (dx,) = _apart(ops.where(ops.logical_or(y == 0, ops.isnan(y)), 0, dy))
            return dx  # apart from its sum, the bias's gradient, together with which it is read value by value

        return y, gradient

    return ops.custom_gradient(relu)(ops.add(layer.convolution_op(inputs, layer.kernel), layer.bias))


def _dropout(layer: keras.layers.Dropout, inputs: Any, training: bool = False) -> Any:
    import tensorflow as tf

    if not training or layer.rate == 0:
        return inputs
    seed = tf.cast(layer.seed_generator.next() % (tf.int32.max - 1), tf.int32)  # as Keras's
    shape, values = tf.shape(inputs), 2 ** {"float32": 23, "float16": 10, "bfloat16": 7}[inputs.dtype.name]
    bits = tf.random.stateless_uniform(shape, seed, minval=None, maxval=None, dtype=tf.int32, alg="philox")
    keep = tf.bitwise.bitwise_and(bits, values - 1) >= math.ceil(layer.rate * values)
    return tf.where(keep, inputs * tf.cast(1 / (1 - layer.rate), inputs.dtype), tf.zeros((), inputs.dtype))


def _max_pooling(layer: keras.layers.MaxPooling2D, inputs: Any) -> Any:
    """Return `(n, rows, columns, c)` from inputs `(n, height, width, c)`."""
    (height, width), (rows, columns) = inputs.shape[1:3], layer.compute_output_shape(inputs.shape)[1:3]

    def larger(first: Any, second: Any) -> Any:
        keep = ops.logical_or(first[0] >= second[0], ops.isnan(first[0]))
        return [ops.where(keep, *each) for each in zip(first, second, strict=True)]

    def pool(x: Any) -> Any:
        every = [
            (x[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2], ops.cast(4 * i + j, "uint8"))
            for i, j in itertools.product(range(3), repeat=2)
        ]
        y, winners = _apart(*functools.reduce(larger, every))  # or XLA finds the winners again for the gradient

        def gradient(dy: Any) -> Any:
            parts = []
            for (row, i), (column, j) in itertools.product(_windows(height, rows), _windows(width, columns)):
                winner, passed = (ops.take(ops.take(each, row, axis=1), column, axis=2) for each in (winners, dy))
                here = (4 * i[:, None, None] + j[:, None]).astype("uint8")
                parts.append(ops.where(winner == here, passed, 0))
            return sum(parts[1:], parts[0])

        return y, gradient

    return ops.custom_gradient(pool)(inputs)


def _windows(side: int, count: int) -> list[tuple[Any, Any]]:
    """Return the two windows that each place of a side may be in, and where it is there; 16 if there is none."""
    places = np.arange(side, dtype=np.int32)
    both = [(places // 2, places % 2), (places // 2 - 1, places % 2 + 2)]  # a window has no place 3
    return [(np.clip(each, 0, count - 1), np.where((each >= 0) & (each < count), at, 16)) for each, at in both]


def _apart(*tensors: Any) -> Any:
    """Return the tensors as XLA is to compute them: once, and not together with what takes them."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.lax.optimization_barrier(tensors)
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops
    from tensorflow.python.ops import control_flow_util

    if tf.executing_eagerly() or not control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        return tensors  # nothing else has the operation
    return gen_xla_ops.xla_optimization_barrier(list(tensors))


def _resized(tensor: Any, axis: int, sizes: list[int]) -> Any:
    """Return `tensor` with zeros added at the end of two neighbouring axes, or elements left out there."""
    missing = [max(0, size - side) for size, side in zip(sizes, tensor.shape[axis:], strict=False)]
    if any(missing):
        after = len(tensor.shape) - axis - 2
        tensor = ops.pad(tensor, [(0, 0)] * axis + [(0, each) for each in missing] + [(0, 0)] * after)
    return tensor[(slice(None),) * axis + tuple(map(slice, sizes))]
