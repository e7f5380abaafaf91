"""The float64 oracle is right: by TensorFlow 2.0.0's reference, by the definitions, and by finite differences."""

import json

import numpy as np
import pytest
from keras import ops

from alexnet_repro import documented
from alexnet_repro.data.resize import resize_with_pad
from alexnet_repro.verify.numerics.oracle import (
    EXACT_LAYERS,
    EXACT_LOSSES,
    Convolution,
    Dense,
    MaxPooling,
    Unchanged,
    backward_pass,
    forward_pass,
    normalised_sigmoid_loss,
    resize_exactly,
    sigmoid,
    softmax_loss,
)
from tests.helpers.paths import RECORDED
from tests.test_tensorflow_2_0_0 import BATCH, POOLING_TIE, REFERENCE, TOLERANCE, assert_agrees, draw_weights

LABELS = np.array(REFERENCE["labels"])
LOSS_CASES = json.loads((RECORDED / "loss_tf_2.0.0.json").read_text())["cases"]
CONVOLUTIONS = [  # images, kernel, strides, padding
    ((2, 7, 6, 2), (3, 3, 2, 4), 1, "same"),
    ((1, 6, 6, 3), (5, 5, 3, 2), 1, "same"),
    ((2, 7, 8, 1), (2, 4, 1, 3), 1, "same"),
    ((2, 8, 7, 2), (3, 2, 2, 3), 2, "same"),
    ((2, 15, 16, 1), (5, 5, 1, 3), 4, "valid"),
    ((1, 9, 8, 2), (3, 2, 2, 2), 2, "valid"),
]


def draw(*shape):
    """Return float64 normal numbers, the same every time."""
    return np.random.RandomState(sum(shape)).standard_normal(shape)


def by_differences(function, x, dy, step=1e-5):
    """Return the gradient of `sum(function(x) * dy)` by each element of `x`, by central differences."""
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[index] += step
        below[index] -= step
        gradient[index] = ((function(above) - function(below)) * dy).sum() / (2 * step)
    return gradient


@pytest.fixture(scope="module")
def weights():
    """The reference's weights."""
    return draw_weights()


@pytest.fixture(scope="module")
def images(fashion_mnist):
    """The reference's images, as the model sees them."""
    pixels = fashion_mnist[1][0][:BATCH, :, :, None].astype(np.float32) / np.float32(255)
    return ops.convert_to_numpy(resize_with_pad(pixels))


@pytest.fixture(scope="module")
def outputs(weights, images):
    """Every layer's output."""
    return forward_pass(weights, images)


def test_layers_are_the_documented_ones(weights):
    """The oracle's layers have the documented names, and on documented images the documented output shapes."""
    shapes = [output.shape[1:] for output in forward_pass(weights, np.zeros((1, *documented.INPUT_SHAPE)))]
    rows = [(layer.name, shape) for layer, shape in zip(EXACT_LAYERS, shapes, strict=True)]
    assert rows == [(row.name, row.output_shape) for row in documented.LAYERS]


def test_activations(outputs):
    """Every layer's output is TensorFlow 2.0.0's."""
    probabilities = sigmoid(outputs[-1])
    for layer, output, expected in zip(
        EXACT_LAYERS, [*outputs[:-1], probabilities], REFERENCE["activations"], strict=True
    ):
        assert_agrees(output, expected, layer.name)


def test_loss_and_gradients(weights, images, outputs):
    """The loss and every gradient of the first step are TensorFlow 2.0.0's."""
    losses, dlogits = EXACT_LOSSES["normalised_sigmoid"](LABELS, outputs[-1])
    assert losses.mean() == pytest.approx(REFERENCE["normalised_sigmoid_crossentropy"], rel=TOLERANCE)
    gradients = backward_pass(weights, images, outputs, dlogits / BATCH)
    for index, expected in enumerate(REFERENCE["sgd_steps"][0]["gradients"]):
        # In float64 too, only the first convolution's gradient passes the pooling's near tie.
        assert_agrees(gradients[index], expected, f"gradient {index}", POOLING_TIE if index < 2 else TOLERANCE)


