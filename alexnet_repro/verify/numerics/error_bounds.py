"""How far off may a correct device be? Rounding-error bounds for each precision, element by element.

The computed sum z of K products, whose squares sum to S, added in any order, differs from the exact one by less than

    c u sqrt((K+1) (P + b²) + 2 (v/u)² S)  +  w (|z| + |z+b|)  +  2 v |z|  +  u K/4 sqrt(P)        with P = S + z²

in all elements of an array, but with probability `FALSE_ALARM`. b is the bias; u, v and w are the relative rounding
errors of additions, operands and results; the last two terms are for tensor cores, which truncate. A GPU may convolve
by Fourier transforms in float32, which have a bound of their own; XLA may leave out roundings. Derivations and sources:
docs/method/numerics.md.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from alexnet_repro.verify.numerics.oracle import SIGMOID_CLIP, class_weights, sigmoid

Rounding = Callable[[np.ndarray], np.ndarray]

FALSE_ALARM = 1e-9  # per array; some fifty are compared: one false alarm in twenty million comparisons
FLOAT32 = 2.0**-24
SIGMOID = 4 * FLOAT32  # of sigmoids, by exp or tanh: their own errors and one addition, of numbers up to 1
UNIT = {"float32": FLOAT32, "bfloat16": 2.0**-8, "float16": 2.0**-11}
SMALLEST_NORMAL = {"float32": 2.0**-126, "bfloat16": 2.0**-126, "float16": 2.0**-14}


@dataclass(frozen=True)
class Arithmetic:
    """How sums of products are computed."""

    dtype: str  # of operands and results
    unit: float = FLOAT32  # u
    operand_unit: float = 0.0  # v
    truncates: bool = False  # whether it may run on tensor cores
    may_use_fft: bool = False  # whether convolutions may be computed by Fourier transforms
    by_xla: bool = False  # whether XLA compiles it, which may leave operands and biases as they were before rounding


def arithmetics(precision: str, device: str, *, by_xla: bool = False) -> tuple[Arithmetic, Arithmetic]:
    """Return how the hidden layers and the head are computed, by a name in `PRECISIONS` and one of `usable_devices`.

    `by_xla` is whether XLA compiles them.
    """
    on_cpu = device.startswith("cpu")
    if precision.startswith("mixed_"):
        dtype = precision.removeprefix("mixed_")
        # Kernels for a CPU keep float16's sums in float16, as seen with TensorFlow 2.21 and PyTorch 2.13.
        unit = UNIT[dtype] if on_cpu and dtype == "float16" else FLOAT32
        return Arithmetic(dtype, unit, truncates=not on_cpu, by_xla=by_xla), Arithmetic("float32")
    if precision == "tf32" and not on_cpu:
        return (Arithmetic("float32", operand_unit=2.0**-11, truncates=True),) * 2
    return (Arithmetic("float32", may_use_fft=precision == "float32" and not on_cpu),) * 2


def round_to(array: np.ndarray, dtype: str) -> np.ndarray:
    """Return float32 values as float64 after rounding to `dtype`, to nearest, ties to even, as Keras casts."""
    array = np.asarray(array, np.float32)
    if dtype == "float16":
        array = array.astype(np.float16)
    elif dtype == "bfloat16":
        bits = array.view(np.uint32)
        array = ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return array.astype(np.float64)


def keep_bits(array: np.ndarray, bits: int, *, truncate: bool = False) -> np.ndarray:
    """Return float32 values as float64 with `bits` significant bits, rounded to nearest or truncated."""
    dropped = 24 - bits
    whole = np.asarray(array, np.float32).view(np.uint32) + np.uint32(0 if truncate else 1 << dropped - 1)
    return np.asarray((whole >> dropped << dropped).view(np.float32), np.float64)


def confidence(elements: int) -> float:
    """Return c for an array of this many elements."""
    return math.sqrt(2 * math.log(2 * elements / FALSE_ALARM))


def half_ulp(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return half a unit in the last place of `values`: the largest error of rounding them to `dtype`."""
    return np.asarray(UNIT[dtype] * np.maximum(np.abs(values), SMALLEST_NORMAL[dtype]))


