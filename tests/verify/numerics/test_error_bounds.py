"""The bounds hold for sums added up in the simplest ways, and are not far from what those reach."""

from dataclasses import replace

import numpy as np
import pytest
from keras import ops
from scipy.fft import irfft2, rfft2

from alexnet_repro.verify.numerics import error_bounds, oracle


def in_turn(products):
    """Return float32 products added up in float32, one after the other, along the first axis."""
    return np.cumsum(products, axis=0, dtype=np.float32)[-1].astype(np.float64)


def truncated(a, b):
    """Return sums as tensor cores may make them: operands and each partial sum truncated, four products at a time."""
    blocks = (
        (error_bounds.keep_bits(a, 11, truncate=True) * error_bounds.keep_bits(b, 11, truncate=True))
        .reshape(-1, 4, a.shape[1])
        .sum(1)
    )
    total = np.zeros(a.shape[1])
    for block in blocks:
        total = error_bounds.keep_bits(np.asarray(total + block, np.float32), 23, truncate=True)
    return total


def split(a, b):
    """Return sums of four parts, each exact but for being kept in bfloat16, as a GPU may split them."""
    parts = (a.astype(float) * b).reshape(4, -1, a.shape[1]).sum(1)
    return error_bounds.round_to(parts, "bfloat16").sum(0)


@pytest.mark.parametrize(
    ("arithmetic", "compute"),
    [
        pytest.param(error_bounds.Arithmetic("float32"), lambda a, b: in_turn(a * b), id="sums=float32"),
        pytest.param(
            error_bounds.Arithmetic("float32", operand_unit=2**-11, truncates=True), truncated, id="sums=tf32"
        ),
        pytest.param(error_bounds.Arithmetic("bfloat16", truncates=True), split, id="sums=split"),
    ],
)
@pytest.mark.parametrize("terms", [4, 256, 6400])
@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_bounds_hold_and_are_near(terms, mean, arithmetic, compute):
    """The simplest ways to add up stay within the bound, by no more than a factor of fifty."""
    a, b = (np.random.RandomState(seed).normal(mean, 1, (terms, 400)).astype(np.float32) for seed in (terms, 1))
    sums = error_bounds.dot_products(
        lambda a, b: (a * b).sum(axis=0), a.astype(float), b.astype(float), terms=terms, arithmetic=arithmetic
    )
    ratio = np.abs(compute(a, b) - sums.z) / sums.bound()
    assert 1 / 50 < ratio.max() < 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_what_xla_leaves_unrounded_is_within_its_bound(dtype):
    """Operands that stay as they were before rounding are off by more than is allowed elsewhere."""
    a, b = (np.random.RandomState(seed).standard_normal((2304, 400)).astype(np.float32) for seed in (0, 1))
    rounded = [error_bounds.round_to(each, dtype) for each in (a, b)]
    ratios = []
    for by_xla in (False, True):
        arithmetic, _ = error_bounds.arithmetics(f"mixed_{dtype}", "cpu:0", by_xla=by_xla)
        arithmetic = replace(arithmetic, unit=error_bounds.FLOAT32)
        sums = error_bounds.dot_products(lambda a, b: (a * b).sum(axis=0), *rounded, terms=2304, arithmetic=arithmetic)
        ratios.append((np.abs((a.astype(float) * b).sum(axis=0) - sums.z) / sums.bound()).max())
    assert ratios[0] > 10
    assert 1 / 10 < ratios[1] < 1


@pytest.mark.parametrize("device", ["cpu:0", "gpu:0"])
def test_xla_rounds_float32_as_others_do(device):
    """Nothing is rounded before it is computed with in float32: there XLA changes nothing."""
    for precision in ("float32", "tf32"):
        assert error_bounds.arithmetics(precision, device, by_xla=True) == error_bounds.arithmetics(precision, device)


