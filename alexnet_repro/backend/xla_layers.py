"""Two of the model's layers in operations that XLA compiles well, with the same results.

XLA runs a strided convolution of few channels in a library's slowest kernels, and searches the windows of
max pooling a second time for the gradient. The layers stay Keras's own: saved models load without this package.
"""

import functools
from typing import Any

import keras
from keras import ops


def strides_as_channels(layer: keras.layers.Conv2D) -> keras.layers.Conv2D:
    """Have a convolution, channels last and without padding, move its strides into channels; return it.

    Each block of input pixels becomes one place: an 11x11 convolution with stride 4 of one channel is a 3x3
    convolution with stride 1 of sixteen. Its sums are the same, with zeros in the kernel's twelfth row and column.
    """
    if (layer.padding, layer.data_format, layer.groups) == ("valid", "channels_last", 1):
        layer.convolution_op = functools.partial(_convolution, layer)
    return layer


def larger_of_two(layer: keras.layers.MaxPooling2D) -> keras.layers.MaxPooling2D:
    """Have max pooling, channels last and without padding, take the larger of two places at a time; return it.

    First of a window's columns, then of its rows. Of equal places the gradient goes to the first, as in
    Keras's; NaN is larger than all else.
    """
    if (layer.padding, layer.data_format) == ("valid", "channels_last"):
        layer.call = functools.partial(_max_pooling, layer)
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


def _max_pooling(layer: keras.layers.MaxPooling2D, inputs: Any) -> Any:
    """Return `(n, rows, columns, c)` from inputs `(n, height, width, c)`."""

    def larger(first: Any, second: Any) -> Any:  # not `ops.maximum`: on JAX equal values share the gradient
        return ops.where(ops.logical_or(first >= second, ops.isnan(first)), first, second)

    rows, columns = layer.compute_output_shape(inputs.shape)[1:3]
    for axis, outputs in ((2, columns), (1, rows)):
        size, stride = layer.pool_size[axis - 1], layer.strides[axis - 1]
        every = [slice(first, first + stride * (outputs - 1) + 1, stride) for first in range(size)]
        inputs = functools.reduce(larger, [inputs[(slice(None),) * axis + (places,)] for places in every])
    return inputs


def _resized(tensor: Any, axis: int, sizes: list[int]) -> Any:
    """Return `tensor` with zeros added at the end of two neighbouring axes, or elements left out there."""
    missing = [max(0, size - side) for size, side in zip(sizes, tensor.shape[axis:], strict=False)]
    if any(missing):
        after = len(tensor.shape) - axis - 2
        tensor = ops.pad(tensor, [(0, 0)] * axis + [(0, each) for each in missing] + [(0, 0)] * after)
    return tensor[(slice(None),) * axis + tuple(map(slice, sizes))]
