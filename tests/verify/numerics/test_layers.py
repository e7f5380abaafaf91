"""The comparison with the oracle passes a right device, and names the layer that is wrong, whatever is wrong there."""

import dataclasses
import itertools
from contextlib import nullcontext

import keras
import numpy as np
import pytest
from keras import ops
from scipy.fft import irfft2, rfft2

from alexnet_repro import build_alexnet
from alexnet_repro.backend.gradients import with_pullback
from alexnet_repro.backend.precision import precision
from alexnet_repro.data.resize import resize_with_pad
from alexnet_repro.data.synthetic import synthetic_fashion
from alexnet_repro.verify.numerics import error_bounds, oracle
from alexnet_repro.verify.numerics.layers import LayerComparison, layer_comparisons
from tests.helpers.models import narrow_layers

SMALL = 67  # the smallest side there is
# 14 outputs and the logits; loss and gradient; 16 gradients by weights, 13 by inputs, and 3 poolings' sums.
ARRAYS = 49
LABELS = np.array([0, 9])


def new_model(side, name="float32", for_xla=None):
    """Return a model in the named precision, and the He-normal weights and small biases it was given."""
    with precision(name):
        model = build_alexnet((side, side, 1), kernel_initializer="zeros", for_xla=for_xla)
    random, weights = np.random.RandomState(0), []
    for variable in model.trainable_variables:
        scale = np.sqrt(2 / np.prod(variable.shape[:-1])) if len(variable.shape) > 1 else 0.05
        weights.append((random.standard_normal(variable.shape) * scale).astype(np.float32))
    model.set_weights(weights)
    return model, weights


def new_images(side):
    """Return two images as the model sees them."""
    grey = synthetic_fashion(1, 2)[1][0][..., None]
    return ops.convert_to_numpy(resize_with_pad(grey.astype(np.float32) / np.float32(255), side, side))


@pytest.fixture(scope="module")
def small_model():
    """One small, narrow model in float32, with its weights."""
    with narrow_layers():
        return new_model(SMALL)


@pytest.fixture
def model(small_model):
    """That model; a test that changes it uses `assign` and `wrap`."""
    return small_model[0]


@pytest.fixture
def assign(model):
    """A function that changes a layer's kernel (0) or bias (1), until the test ends."""
    before = []

    def replace(name, which, change):
        variable = model.get_layer(name).trainable_variables[which]
        before.append((variable, ops.convert_to_numpy(variable).copy()))
        variable.assign(change(before[-1][1].copy()))

    yield replace
    for variable, value in before:
        variable.assign(value)


@pytest.fixture(scope="module")
def images():
    """Two small images."""
    return new_images(SMALL)


@pytest.fixture
def first_off(small_model, images):
    """A function that returns the first comparison that fails, None if none does."""

    def compare(**options):
        rows = layer_comparisons(*small_model, images, LABELS, **options)
        return next((row for row in rows if not row.ok), None)

    return compare


@pytest.fixture
def wrap(model, monkeypatch):
    """A function that replaces what a layer computes: it takes the layer's own call and its input."""

    def replace(name, fault):
        layer = model.get_layer(name)
        call = layer.call
        monkeypatch.setattr(layer, "call", lambda x, **options: fault(lambda x: call(x, **options), x))

    return replace


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        pytest.param("float32", narrow_layers, id="name=float32-layers=narrow"),
        pytest.param("float32", nullcontext, id="name=float32-layers=documented", marks=pytest.mark.slow),
        pytest.param("mixed_bfloat16", nullcontext, id="name=mixed_bfloat16-layers=documented", marks=pytest.mark.slow),
    ],
)
def test_right_device_passes(name, layers):
    """On images of the documented size, this machine's arithmetic is within the bounds in every array."""
    with layers():
        model = new_model(224, name)
    rows = list(layer_comparisons(*model, new_images(224), LABELS, precision=name))
    assert [str(row) for row in rows if not row.ok] == []
    assert len(rows) == ARRAYS


