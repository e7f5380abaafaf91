"""The configuration of a check: the documented model on one device, in one precision."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import keras
import numpy as np

from alexnet_repro.backend.devices import on_device
from alexnet_repro.backend.precision import precision
from alexnet_repro.data.fashion_mnist import Arrays
from alexnet_repro.data.loader import DataLoader
from alexnet_repro.data.synthetic import synthetic_fashion
from alexnet_repro.model import build_alexnet
from alexnet_repro.training.recipe import Recipe

BIAS_SCALE = 0.05  # large enough that a dropped bias is seen
GENERATED_IMAGES = 256
RERUN_FIX = "run it again: a different figure means the hardware, the same one software (driver, framework, settings)"


@dataclass(frozen=True)
class CheckConfig:
    """A device, a precision, and the model, images and seeds of a check."""

    device: str = "cpu:0"
    """A name of `alexnet_repro.backend.devices.usable_devices`."""
    precision: str = "float32"
    """A name in `alexnet_repro.backend.precision.PRECISIONS`."""
    side: int = 224
    """Of the images that the model sees, in pixels; at least 67, where everything is fastest."""
    batch: int = 2
    seed: int = 0
    """Of weights, images, draws and dropout."""
    replays: int = 3
    steps: int = 3
    """Train steps of each replay."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Build and run models on the device, in the precision, with Keras's generators seeded."""
        with on_device(self.device), precision(self.precision):
            keras.utils.set_random_seed(self.seed)
            yield

    def loader(self) -> DataLoader:
        """Return generated images, the same on every machine."""
        return DataLoader.from_arrays(*synthetic_fashion(GENERATED_IMAGES, self.batch, self.seed), seed=self.seed)

    def draw(self) -> Arrays:
        """Return the first batch: uint8 `(batch, 28, 28, 1)` and int32 `(batch,)`."""
        return self.loader().draw_train(self.batch)

    def model(self, *, for_xla: bool | None = None) -> tuple[keras.Sequential, list[np.ndarray]]:
        """Return a model and its weights: He-normal kernels, small biases. To be called in `running`."""
        model = build_alexnet((self.side, self.side, 1), kernel_initializer="zeros", for_xla=for_xla)
        weights = draw_weights(tuple(tuple(variable.shape) for variable in model.trainable_variables), self.seed)
        model.set_weights(weights)
        return model, weights

    def recipe(self, **changes: object) -> Recipe:
        """Return the documented recipe, in batches of this size and with some changes."""
        documented = {"draw_size": self.batch, "batch_size": self.batch}
        # `Recipe` itself refuses changes that can't be run.
        return dataclasses.replace(Recipe.documented(), **{**documented, **changes})  # type: ignore[arg-type]


@lru_cache(maxsize=1)  # most checks draw the same
def draw_weights(shapes: tuple[tuple[int, ...], ...], seed: int) -> list[np.ndarray]:
    """Return float32 kernels and biases of these shapes, drawn on the host; read-only."""
    random = np.random.default_rng(seed)
    weights = [
        random.standard_normal(shape, np.float32)
        * np.float32(np.sqrt(2 / np.prod(shape[:-1])) if len(shape) > 1 else BIAS_SCALE)
        for shape in shapes
    ]
    for weight in weights:
        weight.flags.writeable = False
    return weights
