"""DataLoader serves what the document's does: batches drawn with replacement, and the same ones for the same seed."""

import tracemalloc

import numpy as np
import pytest

from alexnet_repro import DataLoader
from alexnet_repro.data import loader as loader_module

NUM_TRAIN, NUM_TEST = 60_000, 10_000


def _labelled(num_images):
    """Return images labelled by their indices, the labels' two bytes in the first two pixels."""
    labels = np.arange(num_images)
    images = np.zeros((num_images, 28, 28), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = labels >> 8, labels & 255
    return images, labels


@pytest.fixture(scope="module")
def full_size():
    """As many images as Fashion-MNIST has, each of which holds its index."""
    return _labelled(NUM_TRAIN), _labelled(NUM_TEST)


def _noise(seed=None):
    """Return a loader of 300 and 200 images of noise, labelled by their indices, test labels from 1000 on."""
    pixels = np.random.RandomState(0).randint(0, 256, (500, 28, 28)).astype(np.uint8)
    return DataLoader.from_arrays((pixels[:300], np.arange(300)), (pixels[300:], np.arange(1000, 1200)), seed=seed)


def _draws(loader, splits="train train train"):
    """Return the labels of draws of eight, from these splits in turn."""
    return [getattr(loader, f"draw_{split}")(8)[1].tolist() for split in splits.split()]


def _enlarge(images):
    """Return images eight times as large: bilinear, half-pixel centres, edges repeated. In float64."""
    position = np.clip((np.arange(224) + 0.5) / 8 - 0.5, 0, 27)
    weights = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(28)))
    return weights @ images @ weights.T


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("train_images", (60_000, 28, 28, 1), "float32"),
        ("train_labels", (60_000,), "int32"),
        ("test_images", (10_000, 28, 28, 1), "float32"),
        ("test_labels", (10_000,), "int32"),
    ],
    ids=["name=train_images", "name=train_labels", "name=test_images", "name=test_labels"],
)
def test_array_attributes(full_size, name, shape, dtype):
    """The arrays have the documented names, shapes and dtypes."""
    array = getattr(DataLoader.from_arrays(*full_size), name)
    assert (array.shape, array.dtype) == (shape, dtype)


def test_counts(full_size):
    """The documented counts have the documented names."""
    loader = DataLoader.from_arrays(*full_size)
    assert (loader.num_train, loader.num_test) == (60_000, 10_000)


def test_image_attributes_are_all_images_in_order():
    """`train_images` and `test_images` are the pixels divided by 255, in the order of the labels."""
    pixels = np.random.RandomState(0).randint(0, 256, (500, 28, 28, 1))
    loader = _noise()
    np.testing.assert_allclose(loader.train_images, pixels[:300] / 255, rtol=1e-7)
    np.testing.assert_allclose(loader.test_images, pixels[300:] / 255, rtol=1e-7)
    assert (loader.train_images.min(), loader.train_images.max()) == (0, 1)


def test_printed_batch_shapes(full_size):
    """The document's own line prints what is printed there."""
    x_batch, y_batch = DataLoader.from_arrays(*full_size).get_batch_train(128)
    line = f"x_batch shape: {x_batch.shape} y_batch shape: {y_batch.shape}"
    assert line == "x_batch shape: (128, 224, 224, 1) y_batch shape: (128,)"


@pytest.mark.parametrize(("split", "first_label"), [("train", 0), ("test", 1000)])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_batch(split, first_label, batch_size):
    """A batch is images of its split, enlarged, in [0, 1], NumPy float32, each with its own int32 label."""
    loader = _noise()
    images, labels = getattr(loader, f"get_batch_{split}")(batch_size)
    assert type(images) is type(labels) is np.ndarray
    assert (images.shape, images.dtype) == ((batch_size, 224, 224, 1), np.float32)
    assert (labels.shape, labels.dtype) == ((batch_size,), np.int32)
    assert 0 <= images.min() <= images.max() <= 1
    originals = getattr(loader, f"{split}_images")[labels - first_label, ..., 0].astype(np.float64)
    np.testing.assert_allclose(images[..., 0], _enlarge(originals), rtol=0, atol=1e-6)


@pytest.mark.parametrize("split", ["train", "test"])
def test_drawn_images_have_their_labels(full_size, split):
    """Every image of a large draw comes with its own label, and stays uint8."""
    images, labels = getattr(DataLoader.from_arrays(*full_size), f"draw_{split}")(10_000)
    assert (images.shape, images.dtype) == ((10_000, 28, 28, 1), np.uint8)
    np.testing.assert_array_equal(images[:, 0, 0, 0] * 256.0 + images[:, 0, 1, 0], labels)


@pytest.mark.parametrize("split", ["train", "test"])
def test_batches_are_the_draws(split):
    """`get_batch_…` and `draw_…` follow one sequence: training on either sees the same images."""
    drawn, batches = _noise(seed=3), _noise(seed=3)
    for _ in range(3):
        expected = getattr(drawn, f"draw_{split}")(4)[1]
        np.testing.assert_array_equal(getattr(batches, f"get_batch_{split}")(4)[1], expected)


