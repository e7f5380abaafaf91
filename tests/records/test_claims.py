"""The claims in the document's text, with what is true where the text is loose. Claim 9 is test_accuracy."""

import keras
import numpy as np
import pytest
from keras import layers

from alexnet_repro import Recipe, documented


def kinds(model, kind):
    """Return the model's layers of one kind, in order."""
    return [layer for layer in model.layers if isinstance(layer, kind)]


def test_claim_1_eight_layers_with_weights(alexnet):
    """Eight layers have weights: five convolutions, two hidden dense layers and one dense output."""
    weighted = [type(layer) for layer in alexnet.layers if layer.trainable_weights]
    assert weighted == [layers.Conv2D] * 5 + [layers.Dense] * 3


def test_claim_2_pooling(alexnet):
    """The first, second and fifth convolution are each followed by 3x3 max pooling with stride 2."""
    convolutions = kinds(alexnet, layers.Conv2D)
    followers = [alexnet.layers[alexnet.layers.index(convolution) + 1] for convolution in convolutions]
    pooled = [number for number, layer in enumerate(followers, 1) if isinstance(layer, layers.MaxPooling2D)]
    assert pooled == [1, 2, 5]
    assert {(p.pool_size, p.strides) for p in kinds(alexnet, layers.MaxPooling2D)} == {((3, 3), (2, 2))}


def test_claim_3_windows(alexnet):
    """The windows are 11x11, then 5x5, then 3x3 throughout."""
    assert [layer.kernel_size[0] for layer in kinds(alexnet, layers.Conv2D)] == [11, 5, 3, 3, 3]
    assert all(layer.kernel_size[0] == layer.kernel_size[1] for layer in kinds(alexnet, layers.Conv2D))


def test_claim_4_channels(alexnet):
    """The first two convolutions have 16 times LeNet's channels, the third 24 times: "several tens" is loose."""
    channels = [layer.filters for layer in kinds(alexnet, layers.Conv2D)]
    first, second = documented.LENET_CHANNELS
    assert (channels[0] / first, channels[1] / second, channels[2] / second) == (16, 16, 24)


def test_claim_5_size_of_the_dense_layers(alexnet):
    """The two hidden dense layers hold 43.0 M parameters, 172 MB in float32: 92 % of the model, not "nearly 1 GB"."""
    hidden = sum(layer.count_params() for layer in kinds(alexnet, layers.Dense)[:2])
    assert hidden == (6400 * 4096 + 4096) + (4096 * 4096 + 4096) == 42_999_808
    assert hidden * 4 == 171_999_232
    assert hidden / alexnet.count_params() == pytest.approx(0.92, abs=0.005)


def test_claim_6_gradients_of_relu_and_sigmoid(value_and_gradients):
    """ReLU's gradient is 1 for positive input and 0 for negative; a saturated sigmoid's is almost 0, at 0 it is 1/4."""
    points = np.array([-10.0, -1.0, 0.0, 1.0, 10.0], np.float32)
    _, (relu,) = value_and_gradients(lambda x: keras.ops.sum(keras.activations.relu(x)), [points])
    _, (sigmoid,) = value_and_gradients(lambda x: keras.ops.sum(keras.activations.sigmoid(x)), [points])
    assert relu[[0, 1, 3, 4]].tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(sigmoid, [4.54e-5, 0.19661, 0.25, 0.19661, 4.54e-5], rtol=1e-3)


def test_claim_7_dropout(alexnet):
    """Dropout of one half follows each hidden dense layer, and nothing else."""
    for before, layer in zip(alexnet.layers, alexnet.layers[1:], strict=False):
        assert isinstance(layer, layers.Dropout) == (isinstance(before, layers.Dense))
    assert [layer.rate for layer in kinds(alexnet, layers.Dropout)] == [0.5, 0.5]


def test_claim_8_learning_rate():
    """The documented learning rate, 0.01, is smaller than LeNet's 0.9, and the optimizer really has it."""
    recipe = Recipe.documented()
    assert recipe.learning_rate == 0.01 < documented.LENET_LEARNING_RATE
    assert float(recipe.build_optimizer().learning_rate) == pytest.approx(0.01)
