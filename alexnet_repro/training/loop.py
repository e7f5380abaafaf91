"""The training loop: the order of updates, which a train step makes, with saving and evaluation between them."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from alexnet_repro.data.loader import DataLoader
from alexnet_repro.files import check_room
from alexnet_repro.training.checkpoint import Checkpoints, Store, identity
from alexnet_repro.training.classifier import Classifier
from alexnet_repro.training.evaluate import check_labels, evaluate, evaluation_classifier
from alexnet_repro.training.history import History, TrainingRecorder
from alexnet_repro.training.recipe import Recipe
from alexnet_repro.training.schedule import Segment, draws_until_saved, iter_draws, iter_segments
from alexnet_repro.training.stop_signal import warnings_end_nothing
from alexnet_repro.training.train_step import TrainStep, best_train_step
from alexnet_repro.training.weights import (
    SUFFIX,
    check_weights_path,
    only_writer,
    save_weights,
    weights_digest,
    weights_size,
)

logger = logging.getLogger(__name__)


class TrainingStoppedError(Exception):
    """Training was stopped after an update, on request; with checkpoints, the latest is of that update."""


@warnings_end_nothing()
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
    """Train `model` in place on what `loader` draws, as `recipe` says, and return the history.

    Args:
        model: from `build_alexnet`, built under the precision wanted (Keras's dtype policy).
        loader: of the training and test images.
        recipe: its initializer is for building the model; the rest is used here.
        step: by default the fastest that the backend has.
        weights: the file, ending in `.weights.h5`, that weights are saved to when the recipe says so.
        checkpoints: where and how often to save what resuming needs.
        resume: whether to resume from the latest checkpoint (bit-exact), or start fresh if there is none; the history
            then includes what came before.
        stopping: called after each call of the step; once it returns true, training saves a checkpoint and stops.
        pausing: returns the context in which saving and evaluation run.
        validate: whether to evaluate the model on all test images after each epoch.
        validate_every: and also after every `validate_every` draws of an epoch.
        progress: whether to show a bar on stderr: images/s, loss, accuracy and time left.

    Raises:
        TrainingDivergedError: a loss isn't finite; the message names the update.
        TrainingStoppedError: `stopping` returned true.
        ValueError, OSError: weights or checkpoints can't be saved there, or would replace those of a training that
            isn't finished, found out before the first update; or the checkpoint of a stop, or the last weights, can't.
            Other failed saves are logged as warnings.
    """
    check_labels(loader, model)
    if validate_every is not None and validate_every < 1:
        raise ValueError(f"validate_every must be at least 1, or None; got {validate_every}")
    if resume and checkpoints is None:
        raise ValueError("resume needs checkpoints")
    target = None if weights is None else check_weights_path(weights)
    step = step or best_train_step(model, loader, recipe)
    opened: AbstractContextManager[Store | None] = nullcontext()
    if checkpoints:
        opened = checkpoints.opened(step.variables, identity(model, loader, recipe, step.variables))
    with opened as store, only_writer(target) if target else nullcontext():
        if store:
            store.protect(resume=resume)
        restored = store.restore() if store and resume else None
        before = restored if restored and restored.draws else History(begun=loader.train_draws)
        loader.train_draws = before.begun + before.draws
        segments = list(
            iter_segments(
                recipe,
                done=before.draws,
                max_updates=step.updates_per_call,
                checkpoint_every=checkpoints.every if checkpoints else None,
                evaluate_every=validate_every if validate else None,
            )
        )
        saves = sum(each.checkpoints or each.ends_epoch or (validate and each.evaluates) for each in segments)
        files = store.room(saves, again=validate) if store and saves else []
        check_room([*files, *([(target.parent, weights_size(model))] if target else ())])
        if target and target.exists() and not before.draws:
            logger.info("%s is there already, and will be replaced", weights)
        recorder = TrainingRecorder(recipe, before, show=progress)
        callbacks = _Callbacks(model, loader, recipe, store, weights, recorder, show=progress)
        with recorder.bar:
            if before.draws:  # on resume, a pending weight save or evaluation runs first
                with recorder.paused(), pausing():
                    last_draw = list(iter_draws(recipe, validate_every))[before.draws - 1]
                    callbacks.save_and_evaluate(last_draw, validate=validate)
            for segment, results, stop in _run_updates(step, loader, recipe, iter(segments), stopping):
                recorder.add(segment.draws, *results)
                with recorder.paused(), pausing():
                    if store and (segment.checkpoints or segment.ends_epoch or stop):
                        store.save(recorder.history, needed=stop)
                    callbacks.save_and_evaluate(segment, validate=validate and not stop)
                if stop:
                    done = len(recorder.history.losses)
                    raise TrainingStoppedError(f"stopped after update {done} of {recipe.num_updates}")
    return recorder.history


@dataclass(frozen=True)
class _Callbacks:
    """Saving weights and evaluating, after the checkpoint is saved, so that a resumed training can redo them."""

    model: keras.Sequential
    loader: DataLoader
    recipe: Recipe
    store: Store | None
    weights: str | os.PathLike[str] | None
    recorder: TrainingRecorder
    show: bool

    @cached_property
    def classifier(self) -> Classifier:
        """The model compiled for evaluation, once."""
        return evaluation_classifier(self.model, self.recipe.loss)

    def save_and_evaluate(self, segment: Segment, *, validate: bool) -> None:
        """Save weights, if due; evaluate the model, if due, wanted and not done yet."""
        if segment.saves and self.weights is not None:
            # Only for the last weights, which training is for, a failed save is an error.
            last = self.recorder.history.draws == draws_until_saved(self.recipe)
            try:
                save_weights(self.model, self.weights, self.recipe.loss)
            except OSError as error:
                if last:
                    raise OSError(f"{error}; {self._rescue(Path(self.weights))}") from error
                logger.warning("%s; training continues", error)
            else:
                saved = weights_digest(self.model) if last else ""
                self.recorder.history = replace(self.recorder.history, saved=saved)
        self._evaluate(segment, validate=validate)

    def _rescue(self, path: Path) -> str:
        """Save the last weights beside a file that can't be written any more; return where, or how to get them."""
        beside = path.with_name(f"{path.name.removesuffix(SUFFIX)[:50]}.{os.getpid()}{SUFFIX}")
        try:
            return f"the weights are in {save_weights(self.model, beside, self.recipe.loss)}"
        except OSError:
            return f"then {'resume from the latest checkpoint' if self.store else 'train again'}"

    def _evaluate(self, segment: Segment, *, validate: bool) -> None:
        history, loss = self.recorder.history, self.recipe.loss
        updates = len(history.losses)
        if segment.evaluates and validate and updates not in dict(history.evaluations):
            found = evaluate(self.model, self.loader, loss=loss, classifier=self.classifier, progress=self.show)
            self.recorder.history = replace(history, evaluations=(*history.evaluations, (updates, found)))
            if self.store:
                self.store.save(self.recorder.history, needed=False)


def _run_updates(
    step: TrainStep, loader: DataLoader, recipe: Recipe, segments: Iterator[Segment], stopping: Callable[[], bool]
) -> Iterator[tuple[Segment, tuple[Any, Any], bool]]:
    """Make updates, and yield each segment's losses and accuracies, and whether to stop there.

    Where a step makes many updates per call, results are yielded a call later, so that the device has work while they
    are read; but at once where something has to run after them.
    """
    behind = int(step.updates_per_call > 1)
    pending: list[tuple[Segment, tuple[Any, Any]]] = []
    for segment in segments:
        indices = np.concatenate([loader.draw_train_indices(recipe.draw_size) for _ in range(segment.draws)])
        pending.append((segment, step(indices.reshape(-1, recipe.batch_size))))
        stop = stopping()
        while len(pending) > (0 if stop or segment.needs_host else behind):
            yield *pending.pop(0), stop and not pending
        if stop:
            return
