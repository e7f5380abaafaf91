"""A training's history, how it is recorded update by update, and the progress bar on stderr."""

import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NoReturn, Self

import numpy as np
from tqdm import tqdm

from alexnet_repro.training.recipe import Recipe

UPDATES_BEFORE_ESTIMATE = 4
FIELDS = ("images", "seconds", "first_update_seconds", "saved", "draws", "begun")  # of History, as JSON takes them


class TrainingDivergedError(ArithmeticError):
    """The loss is no longer finite."""


@dataclass(frozen=True)
class Evaluation:
    """A model's mean loss and accuracy over `num_samples` test images."""

    loss: float
    accuracy: float
    num_samples: int


@dataclass(frozen=True)
class History:
    """A training run so far, update by update."""

    losses: np.ndarray
    """float64 `(updates,)`: each batch's mean loss, before the update."""
    accuracies: np.ndarray
    """float64 `(updates,)`: share of each batch classified correctly, before the update."""
    images: int
    seconds: float
    """Wall time from the first draw to the last update, compilation included; saving and evaluating not."""
    first_update_seconds: float
    """Of these, until the step's first results: mostly tracing and compilation."""
    evaluations: tuple[tuple[int, Evaluation], ...] = ()
    """Evaluations on all test images, each with the number of updates before it."""
    saved: str = ""
    """`alexnet_repro.training.weights.weights_digest` of the weights that the recipe saves last; empty before that."""
    draws: int = 0
    """Draws made of training images."""
    begun: int = 0
    """Draws that the loader had made before the training began."""

    @classmethod
    def empty(cls, begun: int = 0) -> Self:
        """Return the history of a training before its first update."""
        return cls(np.zeros(0), np.zeros(0), 0, 0.0, 0.0, begun=begun)

    def as_data(self) -> dict[str, Any]:
        """Return everything but losses and accuracies, as JSON takes it."""
        evaluations = [[updates, asdict(each)] for updates, each in self.evaluations]
        return {**{name: getattr(self, name) for name in FIELDS}, "evaluations": evaluations}

    @classmethod
    def from_data(cls, data: Mapping[str, Any], losses: np.ndarray, accuracies: np.ndarray) -> Self:
        """Return the history of which `data` has what `as_data` returned."""
        evaluations = tuple((updates, Evaluation(**each)) for updates, each in data["evaluations"])
        return cls(losses, accuracies, **{name: data[name] for name in FIELDS}, evaluations=evaluations)


class TrainingRecorder:
    """Records a training's updates and their time, and shows a progress bar."""

    def __init__(self, recipe: Recipe, before: History, *, show: bool) -> None:
        """Continue the history `before`."""
        self.recipe, self.show, self.draws = recipe, show, before.draws
        self.losses, self.accuracies = before.losses.tolist(), before.accuracies.tolist()
        self.evaluations, self.begun, self.saved = before.evaluations, before.begun, before.saved
        self._first_update_seconds, self._updates = before.first_update_seconds, 0
        self._start = time.perf_counter() - before.seconds
        self._paused: float | None = None
        images = recipe.num_updates * recipe.batch_size
        self.bar = progress_bar(images, "training", show=show, done=before.images)

    def add(self, draws: int, losses: Any, accuracies: Any) -> None:
        """Record the updates of some draws, in their order.

        Raises:
            TrainingDivergedError: a loss isn't finite.
        """
        losses, accuracies = (np.asarray(each, np.float64).tolist() for each in (losses, accuracies))
        for loss, accuracy in zip(losses, accuracies, strict=True):
            self.losses.append(loss)
            self.accuracies.append(accuracy)
            if not math.isfinite(loss):
                raise TrainingDivergedError(_diverged(loss, len(self.losses), self.recipe))
        self.draws += draws
        self.bar.set_postfix(loss=f"{self.losses[-1]:.4f}", accuracy=f"{self.accuracies[-1]:.3f}", refresh=False)
        self.bar.update(len(losses) * self.recipe.batch_size)
        self._estimate(len(losses))

    def _estimate(self, updates: int) -> None:
        """Print the time that training will take, once there are updates after the first call, which compiles."""
        now, before = time.perf_counter() - self._start, self._updates
        self._updates += updates
        if not before:
            self._first, self._first_updates = now, updates
            self._first_update_seconds = self._first_update_seconds or now
        since = self._updates - self._first_updates
        if self.show and since >= UPDATES_BEFORE_ESTIMATE > since - updates:
            left = (now - self._first) / since * (self.recipe.num_updates - len(self.losses))
            self.bar.write(f"training takes about {self.bar.format_interval(now + left)}", sys.stderr)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Don't count the time in this context."""
        self._paused = since = time.perf_counter()
        yield
        self._start += time.perf_counter() - since
        self._paused = None

    def history(self) -> History:
        """Return the history so far."""
        return History(
            np.array(self.losses),
            np.array(self.accuracies),
            images=len(self.losses) * self.recipe.batch_size,
            seconds=(self._paused or time.perf_counter()) - self._start,
            first_update_seconds=self._first_update_seconds,
            evaluations=self.evaluations,
            saved=self.saved,
            draws=self.draws,
            begun=self.begun,
        )


def progress_bar(num_images: int, what: str, *, show: bool, done: int = 0) -> "tqdm[NoReturn]":
    """Return a progress bar on stderr that counts images; a line every half minute if stderr isn't a terminal."""
    interval = 0.5 if sys.stderr.isatty() else 30.0
    return tqdm(
        total=num_images,
        initial=done,
        desc=what,
        unit=" images",
        disable=not show,
        mininterval=interval,
        smoothing=0.05,
    )


def _diverged(loss: float, update: int, recipe: Recipe) -> str:
    return (
        f"the loss is {loss} at update {update} of {recipe.num_updates} (recipe {recipe.name}, learning rate "
        f"{recipe.learning_rate:g}). Run it again with the same seed: if it ends at the same update, lower the "
        "learning rate or use --precision=float32; if not, though operations are deterministic, the device doesn't "
        "compute the same twice: suspect the hardware"
    )