def test_right_device_passes_small(images):
    """So it is in float16, with the other loss, at the smallest size."""
    options = {"precision": "mixed_float16", "loss": "softmax"}
    with narrow_layers():
        model = new_model(SMALL, "mixed_float16")
    rows = layer_comparisons(*model, images, LABELS, **options)
    assert [str(row) for row in rows if not row.ok] == []


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch has no XLA")
def test_right_device_passes_compiled(images):
    """So it is where XLA compiles each layer, in the operations for it, and may leave out roundings."""
    with narrow_layers():
        model = new_model(SMALL, "mixed_bfloat16", for_xla=True)
    rows = list(layer_comparisons(*model, images, LABELS, precision="mixed_bfloat16", compiled=True))
    assert [str(row) for row in rows if not row.ok] == []
    assert len(rows) == ARRAYS


@pytest.mark.parametrize(
    ("elsewhere", "named"),
    [
        pytest.param(lambda _: True, "conv2d output", id="elsewhere=all"),
        pytest.param(lambda shape: shape == (2,), "normalised_sigmoid loss", id="elsewhere=loss"),
        pytest.param(lambda shape: shape == (512, 10), "dense_2 kernel gradient", id="elsewhere=kernel gradient"),
        pytest.param(lambda shape: shape == (10,), "dense_2 bias gradient", id="elsewhere=bias gradient"),
        pytest.param(lambda shape: shape == (2, 67, 67, 1), "conv2d input gradient", id="elsewhere=input gradient"),
    ],
)
def test_what_another_device_computed_is_named(elsewhere, named, small_model, images, monkeypatch):
    """An array that doesn't lie on the device fails by its name, however right it is, before its layer is compared."""
    place = lambda tensor: "cpu:0" if elsewhere(tuple(tensor.shape)) else "gpu:0"  # noqa: E731
    monkeypatch.setattr("alexnet_repro.verify.numerics.layers.device_of", place)
    first = next(row for row in layer_comparisons(*small_model, images, LABELS, device="gpu:0") if not row.ok)
    assert str(first) == f"{named}: lies on cpu:0, should be computed on gpu:0"
    assert "doctor" in first.fix


def one_element(delta):
    """Return a fault that changes one element of a layer's output."""

    def fault(call, x):
        y = call(x)
        wrong = np.zeros(y.shape, np.float32)
        wrong[1, -1, -1, 5] = delta
        return y + ops.convert_to_tensor(wrong)

    return fault


def eleven_bits(x):
    """Return float32 values rounded to 11 bits (Veltkamp), as TensorFloat-32 does."""
    large = x * np.float32(2**13 + 1)
    return large - (large - x)


def doubled_gradient(x):
    """Return `x` unchanged; its gradient is doubled."""
    return 2 * x - ops.stop_gradient(x)


def lost_share(call, x):
    """Pooling whose windows hand on less than they got."""
    y = call(x)
    return ops.stop_gradient(y) / 2 + y / 2


FAULTS = [
    # what goes wrong, in which layer, the array that must be named; more of them are in tests/faults
    ("nan", "conv2d_1", one_element(np.nan), "output"),
    ("inf", "conv2d_4", one_element(np.inf), "output"),
    ("mirrored", "conv2d_3", lambda call, x: ops.flip(call(ops.flip(x, 2)), 2), "output"),
    ("tf32-input", "conv2d_2", lambda call, x: call(eleven_bits(x)), "output"),
    ("shape", "conv2d_3", lambda call, x: call(x)[:, 1:], "output"),
    ("scaled", "dropout", lambda call, x: 2 * call(x), "output"),
    ("gradient", "conv2d_4", lambda call, x: call(doubled_gradient(x)), "input gradient"),
    ("incoming", "dense_1", lambda call, x: doubled_gradient(call(x)), "kernel gradient"),
    ("share", "max_pooling2d", lost_share, "input gradient"),
]


@pytest.mark.parametrize(
    ("layer", "fault", "what"),
    [pytest.param(*row, id=f"fault={name}-layer={row[0]}") for name, *row in FAULTS],
)
def test_fault_is_named(layer, fault, what, wrap, first_off):
    """A layer that computes something else is the first one off, by the array that shows it."""
    wrap(layer, fault)
    off = first_off()
    assert (off.layer, off.array) == (layer, what)


