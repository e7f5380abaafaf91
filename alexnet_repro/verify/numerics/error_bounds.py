"""How far off may a correct device be, in each precision? Bounds that follow from rounding, element by element.

Let z = t1 + … + tK be a sum of products tk = ak * bk, and S = sum tk². Each addition rounds its
partial sum s by a relative error of at most u; these errors are taken for independent, with mean zero.
Then (Hoeffding; model and method are those of Higham and Mary, "A New Approach to Probabilistic
Rounding Error Analysis", SIAM J. Sci. Comput. 41(5), 2019) the error of z stays below
c u sqrt(sum of all s²), but with probability 2 exp(-c²/2). In which order a device adds isn't known.
But if the terms fluctuate independently around their mean z/K, the mean of each s² is at most
P = S + z² in every order; adding in blocks or pairs makes it less. Products that are rounded add
S, starting from the bias b adds K b², and operands rounded by a relative error of at most v add
2 (v/u)² S:

    bound = c u sqrt((K+1) (P + b²) + 2 (v/u)² S)  +  w (|z| + |z+b|)  +  2 v |z|  +  u K/4 sqrt(P)

- c = sqrt(2 ln(2 N / FALSE_ALARM)): all N elements of an array are compared, and those of a right
  device all pass but with probability FALSE_ALARM.
- u = 2^-24: sums of products are kept in float32 under every precision, but for float16 on a CPU.
  A bias's gradient is summed in the precision itself: TensorFlow does so for bfloat16.
- v = 2^-11 under TensorFloat-32. Otherwise v = 0: the operands are known exactly, in bfloat16 and
  float16 too, for the oracle rounds them as Keras does.
- w, half a unit in the last place, for what comes out, before and after the bias: 2^-24 in float32,
  2^-8 in bfloat16, 2^-11 in float16. This term is certain, not probable, and correct devices reach it.
- A GPU may split a sum and keep its parts in the precision itself (cuBLAS, "reduced precision reductions"): where
  w > u that adds c w sqrt(P), for the parts' squares come to no more than P.
- Tensor cores cut off where others round (Fasi, Higham, Mikaitis and Pranesh, "Numerical behavior of
  NVIDIA tensor cores", PeerJ Comput. Sci. 7, 2021), so their errors have a mean: half a unit a time.
  It makes the last two terms, the last for sums of four products at a time, the smallest block found
  there. It is left out on a CPU and in float32.

In float32 a GPU may convolve by fast Fourier transforms, where strides are 1 (cuDNN 9.19 does on an H100).
They mix a whole plane: sums of nothing but zeros come out as the rounding of their neighbours. Let z be a sum over M
pairs of planes x and y, transformed with N = 2^t points. After each level, the values v and the factors by which z
depends on them have norms whose product is |x| |y|. A butterfly rounds its twiddle factor, product and sum, which adds
at most 4 u² |x|² |y|² to the squares of z's errors (Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed.,
section 24.1, with the squares of errors added up in place of their sizes). With T = sum |x|² |y|², there are two
transforms, a product, M complex additions of two products each, and the inverse, of partial sums whose mean square P is
T + max z² over the plane, as above:

    bound = c u sqrt((8t + 1) T + (2M + 4t) P)

A kernel's gradient sums few planes, and z's plane has many more points than the kernel; there P = T = (sum |x| |y|)²,
which holds in any case. Planes may be cut into overlapping tiles: up to four share a point, which makes that four
times. Of the two bounds the larger holds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from alexnet_repro.verify.numerics.oracle import EPSILON

FALSE_ALARM = 1e-9  # of one array; some fifty are compared: one false alarm in twenty million comparisons
FLOAT32 = 2.0**-24
SIGMOID = 4 * FLOAT32  # of sigmoids, whether by exp or tanh: their own errors and one addition, of numbers up to 1
UNIT = {"float32": FLOAT32, "bfloat16": 2.0**-8, "float16": 2.0**-11}
SMALLEST_NORMAL = {"float32": 2.0**-126, "bfloat16": 2.0**-126, "float16": 2.0**-14}


@dataclass(frozen=True)
class Arithmetic:
    """How sums of products are computed."""

    dtype: str
    """Of operands and results."""
    unit: float = FLOAT32
    """u above."""
    operand_unit: float = 0.0
    """v above."""
    cuts_off: bool = False
    """Whether it may run on tensor cores."""
    transforms: bool = False
    """Whether convolutions may be computed by Fourier transforms."""


def arithmetics(precision: str, device: str) -> tuple[Arithmetic, Arithmetic]:
    """Return how the hidden layers and the head are computed.

    Args:
        precision: a name in `alexnet_repro.backend.precision.PRECISIONS`.
        device: `cpu:0`, `gpu:1`, …
    """
    on_cpu = device.startswith("cpu")
    if precision.startswith("mixed_"):
        dtype = precision.removeprefix("mixed_")
        # Kernels for a CPU keep float16's sums in float16, as seen with TensorFlow 2.21 and PyTorch 2.13.
        unit = UNIT[dtype] if on_cpu and dtype == "float16" else FLOAT32
        return Arithmetic(dtype, unit, cuts_off=not on_cpu), Arithmetic("float32")
    if precision == "tf32" and not on_cpu:
        return (Arithmetic("float32", operand_unit=2.0**-11, cuts_off=True),) * 2
    return (Arithmetic("float32", transforms=precision == "float32" and not on_cpu),) * 2


def rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    """Return float32 values as float64 after rounding to `dtype`, to nearest, ties to even, as Keras casts."""
    array = np.asarray(array, np.float32)
    if dtype == "float16":
        array = array.astype(np.float16)
    elif dtype == "bfloat16":
        bits = array.view(np.uint32)
        array = ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return array.astype(np.float64)


def shortened(array: np.ndarray, bits: int, *, cut: bool = False) -> np.ndarray:
    """Return float32 values as float64 with `bits` significant bits, rounded to nearest or cut off."""
    dropped = 24 - bits
    whole = np.asarray(array, np.float32).view(np.uint32) + np.uint32(0 if cut else 1 << dropped - 1)
    return np.asarray((whole >> dropped << dropped).view(np.float32), np.float64)


def confidence(elements: int) -> float:
    """Return c for so many elements."""
    return math.sqrt(2 * math.log(2 * elements / FALSE_ALARM))


def rounding(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return half a unit in the last place of `values`: what rounding them to `dtype` costs at the most."""
    return np.asarray(UNIT[dtype] * np.maximum(np.abs(values), SMALLEST_NORMAL[dtype]))


