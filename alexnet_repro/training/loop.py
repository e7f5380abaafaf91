"""Train: which updates, in which order, with progress and saving; the arithmetic is in a step."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np

from alexnet_repro.data.loader import DataLoader
from alexnet_repro.training.checkpoint import Checkpoints, Progress, Store, identity, to_stderr
from alexnet_repro.training.classifier import Classifier
from alexnet_repro.training.evaluate import Evaluation, check_labels, evaluate, evaluation_classifier
from alexnet_repro.training.history import Log
from alexnet_repro.training.recipe import Recipe
from alexnet_repro.training.schedule import Segment, draw_after, draws_until_saved, iter_segments
from alexnet_repro.training.train_step import TrainStep, best_train_step
from alexnet_repro.training.weights import check_weights_path, save_weights, weights_digest


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
    saved: str = ""
    """Of the weights that were saved last, by `alexnet_repro.training.weights.weights_digest`; empty if none were."""


def train(
    model: keras.Sequential,
    loader: DataLoader,
    recipe: Recipe,
    *,
    step: TrainStep | None = None,
    weights: str | os.PathLike[str] | None = None,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
    stopping: Callable[[], bool] = lambda: False,
    pausing: Callable[[], AbstractContextManager[None]] = nullcontext,
    validate: bool = False,
    validate_every: int | None = None,
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
        validate_every: then also after every so many draws of an epoch.
        progress: whether to show a bar on stderr: images/s, loss, accuracy and time left.

    Returns:
        Loss and accuracy of every update, and the time taken, those before an interruption included.

    Raises:
        TrainingDivergedError: a loss isn't finite; the message names the update.
        TrainingStoppedError: `stopping` said so.
        ValueError, OSError: `weights` or checkpoints can't be saved there; found out before the first update.
            Or a checkpoint can't be when training stops, or the last weights; while it goes on, that is a warning.
    """
    check_labels(loader, model)
    if validate_every is not None and validate_every < 1:
        raise ValueError(f"validate_every must be at least 1, or None; got {validate_every}")
    if weights is not None:
        check_weights_path(weights)
    step = step or best_train_step(model, loader, recipe)
    with _store(checkpoints, step, model, loader, recipe) as store:
        before = store.restore() if store and resume else Progress.none()
        log = Log(recipe, before if before.draws else Progress.none(loader.train_draws), show=progress)
        loader.train_draws = log.begun + log.draws
        between = _Between(model, loader, recipe, store, weights, log, show=progress)
        left = iter_segments(
            recipe,
            done=log.draws,
            at_once=step.updates_per_call,
            every=checkpoints.every if checkpoints else None,
            measure_every=validate_every if validate else None,
        )
        with log.bar:
            if log.draws:  # it may have ended before all was done that is due there
                with log.paused(), pausing():
                    between.after(draw_after(recipe, log.draws, validate_every), measure=validate)
            for segment, results, stop in _made(step, loader, recipe, left, stopping):
                log.add(segment.draws, *results)
                with log.paused(), pausing():
                    between.save(segment, stop=stop)
                    between.after(segment, measure=validate and not stop)
                if stop:
                    raise TrainingStoppedError(f"stopped after update {len(log.losses)} of {recipe.num_updates}")
    done = log.progress()
    return History(
        done.losses,
        done.accuracies,
        len(done.losses) * recipe.batch_size,
        done.seconds,
        done.first_update_seconds,
        done.evaluations,
        done.saved,
    )


@dataclass(frozen=True)
class _Between:
    """What is done between updates: first of all a checkpoint, so that the rest can be done by who goes on from it."""

    model: keras.Sequential
    loader: DataLoader
    recipe: Recipe
    store: Store | None
    weights: str | os.PathLike[str] | None
    log: Log
    show: bool

    @cached_property
    def network(self) -> Classifier:
        """What the model is measured by after every epoch: compiled once."""
        return evaluation_classifier(self.model, self.recipe.loss)

    def save(self, draw: Segment, *, stop: bool) -> None:
        """Save a checkpoint, if one is due."""
        if self.store and (draw.checkpoints or draw.ends_epoch or stop):
            self.store.save(self.log.progress(), needed=stop)

    def after(self, draw: Segment, *, measure: bool) -> None:
        """Save weights if that is due; measure the model if that is due and asked for, and if it isn't done."""
        if draw.saves and self.weights is not None:
            self._save_weights(self.weights)
        updates = len(self.log.losses)
        if draw.measures and measure and updates not in dict(self.log.evaluations):
            found = evaluate(self.model, self.loader, loss=self.recipe.loss, network=self.network, progress=self.show)
            self.log.evaluations += ((updates, found),)
            if self.store:
                self.store.save(self.log.progress(), needed=False)

    def _save_weights(self, path: str | os.PathLike[str]) -> None:
        """Save weights; those that are saved last are what training is for, so that it is no use without them."""
        last = self.log.draws == draws_until_saved(self.recipe)
        try:
            save_weights(self.model, path)
        except OSError as error:
            if last:
                left = "go on from the newest checkpoint" if self.store else "train again"
                raise OSError(f"{error}; free that disk, and {left}") from error
            (self.store.settings.say if self.store else to_stderr)(f"{error}; training goes on, free that disk")
        else:
            self.log.saved = weights_digest(self.model) if last else ""


def _store(
    checkpoints: Checkpoints | None, step: TrainStep, model: keras.Sequential, loader: DataLoader, recipe: Recipe
) -> AbstractContextManager[Store | None]:
    if checkpoints is None:
        return nullcontext()
    return checkpoints.opened(step.variables, identity(model, loader, recipe, step.variables))


def _made(
    step: TrainStep, loader: DataLoader, recipe: Recipe, left: Iterator[Segment], stopping: Callable[[], bool]
) -> Iterator[tuple[Segment, tuple[Any, Any], bool]]:
    """Make updates, and yield each stretch's losses and accuracies, and whether to stop there.

    Where a step makes many updates at once, they are yielded a call later, so that the device has work
    while they are read; but at once where something has to be done after them.
    """
    behind = int(step.updates_per_call > 1)
    pending: list[tuple[Segment, tuple[Any, Any]]] = []
    for segment in left:
        indices = np.concatenate([loader.draw_train_indices(recipe.draw_size) for _ in range(segment.draws)])
        pending.append((segment, step(indices.reshape(-1, recipe.batch_size))))
        stop = stopping()
        while len(pending) > (0 if stop or segment.needs_host else behind):
            yield *pending.pop(0), stop and not pending
        if stop:
            return
