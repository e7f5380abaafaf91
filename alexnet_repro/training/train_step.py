"""What makes updates: a portable step on Keras alone, and what any other has to offer to `train`."""

from collections.abc import Sequence
from typing import Any, Protocol

import keras
import numpy as np

from alexnet_repro.data.loader import DataLoader
from alexnet_repro.training.classifier import build_classifier
from alexnet_repro.training.recipe import Recipe


class Step(Protocol):
    """Makes updates of the weights, each on training images that are told by their numbers."""

    @property
    def variables(self) -> Sequence[Any]:
        """Keras variables that an update reads and changes: weights, the optimizer's, dropout's generators."""
        ...

    @property
    def updates_per_call(self) -> int:
        """How many updates a call should ask for: where launching one takes longer than computing it, more."""
        ...

    def __call__(self, indices: np.ndarray) -> tuple[Any, Any]:
        """Make an update for each row of `indices`, int64 `(updates, batch_size)`.

        Returns:
            Each batch's mean loss before its update, and its accuracy: `(updates,)` each, anything that
            `numpy.asarray` takes. They may still be under way on the device.
        """
        ...


class KerasTrainStep:
    """Updates by Keras's own compiled train step, on every backend; uint8 images are sent batch by batch."""

    updates_per_call = 1

    def __init__(self, model: keras.Sequential, loader: DataLoader, recipe: Recipe) -> None:
        """Compile `recipe`'s update of `model`."""
        self._loader, self._network = loader, build_classifier(model, recipe)
        self._network.optimizer.build(self._network.trainable_variables)
        self.variables = (*self._network.variables, *self._network.optimizer.variables)

    def __call__(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Make the updates; float64 losses and accuracies."""
        done = [self._network.train_on_batch(*self._loader.train_batch(batch)) for batch in indices]
        losses, accuracies = np.array(done, np.float64).T
        return losses, accuracies


def best_train_step(model: keras.Sequential, loader: DataLoader, recipe: Recipe) -> Step:
    """Return the fastest step that the active backend has."""
    if keras.backend.backend() == "tensorflow":
        from alexnet_repro.training.tensorflow_step import TensorFlowTrainStep

        return TensorFlowTrainStep(model, loader, recipe)
    return KerasTrainStep(model, loader, recipe)