def flip(bit):
    """Return what flips one bit in the middling weight of a kernel's eighth filter or unit."""

    def change(kernel):
        sizes = np.abs(kernel[..., 7])
        middling = (*np.unravel_index(np.argsort(sizes, axis=None)[sizes.size // 2], sizes.shape), 7)
        kernel.view(np.uint32)[middling] ^= np.uint32(1 << bit)
        return kernel

    return change


WEIGHT_FAULTS = [
    # layer, kernel (0) or bias (1), what is done to it
    pytest.param("dense", 1, lambda bias: 0 * bias, id="fault=dropped-bias-layer=dense"),
    pytest.param("dense_1", 0, lambda kernel: kernel.T, id="fault=transposed-layer=dense_1"),
]


@pytest.mark.parametrize(("layer", "which", "change"), WEIGHT_FAULTS)
def test_wrong_weights_are_named(layer, which, change, assign, first_off):
    """A layer whose weights aren't what they should be is the first one off, by its output."""
    assign(layer, which, change)
    off = first_off()
    assert (off.layer, off.array) == (layer, "output")


@pytest.mark.parametrize(("layer", "bit"), [("conv2d", 22), ("conv2d", 12), ("conv2d_2", 14), ("dense", 12)])
def test_flipped_bit_in_a_weight_is_named(layer, bit, assign, first_off):
    """One mantissa bit of one middling weight is seen, down to a five-hundredth of the weight and less."""
    assign(layer, 0, flip(bit))
    off = first_off()
    assert (off.layer, off.array) == (layer, "output")


def test_lowest_bit_stays_below_the_bounds(assign, small_model, images):
    """The lowest bit of a weight is smaller than rounding: the comparison doesn't claim to see it in any output."""
    assign("conv2d_2", 0, flip(0))
    outputs = list(itertools.islice(layer_comparisons(*small_model, images, LABELS), 15))
    assert outputs[-1].array == "output"
    assert all(row.ok for row in outputs)


@pytest.fixture
def gradients_off(small_model, images, monkeypatch):
    """A function that replaces the kernel gradients of some layers and returns all comparisons that fail.

    The replacement takes what went in, the gradient by the sums, and the kernel gradient.
    """

    def compare(layers, fault, device):
        def with_fault(layer, x, **how):
            y, pullback = with_pullback(layer, x, **how)

            def back(dy):
                dx, by_weights = pullback(dy)
                if getattr(layer, "name", "") in layers:
                    given, passed, dz = (ops.convert_to_numpy(each) for each in (x, y, dy))
                    kernel = fault(given, dz * (passed > 0), ops.convert_to_numpy(by_weights[0]).copy())
                    by_weights = [ops.convert_to_tensor(kernel), by_weights[1]]
                return dx, by_weights

            return y, back

        monkeypatch.setattr("alexnet_repro.verify.numerics.layers.with_pullback", with_fault)
        bounds = error_bounds.arithmetics("float32", device)
        monkeypatch.setattr(error_bounds, "arithmetics", lambda *_, **__: bounds)
        rows = layer_comparisons(*small_model, images, LABELS)
        return [(row.layer, row.array, row.rounded_to) for row in rows if not row.ok]

    return compare


def by_transforms(x, dz, kernel):
    """Return a kernel's gradient by Fourier transforms of whole planes in float32."""
    margin = len(kernel) // 2
    padded = np.pad(x, [(0, 0), (margin, margin), (margin, margin), (0, 0)])
    by_x, by_dz = (rfft2(each, (16, 16), (1, 2)) for each in (padded, dz))
    spectrum = np.einsum("nijc,nijf->ijcf", by_x, by_dz.conj())
    return irfft2(spectrum, (16, 16), (0, 1))[: len(kernel), : len(kernel)]


def hundredth(_x, _dz, kernel):
    """Return a kernel's gradient with one element off by a hundredth of all its norm."""
    kernel[1, 1, 5, 5] += np.linalg.norm(kernel) / 100
    return kernel


def short_operands(x, dz, kernel):
    """Return a kernel's gradient by operands of 11 bits."""
    return oracle.Convolution("").kernel_gradient(eleven_bits(x), eleven_bits(dz), kernel.shape)


TRANSFORMED = ["conv2d_4", "conv2d_1"]  # 3x3 and 5x5, as gradients flow


@pytest.mark.parametrize(
    ("fault", "device", "off"),
    [
        pytest.param(by_transforms, "gpu:0", [], id="fault=transforms-device=gpu:0"),
        pytest.param(by_transforms, "cpu:0", [None, None], id="fault=transforms-device=cpu:0"),
        pytest.param(hundredth, "gpu:0", [None, None], id="fault=hundredth-device=gpu:0"),
        pytest.param(short_operands, "gpu:0", ["TensorFloat-32"] * 2, id="fault=tf32-device=gpu:0"),
    ],
)
def test_transforms_are_right_on_a_gpu_alone(fault, device, off, gradients_off):
    """A kernel gradient by transforms isn't zero where all its terms are; in float32 GPUs may do so, CPUs don't.

    It is no room for faults: one element, or TensorFloat-32 unasked, is off on a GPU too, and nothing else is.
    """
    found = gradients_off(TRANSFORMED, fault, device)
    assert found == [(layer, "kernel gradient", coarser) for layer, coarser in zip(TRANSFORMED, off, strict=False)]


def to_bfloat16(x):
    """Return float32 values rounded to 8 bits."""
    return ops.cast(ops.cast(x, "bfloat16"), "float32")


@pytest.mark.parametrize(
    ("coarser", "rounding"),
    [
        pytest.param("TensorFloat-32", eleven_bits, id="is=tf32"),
        pytest.param("bfloat16", to_bfloat16, id="is=bfloat16"),
    ],
)
def test_coarser_arithmetic_is_recognised(coarser, rounding, assign, wrap, first_off):
    """Operands of float32 products that are rounded unasked fail the first layer, and the fix names to what."""
    assign("conv2d", 0, rounding)
    wrap("conv2d", lambda call, x: call(rounding(x)))
    off = first_off()
    assert (off.layer, off.array, off.rounded_to) == ("conv2d", "output", coarser)
    assert f"{coarser} explain" in off.fix


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_unasked_is_named(small_model, images, name):
    """A model that computes in bfloat16 or float16 is not in float32."""
    with narrow_layers():
        wrong = new_model(SMALL, name)[0]
    rows = layer_comparisons(wrong, small_model[1], images, LABELS, precision="float32")
    off = next(row for row in rows if not row.ok)
    assert (off.layer, off.array) == ("conv2d", "output")


OFF = LayerComparison("conv2d_2", "output", "float32", 2304, 3.1e-3, 4e-6, (0, 4, 7, 12), 775.0)


@pytest.mark.parametrize(
    ("row", "sentence", "advice"),
    [
        pytest.param(
            OFF,
            "conv2d_2 output: off by 3.1e-3 at (0, 4, 7, 12), allowed 4.0e-6 (float32, 2,304 terms)",
            "Run it again",
            id="off=error",
        ),
        pytest.param(
            dataclasses.replace(OFF, terms=0, precision="mixed_bfloat16", error=np.nan, bound=0.0),
            "conv2d_2 output: off by nan at (0, 4, 7, 12), allowed 0.0e+0 (mixed_bfloat16)",
            "Run it again",
            id="off=nan",
        ),
        pytest.param(
            dataclasses.replace(OFF, rounded_to="TensorFloat-32"), str(OFF), "set NVIDIA_TF32_OVERRIDE=0", id="off=tf32"
        ),
        pytest.param(
            dataclasses.replace(OFF, shapes=((2, 26), (2, 54))),
            "conv2d_2 output: has shape (2, 26), should have (2, 54)",
            "isn't the documented one",
            id="off=shape",
        ),
    ],
)
def test_message(row, sentence, advice):
    """A failure has layer, array, error, place, bound and precision in one sentence, and a fix."""
    assert str(row) == sentence
    assert advice in row.fix
