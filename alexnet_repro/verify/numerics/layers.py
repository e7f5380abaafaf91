"""Does a device compute every layer right? Held against the float64 oracle, layer by layer, forward and backward.

Every layer is fed with the device's own previous output, and going back with the device's own
incoming gradient: an error shows in the layer that made it and in no other. What needs no arithmetic
(flattening, dropout off, the largest of a window, a gradient that one window alone hands on) is
compared exactly, everything else within the bounds of `alexnet_repro.verify.numerics.error_bounds`.

Some faults can't be seen this way, and are left to comparing digests: what is smaller than rounding
(with the documented sizes, a weight changed by less than about a five-hundredth of itself in float32, a
sixtieth where a GPU may convolve by Fourier transforms, a tenth in bfloat16), and a wrong weight of a unit
that ReLU silences in every image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from alexnet_repro.backend.gradients import Pullback, with_pullback
from alexnet_repro.model import LOSSES, Logits
from alexnet_repro.verify.numerics import error_bounds, oracle
from alexnet_repro.verify.numerics.comparison import LayerComparison, hold
from alexnet_repro.verify.numerics.error_bounds import UNIT, Arithmetic, Sums

LOSS_SCALE = {"mixed_float16": 2.0**10}  # else 1: keeps gradients in float16's range, as in training
DENSE_BLOCK = 256


def layer_comparisons(
    model: keras.Sequential,
    weights: Sequence[np.ndarray],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    precision: str = "float32",
    loss: str = "normalised_sigmoid",
    device: str = "cpu:0",
) -> Iterator[LayerComparison]:
    """Yield what each layer computed on its device, held against the oracle: forward, the loss, then backward.

    Args:
        model: from `build_alexnet`, built on the device and under `precision`.
        weights: what its weights should be, as `model.get_weights()` orders them, but not read from the device.
        images: float32 `(n, h, w, c)`; two are enough, each layer sums thousands of terms of each.
        labels: integers `(n,)`.
        precision: a name in `alexnet_repro.backend.precision.PRECISIONS`.
        loss: a name in `alexnet_repro.model.LOSSES`.
        device: what the model was built on, as `alexnet_repro.backend.devices.on_device` takes it.
    """
    *body, head = model.layers
    hidden, last = error_bounds.arithmetics(precision, device)
    pairs = iter(list(zip(weights[::2], weights[1::2], strict=True)))
    tensor = ops.convert_to_tensor(images, "float32")
    steps: list[_Sums | _Exact] = []
    for layer, exact in zip([*body, Logits(head)], oracle.LAYERS, strict=True):
        output, pullback = with_pullback(layer, tensor)
        if isinstance(exact, oracle.Convolution | oracle.Dense):
            arithmetic = last if exact.name == head.name else hidden
            step: _Sums | _Exact = _Sums(precision, tensor, output, pullback, exact, arithmetic, *next(pairs))
        else:
            step = _Exact(precision, tensor, output, pullback, exact)
        yield (row := step.forward())
        if row.shapes:
            return
        if isinstance(step, _Sums) and exact.name == head.name:
            yield step.probabilities(head(tensor))
        steps.append(step)
        tensor = output

    losses, pullback = with_pullback(lambda logits: LOSSES[loss](labels, logits), tensor)
    scale = LOSS_SCALE.get(precision, 1.0) / len(labels)
    gradient, _ = pullback(ops.full((len(labels),), scale, "float32"))
    values, slope = oracle.LOSSES[loss](labels, _float64(tensor))
    values_bound, slope_bound = error_bounds.of_loss(loss, labels, _float64(tensor))
    yield hold((loss, "loss", precision), _float64(losses), values, values_bound)
    yield hold((loss, "gradient", precision), _float64(gradient), scale * slope, scale * slope_bound)

    while steps:
        step = steps.pop()
        incoming = _float64(gradient)
        gradient, by_weights = step.pullback(gradient)
        # Nothing asks for the gradient by the images.
        yield from step.backward(incoming, gradient if steps else None, by_weights)


@dataclass(frozen=True)
class _Step:
    """A layer that the device has passed forward: what went in, what came out, and its way back."""

    precision: str
    tensor: Any
    output: Any
    pullback: Pullback


@dataclass(frozen=True)
class _Sums(_Step):
    """A convolution or dense layer: sums of products."""

    exact: oracle.Convolution | oracle.Dense
    arithmetic: Arithmetic
    kernel: np.ndarray
    bias: np.ndarray

    def forward(self) -> LayerComparison:
        sums, expected, bound = self._biased()
        what = "output" if self.exact.relu else "logits"
        expected = np.maximum(expected, 0) if self.exact.relu else expected  # which makes no error larger
        return self._held(what, _float64(self.output), expected, bound, sums)

    def probabilities(self, output: Any) -> LayerComparison:
        sums, logits, bound = self._biased()
        # A sigmoid is nowhere steeper than 1/4.
        return self._held("output", _float64(output), 1 / (1 + np.exp(-logits)), bound / 4 + error_bounds.SIGMOID, sums)

    def backward(self, dy: np.ndarray, dx: Any, by_weights: Sequence[Any]) -> Iterator[LayerComparison]:
        exact, shape = self.exact, self.kernel.shape
        dz = dy * (_float64(self.output) > 0) if exact.relu else dy  # the device's own output says what ReLU let pass
        by_kernel, by_bias = by_weights
        x = self._operand(_float64(self.tensor))
        yield self._kernel_gradient(x, dz, by_kernel)

        rows, dtype = dz.reshape(-1, dz.shape[-1]), self.arithmetic.dtype
        sums = error_bounds.Sums(rows.sum(axis=0), (rows**2).sum(axis=0), len(rows), Arithmetic(dtype, UNIT[dtype]))
        yield self._rounded("bias gradient", by_bias, sums, self.arithmetic.dtype)

        if dx is not None:
            terms, kernel = exact.input_terms(shape), self._operand(self.kernel)
            sums = error_bounds.sums(exact.input_gradient, dz, kernel, x.shape, terms=terms, arithmetic=self.arithmetic)
            if self._transforms:
                sums = replace(sums, transformed=error_bounds.over_channels(dz, kernel.swapaxes(2, 3), sums.z))
            yield self._rounded("input gradient", dx, sums, keras.backend.standardize_dtype(dx.dtype))

    def _kernel_gradient(self, x: np.ndarray, dz: np.ndarray, device: np.ndarray) -> LayerComparison:
        exact, arithmetic, shape = self.exact, self.arithmetic, self.kernel.shape
        # A dense layer's is millions of elements: in blocks of rows, that take a tenth of the memory and less time.
        size = shape[0] if isinstance(exact, oracle.Convolution) else DENSE_BLOCK
        rows = []
        for at in range(0, shape[0], size):
            part = x if size == shape[0] else x[:, at : at + size]
            terms = exact.kernel_terms(dz.shape)
            sums = error_bounds.sums(exact.kernel_gradient, part, dz, shape, terms=terms, arithmetic=arithmetic)
            if self._transforms:
                sums = replace(sums, transformed=error_bounds.over_images(part, dz, shape))
            row = self._rounded("kernel gradient", device[at : at + size], sums, arithmetic.dtype)
            if not row.shapes:
                row = replace(row, index=(row.index[0] + at, *row.index[1:]))
            rows.append(row)
        return max(rows, key=lambda row: row.ratio)

    def _biased(self) -> tuple[Sums, np.ndarray, np.ndarray]:
        """Return the products, what they are with the bias, and the bound of that."""
        x, kernel, bias = map(self._operand, (_float64(self.tensor), self.kernel, self.bias))
        terms = self.exact.product_terms(kernel.shape)
        sums = error_bounds.sums(self.exact.product, x, kernel, terms=terms, arithmetic=self.arithmetic)
        sums = replace(sums, bias=bias)
        if self._transforms:
            sums = replace(sums, transformed=error_bounds.over_channels(x, kernel, sums.z))
        z, dtype = sums.z, self.arithmetic.dtype
        return sums, z + bias, sums.bound() + error_bounds.rounding(z, dtype) + error_bounds.rounding(z + bias, dtype)

    @property
    def _transforms(self) -> bool:
        # With strides cuDNN has none. Made a convolution without strides for XLA, it might: by simulation such a
        # transform's errors stay within two thirds of the bound without, so that one is kept.
        exact = self.exact
        return self.arithmetic.transforms and isinstance(exact, oracle.Convolution) and exact.strides == 1

    def _operand(self, array: np.ndarray) -> np.ndarray:
        return error_bounds.rounded(array, self.arithmetic.dtype)

    def _rounded(self, what: str, tensor: Any, sums: Sums, dtype: str) -> LayerComparison:
        return self._held(what, _float64(tensor), sums.z, sums.bound() + error_bounds.rounding(sums.z, dtype), sums)

    def _held(
        self, what: str, device: np.ndarray, expected: np.ndarray, bound: np.ndarray, sums: Sums
    ) -> LayerComparison:
        return hold((self.exact.name, what, self.precision), device, expected, bound, sums)


@dataclass(frozen=True)
class _Exact(_Step):
    """Pooling, flattening, dropout that is off: nothing is rounded but, going back, where pooling windows overlap."""

    exact: oracle.MaxPooling | oracle.Unchanged

    def forward(self) -> LayerComparison:
        expected = self.exact.output(_float64(self.tensor))
        return self._held("output", _float64(self.output), expected, np.zeros(expected.shape))

    def backward(self, dy: np.ndarray, dx: Any, _by_weights: Sequence[Any]) -> Iterator[LayerComparison]:
        x, device, exact = _float64(self.tensor), _float64(dx), self.exact
        if isinstance(exact, oracle.Unchanged):
            yield self._held("input gradient", device, exact.input_gradient(x, dy), np.zeros(x.shape))
            return
        largest, each = exact.is_largest(x), dy[..., None, None]
        # Of a window's equal largest any is right: each may get all of the gradient, or nothing.
        certain = largest & (largest.sum(axis=(-2, -1), keepdims=True) == 1)
        least = exact.scatter(largest * np.where(certain, each, np.minimum(each, 0)), x.shape)
        most = exact.scatter(largest * np.where(certain, each, np.maximum(each, 0)), x.shape)
        # Of the windows that share a place, all additions but the first round.
        additions = np.maximum(exact.scatter(largest, x.shape) - 1, 0)
        size = exact.scatter(largest * np.abs(each), x.shape)
        bound = additions * UNIT[keras.backend.standardize_dtype(dx.dtype)] * size
        yield self._held("input gradient", device, np.clip(device, least, most), bound)
        # And nothing is lost or counted twice.
        axes, float64 = (1, 2), 1e-15 * size
        total, total_bound = dy.sum(axis=axes), (bound + float64).sum(axis=axes)
        yield self._held("input gradient, summed by channel", device.sum(axis=axes), total, total_bound)

    def _held(self, what: str, device: np.ndarray, expected: np.ndarray, bound: np.ndarray) -> LayerComparison:
        return hold((self.exact.name, what, self.precision), device, expected, bound)


def _float64(tensor: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(tensor)).astype(np.float64)
