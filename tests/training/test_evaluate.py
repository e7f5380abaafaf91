"""Every test image counts once: those of the last batches as well, none twice, with dropout off."""

import keras
import numpy as np
import pytest

from alexnet_repro import DataLoader, evaluate, synthetic_fashion
from alexnet_repro.training.evaluate import logits_on_test


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
