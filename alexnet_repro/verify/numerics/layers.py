"""Compares each layer of a model with the float64 oracle, forward and backward, within rounding-error bounds.

Each layer is fed the device's own previous output and, going back, the device's own incoming gradient: an error shows
in the layer that made it and in no other. What needs no arithmetic (flattening, dropout off, the maximum of a window,
a gradient that one window alone passes on) is compared exactly, everything else within the bounds of `error_bounds`.
What can't be seen this way is left to comparing digests: docs/method/numerics.md.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from alexnet_repro.backend.gradients import Pullback, with_pullback
from alexnet_repro.model import LOSSES, Logits
from alexnet_repro.verify.numerics import error_bounds, oracle
from alexnet_repro.verify.numerics.error_bounds import UNIT, Arithmetic, DotProducts, half_ulp, keep_bits, round_to

LOSS_SCALE = {"mixed_float16": 2.0**10}  # else 1: keeps gradients in float16's range, as in training
DENSE_BLOCK = 256
# What a device may round float32 operands to unasked, and the ways it does.
COARSER: dict[str, tuple[Callable[[np.ndarray], np.ndarray], ...]] = {
    "TensorFloat-32": (lambda array: keep_bits(array, 11), lambda array: keep_bits(array, 11, truncate=True)),
    "bfloat16": (lambda array: round_to(array, "bfloat16"),),
}


@dataclass(frozen=True)
class LayerComparison:
    """One array of one layer, compared with the oracle: the element whose error is the largest share of its bound."""

    layer: str
    array: str
    """`output`, `kernel gradient`, `bias gradient`, `input gradient`, …"""
    precision: str
    terms: int
    """The most products in a sum; 0 if nothing was summed."""
    error: float
    bound: float
    index: tuple[int, ...]
    ratio: float
    """Error divided by bound; infinite where the device's value isn't a number."""
    rounded_to: str | None = None
    """If it is off: what its operands were rounded to, where that explains most of the errors."""
    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    """If they differ: the device's and the right one; nothing else was compared then."""

    @property
    def ok(self) -> bool:
        """Whether every element is within its bound."""
        return self.ratio <= 1

    @property
    def fix(self) -> str:
        """What to do next if it is off."""
        if self.shapes:
            return "The model isn't the documented one: check how this layer was built"
        if self.rounded_to == "TensorFloat-32":
            return "TensorFloat-32 explains it: set NVIDIA_TF32_OVERRIDE=0, or choose --precision=tf32"
        if self.rounded_to:
            return (
                f"Operands rounded to {self.rounded_to} explain it: look for what lowers the precision of float32 "
                "(ONEDNN_DEFAULT_FPMATH_MODE, XLA_FLAGS), or choose a mixed precision"
            )
        return (
            "Run it again: if it is off by the same at the same place, suspect software (other driver or framework "
            "versions, --device=cpu:0 to compare); if not, the hardware (memory errors, power, heat)"
        )

    def __str__(self) -> str:
        """Return the array with its error and its bound."""
        if self.shapes:
            return f"{self.layer} {self.array}: has shape {self.shapes[0]}, should have {self.shapes[1]}"
        terms = f", {self.terms:,} terms" if self.terms else ""
        error, bound = (
            f"{number:.1e}".replace("e-0", "e-").replace("e+0", "e+") for number in (self.error, self.bound)
        )
        return f"{self.layer} {self.array}: off by {error} at {self.index}, allowed {bound} ({self.precision}{terms})"


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
    """Yield the comparison of each array with the oracle: of the layers forward, the loss, and the layers backward.

    Args:
        model: from `build_alexnet`, built on the device and under `precision`.
        weights: what its weights should be, as `model.get_weights()` orders them, but not read from the device.
        images: float32 `(n, h, w, c)`; two are enough, for each layer sums thousands of terms per image.
        labels: integers `(n,)`.
        precision: a name in `alexnet_repro.backend.precision.PRECISIONS`.
        loss: a name in `alexnet_repro.model.LOSSES`.
        device: what the model was built on, as `alexnet_repro.backend.devices.on_device` takes it.
    """
    *body, head = model.layers
    hidden, last = error_bounds.arithmetics(precision, device)
    pairs = iter(list(zip(weights[::2], weights[1::2], strict=True)))
    tensor = ops.convert_to_tensor(images, "float32")
    steps: list[_ProductLayer | _ExactLayer] = []
    for layer, exact in zip([*body, Logits(head)], oracle.EXACT_LAYERS, strict=True):
        output, pullback = with_pullback(layer, tensor)
        if isinstance(exact, oracle.Convolution | oracle.Dense):
            arithmetic = last if exact.name == head.name else hidden
            step: _ProductLayer | _ExactLayer = _ProductLayer(
                precision, tensor, output, pullback, exact, arithmetic, *next(pairs)
            )
        else:
            step = _ExactLayer(precision, tensor, output, pullback, exact)
        yield (row := step.forward())
        if row.shapes:
            return
        if isinstance(step, _ProductLayer) and exact.name == head.name:
            yield step.probabilities(head(tensor))
        steps.append(step)
        tensor = output

    losses, pullback = with_pullback(lambda logits: LOSSES[loss](labels, logits), tensor)
    scale = LOSS_SCALE.get(precision, 1.0) / len(labels)
    gradient, _ = pullback(ops.full((len(labels),), scale, "float32"))
    values, slope = oracle.EXACT_LOSSES[loss](labels, _float64(tensor))
    values_bound, slope_bound = error_bounds.loss_error_bound(loss, labels, _float64(tensor))
    yield compare_arrays((loss, "loss", precision), _float64(losses), values, values_bound)
    yield compare_arrays((loss, "gradient", precision), _float64(gradient), scale * slope, scale * slope_bound)

    while steps:
        step = steps.pop()
        incoming = _float64(gradient)
        gradient, by_weights = step.pullback(gradient)
        # The gradient by the images isn't needed.
        yield from step.backward(incoming, gradient if steps else None, by_weights)


