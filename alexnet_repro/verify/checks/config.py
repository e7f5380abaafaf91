"""The configuration of a check: the documented model on one device, in one precision."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import keras
import numpy as np

from alexnet_repro.backend.devices import on_device
from alexnet_repro.backend.precision import precision
from alexnet_repro.data.loader import DataLoader
from alexnet_repro.data.synthetic import synthetic_fashion
from alexnet_repro.model import build_alexnet
from alexnet_repro.training.recipe import Recipe

RERUN_FIX = "run it again: a different figure means the hardware, the same one software (driver, framework, settings)"


@dataclass(frozen=True)
class CheckConfig:
    """A device, a precision, and the model, images and seeds of a check."""

    device: str = "cpu:0"  # a name of `alexnet_repro.backend.devices.usable_devices`
    precision: str = "float32"  # a name in `alexnet_repro.backend.precision.PRECISIONS`
    side: int = 224  # of the images that the model sees, in pixels; at least 67, where everything is fastest
    batch: int = 2  # enough, for each layer sums thousands of terms per image
    seed: int = 0  # of weights, images, draws and dropout
    replays: int = 3
    steps: int = 3  # train steps of each replay

    @contextmanager
    def running(self) -> Iterator[None]:
        """Build and run models on the device, in the precision, with Keras's generators seeded."""
        with on_device(self.device), precision(self.precision):
            keras.utils.set_random_seed(self.seed)
            yield

    def loader(self) -> DataLoader:
        """Return generated images, the same on every machine."""
        return DataLoader.from_arrays(*synthetic_fashion(256, self.batch, self.seed), seed=self.seed)

    def model(self, *, for_xla: bool | None = None) -> tuple[keras.Sequential, list[np.ndarray]]:
        """Return a model and its weights: He-normal kernels, small biases. To be called in `running`."""
        model = build_alexnet((self.side, self.side, 1), kernel_initializer="zeros", for_xla=for_xla)
        weights = draw_weights(tuple(tuple(variable.shape) for variable in model.trainable_variables), self.seed)
        model.set_weights(weights)
        return model, weights

    def recipe(self, **changes: Any) -> Recipe:
        """Return the documented recipe, in batches of this size and with some changes."""
        return dataclasses.replace(Recipe.documented(), draw_size=self.batch, batch_size=self.batch, **changes)


@lru_cache(maxsize=1)  # most checks draw the same
def draw_weights(shapes: tuple[tuple[int, ...], ...], seed: int) -> list[np.ndarray]:
    """Return float32 kernels and biases of these shapes, drawn on the host; read-only."""
    random = np.random.default_rng(seed)
    # Biases are large enough that a dropped one is seen.
    scales = [np.sqrt(2 / np.prod(shape[:-1])) if len(shape) > 1 else 0.05 for shape in shapes]
    pairs = zip(shapes, scales, strict=True)
    weights = [random.standard_normal(shape, np.float32) * np.float32(scale) for shape, scale in pairs]
    for weight in weights:
        weight.flags.writeable = False
    return weights
