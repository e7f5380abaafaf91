"""Compares each layer of a model with the float64 oracle, forward and backward, within rounding-error bounds.

Each layer is fed the device's own previous output and, going back, the device's own incoming gradient: an error shows
in the layer that made it and in no other. What needs no arithmetic (flattening, dropout off, the maximum of a window,
a gradient that one window alone passes on) is compared exactly, everything else within the bounds of `error_bounds`.
What can't be seen this way is left to comparing digests: docs/method/numerics.md.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from alexnet_repro.backend.devices import device_of
from alexnet_repro.backend.gradients import Pullback, with_pullback
from alexnet_repro.model import LOSSES, Logits
from alexnet_repro.verify.numerics import error_bounds, oracle
from alexnet_repro.verify.numerics.error_bounds import UNIT, Arithmetic, DotProducts, half_ulp, keep_bits, round_to

# What a device may round float32 operands to without being configured to, and the ways it does.
COARSER: tuple[tuple[str, error_bounds.Rounding], ...] = (
    ("TensorFloat-32", lambda array: keep_bits(array, 11)),
    ("TensorFloat-32", lambda array: keep_bits(array, 11, truncate=True)),
    ("bfloat16", lambda array: round_to(array, "bfloat16")),
)


@dataclass(frozen=True)
class LayerComparison:
    """One array of one layer, compared with the oracle: the element whose error is the largest share of its bound."""

    layer: str
    array: str  # `output`, `kernel gradient`, `bias gradient`, `input gradient`, …
    precision: str
    terms: int  # the most products in a sum; 0 if nothing was summed
    error: float
    bound: float
    index: tuple[int, ...]
    ratio: float  # error divided by bound; infinite where the device's value isn't a number
    rounded_to: str | None = None  # if it is off: what rounding of its operands explains most of the errors
    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None  # if they differ: the device's and the right one
    places: tuple[str, str] | None = None  # if they differ: the device that it lies on, and the right one

    @property
    def ok(self) -> bool:
        """Whether every element is within its bound."""
        return self.ratio <= 1

    @property
    def fix(self) -> str:
        """What to do next if it is off."""
        if self.places:
            return (
                "python -m alexnet_repro doctor # is this device usable? then report the layer: it has no kernel there"
            )
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
        if self.places:
            return f"{self.layer} {self.array}: lies on {self.places[0]}, should be computed on {self.places[1]}"
        if self.shapes:
            return f"{self.layer} {self.array}: has shape {self.shapes[0]}, should have {self.shapes[1]}"
        terms = f", {self.terms:,} terms" if self.terms else ""
        error, bound = (f"{each:.1e}".replace("e-0", "e-").replace("e+0", "e+") for each in (self.error, self.bound))
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
    compiled: bool = False,
) -> Iterator[LayerComparison]:
    """Yield the comparison of each array with the oracle: of the layers forward, the loss, and the layers backward.

    `model` is `build_alexnet`'s, built on the device and under the precision; `weights` are what its `get_weights`
    should return, but not read from the device; `images` are float32 `(n, h, w, c)`, `labels` integers `(n,)`: two are
    enough, for each layer sums thousands of terms per image. `loss` is a name in `alexnet_repro.model.LOSSES`.
    `compiled` has XLA compile each layer, by itself: across layers it would leave out roundings that nothing bounds. An
    array that doesn't lie on the device fails, before its layer is compared.
    """
    *body, head = model.layers
    by_xla = compiled or keras.backend.backend() == "jax"
    hidden, last = error_bounds.arithmetics(precision, device, by_xla=by_xla)
    pairs = zip(weights[::2], weights[1::2], strict=True)
    tensor = ops.convert_to_tensor(images, "float32")
    steps: list[_ProductLayer | _ExactLayer] = []
    for layer, exact in zip([*body, Logits(head)], oracle.EXACT_LAYERS, strict=True):
        output, pullback = with_pullback(layer, tensor, compiled=compiled)
        yield from _elsewhere((exact.name, precision), {"output": output}, device)
        computed = (precision, tensor, output, pullback)
        if isinstance(exact, oracle.Convolution | oracle.Dense):
            arithmetic = hidden if exact.relu else last
            steps.append(_ProductLayer(*computed, exact, arithmetic, *next(pairs)))
        else:
            steps.append(_ExactLayer(*computed, exact))
        yield (row := steps[-1].forward())
        if row.shapes:
            return
        if isinstance(step := steps[-1], _ProductLayer) and not step.exact.relu:
            yield step.probabilities(head(tensor))
        tensor = output

    losses, pullback = with_pullback(lambda logits: LOSSES[loss](labels, logits), tensor, compiled=compiled)
    # As in training, gradients are kept in float16's range.
    scale = (2.0**10 if precision == "mixed_float16" else 1.0) / len(labels)
    gradient, _ = pullback(ops.full((len(labels),), scale, "float32"))
    yield from _elsewhere((loss, precision), {"loss": losses, "gradient": gradient}, device)
    values, slope = oracle.EXACT_LOSSES[loss](labels, _float64(tensor))
    values_bound, slope_bound = error_bounds.loss_error_bound(loss, labels, _float64(tensor))
    yield _compare_arrays((loss, "loss", precision), _float64(losses), values, values_bound)
    yield _compare_arrays((loss, "gradient", precision), _float64(gradient), scale * slope, scale * slope_bound)

    while steps:
        step = steps.pop()
        incoming = _float64(gradient)
        gradient, by_weights = step.pullback(gradient)
        names = ("kernel gradient", "bias gradient", "input gradient")[-1 - len(by_weights) :]
        arrays = dict(zip(names, (*by_weights, gradient), strict=True))
        yield from _elsewhere((step.exact.name, precision), arrays, device)
        # The gradient by the images isn't needed.
        yield from step.backward(incoming, gradient if steps else None, by_weights)


def _elsewhere(name: tuple[str, str], arrays: Mapping[str, Any], device: str) -> Iterator[LayerComparison]:
    """Yield the failure of each array that doesn't lie on the device; `name` is layer and precision."""
    layer, precision = name
    for array, tensor in arrays.items():
        if (place := device_of(tensor)) != device:
            yield LayerComparison(layer, array, precision, 0, np.inf, 0.0, (), np.inf, places=(place, device))