@pytest.mark.parametrize(("images_shape", "kernel_shape", "strides", "padding"), CONVOLUTIONS)
def test_convolution_by_definition(images_shape, kernel_shape, strides, padding):
    """Each output is the sum over the kernel of image times kernel, zero outside; "same" pads the odd one after."""
    x, kernel = draw(*images_shape), draw(*kernel_shape)
    result = Convolution("conv2d", strides, padding).product(x, kernel)
    sides = [
        -(-side // strides) if padding == "same" else (side - size) // strides + 1
        for side, size in zip(images_shape[1:3], kernel_shape[:2], strict=True)
    ]
    assert result.shape == (images_shape[0], *sides, kernel_shape[3])
    before = [
        max((out - 1) * strides + size - side, 0) // 2 if padding == "same" else 0
        for out, side, size in zip(sides, images_shape[1:3], kernel_shape[:2], strict=True)
    ]
    for n, row, column, filter_ in np.ndindex(result.shape):
        total = 0.0
        for i, j, channel in np.ndindex(kernel_shape[:3]):
            y, z = row * strides + i - before[0], column * strides + j - before[1]
            if 0 <= y < images_shape[1] and 0 <= z < images_shape[2]:
                total += x[n, y, z, channel] * kernel[i, j, channel, filter_]
        assert result[n, row, column, filter_] == pytest.approx(total, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("layer", "x_shape", "kernel_shape"),
    [
        *(
            pytest.param(Convolution("conv2d", strides, padding), x, kernel, id=f"kernel={kernel}-strides={strides}")
            for x, kernel, strides, padding in CONVOLUTIONS
        ),
        pytest.param(Dense("dense"), (3, 5), (5, 4), id="kernel=(5, 4)"),
    ],
)
def test_gradients_of_products(layer, x_shape, kernel_shape):
    """Gradients by kernel and input are what finite differences give."""
    x, kernel = draw(*x_shape), draw(*kernel_shape)
    dz = draw(*layer.product(x, kernel).shape)
    by_kernel = by_differences(lambda kernel: layer.product(x, kernel), kernel, dz)
    by_input = by_differences(lambda x: layer.product(x, kernel), x, dz)
    np.testing.assert_allclose(layer.kernel_gradient(x, dz, kernel.shape), by_kernel, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(layer.input_gradient(dz, kernel, x.shape), by_input, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("layer", "x_shape"),
    [
        pytest.param(MaxPooling("max_pooling2d"), (2, 8, 7, 2), id="layer=max_pooling2d"),
        pytest.param(Unchanged("flatten", flattens=True), (2, 3, 2, 2), id="layer=flatten"),
        pytest.param(Unchanged("dropout"), (2, 5), id="layer=dropout"),
    ],
)
def test_gradients_of_layers_without_weights(layer, x_shape):
    """Gradients by the input are what finite differences give."""
    x = draw(*x_shape)
    dy = draw(*layer.output(x).shape)
    np.testing.assert_allclose(layer.input_gradient(x, dy), by_differences(layer.output, x, dy), rtol=1e-7, atol=1e-7)


def test_pooling():
    """The largest of each 3x3 window, two apart, gets the gradient; of equal ones the first; shared places add up."""
    image = np.zeros((1, 3, 5, 1))
    image[0, 1, 2, 0] = 1.0
    pooling, dy = MaxPooling("max_pooling2d"), np.array([2.0, 3.0]).reshape(1, 1, 2, 1)
    assert pooling.output(image).ravel().tolist() == [1.0, 1.0]
    assert pooling.input_gradient(image, dy)[0, 1, 2, 0] == 5.0
    tied = pooling.input_gradient(np.zeros((1, 3, 5, 1)), dy)[0, :, :, 0]
    assert (tied[0, 0], tied[0, 2], np.abs(tied).sum()) == (2.0, 3.0, 5.0)


def test_normalised_sigmoid_losses():
    """The losses are those that TensorFlow 2.0.0 gave its sigmoid head, at and beyond its clip too."""
    labels, logits = np.array([case["label"] for case in LOSS_CASES]), np.array([case["logits"] for case in LOSS_CASES])
    expected = [case["loss"] for case in LOSS_CASES]
    np.testing.assert_allclose(normalised_sigmoid_loss(labels, logits)[0], expected, rtol=2e-6, atol=2e-6)


def test_softmax_losses():
    """The cross-entropy of the softmax: ln 10 of equal logits, and finite however large they are."""
    logits = np.zeros((3, 10), np.float32)
    logits[1, 4], logits[2, 4] = 1e4, np.log(9)
    assert softmax_loss(np.array([0, 3, 4]), logits)[0] == pytest.approx([2.302585093, 1e4, 0.6931471806], rel=1e-6)


@pytest.mark.parametrize("name", list(EXACT_LOSSES))
def test_gradients_of_losses(name):
    """Gradients by the logits are what finite differences give; a clipped sigmoid has none."""
    logits = draw(8, 10) * 4
    logits[0, :2] = [-20.0, 20.0]
    gradient = EXACT_LOSSES[name](LABELS, logits)[1]
    differences = by_differences(lambda logits: EXACT_LOSSES[name](LABELS, logits)[0][:, None], logits, np.ones((8, 1)))
    np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=1e-9)
    assert (gradient[0, :2] == 0).all() == (name == "normalised_sigmoid")


def test_whole_network_gradients():
    """Going back through all layers, a sample of every weight's gradient is what finite differences give."""
    random = np.random.RandomState(0)
    shapes = [(11, 11, 1, 4), (5, 5, 4, 5), (3, 3, 5, 6), (3, 3, 6, 6), (3, 3, 6, 5), (5, 7), (7, 7), (7, 3)]
    weights = []
    for shape in shapes:
        weights += [random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1])), random.rand(shape[-1]) / 10]
    images, labels = random.rand(2, 67, 67, 1), np.array([0, 2])
    outputs = forward_pass(weights, images)
    gradients = backward_pass(weights, images, outputs, EXACT_LOSSES["softmax"](labels, outputs[-1])[1])
    for weight, gradient in zip(weights, gradients, strict=True):
        index = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
        values, right = [], weight[index]
        for step in (1e-6, -1e-6):
            weight[index] = right + step
            values.append(EXACT_LOSSES["softmax"](labels, forward_pass(weights, images)[-1])[0].sum())
        weight[index] = right
        assert gradient[index] == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        pytest.param((28, 28), (224, 224), id="fit=larger"),
        pytest.param((28, 28), (67, 67), id="fit=odd"),
        pytest.param((14, 28), (224, 224), id="fit=lying"),
        pytest.param((28, 7), (224, 224), id="fit=standing"),
        pytest.param((28, 27), (224, 224), id="fit=nearly-square"),
        pytest.param((12, 8), (6, 9), id="fit=smaller"),
        pytest.param((5, 5), (8, 5), id="fit=padded-only"),
        pytest.param((1, 3), (4, 9), id="fit=one-row"),
    ],
)
def test_resize(source, target):
    """Images of every shape that fits exactly are where TensorFlow puts them, to 1e-4 of 255, with zeros around."""
    tf = pytest.importorskip("tensorflow")
    images = np.random.default_rng(0).integers(0, 256, (2, *source, 3), np.uint8)
    right = tf.image.resize_with_pad(images, *target).numpy()
    np.testing.assert_allclose(resize_exactly(images, *target), right, rtol=0, atol=255e-4)
    assert resize_exactly(images, *target).shape == (2, *target, 3)


@pytest.mark.parametrize(
    ("source", "target"), [((3, 7), (5, 5)), ((2, 3), (4, 5)), ((9, 10), (224, 224)), ((28, 28 * 3), (224, 224))]
)
def test_resize_refuses_what_does_not_fit(source, target):
    """Where a content's size would be a matter of rounding there is no right answer."""
    with pytest.raises(ValueError, match=rf"{source[0]}x{source[1]} doesn't fit {target[0]}x{target[1]} exactly"):
        resize_exactly(np.zeros((1, *source, 1)), *target)