def compare_arrays(
    name: tuple[str, str, str],
    device: np.ndarray,
    expected: np.ndarray,
    bound: np.ndarray,
    products: DotProducts | None = None,
) -> LayerComparison:
    """Compare what the device computed with what is right.

    Args:
        name: layer, array, and precision.
        device: what was computed.
        expected: what is right.
        bound: how far off each element may be.
        products: the products that were summed, if any were.
    """
    terms = products.terms if products else 0
    if device.shape != expected.shape:
        return LayerComparison(*name, terms, np.inf, 0.0, (), np.inf, shapes=(device.shape, expected.shape))
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(device - expected)
        ratio = np.nan_to_num(error / np.maximum(bound, 1e-290), nan=np.inf, posinf=np.inf)
    index = tuple(map(int, np.unravel_index(int(ratio.argmax()), ratio.shape)))
    coarser = _coarser_rounding(device, expected, products) if ratio[index] > 1 and products else None
    return LayerComparison(*name, terms, float(error[index]), float(bound[index]), index, float(ratio[index]), coarser)


def _coarser_rounding(device: np.ndarray, expected: np.ndarray, products: DotProducts) -> str | None:
    """Return what rounding the operands of a float32 product to takes away more than half of the errors."""
    exact = replace(products.arithmetic, may_use_fft=False) == Arithmetic("float32")
    if not exact or products.recompute_with is None or not np.isfinite(device).all():
        return None
    passed = expected != 0  # by ReLU
    error = (device - expected)[passed]
    for name, roundings in COARSER.items():
        for rounding in roundings:
            rest = error - (products.recompute_with(rounding) - products.z)[passed]
            if np.square(rest).sum() < np.square(error).sum() / 4:
                return name
    return None


@dataclass(frozen=True)
class _LayerPass:
    """A layer after its forward pass on the device: input, output, and the way back; and the oracle's layer."""

    precision: str
    tensor: Any
    output: Any
    pullback: Pullback
    exact: Any

    def _compare(self, array: str, device: Any, *expected: Any) -> LayerComparison:
        return compare_arrays((self.exact.name, array, self.precision), _float64(device), *expected)