def _compare_arrays(
    name: tuple[str, str, str],
    device: np.ndarray,
    expected: np.ndarray,
    bound: np.ndarray,
    products: DotProducts | None = None,
) -> LayerComparison:
    """Compare the device's array with the right one; `name` is layer, array and precision."""
    terms = products.terms if products else 0
    if device.shape != expected.shape:
        return LayerComparison(*name, terms, np.inf, 0.0, (), np.inf, shapes=(device.shape, expected.shape))
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(device - expected)
        ratio = error / np.maximum(bound, 1e-290)
        ratio[np.isnan(ratio)] = np.inf
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
    for name, rounding in COARSER:
        rest = error - (products.recompute_with(rounding) - products.z)[passed]
        if np.square(rest).sum() < np.square(error).sum() / 4:
            return name
    return None


@dataclass(frozen=True, eq=False)
class _LayerPass:
    """A layer after its forward pass on the device: input, output, and the way back; and the oracle's layer."""

    precision: str
    tensor: Any
    output: Any
    pullback: Pullback
    exact: Any

    def _compare(self, array: str, device: Any, *expected: Any) -> LayerComparison:
        return _compare_arrays((self.exact.name, array, self.precision), _float64(device), *expected)


@dataclass(frozen=True, eq=False)
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
        exact, dtype = self.exact, self.arithmetic.dtype
        dz = dy * (_float64(self.output) > 0) if exact.relu else dy  # what the device's own output let pass
        by_kernel, by_bias = by_weights
        x, kernel = self._operand(_float64(self.tensor)), self._operand(self.kernel)
        yield self._kernel_gradient(x, dz, by_kernel)

        rows = dz.reshape(-1, dz.shape[-1])
        products = DotProducts(rows.sum(axis=0), (rows**2).sum(axis=0), len(rows), Arithmetic(dtype, UNIT[dtype]))
        yield self._compare_rounded("bias gradient", by_bias, products, dtype)

        if dx is not None:
            products = self._dot_products(
                lambda z: error_bounds.fourier_over_channels(dz, kernel.swapaxes(2, 3), z),
                *(exact.input_gradient, dz, kernel, x.shape),
                terms=math.prod(-(-size // exact.strides) for size in kernel.shape[:-2]) * kernel.shape[-1],
            )
            yield self._compare_rounded("input gradient", dx, products, keras.backend.standardize_dtype(dx.dtype))

    def _kernel_gradient(self, x: np.ndarray, dz: np.ndarray, device: np.ndarray) -> LayerComparison:
        exact, shape = self.exact, self.kernel.shape
        # A dense layer's has millions of elements: in blocks of rows it takes a tenth of the memory and less time.
        size = shape[0] if isinstance(exact, oracle.Convolution) else 256
        rows = []
        for at in range(0, shape[0], size):
            part = x if size == shape[0] else x[:, at : at + size]
            products = self._dot_products(
                lambda _: error_bounds.fourier_over_images(x, dz, shape),
                *(exact.kernel_gradient, part, dz, shape),
                terms=dz[..., 0].size,
            )
            row = self._compare_rounded("kernel gradient", device[at : at + size], products, self.arithmetic.dtype)
            rows.append(row if row.shapes else replace(row, index=(row.index[0] + at, *row.index[1:])))
        return max(rows, key=lambda row: row.ratio)

    def _biased(self) -> tuple[DotProducts, np.ndarray, np.ndarray]:
        """Return the products, their sums with the bias, and the bound of those."""
        x, kernel, bias = map(self._operand, (_float64(self.tensor), self.kernel, self.bias))
        products = self._dot_products(
            lambda z: error_bounds.fourier_over_channels(x, kernel, z),
            *(self.exact.product, x, kernel),
            terms=kernel[..., 0].size,
        )
        z, dtype = products.z, self.arithmetic.dtype
        bound = replace(products, bias=bias).bound() + half_ulp(z, dtype) + half_ulp(z + bias, dtype)
        if self.arithmetic.by_xla:
            bound += half_ulp(bias, dtype)  # it may not have been rounded
        return products, z + bias, bound

    def _dot_products(self, fourier: Callable[[np.ndarray], np.ndarray], *arguments: Any, terms: int) -> DotProducts:
        """Return them with the bound by Fourier transforms, `fourier` of the sums, where those may be used."""
        products = error_bounds.dot_products(*arguments, terms=terms, arithmetic=self.arithmetic)
        # cuDNN has no such transforms with strides. XLA might rewrite one to a convolution without: by simulation its
        # errors then stay within two thirds of the bound of plain sums, so that one is kept.
        if self.arithmetic.may_use_fft and isinstance(self.exact, oracle.Convolution) and self.exact.strides == 1:
            return replace(products, fourier=fourier(products.z))
        return products

    def _operand(self, array: np.ndarray) -> np.ndarray:
        return round_to(array, self.arithmetic.dtype)

    def _compare_rounded(self, array: str, device: Any, products: DotProducts, dtype: str) -> LayerComparison:
        return self._compare(array, device, products.z, products.bound() + half_ulp(products.z, dtype), products)


@dataclass(frozen=True, eq=False)
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
