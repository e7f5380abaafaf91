"""Every test image counts once: those of the last batches as well, none twice, with dropout off.

Answers that aren't finite are an error, and those at chance are known as such.
"""

import keras
import numpy as np
import pytest

from alexnet_repro import DataLoader, Evaluation, evaluate, synthetic_fashion
from alexnet_repro.training.evaluate import NotFiniteError, logits_on_test


@pytest.fixture(scope="module")
def loader():
    """As many test images as Fashion-MNIST has; the last thousand are black, and have the label 9."""
    train, _ = synthetic_fashion(1, 1)
    images, labels = np.full((10_000, 28, 28), 255, np.uint8), np.zeros(10_000, np.uint8)
    images[9_000:], labels[9_000:] = 0, 9
    return DataLoader.from_arrays(train, (images, labels))


@pytest.fixture(scope="module")
def model():
    """A model that takes white images for class 0 and black ones for 1, behind dropout of all but a few units."""
    layers = keras.layers
    head = layers.Dense(10, activation="sigmoid", name="dense")
    built = keras.Sequential([keras.Input((1, 1, 1)), layers.Flatten(), layers.Dropout(0.99, seed=0), head])
    kernel, bias = np.zeros((1, 10), np.float32), np.zeros(10, np.float32)
    kernel[0, 0], bias[1] = 2, 1
    built.set_weights([kernel, bias])
    return built


def test_all_ten_thousand_are_evaluated(model, loader):
    """An accuracy of 0.9 on 10,000 images, the last thousand of which are wrong."""
    found = evaluate(model, loader, progress=False)
    assert (found.num_samples, found.accuracy) == (10_000, pytest.approx(0.9))


def test_all_ten_thousand_have_logits(model, loader):
    """White images have the logits 2 and 1, black ones 0 and 1, in the files' order."""
    logits = logits_on_test(model, loader, progress=False)
    np.testing.assert_array_equal(logits[:, :2], [[2, 1]] * 9_000 + [[0, 1]] * 1_000)


@pytest.fixture
def constant(model):
    """A model that gives every image class 3, until the test's end."""
    before = model.get_weights()
    model.set_weights([np.zeros((1, 10)), np.arange(10) == 3])
    yield model
    model.set_weights(before)


def test_chance(constant):
    """Where every image gets one class, accuracy is chance, and the class is named; right answers aren't."""
    images, labels = np.zeros((1_000, 28, 28), np.uint8), np.arange(1_000) % 10
    even = DataLoader.from_arrays((images, labels), (images, labels), seed=0)
    found = evaluate(constant, even, progress=False)
    assert (found.accuracy, found.only_class, found.at_chance()) == (pytest.approx(0.1), 3, True)
    drawn = evaluate(constant, even, 200, progress=False)
    assert (drawn.num_samples, drawn.only_class) == (200, 3)
    right = evaluate(constant, DataLoader.from_arrays((images, labels), (images, labels * 0 + 3)), progress=False)
    assert (right.accuracy, right.only_class, right.at_chance()) == (1, None, False)


def test_chance_with_several_classes(model, loader):
    """Wrong answers of several classes are at chance too, without a class that all get."""
    images, labels = loader.all_test()
    wrong = DataLoader.from_arrays((images[:1, ..., 0], labels[:1]), (images[..., 0], labels * 0 + 5))
    found = evaluate(model, wrong, progress=False)
    assert (found.accuracy, found.only_class, found.at_chance()) == (0, None, True)


@pytest.mark.parametrize(
    ("accuracy", "number", "expected"),
    [(0.109, 10_000, True), (0.1091, 10_000, False), (0.16, 200, True), (0.17, 200, False), (0.0, 99, False)],
    ids=lambda value: f"given={value}",
)
def test_at_chance(accuracy, number, expected):
    """Chance is at most three standard deviations above 0.1, which is 0.009 of 10,000 images, from 100 images on."""
    assert Evaluation(2.3, accuracy, number).at_chance() is expected


@pytest.mark.parametrize("loss", ["softmax", "normalised_sigmoid"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf], ids=lambda value: f"weight={value}")
def test_answers_that_are_not_finite(constant, loader, loss, number):
    """Answers that aren't finite are an error, also where the loss would be finite; the layer is named."""
    constant.set_weights([np.zeros((1, 10)), np.full(10, number)])
    message = r"what layer dense computes isn't finite \(float32\); if it is so with --precision=float32 too"
    with pytest.raises(NotFiniteError, match=message):
        evaluate(constant, loader, 200, loss=loss, progress=False)
    with pytest.raises(NotFiniteError, match="layer dense computes"):
        logits_on_test(constant, loader, progress=False)


def test_first_layer_that_is_not_finite(loader):
    """Weights that are finite but too large are found where they overflow, not at the end."""
    layers = keras.layers
    middle, head = layers.Dense(4, name="middle"), layers.Dense(10, activation="sigmoid", name="head")
    built = keras.Sequential([keras.Input((1, 1, 1)), layers.Flatten(), layers.Dense(4, name="first"), middle, head])
    built.set_weights([np.full(each.shape, 1e30, np.float32) for each in built.weights])
    with pytest.raises(NotFiniteError, match="what layer middle computes isn't finite"):
        evaluate(built, loader, 125, progress=False)
