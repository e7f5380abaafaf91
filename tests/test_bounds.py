"""The bounds hold for sums added up in the simplest ways, and are not far from what those reach."""

import numpy as np
import pytest
from keras import ops

from alexnet_repro.hardware import bounds


def in_turn(products):
    """Return float32 products added up in float32, one after the other, along the first axis."""
    return np.cumsum(products, axis=0, dtype=np.float32)[-1].astype(np.float64)


def cut_off(a, b):
    """Return sums as tensor cores may make them: operands and each partial sum cut off, four products at a time."""
    blocks = (bounds.shortened(a, 11, cut=True) * bounds.shortened(b, 11, cut=True)).reshape(-1, 4, a.shape[1]).sum(1)
    total = np.zeros(a.shape[1])
    for block in blocks:
        total = bounds.shortened(np.asarray(total + block, np.float32), 23, cut=True)
    return total


def split(a, b):
    """Return sums of four parts, each exact but for being kept in bfloat16, as a GPU may split them."""
    parts = (a.astype(float) * b).reshape(4, -1, a.shape[1]).sum(1)
    return bounds.rounded(parts, "bfloat16").sum(0)


@pytest.mark.parametrize(
    ("arithmetic", "compute"),
    [
        pytest.param(bounds.Arithmetic("float32"), lambda a, b: in_turn(a * b), id="sums=float32"),
        pytest.param(bounds.Arithmetic("float32", operand_unit=2**-11, cuts_off=True), cut_off, id="sums=tf32"),
        pytest.param(bounds.Arithmetic("bfloat16", cuts_off=True), split, id="sums=split"),
    ],
)
@pytest.mark.parametrize("terms", [4, 256, 6400])
@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_bounds_hold_and_are_near(terms, mean, arithmetic, compute):
    """The simplest ways to add up stay within the bound, by no more than a factor of fifty."""
    a, b = (np.random.RandomState(seed).normal(mean, 1, (terms, 400)).astype(np.float32) for seed in (terms, 1))
    sums = bounds.sums(
        lambda a, b: (a * b).sum(axis=0), a.astype(float), b.astype(float), terms=terms, arithmetic=arithmetic
    )
    ratio = np.abs(compute(a, b) - sums.z) / sums.bound()
    assert 1 / 50 < ratio.max() < 1


@pytest.mark.parametrize(("dtype", "half_unit"), [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_rounding_of_operands(dtype, half_unit):
    """Weights are rounded as the device casts them, by half a unit in the last place at the most."""
    values = np.random.RandomState(0).standard_normal(10_000).astype(np.float32)
    rounded = bounds.rounded(values, dtype)
    np.testing.assert_array_equal(rounded, ops.convert_to_numpy(ops.cast(values, dtype)).astype(np.float64))
    assert (np.abs(rounded - values) <= half_unit * np.abs(values)).all()


@pytest.mark.parametrize(
    ("precision", "device", "drift", "gradient_drift"),
    [
        # With c = sqrt(2 ln 2e9) = 6.5447: 8 × (c × 2^-24 × sqrt(12800) + 2 × 2^-24); sqrt of ten times that.
        ("float32", "cpu:0", 3.5403e-4, 5.9500e-2),
        ("tf32", "cpu:0", 3.5403e-4, 5.9500e-2),
        ("float32", "gpu:0", 3.5403e-4, 5.9500e-2),
        # 8 × (c × 2^-24 × sqrt(12800) + 2 × 2^-11 + 2 × 2^-24)
        ("tf32", "gpu:1", 8.1665e-3, 0.28577),
        # 8 × (c × 2^-24 × sqrt(12800) + 2 × 2^-11), and 2^-8 for 2^-11
        ("mixed_float16", "gpu:0", 8.1656e-3, 0.28575),
        ("mixed_bfloat16", "gpu:0", 6.2853e-2, 0.79280),
        ("mixed_bfloat16", "cpu:0", 6.2853e-2, 0.79280),
        # 8 × (c × 2^-11 × sqrt(12800) + 2 × 2^-11)
        ("mixed_float16", "cpu:0", 2.9002, 5.3853),
    ],
)
def test_drift(precision, device, drift, gradient_drift):
    """Logits and gradients of a whole step may be as far off as rounding in this precision adds up to."""
    assert bounds.drift(precision, device) == pytest.approx(drift, rel=2e-5)
    assert bounds.gradient_drift(precision, device) == pytest.approx(gradient_drift, rel=2e-5)


@pytest.mark.parametrize("drift", [bounds.drift, bounds.gradient_drift], ids=["of=logits", "of=gradients"])
@pytest.mark.parametrize(
    ("device", "precisions"),
    [
        pytest.param("cpu:0", ["float32", "mixed_bfloat16", "mixed_float16"], id="device=cpu:0"),
        pytest.param("gpu:0", ["float32", "mixed_float16", "tf32", "mixed_bfloat16"], id="device=gpu:0"),
    ],
)
def test_drift_grows_as_precision_falls(device, precisions, drift):
    """The less precise, the more room there is."""
    drifts = [drift(precision, device) for precision in precisions]
    assert drifts == sorted(set(drifts))