@dataclass(frozen=True)
class _ProductLayer(_LayerPass):
    """A convolution or dense layer: sums of products."""

    exact: oracle.Convolution | oracle.Dense
    arithmetic: Arithmetic
    kernel: np.ndarray
    bias: np.ndarray

    def forward(self) -> LayerComparison:
        products, expected, bound = self._biased()
        if not self.exact.relu:
            return self._compare("logits", self.output, expected, bound, products)
        # ReLU makes no error larger.
        return self._compare("output", self.output, np.maximum(expected, 0), bound, products)

    def probabilities(self, output: Any) -> LayerComparison:
        products, logits, bound = self._biased()
        # A sigmoid is nowhere steeper than 1/4.
        return self._compare("output", output, oracle.sigmoid(logits), bound / 4 + error_bounds.SIGMOID, products)

    def backward(self, dy: np.ndarray, dx: Any, by_weights: Sequence[Any]) -> Iterator[LayerComparison]:
        exact, shape, dtype = self.exact, self.kernel.shape, self.arithmetic.dtype
        dz = dy * (_float64(self.output) > 0) if exact.relu else dy  # what the device's own output let pass
        by_kernel, by_bias = by_weights
        x = self._operand(_float64(self.tensor))
        yield self._kernel_gradient(x, dz, by_kernel)

        rows = dz.reshape(-1, dz.shape[-1])
        products = DotProducts(rows.sum(axis=0), (rows**2).sum(axis=0), len(rows), Arithmetic(dtype, UNIT[dtype]))
        yield self._compare_rounded("bias gradient", by_bias, products, dtype)

        if dx is not None:
            terms, kernel = exact.input_terms(shape), self._operand(self.kernel)
            products = self._dot_products(exact.input_gradient, dz, kernel, x.shape, terms=terms)
            if self._may_use_fft:
                fourier = error_bounds.fourier_over_channels(dz, kernel.swapaxes(2, 3), products.z)
                products = replace(products, fourier=fourier)
            yield self._compare_rounded("input gradient", dx, products, keras.backend.standardize_dtype(dx.dtype))

    def _kernel_gradient(self, x: np.ndarray, dz: np.ndarray, device: np.ndarray) -> LayerComparison:
        exact, shape = self.exact, self.kernel.shape
        # A dense layer's has millions of elements: in blocks of rows it takes a tenth of the memory and less time.
        size = shape[0] if isinstance(exact, oracle.Convolution) else DENSE_BLOCK
        rows = []
        for at in range(0, shape[0], size):
            part = x if size == shape[0] else x[:, at : at + size]
            products = self._dot_products(exact.kernel_gradient, part, dz, shape, terms=exact.kernel_terms(dz.shape))
            if self._may_use_fft:
                products = replace(products, fourier=error_bounds.fourier_over_images(part, dz, shape))
            row = self._compare_rounded("kernel gradient", device[at : at + size], products, self.arithmetic.dtype)
            rows.append(row if row.shapes else replace(row, index=(row.index[0] + at, *row.index[1:])))
        return max(rows, key=lambda row: row.ratio)

    def _biased(self) -> tuple[DotProducts, np.ndarray, np.ndarray]:
        """Return the products, their sums with the bias, and the bound of those."""
        x, kernel, bias = map(self._operand, (_float64(self.tensor), self.kernel, self.bias))
        products = self._dot_products(self.exact.product, x, kernel, terms=self.exact.product_terms(kernel.shape))
        products = replace(products, bias=bias)
        if self._may_use_fft:
            products = replace(products, fourier=error_bounds.fourier_over_channels(x, kernel, products.z))
        z, dtype = products.z, self.arithmetic.dtype
        return products, z + bias, products.bound() + half_ulp(z, dtype) + half_ulp(z + bias, dtype)

    def _dot_products(self, *arguments: Any, terms: int) -> DotProducts:
        return error_bounds.dot_products(*arguments, terms=terms, arithmetic=self.arithmetic)

    @property
    def _may_use_fft(self) -> bool:
        # cuDNN has no such transforms with strides. XLA might rewrite one to a convolution without: by simulation its
        # errors then stay within two thirds of the bound of plain sums, so that one is kept.
        exact = self.exact
        return self.arithmetic.may_use_fft and isinstance(exact, oracle.Convolution) and exact.strides == 1

    def _operand(self, array: np.ndarray) -> np.ndarray:
        return round_to(array, self.arithmetic.dtype)

    def _compare_rounded(self, array: str, device: Any, products: DotProducts, dtype: str) -> LayerComparison:
        return self._compare(array, device, products.z, products.bound() + half_ulp(products.z, dtype), products)


@dataclass(frozen=True)
class _ExactLayer(_LayerPass):
    """Pooling, flattening, dropout off: nothing is rounded but, going back, where pooling windows overlap."""

    exact: oracle.MaxPooling | oracle.Unchanged

    def forward(self) -> LayerComparison:
        expected = self.exact.output(_float64(self.tensor))
        return self._compare("output", self.output, expected, np.zeros(expected.shape))

    def backward(self, dy: np.ndarray, dx: Any, _by_weights: Sequence[Any]) -> Iterator[LayerComparison]:
        x, device, exact = _float64(self.tensor), _float64(dx), self.exact
        if isinstance(exact, oracle.Unchanged):
            yield self._compare("input gradient", device, exact.input_gradient(x, dy), np.zeros(x.shape))
            return
        maxima, each = exact.maxima(x), dy[..., None, None]
        # Of a window's equal maxima any is right: each may get all of the gradient, or nothing.
        certain = maxima & (maxima.sum(axis=(-2, -1), keepdims=True) == 1)
        least = exact.scatter(maxima * np.where(certain, each, np.minimum(each, 0)), x.shape)
        most = exact.scatter(maxima * np.where(certain, each, np.maximum(each, 0)), x.shape)
        # Of the windows that share a place, all additions but the first round.
        additions = np.maximum(exact.scatter(maxima, x.shape) - 1, 0)
        size = exact.scatter(maxima * np.abs(each), x.shape)
        bound = additions * UNIT[keras.backend.standardize_dtype(dx.dtype)] * size
        yield self._compare("input gradient", device, np.clip(device, least, most), bound)
        # And nothing is lost or counted twice.
        axes, float64 = (1, 2), 1e-15 * size
        total, total_bound = dy.sum(axis=axes), (bound + float64).sum(axis=axes)
        yield self._compare("input gradient, summed by channel", device.sum(axis=axes), total, total_bound)


def _float64(tensor: Any) -> np.ndarray:
    array = tensor if isinstance(tensor, np.ndarray) else np.asarray(ops.convert_to_numpy(tensor))
    return array.astype(np.float64)
