"""What training on one device needs around `train`: nothing. Many devices and many workers need more."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras

from alexnet_repro.data.loader import DataLoader
from alexnet_repro.training.checkpoint import Checkpoints
from alexnet_repro.training.recipe import Recipe
from alexnet_repro.training.train_step import TrainStep


class OneDevice:
    """Training in this process alone, on the device that the backend takes."""

    chief = True
    """Whether this process prints and saves."""
    stopped_by = 0
    """The signal that training was stopped by, be it on another worker."""

    def scope(self) -> AbstractContextManager[Any]:
        """Return what models are built in."""
        return nullcontext()

    def step(self, model: keras.Sequential, loader: DataLoader, recipe: Recipe) -> TrainStep | None:  # noqa: ARG002
        """Return what makes the updates; None: what is best on one device."""
        return None

    def checkpoints(self, checkpoints: Checkpoints | None) -> Checkpoints | None:
        """Return what saves and restores."""
        return checkpoints

    def stopping(self, stop_request: Callable[[], bool]) -> Callable[[], bool]:
        """Return what says, after each call of the step, whether to stop, given whether it is wished here."""
        return stop_request

    def pausing(self) -> AbstractContextManager[None]:
        """Return what saving and measuring between updates are done in."""
        return nullcontext()
