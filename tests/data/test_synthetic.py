"""Synthetic images stand in for Fashion-MNIST: the same form, and classes that take a convolutional network."""

import dataclasses
import inspect

import keras
import numpy as np
import pytest

from alexnet_repro import DataLoader, Recipe, build_alexnet, evaluate, synthetic_fashion, train
from alexnet_repro.backend.precision import precision

SEED = 0


@pytest.fixture(scope="module")
def splits():
    """6,000 training and 2,000 test images, each split a pair of images and labels."""
    return dict(zip(("train", "test"), synthetic_fashion(6_000, 2_000, SEED), strict=True))


@pytest.mark.parametrize(("split", "num_images"), [("train", 6_000), ("test", 2_000)])
def test_form(splits, split, num_images):
    """Images and labels have the shapes, dtypes and ranges of the real ones."""
    images, labels = splits[split]
    assert (images.shape, images.dtype) == ((num_images, 28, 28), np.uint8)
    assert (labels.shape, labels.dtype) == ((num_images,), np.uint8)
    assert (images.min(), images.max()) == (0, 255)
    assert set(labels) == set(range(10))


def test_defaults():
    """By default there are as many images as in Fashion-MNIST."""
    defaults = {name: value.default for name, value in inspect.signature(synthetic_fashion).parameters.items()}
    assert defaults == {"num_train": 60_000, "num_test": 10_000, "seed": 0}


@pytest.mark.parametrize("split", ["train", "test"])
def test_classes_are_balanced(splits, split):
    """Every class has its tenth of the images, to five standard deviations; the seed is fixed."""
    labels = splits[split][1]
    expected, deviation = len(labels) / 10, np.sqrt(len(labels) * 0.1 * 0.9)
    assert np.abs(np.bincount(labels) - expected).max() < 5 * deviation


def test_no_image_twice(splits):
    """No image occurs twice, within a split or across them."""
    images = [image.tobytes() for split, _ in splits.values() for image in split]
    assert len(set(images)) == 8_000


def test_splits_are_drawn_independently():
    """As many test images as training images are not the same ones, nor labelled alike."""
    (images, labels), (test_images, test_labels) = synthetic_fashion(100, 100, SEED)
    assert not np.array_equal(images, test_images)
    assert not np.array_equal(labels, test_labels)


def test_same_seed_same_images():
    """A seed's images are always the same."""
    first, second = synthetic_fashion(100, 50, seed=3), synthetic_fashion(100, 50, seed=3)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_other_seed_other_images():
    """Another seed gives other images and labels, in both splits."""
    first, second = synthetic_fashion(100, 50, seed=3), synthetic_fashion(100, 50, seed=4)
    for one, other in zip(first, second, strict=True):
        assert not np.array_equal(one[0], other[0])
        assert not np.array_equal(one[1], other[1])


@pytest.mark.parametrize(("num_train", "num_test"), [(0, 1), (1, 0), (-1, 1)])
def test_no_images(num_train, num_test):
    """A split without images is refused by name."""
    with pytest.raises(ValueError, match=f"num_train and num_test must be at least 1; got {num_train} and {num_test}"):
        synthetic_fashion(num_train, num_test)


def test_linear_classifier_fails(splits):
    """Ridge regression on the pixels, however regularised, gets fewer than half of the test images right."""
    (images, labels), (test_images, test_labels) = (
        (np.column_stack([images.reshape(len(images), -1) / 127.5 - 1, np.ones(len(images))]), labels)
        for images, labels in splits.values()
    )
    values, vectors = np.linalg.eigh(images.T @ images)
    projected = vectors.T @ (images.T @ (np.eye(10)[labels] - 0.1))
    accuracies = {}
    for ridge in 10.0 ** np.arange(-3, 7):
        weights = vectors @ (projected / (values + ridge)[:, None])
        accuracies[ridge] = np.mean(np.argmax(test_images @ weights, axis=1) == test_labels)
    assert max(accuracies.values()) < 0.5, accuracies  # measured: 0.45


@pytest.mark.slow
def test_model_learns(request, capsys):
    """Trained for forty updates of 32 in the precision of --precision, the documented model passes 0.95."""
    recipe = dataclasses.replace(Recipe.quick(), draw_size=32, batch_size=32, draws_per_epoch=40)
    loader = DataLoader.from_arrays(*synthetic_fashion(num_train=1_280, num_test=200, seed=SEED), seed=SEED)
    with capsys.disabled(), precision(request.config.getoption("--precision")):
        keras.utils.set_random_seed(SEED)
        model = build_alexnet(kernel_initializer=recipe.kernel_initializer)
        history = train(model, loader, recipe)
        result = evaluate(model, loader, loss=recipe.loss)
        print(f"\ntrained in {history.seconds:.0f} s: accuracy {result.accuracy:.4f} on synthetic test images")
    assert result.num_samples == 200
    assert result.accuracy > 0.95  # measured: 1.000