SMALLEST_TILE, LARGEST_TILE = 16, 32  # sides of cuDNN's, in points


@dataclass(frozen=True)
class Transformed:
    """What the bound of a convolution by Fourier transforms depends on."""

    squares: np.ndarray
    """T above, of a shape that broadcasts to that of the sums."""
    partial: np.ndarray
    """P above."""
    planes: int
    """Planes in a sum at the most, M above."""
    levels: int
    """Of a transform, t above."""

    def bound(self, elements: int, unit: float) -> np.ndarray:
        """Return the bound of so many sums."""
        levels = self.levels
        variance = (8 * levels + 1) * self.squares + (2 * self.planes + 4 * levels) * self.partial
        return np.asarray(confidence(elements) * unit * np.sqrt(variance))


def over_channels(images: np.ndarray, kernel: np.ndarray, z: np.ndarray) -> Transformed:
    """Return it for sums `(n, rows, columns, filters)` over the channels of images and a kernel, one apart."""
    squares = np.square(images).sum(axis=(1, 2)) @ np.square(kernel).sum(axis=(0, 1))
    squares = squares[:, np.newaxis, np.newaxis]
    partial = squares + np.square(z).max(axis=(1, 2), keepdims=True)
    return Transformed(squares, partial, images.shape[-1], _levels(images, kernel.shape))


