"""Train: which updates, in which order, with progress and saving; the arithmetic is in a step."""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from alexnet_repro.checkpoint import Checkpoints, Progress, Store, identity
from alexnet_repro.data.loader import DataLoader
from alexnet_repro.evaluation import Evaluation, check_labels, evaluate
from alexnet_repro.progress import progress_bar
from alexnet_repro.recipe import Recipe
from alexnet_repro.schedule import Stretch, stretches
from alexnet_repro.steps import Step, best_step
from alexnet_repro.weights import check_weights_path, save_weights

UPDATES_BEFORE_ESTIMATE = 4


class TrainingDivergedError(ArithmeticError):
    """The loss is no longer finite."""


class TrainingStoppedError(Exception):
    """Training was asked to stop, and did so after an update; if there are checkpoints, the newest is of then."""


@dataclass(frozen=True)
class History:
    """What a training run did, update by update."""

    losses: np.ndarray
    """float64 `(updates,)`: each batch's mean loss, before the update."""
    accuracies: np.ndarray
    """float64 `(updates,)`: share of each batch classified correctly, before the update."""
    images: int
    seconds: float
    """Wall time from the first draw to the last update, compiling included; saving and evaluating not."""
    first_update_seconds: float
    """Of these, until the step had answered for the first time: tracing and compiling, mostly."""
    evaluations: tuple[tuple[int, Evaluation], ...] = ()
    """After how many updates the model was measured on all test images, and how it was."""


def train(
    model: keras.Sequential,
    loader: DataLoader,
    recipe: Recipe,
    *,
    step: Step | None = None,
    weights: str | os.PathLike[str] | None = None,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
    stopping: Callable[[], bool] = lambda: False,
    pausing: Callable[[], AbstractContextManager[None]] = nullcontext,
    validate: bool = False,
    progress: bool = True,
) -> History:
    """Train `model` in place on what `loader` draws, as `recipe` says.

    Args:
        model: from `build_alexnet`, built under the precision wanted (Keras's dtype policy).
        loader: where the images come from.
        recipe: what to do; its initializer is for whoever builds the model.
        step: makes the updates; by default the fastest that the backend has.
        weights: the file, ending in `.weights.h5`, that weights are saved to as the recipe says.
        checkpoints: where, and how often, all that is saved which going on takes.
        resume: whether to go on from the newest checkpoint, bit for bit as if nothing had come between;
            where there is none, training starts at its beginning.
        stopping: asked after each call of the step; once true, training stops, after a checkpoint.
        pausing: returns what saving and measuring between updates are done in.
        validate: whether to measure the model on all test images after each epoch.
        progress: whether to show a bar on stderr: images/s, loss, accuracy and time left.

    Returns:
        Loss and accuracy of every update, and the time taken, those before an interruption included.

    Raises:
        TrainingDivergedError: a loss isn't finite; the message names the update.
        TrainingStoppedError: `stopping` said so.
        ValueError, OSError: `weights` or checkpoints can't be saved there; found out before the first update.
            Or a checkpoint can't be when training stops; while it goes on, that is a warning.
    """
    check_labels(loader, model)
    if weights is not None:
        check_weights_path(weights)
    step = step or best_step(model, loader, recipe)
    with _store(checkpoints, step, model, loader, recipe) as store:
        log = _Log(recipe, store.restore() if store and resume else Progress.none(), show=progress)
        loader.skip_train(log.draws)
        left = stretches(
            recipe, done=log.draws, at_once=step.updates_at_once, every=checkpoints.every if checkpoints else None
        )
        with log.bar:
            for stretch, results, stop in _made(step, loader, recipe, left, stopping):
                log.add(stretch.draws, *results)
                with log.paused(), pausing():
                    if weights is not None and stretch.saves:
                        save_weights(model, weights)
                    if validate and stretch.ends_epoch:
                        log.evaluations += (
                            (len(log.losses), evaluate(model, loader, loss=recipe.loss, progress=progress)),
                        )
                    if store and (stretch.checkpoints or stretch.ends_epoch or stop):
                        store.save(log.progress(), needed=stop)
                if stop:
                    raise TrainingStoppedError(f"stopped after update {len(log.losses)} of {recipe.num_updates}")
    done = log.progress()
    images = len(done.losses) * recipe.batch_size
    return History(done.losses, done.accuracies, images, done.seconds, done.first_update_seconds, done.evaluations)


def _store(
    checkpoints: Checkpoints | None, step: Step, model: keras.Sequential, loader: DataLoader, recipe: Recipe
) -> AbstractContextManager[Store | None]:
    if checkpoints is None:
        return nullcontext()
    return checkpoints.opened(step.variables, identity(model, loader, recipe, step.variables))


def _made(
    step: Step, loader: DataLoader, recipe: Recipe, left: Iterator[Stretch], stopping: Callable[[], bool]
) -> Iterator[tuple[Stretch, tuple[Any, Any], bool]]:
    """Make updates, and yield each stretch's losses and accuracies, and whether to stop there.

    Where a step makes many updates at once, they are yielded a call later, so that the device has work
    while they are read; but at once where something has to be done after them.
    """
    behind = int(step.updates_at_once > 1)
    pending: list[tuple[Stretch, tuple[Any, Any]]] = []
    for stretch in left:
        indices = np.concatenate([loader.draw_train_indices(recipe.draw_size) for _ in range(stretch.draws)])
        pending.append((stretch, step(indices.reshape(-1, recipe.batch_size))))
        stop = stopping()
        while len(pending) > (0 if stop or stretch.pauses else behind):
            yield *pending.pop(0), stop and not pending
        if stop:
            return


class _Log:
    """What has been done, and the bar that shows it."""

    def __init__(self, recipe: Recipe, before: Progress, *, show: bool) -> None:
        self.recipe, self.show, self.draws = recipe, show, before.draws
        self.losses, self.accuracies = before.losses.tolist(), before.accuracies.tolist()
        self.first_update_seconds, self.answered = before.first_update_seconds, 0
        self.evaluations = before.evaluations
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
        )


def _diverged(loss: float, update: int, recipe: Recipe) -> str:
    return (
        f"the loss is {loss} at update {update} of {recipe.num_updates} (recipe {recipe.name}, learning rate "
        f"{recipe.learning_rate:g}). Run it again with the same seed: if it ends at the same update, lower the "
        "learning rate or use --precision=float32; if not, the device doesn't answer the same twice: suspect the "
        "hardware"
    )
