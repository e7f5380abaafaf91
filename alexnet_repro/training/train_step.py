"""The train step: what `train`, the checks and the benchmarks update weights by, on every backend."""

from typing import Any, Protocol, Unpack

import keras
import numpy as np

from alexnet_repro.data.loader import DataLoader
from alexnet_repro.training.classifier import Classifier, CompileOptions, build_classifier
from alexnet_repro.training.recipe import Recipe


class TrainStep(Protocol):
    """Updates of a model's weights, on batches given by training-image indices."""

    classifier: Classifier  # the compiled model that is updated, with its optimizer
    variables: tuple[Any, ...]  # Keras's, that an update changes: weights, optimizer state, dropout's generators
    updates_per_call: int  # to ask for in one call: several where the device would be idle during each launch

    def __call__(self, indices: np.ndarray) -> tuple[Any, Any]:
        """Make one update for each row of training-image `indices`, int64 `(updates, batch_size)`.

        Returns each batch's mean loss before its update, and its accuracy: `(updates,)` each, anything that
        `numpy.asarray` takes. The device may still be computing them.
        """


class KerasTrainStep:
    """Updates by Keras's own compiled train step, on every backend; uint8 images are sent batch by batch."""

    updates_per_call = 1

    def __init__(
        self, model: keras.Sequential, loader: DataLoader, recipe: Recipe, **options: Unpack[CompileOptions]
    ) -> None:
        """Compile `recipe`'s update of `model`."""
        self._loader = loader
        self.classifier = build_classifier(model, recipe, **options)
        self.variables = (*self.classifier.variables, *self.classifier.optimizer.variables)

    def __call__(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Make the updates; float64 losses and accuracies."""
        results = [self.classifier.train_on_batch(*self._loader.train_batch(batch)) for batch in indices]
        losses, accuracies = np.array(results, np.float64).T
        return losses, accuracies


def best_train_step(
    model: keras.Sequential, loader: DataLoader, recipe: Recipe, **options: Unpack[CompileOptions]
) -> TrainStep:
    """Return the active backend's fastest train step of `model`, the one that `train` uses.

    The loss, optimizer, dropout and batch size are the recipe's, but for an `optimizer` in the options; `jit_compile`
    there is whether XLA compiles the update (`alexnet_repro.training.classifier.CompileOptions`).
    """
    if keras.backend.backend() == "tensorflow":
        from alexnet_repro.training.tensorflow_step import TensorFlowTrainStep

        return TensorFlowTrainStep(model, loader, recipe, **options)
    return KerasTrainStep(model, loader, recipe, **options)