def over_images(x: np.ndarray, dz: np.ndarray, kernel_shape: tuple[int, ...]) -> Transformed:
    """Return it for the gradient by a kernel, a sum over images."""
    norms, by_norms = (np.sqrt(np.square(planes).sum(axis=(1, 2))) for planes in (x, dz))
    sides = zip(x.shape[1:3], kernel_shape[:2], strict=True)
    tiles = math.prod(-(-side // (SMALLEST_TILE - size + 1)) for side, size in sides)
    squares = (4 if tiles > 1 else 1) * np.square(norms.T @ by_norms)
    return Transformed(squares, squares, len(x) * tiles, _levels(x, kernel_shape))


def _levels(images: np.ndarray, kernel_shape: tuple[int, ...]) -> int:
    sides = zip(images.shape[1:3], kernel_shape[:2], strict=True)
    return sum(math.ceil(math.log2(max(side + size - 1, LARGEST_TILE))) for side, size in sides)


@dataclass(frozen=True)
class Sums:
    """Exact sums of products and what their bound depends on."""

    z: np.ndarray
    """The sums, without the bias."""
    squares: np.ndarray
    """The sums of the squared products, S above."""
    terms: int
    """Products in a sum at the most, K above."""
    arithmetic: Arithmetic
    bias: np.ndarray | float = 0.0
    """What is added to each sum, b above."""
    again: Callable[[Callable[[np.ndarray], np.ndarray]], np.ndarray] | None = None
    """Sums up again after another rounding of the operands."""
    transformed: Transformed | None = None
    """If they may be computed by Fourier transforms: what their bound depends on then."""

    def bound(self) -> np.ndarray:
        """Return the bound above without the rounding of what comes out."""
        u, v = self.arithmetic.unit, self.arithmetic.operand_unit
        partial = self.squares + self.z**2
        variance = (self.terms + 1) * (partial + np.square(self.bias)) + 2 * (v / u) ** 2 * self.squares
        bound = confidence(self.z.size) * u * np.sqrt(variance) + 2 * v * np.abs(self.z)
        if self.arithmetic.cuts_off:
            bound += u * self.terms / 4 * np.sqrt(partial)
            if self.arithmetic.dtype != "float32":
                bound += confidence(self.z.size) * UNIT[self.arithmetic.dtype] * np.sqrt(partial)
        if self.transformed:
            bound = np.maximum(bound, self.transformed.bound(self.z.size, u))
        return np.asarray(bound)


def sums(
    bilinear: Callable[..., np.ndarray], a: np.ndarray, b: np.ndarray, *more: Any, terms: int, arithmetic: Arithmetic
) -> Sums:
    """Return the sums of products that `bilinear(a, b, *more)` computes."""

    def again(rounding: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return bilinear(rounding(a), rounding(b), *more)

    return Sums(bilinear(a, b, *more), bilinear(a * a, b * b, *more), terms, arithmetic, again=again)


def of_loss(name: str, labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds of the loss of each row and of its gradient by the logits, from first-order error propagation.

    An error of `e` in each p moves log p by e/p, and the shares p / sum(p) by e/sum(p) and, through
    the sum, by share * n * e/sum(p). Logarithms and their exponentials have errors of the size of
    the logarithms.
    """
    rows, (_, classes) = np.arange(len(labels)), logits.shape
    if name == "normalised_sigmoid":
        with np.errstate(over="ignore"):
            sigmoid = 1 / (1 + np.exp(-logits))
        p = np.clip(sigmoid, EPSILON, 1 - EPSILON)
        logs, e = np.log(p), SIGMOID
    else:
        p, logs, e = np.exp(logits - logits.max(axis=1, keepdims=True)), logits, 0.0
    total = p.sum(axis=1, keepdims=True)
    share = p / total
    spread = FLOAT32 * (2 * np.abs(logs).max(axis=1, keepdims=True) + classes + 4)
    gradient = share.copy()
    gradient[rows, labels] -= 1
    loss = (e / p + classes * e / total + spread)[rows, labels]
    slope = e * (1 + classes * share) / total + share * spread + 8 * FLOAT32 * np.abs(gradient)
    if name == "normalised_sigmoid":
        at_clip = np.minimum(np.abs(sigmoid - EPSILON), np.abs(sigmoid - (1 - EPSILON))) <= e
        slope = (1 - p) * slope + e * np.abs(gradient) + at_clip * np.abs((1 - p) * gradient)
    return loss, slope


LAYERS_IN_A_ROW, MAX_TERMS = 8, 6400  # with weights; products in a sum of the widest
GATES = 10  # seven ReLUs, three poolings


def drift(precision: str, device: str) -> float:
    """Return how far off, relative to their size, the logits of a right device may be.

    Each of eight layers adds the rounding of a sum of the most terms (of as large a mean as spread),
    of its operands, and of what comes out, twice.
    """
    hidden, _ = arithmetics(precision, device)
    rounding = hidden.unit * math.sqrt(2 * MAX_TERMS)
    return LAYERS_IN_A_ROW * (confidence(1) * rounding + 2 * hidden.operand_unit + 2 * UNIT[hidden.dtype])


def gradient_drift(precision: str, device: str) -> float:
    """Return how far off, by norm, a weight's gradient may be after a whole step.

    Where activations are off by a share d of their size, so large a share of ReLUs and pooling windows may
    decide otherwise, and each decision moves its part of the gradient entirely. By norm, that is sqrt(d) a gate.
    """
    return math.sqrt(GATES * drift(precision, device))