def fourier_over_channels(images: np.ndarray, kernel: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return the bound of sums `z`, `(n, rows, columns, filters)`, over the channels of images by Fourier transforms.

    The kernel's strides are 1.
    """
    squares = np.square(images).sum(axis=(1, 2)) @ np.square(kernel).sum(axis=(0, 1))
    squares = squares[:, np.newaxis, np.newaxis]
    partial = squares + np.square(z).max(axis=(1, 2), keepdims=True)
    return _fourier_bound(z.size, squares, partial, images.shape[-1], images.shape, kernel.shape)


def fourier_over_images(x: np.ndarray, dz: np.ndarray, kernel_shape: tuple[int, ...]) -> np.ndarray:
    """Return the bound of a kernel's gradient, `(c, filters)`: sums over images by Fourier transforms."""
    norms, dz_norms = (np.sqrt(np.square(planes).sum(axis=(1, 2))) for planes in (x, dz))
    # cuDNN's smallest tiles have sides of 16 points.
    tiles = math.prod(-(-side // (16 - size + 1)) for side, size in zip(x.shape[1:3], kernel_shape[:2], strict=True))
    squares = (4 if tiles > 1 else 1) * np.square(norms.T @ dz_norms)
    return _fourier_bound(math.prod(kernel_shape), squares, squares, len(x) * tiles, x.shape, kernel_shape)


def _fourier_bound(
    elements: int, squares: np.ndarray, partial: np.ndarray, planes: int, *shapes: tuple[int, ...]
) -> np.ndarray:
    """Return it for T, P and M as in docs/method/numerics.md; t follows from the shapes of images and kernel."""
    # cuDNN's largest tiles have sides of 32 points.
    sides = zip(shapes[0][1:3], shapes[1][:2], strict=True)
    levels = sum(math.ceil(math.log2(max(side + size - 1, 32))) for side, size in sides)
    variance = (8 * levels + 1) * squares + (2 * planes + 4 * levels) * partial
    return np.asarray(confidence(elements) * FLOAT32 * np.sqrt(variance))


@dataclass(frozen=True, eq=False)
class DotProducts:
    """Exact sums of products and what their bound depends on."""

    z: np.ndarray  # without the bias
    squares: np.ndarray  # S
    terms: int  # K, the most products in a sum
    arithmetic: Arithmetic
    bias: np.ndarray | float = 0.0  # b
    recompute_with: Callable[[Rounding], np.ndarray] | None = None  # the sums after another rounding of the operands
    fourier: np.ndarray | float = 0.0  # their bound, if they may be computed by Fourier transforms

    def bound(self) -> np.ndarray:
        """Return the bound above without w, the rounding of the results."""
        u, v = self.arithmetic.unit, self.arithmetic.operand_unit
        partial = np.square(self.z)
        partial += self.squares
        bound = (self.terms + 1) * (partial + np.square(self.bias))
        if v:
            bound += 2 * (v / u) ** 2 * self.squares
        np.sqrt(bound, out=bound)
        bound *= confidence(self.z.size) * u
        if v:
            bound += 2 * v * np.abs(self.z)
        if self.arithmetic.truncates:
            bound += u * self.terms / 4 * np.sqrt(partial)
        if self.arithmetic.dtype != "float32" and (self.arithmetic.truncates or self.arithmetic.by_xla):
            bound += confidence(self.z.size) * UNIT[self.arithmetic.dtype] * np.sqrt(partial)
        return np.asarray(np.maximum(bound, self.fourier))


def dot_products(
    bilinear: Callable[..., np.ndarray], a: np.ndarray, b: np.ndarray, *more: Any, terms: int, arithmetic: Arithmetic
) -> DotProducts:
    """Return the sums of products that `bilinear(a, b, *more)` computes."""
    z, squares = bilinear(a, b, *more), bilinear(a * a, b * b, *more)
    return DotProducts(z, squares, terms, arithmetic, recompute_with=lambda to: bilinear(to(a), to(b), *more))


def loss_error_bound(name: str, labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds of the loss of each row and of its gradient by the logits, by first-order error propagation."""
    p, classes, sigmoids = class_weights(name, logits), logits.shape[1], name == "normalised_sigmoid"
    e, logs = (SIGMOID, np.log(p)) if sigmoids else (0.0, logits)
    total = p.sum(axis=1, keepdims=True)
    share = p / total
    gradient = share - np.eye(classes)[labels]
    spread = FLOAT32 * (2 * np.abs(logs).max(axis=1, keepdims=True) + classes + 4)
    loss = (e / p + classes * e / total + spread)[np.arange(len(labels)), labels]
    slope = e * (1 + classes * share) / total + share * spread + 8 * FLOAT32 * np.abs(gradient)
    if sigmoids:
        exact = sigmoid(logits)
        at_clip = np.minimum(np.abs(exact - SIGMOID_CLIP), np.abs(exact - (1 - SIGMOID_CLIP))) <= e
        slope = (1 - p) * slope + e * np.abs(gradient) + at_clip * np.abs((1 - p) * gradient)
    return loss, slope


def drift(precision: str, device: str) -> float:
    """Return the largest relative error of a correct device's logits: the rounding of eight layers, added up."""
    hidden, _ = arithmetics(precision, device)
    rounding = hidden.unit * math.sqrt(2 * 6400)  # the most products in a sum
    return 8 * (confidence(1) * rounding + 2 * hidden.operand_unit + 2 * UNIT[hidden.dtype])


def gradient_drift(precision: str, device: str) -> float:
    """Return the largest relative error, by norm, of a weight's gradient after a whole step of a correct device.

    Activations that are off by a share d of their size may decide as large a share of ReLUs and pooling windows
    otherwise; each such gate moves its part of the gradient entirely. By norm that is sqrt(d) per gate, and there are
    ten: seven ReLUs, three poolings.
    """
    return math.sqrt(10 * drift(precision, device))
