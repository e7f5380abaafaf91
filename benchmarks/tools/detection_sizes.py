"""How large must an error be that is there each time? By the checks' own bounds, and by faults put into real checks."""

from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import keras
import numpy as np
import pytest
from keras import ops

from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.registry import CheckId, run_check
from alexnet_repro.verify.checks.repeatability import new_replay
from alexnet_repro.verify.numerics import layers
from alexnet_repro.verify.numerics.replay import first_divergence

TILE = 64  # positions, and channels
LANES = 64
# By how much of itself a value is off, below and above what `sizes` says, and all of it; and which bit is stuck.
FACTORS = {"float32": (1e-5, 1e-4, -1.0), "mixed_bfloat16": (3e-3, 3e-2, -1.0)}
STUCK = {"float32": (4, 10, 26), "mixed_bfloat16": (0, 2, 10)}
CHECKS = ("layers", "update", "learning")


def sizes(precision: str) -> list[list[Any]]:
    """Return what `layers` would find in each array of a real run: rows of a name and five numbers.

    By quantiles of its elements and of its tiles, 50 and 95 %: the size of an error that is out of the bound whatever
    its sign; of an element's beside the array's root mean square, of a tile that is off by a factor beside itself. Last
    the share of tiles that are nothing but zeros, where no factor shows. Of an array that is compared in several
    parts it is the worst part's.
    """
    rows: dict[str, list[float]] = {}
    original = layers._compare_arrays  # noqa: SLF001 - what the check compares by

    def compare(name: Any, device: np.ndarray, expected: np.ndarray, bound: np.ndarray, *products: Any) -> Any:
        found, key = _sizes(device, expected, bound), f"{name[0]} {name[1]}"
        rows[key] = [max(pair) for pair in zip(found, rows.get(key, found), strict=True)]
        return original(name, device, expected, bound, *products)

    with mock.patch.object(layers, "_compare_arrays", compare):
        finding = run_check(CheckId("layers", precision), CheckConfig())
    if finding.status != "PASS":
        raise ValueError(f"the clean run isn't right: {finding}")
    return [[name, *found] for name, found in rows.items()]


def _sizes(device: np.ndarray, expected: np.ndarray, bound: np.ndarray) -> list[float]:
    size = np.abs(expected)
    needed = np.broadcast_to(bound, expected.shape) + np.abs(device - expected)
    scale = np.sqrt(np.square(expected).mean())
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(size > 0, needed / size, np.inf).reshape(-1, expected.shape[-1])
    tiles = [
        float(factor[row : row + TILE, column : column + TILE].min())
        for row in range(0, factor.shape[0], TILE)
        for column in range(0, factor.shape[1], TILE)
    ]
    shown = [each for each in tiles if np.isfinite(each)] or [np.inf]
    found = [*np.quantile(needed / scale, (0.5, 0.95)), *np.quantile(shown, (0.5, 0.95)), 1 - len(shown) / len(tiles)]
    return [float(f"{each:.3g}") for each in found]


def _scaled_tile(factor: float) -> Callable[[Any, Any], Any]:
    """Return a layer's fault: of its output the first tile of each image is off by this share; gradients pass."""

    def fault(call: Any, x: Any) -> Any:
        y = call(x)
        wrong = ops.cast(ops.cast(y, "float32") * (1 + factor * _places(y)), y.dtype)
        return y + ops.stop_gradient(wrong - y)

    return fault


def _scaled_gradient_tile(factor: float) -> Callable[[Any, Any], Any]:
    """Return a layer's fault: of the gradient by its output the first tile is off; its output is right."""

    def fault(call: Any, x: Any) -> Any:
        y = call(x)
        return y + ops.cast(factor * _places(y), y.dtype) * (y - ops.stop_gradient(y))

    return fault


def _places(y: Any) -> np.ndarray:
    """Return 1 in the first tile of each image, 0 elsewhere."""
    columns = np.arange(y.shape[-1]) < TILE
    if len(y.shape) == 2:
        return columns[np.newaxis].astype(np.float32)
    positions = np.arange(y.shape[1] * y.shape[2]).reshape(1, *y.shape[1:3], 1) < TILE
    return (positions * columns).astype(np.float32)


def _stuck(bit: int) -> Callable[[Any, Any], Any]:
    """Return a layer's fault: a bit of its outputs is always 1 in one channel of 64, as of a lane of a unit."""

    def fault(call: Any, x: Any) -> Any:
        y = call(x)
        kind = "int16" if keras.backend.standardize_dtype(y.dtype) in {"bfloat16", "float16"} else "int32"
        pattern = (np.arange(y.shape[-1]) % LANES == 5) * (1 << bit)
        stuck = ops.view(ops.bitwise_or(ops.view(ops.stop_gradient(y), kind), pattern.astype(kind)), y.dtype)
        return y + ops.stop_gradient(stuck - y)

    return fault


def persistent_faults(precision: str) -> Iterator[tuple[str, float, Callable[[Any, Any], Any]]]:
    """Yield the name of each kind, its size, and the layer's fault; the least sizes first."""
    for factor in FACTORS[precision]:
        yield "tile of the output", factor, _scaled_tile(factor)
    for factor in FACTORS[precision]:
        yield "tile of the gradient", factor, _scaled_gradient_tile(factor)
    for bit in STUCK[precision]:
        yield "stuck bit of a lane", bit, _stuck(bit)


def persistent(precision: str, layer: str = "conv2d_3", side: int = 224) -> Iterator[list[Any]]:
    """Yield, for each fault that is there each time, which checks fail and whether a step's bits are other ones.

    `update` and `learning`, which see large ones alone, run for the largest of each kind. Rows: kind, size, layer, the
    checks that ran, those that failed, and where the replay's bits first differ from those of a right device.
    """
    from tests.faults.tools import in_layer

    config = CheckConfig(precision=precision, side=side, steps=1)
    clean = new_replay(config).run()
    faults = list(persistent_faults(precision))
    for number, (kind, size, fault) in enumerate(faults):
        largest = number + 1 == len(faults) or faults[number + 1][0] != kind
        ran = CHECKS if largest else CHECKS[:1]
        with pytest.MonkeyPatch.context() as patch:
            in_layer(layer, fault)(patch)
            found = {name: run_check(CheckId(name, precision), config) for name in ran}
            divergence = first_divergence(clean, new_replay(config).run(), "")
        if crashed := next((finding for finding in found.values() if finding.kind == "crash"), None):
            raise ValueError(f"{kind} {size}: {crashed}")
        failed = [name for name, finding in found.items() if finding.status == "FAIL"]
        yield [kind, size, layer, list(ran), failed, divergence.what if divergence else ""]
