"""The documented network in float64 NumPy, forward and backward: the expected side of every comparison.

Written from the definitions; it shares no code with the model. Strides, paddings and order are data here; sizes follow
from the weights, so that it serves every image size and number of classes. Dropout is off. Arrays are `(n, h, w, c)` or
`(n, k)`; gradients are of whatever the incoming gradient is of. A convolution or dense layer is its product, then the
bias, then ReLU, but for the head, which ends at the logits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Shape = tuple[int, ...]

SIGMOID_CLIP = 1e-7  # TensorFlow 2.0.0's


@dataclass(frozen=True)
class Convolution:
    """A convolution's product: each output is a sum over the patch of images under the kernel `(kh, kw, c, filters)`.

    All three functions are linear in either argument.
    """

    name: str
    strides: int = 1
    padding: str = "same"
    relu = True

    def product(self, x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        """Return the sums, `(n, rows, columns, filters)`."""
        patches = self._patches(x, kernel.shape)
        rows = patches.reshape(-1, kernel[..., 0].size)  # one product of two matrices: BLAS at its best
        return np.asarray(rows @ kernel.reshape(-1, kernel.shape[-1])).reshape(*patches.shape[:3], -1)

    def kernel_gradient(self, x: np.ndarray, dz: np.ndarray, kernel_shape: Shape) -> np.ndarray:
        """Return the gradient by the kernel, `dz` being that by the product."""
        patches = self._patches(x, kernel_shape).reshape(dz[..., 0].size, -1)
        return np.asarray(patches.T @ dz.reshape(-1, dz.shape[-1])).reshape(kernel_shape)

    def input_gradient(self, dz: np.ndarray, kernel: np.ndarray, x_shape: Shape) -> np.ndarray:
        """Return the gradient by `x`: the sum of every patch's share."""
        (top, bottom), (left, right) = self._padding(x_shape, kernel.shape)
        padded = np.zeros((x_shape[0], x_shape[1] + top + bottom, x_shape[2] + left + right, x_shape[3]))
        rows, columns = (self.strides * size for size in dz.shape[1:3])
        filters = kernel.shape[-1]
        shares = (dz.reshape(-1, filters) @ kernel.reshape(-1, filters).T).reshape(*dz.shape[:3], *kernel.shape[:3])
        for i, j in np.ndindex(kernel.shape[:2]):
            padded[:, i : i + rows : self.strides, j : j + columns : self.strides] += shares[:, :, :, i, j]
        return padded[:, top : top + x_shape[1], left : left + x_shape[2]]

    def _padding(self, x_shape: Shape, kernel_shape: Shape) -> list[tuple[int, int]]:
        """Return (before, after) of rows and of columns; the odd one comes after."""
        if self.padding == "valid":
            return [(0, 0), (0, 0)]
        sides = zip(x_shape[1:3], kernel_shape[:2], strict=True)
        needed = [max((-(-side // self.strides) - 1) * self.strides + size - side, 0) for side, size in sides]
        return [(pad // 2, pad - pad // 2) for pad in needed]

    def _patches(self, x: np.ndarray, kernel_shape: Shape) -> np.ndarray:
        padded = np.pad(x, [(0, 0), *self._padding(x.shape, kernel_shape), (0, 0)])
        windows = sliding_window_view(padded, kernel_shape[:2], axis=(1, 2))[:, :: self.strides, :: self.strides]
        return np.ascontiguousarray(windows.transpose(0, 1, 2, 4, 5, 3))


@dataclass(frozen=True)
class Dense:
    """A dense layer's product; as `Convolution`, with kernels `(k, units)`."""

    name: str
    relu: bool = True
    strides = 1  # as of a kernel of one pixel

    def product(self, x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        """Return the sums, `(n, units)`."""
        return np.asarray(x @ kernel)

    def kernel_gradient(self, x: np.ndarray, dz: np.ndarray, _kernel_shape: Shape) -> np.ndarray:
        """Return the gradient by the kernel, `dz` being that by the product."""
        return np.asarray(x.T @ dz)

    def input_gradient(self, dz: np.ndarray, kernel: np.ndarray, _x_shape: Shape) -> np.ndarray:
        """Return the gradient by `x`."""
        return np.asarray(dz @ kernel.T)


@dataclass(frozen=True)
class MaxPooling:
    """The maximum of each 3x3 window, with strides of 2."""

    name: str
    SIZE, STRIDES = 3, 2

    def output(self, x: np.ndarray) -> np.ndarray:
        """Return `(n, rows, columns, c)`."""
        return np.asarray(self._windows(x).max(axis=(-2, -1)))

    def input_gradient(self, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
        """Return the gradient by `x`: each window's goes to its maximum, the first of equal ones."""
        flat = self.maxima(x).reshape(*dy.shape, -1)
        first = flat & (np.cumsum(flat, axis=-1) == 1)
        return self.scatter(first.reshape(*dy.shape, self.SIZE, self.SIZE) * dy[..., None, None], x.shape)

    def maxima(self, x: np.ndarray) -> np.ndarray:
        """Return a mask of each window's maxima, `(n, rows, columns, c, 3, 3)`; several where they tie."""
        windows = self._windows(x)
        return np.asarray(windows == windows.max(axis=(-2, -1), keepdims=True))

    def scatter(self, parts: np.ndarray, x_shape: Shape) -> np.ndarray:
        """Return the sum of the windows' values, `(n, rows, columns, c, 3, 3)`, at each place of `x_shape`."""
        sums = np.zeros(x_shape)
        rows, columns = (self.STRIDES * size for size in parts.shape[1:3])
        for i, j in np.ndindex(self.SIZE, self.SIZE):
            sums[:, i : i + rows : self.STRIDES, j : j + columns : self.STRIDES] += parts[..., i, j]
        return sums

    def _windows(self, x: np.ndarray) -> np.ndarray:
        windows = sliding_window_view(x, (self.SIZE, self.SIZE), axis=(1, 2))
        return windows[:, :: self.STRIDES, :: self.STRIDES]


@dataclass(frozen=True)
class Unchanged:
    """A layer that computes nothing: flattening, and dropout when it is off."""

    name: str
    flattens: bool = False

    def output(self, x: np.ndarray) -> np.ndarray:
        """Return `x`, flattened or not."""
        return x.reshape(len(x), -1) if self.flattens else x

    def input_gradient(self, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
        """Return `dy` in the shape of `x`."""
        return dy.reshape(x.shape)


EXACT_LAYERS: tuple[Convolution | Dense | MaxPooling | Unchanged, ...] = (
    Convolution("conv2d", strides=4, padding="valid"),
    MaxPooling("max_pooling2d"),
    Convolution("conv2d_1"),
    MaxPooling("max_pooling2d_1"),
    Convolution("conv2d_2"),
    Convolution("conv2d_3"),
    Convolution("conv2d_4"),
    MaxPooling("max_pooling2d_2"),
    Unchanged("flatten", flattens=True),
    Dense("dense"),
    Unchanged("dropout"),
    Dense("dense_1"),
    Unchanged("dropout_1"),
    Dense("dense_2", relu=False),
)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return `1 / (1 + exp(-logits))`."""
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-logits.astype(np.float64))))


def class_weights(loss: str, logits: np.ndarray) -> np.ndarray:
    """Return what a loss divides by its sum over the classes: clipped sigmoids, or exponentials from 0 to 1."""
    if loss == "softmax":
        return np.asarray(np.exp(logits - logits.max(axis=1, keepdims=True)))
    return np.asarray(np.clip(sigmoid(logits), SIGMOID_CLIP, 1 - SIGMOID_CLIP))


def normalised_sigmoid_loss(labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `-log(p[label] / sum(p))` of each row, `p` clipped sigmoids, and its gradient by the logits."""
    p = class_weights("normalised_sigmoid", logits)
    share, inside = p / p.sum(axis=1, keepdims=True), (p > SIGMOID_CLIP) & (p < 1 - SIGMOID_CLIP)
    gradient = inside * (1 - p) * (share - np.eye(logits.shape[1])[labels])
    return -np.log(share[np.arange(len(labels)), labels]), gradient


def softmax_loss(labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cross-entropy of the softmax of each row, and its gradient by the logits."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    gradient = np.exp(shifted - log_sum) - np.eye(logits.shape[1])[labels]
    return log_sum[:, 0] - shifted[np.arange(len(labels)), labels], gradient


# Of labels `(n,)` and logits `(n, classes)`: losses `(n,)` and gradients `(n, classes)`.
EXACT_LOSSES: dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "normalised_sigmoid": normalised_sigmoid_loss,
    "softmax": softmax_loss,
}


def resize_exactly(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return `(n, h, w, c)` fitted into `(n, height, width, c)`: bilinear, half-pixel centres, padded with zeros.

    Raises:
        ValueError: the content doesn't fit exactly, so that its place would be a matter of rounding.
    """
    rows, columns = images.shape[1:3]
    content, rest = np.divmod(np.array([rows, columns]) * min(height * columns, width * rows), rows * columns)
    if rest.any():
        raise ValueError(f"{rows}x{columns} doesn't fit {height}x{width} exactly")
    sides = zip((rows, columns), content, (height, width), strict=True)
    by_rows, by_columns = (_interpolation(side, int(size), length) for side, size, length in sides)
    return np.asarray(np.einsum("ih,nhwc,jw->nijc", by_rows, images.astype(np.float64), by_columns, optimize=True))


def _interpolation(side: int, content: int, length: int) -> np.ndarray:
    """Return `(length, side)`: the weight of each source pixel in each pixel of the result."""
    source = np.clip((np.arange(content) + 0.5) * side / content - 0.5, 0, side - 1)
    first = np.floor(source).astype(int)
    matrix, place = np.zeros((length, side)), (length - content) // 2 + np.arange(content)
    matrix[place, first] = 1 - (source - first)
    matrix[place, np.minimum(first + 1, side - 1)] += source - first
    return matrix


def forward_pass(weights: Sequence[np.ndarray], images: np.ndarray) -> list[np.ndarray]:
    """Return every layer's output, of the head its logits; `weights` are kernel, bias, kernel, … in their order."""
    pairs = zip(weights[::2], weights[1::2], strict=True)
    x, outputs = images.astype(np.float64), []
    for layer in EXACT_LAYERS:
        if isinstance(layer, Convolution | Dense):
            kernel, bias = next(pairs)
            x = layer.product(x, kernel.astype(np.float64)) + bias
            x = np.maximum(x, 0) if layer.relu else x
        else:
            x = layer.output(x)
        outputs.append(x)
    return outputs


def backward_pass(
    weights: Sequence[np.ndarray], images: np.ndarray, outputs: Sequence[np.ndarray], dlogits: np.ndarray
) -> list[np.ndarray]:
    """Return the gradients by the weights, in their order, from `forward_pass`'s outputs and the gradient by logits."""
    kernels, inputs = list(weights[::2]), [images.astype(np.float64), *outputs[:-1]]
    dy, gradients = dlogits, []
    for layer, x, y in zip(reversed(EXACT_LAYERS), reversed(inputs), reversed(outputs), strict=True):
        if isinstance(layer, Convolution | Dense):
            kernel = kernels.pop().astype(np.float64)
            dz = dy * (y > 0) if layer.relu else dy
            gradients += [dz.sum(axis=tuple(range(dz.ndim - 1))), layer.kernel_gradient(x, dz, kernel.shape)]
            if kernels:  # the images' gradient isn't needed
                dy = layer.input_gradient(dz, kernel, x.shape)
        else:
            dy = layer.input_gradient(x, dy)
    return gradients[::-1]
