"""Generated images in place of Fashion-MNIST, for machines with neither the data nor a network."""

from typing import Any

import numpy as np

from alexnet_repro.data.fashion_mnist import Arrays

NUM_CLASSES = 10
CYCLES = (2.5, 5.0)  # over the 28 pixels
ORIENTATIONS = NUM_CLASSES // len(CYCLES)
NOISE = 20.0  # standard deviation, in grey levels of 255


def synthetic_fashion(num_train: int = 60_000, num_test: int = 10_000, seed: int = 0) -> tuple[Arrays, Arrays]:
    """Return generated images of ten classes, drawn independently, in the form of `load_fashion_mnist`.

    Each image is a patch of stripes in noise. The class is the stripes' direction (five) and width (two); their phase,
    place, extent and contrast are random. Since the phase is random, an image and its negative are equally likely, and
    a linear classifier gets at most one of the two right: it stays below 50 %, while a convolutional network learns the
    classes in a hundred updates.

    Raises:
        ValueError: `num_train` or `num_test` is less than one, or `seed` isn't from 0 to 2**32 - 1.
    """
    if min(num_train, num_test) < 1:
        raise ValueError(f"num_train and num_test must be at least 1; got {num_train} and {num_test}")
    return _split(num_train, np.random.RandomState([seed, 0])), _split(num_test, np.random.RandomState([seed, 1]))


def _split(num_images: int, random: np.random.RandomState) -> Arrays:
    labels = random.randint(0, NUM_CLASSES, num_images).astype(np.uint8)
    # In blocks: the float64 intermediates of 60,000 images would take 400 MB each.
    blocks = [_images(part, random) for part in np.array_split(labels, -(-num_images // 4096))]
    return np.concatenate(blocks), labels


def _images(labels: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    def draw(low: float, high: float) -> Any:
        return random.uniform(low, high, (len(labels), 1, 1))

    direction = (labels % ORIENTATIONS)[:, None, None] * np.pi / ORIENTATIONS
    cycles = np.asarray(CYCLES)[labels // ORIENTATIONS][:, None, None]
    y, x = np.meshgrid(*[np.linspace(-0.5, 0.5, 28)] * 2, indexing="ij")
    phase = 2 * np.pi * (cycles * (x * np.cos(direction) + y * np.sin(direction)) + draw(0, 1))
    patch = np.exp(-((x - draw(-0.15, 0.15)) ** 2 + (y - draw(-0.15, 0.15)) ** 2) / (2 * draw(0.2, 0.35) ** 2))
    grey = 127.5 * (1 + draw(0.6, 1) * patch * np.cos(phase)) + random.normal(0, NOISE, phase.shape)
    return np.asarray(np.clip(np.rint(grey), 0, 255), np.uint8)
