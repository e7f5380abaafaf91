"""What a device computed held against what is right: the verdict on an array, and what to do about it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from alexnet_repro.verify.numerics.error_bounds import Arithmetic, Sums, rounded, shortened

# What a device may round float32 operands to unasked, and the ways it does.
COARSER: dict[str, tuple[Callable[[np.ndarray], np.ndarray], ...]] = {
    "TensorFloat-32": (lambda array: shortened(array, 11), lambda array: shortened(array, 11, cut=True)),
    "bfloat16": (lambda array: rounded(array, "bfloat16"),),
}


@dataclass(frozen=True)
class LayerComparison:
    """One array of one layer, held against the oracle: the element whose error is the most of its bound."""

    layer: str
    what: str
    """`output`, `kernel gradient`, `bias gradient`, `input gradient`, …"""
    precision: str
    terms: int
    """Products in a sum at the most; 0: nothing was summed."""
    error: float
    bound: float
    index: tuple[int, ...]
    ratio: float
    """Error by bound; infinite where the device's value isn't a number."""
    like: str | None = None
    """If it is off: what its operands were rounded to, where that explains most of the errors."""
    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    """If they differ: the device's and the right one; nothing else was compared then."""

    @property
    def ok(self) -> bool:
        """Whether every element is within its bound."""
        return self.ratio <= 1

    def __str__(self) -> str:
        """Say by how much it is off, or how close it came."""
        if self.shapes:
            return f"{self.layer} {self.what}: has shape {self.shapes[0]}, should have {self.shapes[1]}"
        terms = f", {self.terms:,} terms" if self.terms else ""
        return (
            f"{self.layer} {self.what}: off by {_short(self.error)} at {self.index}, "
            f"allowed {_short(self.bound)} ({self.precision}{terms})"
        )


@dataclass(frozen=True)
class Comparison:
    """A whole forward and backward pass, in the order it was computed."""

    layers: tuple[LayerComparison, ...]

    @property
    def first_off(self) -> LayerComparison | None:
        """The first array that is off, None if all are within their bounds."""
        return next((layer for layer in self.layers if not layer.ok), None)

    @property
    def closest(self) -> LayerComparison:
        """The sum that came closest to its bound; rounding a result alone often reaches it, and says less."""
        return max((layer for layer in self.layers if layer.terms), key=lambda layer: layer.ratio)

    def __str__(self) -> str:
        """Name the first layer that is off and say what to do next; or how close the closest came."""
        off = self.first_off
        if off:
            return f"{off}. {next_step(off)}"
        closest = self.closest
        return f"{len(self.layers)} arrays within their bounds; the closest sum, at {closest.ratio:.0%}: {closest}"


def _short(number: float) -> str:
    return f"{number:.1e}".replace("e-0", "e-").replace("e+0", "e+")


def next_step(off: LayerComparison) -> str:
    """Return what to do about a layer that is off."""
    if off.shapes:
        return "The model isn't the documented one: check how this layer was built"
    if off.like == "TensorFloat-32":
        return "TensorFloat-32 explains it: set NVIDIA_TF32_OVERRIDE=0, or ask for --precision=tf32"
    if off.like:
        return (
            f"Operands rounded to {off.like} explain it: look for what lowers the precision of float32 "
            "(ONEDNN_DEFAULT_FPMATH_MODE, XLA_FLAGS), or ask for a mixed precision"
        )
    return (
        "Run it again: if it is off by the same at the same place, suspect software (other driver or framework "
        "versions, --device=cpu:0 to compare); if not, the hardware (memory errors, power, heat)"
    )


def hold(
    name: tuple[str, str, str],
    device: np.ndarray,
    expected: np.ndarray,
    bound: np.ndarray,
    sums: Sums | None = None,
) -> LayerComparison:
    """Compare what the device computed with what is right.

    Args:
        name: layer, what of it, and precision.
        device: what was computed.
        expected: what is right.
        bound: how far off each element may be.
        sums: the products that were summed, if any were.
    """
    terms = sums.terms if sums else 0
    if device.shape != expected.shape:
        return LayerComparison(*name, terms, np.inf, 0.0, (), np.inf, shapes=(device.shape, expected.shape))
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(device - expected)
        ratio = np.nan_to_num(error / np.maximum(bound, 1e-290), nan=np.inf, posinf=np.inf)
    flat = int(ratio.argmax())
    index = tuple(map(int, np.unravel_index(flat, ratio.shape)))
    like = _explanation(device, expected, sums) if ratio[index] > 1 and sums else None
    return LayerComparison(*name, terms, float(error[index]), float(bound[index]), index, float(ratio[index]), like)


def _explanation(device: np.ndarray, expected: np.ndarray, sums: Sums) -> str | None:
    """Return what rounding the operands of a float32 product to takes away more than half of the errors."""
    exact = replace(sums.arithmetic, transforms=False) == Arithmetic("float32")
    if not exact or sums.again is None or not np.isfinite(device).all():
        return None
    passed = expected != 0  # by ReLU
    error = (device - expected)[passed]
    for name, ways in COARSER.items():
        for way in ways:
            rest = error - (sums.again(way) - sums.z)[passed]
            if np.square(rest).sum() < np.square(error).sum() / 4:
                return name
    return None
