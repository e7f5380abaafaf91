"""The documented `DataLoader`: Fashion-MNIST in memory, and batches drawn with replacement."""

import hashlib
import os
from typing import Self

import numpy as np
from keras import ops

from alexnet_repro.data.fashion_mnist import Arrays, load_fashion_mnist
from alexnet_repro.data.resize import resize_with_pad


class DataLoader:
    """Fashion-MNIST, and batches of it drawn uniformly with replacement.

    Images are kept as uint8 (55 MB in all) and become float32 in [0, 1] when they are read, with a trailing channel
    axis, as documented.

    Attributes:
        train_labels, test_labels: int32 `(num_train,)` and `(num_test,)`: 60,000 and 10,000.
        seed: of the draws. Draw k of a split depends on the seed, the split and k alone, on every machine.
        train_draws: the number of draws of training images so far; set it to continue after as many.
        source: `"Fashion-MNIST"`, or the name of the other images; shown beside every figure.

    Source: "Dive into Deep Learning", TensorFlow 2 edition, section 5.6.
    """

    def __init__(self, data_dir: str | os.PathLike[str] | None = None, seed: int | None = None) -> None:
        """Load the data as `load_fashion_mnist(data_dir)` does; without a seed, the operating system gives one.

        Raises:
            ValueError: `seed` is not from 0 to 2**32 - 1.
            CorruptDataError, MissingDataError: as `load_fashion_mnist`.
        """
        self._serve(*load_fashion_mnist(data_dir), seed=seed, source="Fashion-MNIST")

    @classmethod
    def from_arrays(cls, train: Arrays, test: Arrays, *, seed: int | None = None, source: str = "synthetic") -> Self:
        """Return a loader of other images, each pair uint8 `(n, 28, 28)` and integer labels `(n,)`."""
        loader = cls.__new__(cls)
        loader._serve(train, test, seed=seed, source=source)  # noqa: SLF001 its own
        return loader

    def _serve(self, train: Arrays, test: Arrays, *, seed: int | None, source: str) -> None:
        if seed is not None and not 0 <= seed < 2**32:
            raise ValueError(f"seed must be from 0 to 4294967295; got {seed}")
        for images, labels in (train, test):
            if images.dtype != np.uint8 or images.shape != (len(labels), 28, 28) or labels.ndim != 1:
                raise ValueError(
                    "images must be uint8 (n, 28, 28) and labels integers (n,); "
                    f"got {images.dtype} {images.shape} and {labels.dtype} {labels.shape}"
                )
        self._images = {"train": train[0][..., np.newaxis], "test": test[0][..., np.newaxis]}
        for split in self._images.values():
            split.flags.writeable = False  # views of it are returned
        self.train_labels, self.test_labels = train[1].astype(np.int32), test[1].astype(np.int32)
        self.num_train, self.num_test = len(self.train_labels), len(self.test_labels)
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self.source = source
        self.train_draws = self._test_draws = 0

    @property
    def train_images(self) -> np.ndarray:
        """All training images, float32 `(num_train, 28, 28, 1)` in [0, 1]: a new 188 MB array at each reading."""
        return _unit(self._images["train"])

    @property
    def test_images(self) -> np.ndarray:
        """All test images, float32 `(num_test, 28, 28, 1)` in [0, 1]: a new 31 MB array at each reading."""
        return _unit(self._images["test"])

    def get_batch_train(self, batch_size: int) -> Arrays:
        """Draw training images with replacement: float32 `(batch_size, 224, 224, 1)` in [0, 1], int32 `(batch_size,)`.

        As with every draw, a `batch_size` of less than one raises a `ValueError`.
        """
        return _as_documented(*self.draw_train(batch_size))

    def get_batch_test(self, batch_size: int) -> Arrays:
        """Draw test images as `get_batch_train` draws training images."""
        return _as_documented(*self.draw_test(batch_size))

    def draw_train(self, batch_size: int) -> Arrays:
        """Draw as `get_batch_train` does, from the same sequence, but images as uint8 `(batch_size, 28, 28, 1)`.

        Training uses these: 256 times fewer bytes than the resized float32 batch.
        """
        return self.train_batch(self.draw_train_indices(batch_size))

    def draw_train_indices(self, batch_size: int) -> np.ndarray:
        """Draw training-image indices, int64 `(batch_size,)`: those that `draw_train` would use."""
        indices = self._draw("train", self.train_draws, batch_size)
        self.train_draws += 1
        return indices

    def train_batch(self, indices: np.ndarray) -> Arrays:
        """Return training images and labels by index: uint8 `(n, 28, 28, 1)`, int32 `(n,)`."""
        return self._images["train"][indices], self.train_labels[indices]

    def train_digest(self) -> str:
        """Return the SHA-256 of the training images and labels."""
        return hashlib.sha256(self._images["train"].tobytes() + self.train_labels.tobytes()).hexdigest()

    def draw_test(self, batch_size: int) -> Arrays:
        """Draw test images as `draw_train` draws training images."""
        indices = self.draw_test_indices(batch_size)
        return self._images["test"][indices], self.test_labels[indices]

    def draw_test_indices(self, batch_size: int) -> np.ndarray:
        """Draw test-image indices, int64 `(batch_size,)`: those that `draw_test` would use."""
        indices = self._draw("test", self._test_draws, batch_size)
        self._test_draws += 1
        return indices

    def all_train(self) -> Arrays:
        """Return every training image once, as `all_test` returns test images."""
        return self._images["train"], self.train_labels

    def all_test(self) -> Arrays:
        """Return every test image once, in the files' order: uint8 `(num_test, 28, 28, 1)`, int32 `(num_test,)`."""
        return self._images["test"], self.test_labels

    def _draw(self, split: str, number: int, batch_size: int) -> np.ndarray:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}")
        # RandomState, not default_rng: NumPy promises that its stream never changes (NEP 19).
        draw = np.random.RandomState([self.seed, ("train", "test").index(split), number])
        return draw.randint(0, len(self._images[split]), batch_size, dtype=np.int64)


def _unit(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / np.float32(255)


def _as_documented(images: np.ndarray, labels: np.ndarray) -> Arrays:
    return np.asarray(ops.convert_to_numpy(resize_with_pad(_unit(images)))), labels
