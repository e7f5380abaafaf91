"""What a training has done so far, and the bar that shows it."""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from alexnet_repro.training.checkpoint import Progress
from alexnet_repro.training.progress import progress_bar
from alexnet_repro.training.recipe import Recipe

UPDATES_BEFORE_ESTIMATE = 4


class TrainingDivergedError(ArithmeticError):
    """The loss is no longer finite."""


class Log:
    """What has been done, and the bar that shows it."""

    def __init__(self, recipe: Recipe, before: Progress, *, show: bool) -> None:
        """Begin where `before` ends."""
        self.recipe, self.show, self.draws = recipe, show, before.draws
        self.losses, self.accuracies = before.losses.tolist(), before.accuracies.tolist()
        self.first_update_seconds, self.answered = before.first_update_seconds, 0
        self.evaluations, self.begun, self.saved = before.evaluations, before.begun, before.saved
        self.start = time.perf_counter() - before.seconds
        self.pause: float | None = None
        images = recipe.num_updates * recipe.batch_size
        self.bar = progress_bar(images, "training", show=show, done=len(self.losses) * recipe.batch_size)

    def add(self, draws: int, losses: Any, accuracies: Any) -> None:
        """Take what the updates of so many draws gave, in their order."""
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
        """Say how long it takes, once there are updates after the first answer, which has compiled."""
        now, before = time.perf_counter() - self.start, self.answered
        self.answered += updates
        if not before:
            self.first, self.first_updates = now, updates
            self.first_update_seconds = self.first_update_seconds or now
        since = self.answered - self.first_updates
        if self.show and since >= UPDATES_BEFORE_ESTIMATE > since - updates:
            left = (now - self.first) / since * (self.recipe.num_updates - len(self.losses))
            self.bar.write(f"training takes about {self.bar.format_interval(now + left)}", sys.stderr)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Don't count the time that this takes."""
        self.pause = since = time.perf_counter()
        yield
        self.start += time.perf_counter() - since
        self.pause = None

    def progress(self) -> Progress:
        """Return how far training is now."""
        seconds = (self.pause or time.perf_counter()) - self.start
        return Progress(
            self.draws,
            seconds,
            self.first_update_seconds,
            np.array(self.losses),
            np.array(self.accuracies),
            self.evaluations,
            self.begun,
            self.saved,
        )


def _diverged(loss: float, update: int, recipe: Recipe) -> str:
    return (
        f"the loss is {loss} at update {update} of {recipe.num_updates} (recipe {recipe.name}, learning rate "
        f"{recipe.learning_rate:g}). Run it again with the same seed: if it ends at the same update, lower the "
        "learning rate or use --precision=float32; if not, though operations are deterministic, the device doesn't "
        "answer the same twice: suspect the hardware"
    )