def test_all_test():
    """`all_test` has every test image once, in order."""
    loader = _noise()
    images, labels = loader.all_test()
    assert labels.tolist() == list(range(1000, 1200))
    np.testing.assert_array_equal(images, np.rint(loader.test_images * 255).astype(np.uint8), strict=True)


@pytest.mark.parametrize(("split", "num_images"), [("train", NUM_TRAIN), ("test", NUM_TEST)])
def test_with_replacement(full_size, split, num_images):
    """As many draws as there are images meet 1 - 1/e of them, to five standard deviations; the seed is fixed."""
    loader = DataLoader.from_arrays(*full_size, seed=0)
    distinct = len(np.unique(getattr(loader, f"draw_{split}")(num_images)[1]))
    deviation = np.sqrt(num_images * (np.exp(-1) - 2 * np.exp(-2)))
    assert abs(distinct - num_images * (1 - np.exp(-1))) < 5 * deviation


@pytest.mark.parametrize(("split", "num_images"), [("train", NUM_TRAIN), ("test", NUM_TEST)])
def test_uniform(full_size, split, num_images):
    """Draws fall evenly over the images, by chi-square over 100 ranges; the seed is fixed."""
    loader = DataLoader.from_arrays(*full_size, seed=0)
    drawn = np.concatenate([getattr(loader, f"draw_{split}")(10_000)[1] for _ in range(20)])
    counts = np.histogram(drawn, bins=100, range=(0, num_images))[0]
    chi_square = np.sum((counts - 2_000) ** 2 / 2_000)
    assert 50.0 < chi_square < 160.0  # 99 degrees of freedom: one in 10,000 lies outside


@pytest.mark.parametrize(
    ("seed", "train", "test"),
    [
        (
            0,
            [[25583, 25351, 31531, 32421, 14865], [1699, 28597, 6827, 7666, 42365]],
            [[434, 8382, 4143, 6401, 9849], [1304, 8664, 2702, 7647, 3255]],
        ),
        (
            4_294_967_295,
            [[20882, 28822, 7764, 29443, 25416], [48050, 39226, 24769, 28741, 23575]],
            [[1424, 6416, 9955, 3113, 5678], [8967, 4052, 6896, 3501, 2429]],
        ),
    ],
    ids=["seed=0", "seed=4294967295"],
)
def test_pinned_draws(full_size, seed, train, test):
    """A seed's draws are these on every machine; the numbers are those of NumPy 1.18 and 2.4."""
    loader = DataLoader.from_arrays(*full_size, seed=seed)
    assert [loader.draw_train(5)[1].tolist() for _ in range(2)] == train
    assert [loader.draw_test(5)[1].tolist() for _ in range(2)] == test


def test_splits_are_drawn_independently():
    """Draws from one split change nothing about the draws from the other."""
    train, test = _draws(_noise(seed=5), "train train"), _draws(_noise(seed=5), "test test")
    assert _draws(_noise(seed=5), "train test test train") == [train[0], *test, train[1]]
    assert [[label - 1000 for label in labels] for labels in test] != train


def test_seeds_differ():
    """Another seed draws other images, and so does each draw."""
    first, second, third = _draws(_noise(seed=0))
    assert first != second != third != first
    assert _draws(_noise(seed=1))[0] not in (first, second, third)


def test_no_seed():
    """Without a seed two loaders differ, and the seed that each took repeats it."""
    first, second = _noise(), _noise()
    assert first.seed != second.seed
    assert _draws(_noise(seed=first.seed)) == _draws(first)


def test_memory():
    """Loaded, drawn from and read, a loader of 60,000 and 10,000 images keeps less than 70 MB."""
    tracemalloc.start()
    try:
        loader = DataLoader.from_arrays(_labelled(NUM_TRAIN), _labelled(NUM_TEST))
        loader.get_batch_train(2)
        assert loader.test_images.nbytes == 31_360_000
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 54.88e6 < kept < 70e6  # 70,000 images of 784 bytes are 54.88 MB


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_bad_seed(seed):
    """A seed that isn't from 0 to 2**32 - 1 is refused by name."""
    with pytest.raises(ValueError, match=f"seed must be from 0 to 4294967295; got {seed}$"):
        _noise(seed=seed)


@pytest.mark.parametrize("batch_size", [0, -1])
@pytest.mark.parametrize("draw", ["get_batch_train", "get_batch_test", "draw_train", "draw_test"])
def test_bad_batch_size(draw, batch_size):
    """A batch of nothing is refused by name."""
    with pytest.raises(ValueError, match=f"batch_size must be at least 1; got {batch_size}$"):
        getattr(_noise(), draw)(batch_size)


def test_constructor(monkeypatch):
    """`DataLoader(data_dir, seed)` serves what `load_fashion_mnist(data_dir)` returns, and says what it is."""
    asked = []
    data = (np.zeros((2, 28, 28), np.uint8), np.arange(2)), (np.ones((1, 28, 28), np.uint8), np.arange(1))
    monkeypatch.setattr(loader_module, "load_fashion_mnist", lambda data_dir: asked.append(data_dir) or data)
    loader = DataLoader("folder", seed=7)
    assert asked == ["folder"]
    assert (loader.num_train, loader.num_test, loader.seed, loader.source) == (2, 1, 7, "Fashion-MNIST")
    assert _noise().source == "synthetic"
