"""A training's history, how it is recorded update by update, and the progress bar on stderr."""

import math
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NoReturn, Self

import numpy as np
from pydantic import ConfigDict, NonNegativeFloat, NonNegativeInt, TypeAdapter
from tqdm import tqdm

from alexnet_repro.training.recipe import Recipe

UPDATES_BEFORE_ESTIMATE = 4
FEWEST_IMAGES = 100  # by which accuracy is known from chance
WIDE = 110  # columns of a terminal that has room for a bar beside counts of images, both times and the losses


class TrainingDivergedError(ArithmeticError):
    """The loss is no longer finite, or the weights aren't."""


@dataclass(frozen=True)
class Evaluation:
    """A model's mean loss and accuracy over `num_samples` test images."""

    loss: float
    accuracy: float
    num_samples: int
    only_class: int | None = None  # that every image gets, where accuracy is at chance

    def at_chance(self, classes: int = 10) -> bool:
        """Return whether guessing among that number of classes does as well, by 3 standard deviations."""
        deviation = math.sqrt((classes - 1) / self.num_samples) / classes
        return self.num_samples >= FEWEST_IMAGES and self.accuracy <= 1 / classes + 3 * deviation


@dataclass(frozen=True, eq=False)  # arrays have no one truth
class History:
    """A training run so far; its losses and accuracies are each batch's mean, before its update."""

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)

    losses: np.ndarray = field(default_factory=lambda: np.zeros(0))  # float64 `(updates,)`
    accuracies: np.ndarray = field(default_factory=lambda: np.zeros(0))  # float64 `(updates,)`
    images: NonNegativeInt = 0
    # Wall time from the first draw to the last update, compilation included; saving not.
    seconds: NonNegativeFloat = 0.0
    first_update_seconds: NonNegativeFloat = 0.0  # of these, until the step's first results: tracing and compilation
    evaluations: tuple[tuple[int, Evaluation], ...] = ()  # on all test images, each with the number of updates before
    saved: str = ""  # `training.weights.weights_digest` of the weights that the recipe saves last; empty before that
    draws: NonNegativeInt = 0  # made of training images
    begun: NonNegativeInt = 0  # draws that the loader had made before the training began

    def as_data(self) -> dict[str, Any]:
        """Return everything but losses and accuracies, as JSON takes it."""
        return {name: each for name, each in asdict(self).items() if name not in ("losses", "accuracies")}

    @classmethod
    def from_data(cls, data: Mapping[str, Any], losses: np.ndarray, accuracies: np.ndarray) -> Self:
        """Return the history of which `data` has what `as_data` returned; ValueError: it has other values."""
        return TypeAdapter(cls).validate_python({**data, "losses": losses, "accuracies": accuracies})

    def check(self, recipe: Recipe) -> None:
        """Raise a ValueError unless this is a run by `recipe` so far: what was drawn is what was trained on."""
        updates = self.draws * recipe.updates_per_draw
        drawn = 0 < self.draws <= recipe.num_draws <= 2**32 - self.begun  # a draw's number is a seed, of 32 bits
        if not drawn or self.images != updates * recipe.batch_size or not math.isfinite(self.seconds):
            raise ValueError(f"{self.draws} draws, {self.images} images and {self.seconds} s aren't this recipe's")
        for values in (self.losses, self.accuracies):
            if values.dtype != np.float64 or values.shape != (updates,) or not np.isfinite(values).all():
                raise ValueError(f"its losses or accuracies aren't those of {updates} updates")


class TrainingRecorder:
    """Records a training's updates and their time, and shows a progress bar."""

    def __init__(self, recipe: Recipe, before: History, *, show: bool) -> None:
        """Continue the history `before`."""
        self.history, self._recipe, self._show = before, recipe, show
        self._start = time.perf_counter() - before.seconds
        self._first: tuple[float, int] | None = None
        """Seconds and updates until the first results of this process: the call that compiles."""
        images = recipe.num_updates * recipe.batch_size
        self.bar = progress_bar(images, "training", show=show, done=before.images)

    def add(self, draws: int, losses: Any, accuracies: Any) -> None:
        """Record the updates of some draws, in their order.

        Raises:
            TrainingDivergedError: a loss isn't finite.
        """
        before, recipe = self.history, self._recipe
        losses, accuracies = (np.asarray(each, np.float64) for each in (losses, accuracies))  # waits for the device
        now = time.perf_counter() - self._start
        for at in np.flatnonzero(~np.isfinite(losses))[:1]:
            raise TrainingDivergedError(
                f"the loss is {losses[at]} at update {len(before.losses) + at + 1} of {recipe.num_updates} (recipe "
                f"{recipe.name}, learning rate {recipe.learning_rate:g}). Run it again with the same seed: if it ends "
                "at the same update, lower the learning rate or use --precision=float32; if not, though operations are "
                "deterministic, the device doesn't compute the same twice: suspect the hardware"
            )
        self.history = replace(
            before,
            losses=np.append(before.losses, losses),
            accuracies=np.append(before.accuracies, accuracies),
            images=before.images + len(losses) * recipe.batch_size,
            seconds=now,
            first_update_seconds=before.first_update_seconds or now,
            draws=before.draws + draws,
        )
        self.bar.set_postfix(loss=f"{losses[-1]:.4f}", accuracy=f"{accuracies[-1]:.3f}", refresh=False)
        self.bar.update(len(losses) * recipe.batch_size)
        self._first = self._first or (now, len(self.history.losses))
        since = len(self.history.losses) - self._first[1]
        if self._show and since >= UPDATES_BEFORE_ESTIMATE > since - len(losses):
            left = (now - self._first[0]) / since * (recipe.num_updates - len(self.history.losses))
            self.bar.write(f"training takes about {self.bar.format_interval(now + left)}", sys.stderr)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Don't count the time in this context."""
        since = time.perf_counter()
        yield
        pause = time.perf_counter() - since
        self._start += pause
        if not self.bar.disable:  # its rate is of training, too
            self.bar.start_t += pause
            self.bar.last_print_t += pause


def progress_bar(num_images: int, what: str, *, show: bool, done: int = 0) -> "tqdm[NoReturn]":
    """Return a progress bar on stderr that counts images; a line every half minute if stderr isn't a terminal."""
    terminal = sys.stderr.isatty()
    narrow = terminal and shutil.get_terminal_size().columns < WIDE
    return tqdm(
        desc=what,
        total=num_images,
        initial=done,
        unit=" images",
        disable=not show,
        mininterval=0.5 if terminal else 30.0,
        smoothing=0.05,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {remaining}, {rate_noinv_fmt}{postfix}" if narrow else None,
    )