@pytest.mark.parametrize(("dtype", "half_unit"), [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_rounding_of_operands(dtype, half_unit):
    """Weights are rounded as the device casts them, by half a unit in the last place at most."""
    values = np.random.RandomState(0).standard_normal(10_000).astype(np.float32)
    rounded = error_bounds.round_to(values, dtype)
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
    assert error_bounds.drift(precision, device) == pytest.approx(drift, rel=2e-5)
    assert error_bounds.gradient_drift(precision, device) == pytest.approx(gradient_drift, rel=2e-5)


@pytest.mark.parametrize("drift", [error_bounds.drift, error_bounds.gradient_drift], ids=["of=logits", "of=gradients"])
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


@pytest.mark.parametrize(
    ("precision", "device", "transforms"),
    [
        ("float32", "gpu:0", True),
        ("float32", "cpu:0", False),
        ("tf32", "gpu:0", False),
        ("tf32", "cpu:0", False),
        ("mixed_bfloat16", "gpu:0", False),
        ("mixed_float16", "gpu:1", False),
    ],
)
def test_where_convolutions_may_be_transformed(precision, device, transforms):
    """Only a GPU in float32 may compute convolutions by Fourier transforms."""
    assert error_bounds.arithmetics(precision, device)[0].may_use_fft is transforms


def one(value, *shape):
    """Return zeros of a shape but for the very first value."""
    array = np.zeros(shape)
    array.flat[0] = value
    return array


@pytest.mark.parametrize(
    ("side", "kernel", "bound"),
    [
        # Of n = 9 or 25 elements, c = sqrt(2 ln 2e9 n). 12 x 12 in one tile: |x| |dz| = 12,
        # c × 2^-24 × sqrt((81 + 2 + 40) × 144)
        (12, 3, 5.4514e-5),
        # 26 x 26 in 3 x 3 tiles of 16 x 16: c × 2^-24 × sqrt((81 + 18 + 40) × 4 × 144)
        (26, 5, 1.18384e-4),
    ],
)
def test_bound_of_a_transformed_kernel_gradient(side, kernel, bound):
    """A gradient may be off by the rounding of its planes, even where all of its own terms are zero."""
    x, dz = one(3, 1, side, side, 1), one(4, 1, side, side, 1)
    np.testing.assert_allclose(error_bounds.fourier_over_images(x, dz, (kernel, kernel, 1, 1)), [[bound]], rtol=2e-5)


def test_bound_of_a_transformed_output():
    """So may an output; planes are added up over the channels."""
    images, kernel = one(3, 1, 12, 12, 2), one(2, 3, 3, 2, 1)
    images[0, 5, 5, 1], kernel[1, 1, 1, 0] = 4, 1
    # T = 3² × 2² + 4² × 1² = 52, P = 52 + 5², c = sqrt(2 ln(2e9 × 144)): c × 2^-24 × sqrt(81 × 52 + (4 + 40) × 77)
    found = error_bounds.fourier_over_channels(images, kernel, one(5, 1, 12, 12, 1))
    np.testing.assert_allclose(found, [[[[3.7748e-5]]]], rtol=2e-5)


@pytest.mark.parametrize(("fourier", "bound"), [(0.0, 7.8019e-7), (1e-7, 7.8019e-7), (3.5e-6, 3.5e-6)])
def test_larger_bound_holds(fourier, bound):
    """How a device sums isn't known: the larger of the two bounds is taken, and without transforms the first."""
    arithmetic = error_bounds.Arithmetic("float32")
    sums = error_bounds.DotProducts(np.array([0.0]), np.array([1.0]), 3, arithmetic, fourier=fourier)
    # c × 2^-24 × sqrt((3 + 1) × 1)
    np.testing.assert_allclose(sums.bound(), [bound], rtol=2e-5)


def by_transforms(x, kernel, dz, points):
    """Return output, kernel gradient and input gradient as transforms of whole planes in float32 make them."""
    margin, side = len(kernel) // 2, x.shape[1]
    padded = np.pad(x, [(0, 0), (margin, margin), (margin, margin), (0, 0)])
    planes = ((padded, (1, 2)), (kernel, (0, 1)), (dz, (1, 2)))
    by_x, by_kernel, by_dz = (rfft2(a.astype(np.float32), (points, points), axes) for a, axes in planes)
    inside = slice(margin, margin + side)

    def back(spectrum, axes):
        assert spectrum.dtype == np.complex64
        return irfft2(spectrum, (points, points), axes).astype(float)

    output = back(np.einsum("nijc,ijcf->nijf", by_x, by_kernel.conj()), (1, 2))[:, :side, :side]
    by_weights = back(np.einsum("nijc,nijf->ijcf", by_x, by_dz.conj()), (0, 1))[: len(kernel), : len(kernel)]
    by_input = back(np.einsum("nijf,ijcf->nijc", by_dz, by_kernel), (1, 2))[:, inside, inside]
    return output, by_weights, by_input


@pytest.mark.parametrize("planes", ["random", "even"])
@pytest.mark.parametrize(
    ("side", "size", "channels", "points"),
    [
        pytest.param(26, 5, 96, 32, id="layer=conv2d_1-points=32"),
        pytest.param(12, 3, 384, 16, id="layer=conv2d_4-points=16"),
        pytest.param(12, 3, 384, 32, id="layer=conv2d_4-points=32"),
    ],
)
def test_transforms_stay_within_their_bounds(side, size, channels, points, planes):
    """Convolutions by transforms do, by no more than a factor of a hundred where planes are even, 1,000 elsewhere."""
    random = np.random.RandomState(0)
    if planes == "even":
        x, dz = (np.ones((1, side, side, 1)) * random.uniform(1, 2, (2, 1, 1, last)) for last in (channels, 16))
        kernel = np.ones((size, size, 1, 1)) * random.standard_normal((1, 1, channels, 16))
    else:
        x, dz = (np.maximum(random.standard_normal((2, side, side, last)), 0) for last in (channels, 16))
        kernel = random.standard_normal((size, size, channels, 16))
    x, kernel, dz = (each.astype(np.float32).astype(float) for each in (x, kernel, dz))
    exact = oracle.Convolution("conv2d")
    output, by_input = exact.product(x, kernel), exact.input_gradient(dz, kernel, x.shape)
    expected = (
        (output, error_bounds.fourier_over_channels(x, kernel, output)),
        (exact.kernel_gradient(x, dz, kernel.shape), error_bounds.fourier_over_images(x, dz, kernel.shape)),
        (by_input, error_bounds.fourier_over_channels(dz, kernel.swapaxes(2, 3), by_input)),
    )
    for device, (z, bound) in zip(by_transforms(x, kernel, dz, points), expected, strict=True):
        ratio = np.abs(device - z) / bound
        assert (1 / 100 if planes == "even" else 1 / 1000) < ratio.max() < 1
