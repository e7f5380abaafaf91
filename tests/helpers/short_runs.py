"""Trainings of a few updates without a network: what is saved, in which order, and how they resume."""

import dataclasses
import itertools
import logging

import keras
import numpy as np

from alexnet_repro import Checkpoints, DataLoader, Recipe, TrainingStoppedError, synthetic_fashion, train

TINY = dataclasses.replace(
    Recipe.quick(), draw_size=8, batch_size=4, draws_per_epoch=6, epochs=2, warmup_updates=2, dropout=True
)


class Sums:
    """A step without a network: its one weight follows from the image indices, in their order, and a generator."""

    updates_per_call = 1

    def __init__(self):
        self.weight = keras.Variable(np.ones(3), dtype="float32", name="weight")
        self.generator = keras.Variable(np.zeros(2), dtype="uint32", trainable=False, name="seed_generator_state")
        self.variables = (self.weight, self.generator)

    def __call__(self, indices):
        losses = []
        for batch in indices:
            self.generator.assign(keras.ops.convert_to_numpy(self.generator.value) + np.uint32(1))
            self.weight.assign(0.9 * self.weight + float(batch @ np.arange(1, 5)) + float(self.generator[0]))
            losses.append(float(self.weight[0]))
        return losses, [0.5] * len(losses)


def small_loader(images=64, seed=0):
    """Return a loader that hasn't drawn yet."""
    return DataLoader.from_arrays(*synthetic_fashion(images, 1, seed=0), seed=seed)


class Messages(logging.Handler):
    """The package's log messages in a context, warnings and less."""

    def __enter__(self):  # noqa: D105
        self.texts, self.logger = [], logging.getLogger("alexnet_repro")
        self.level = self.logger.level
        self.logger.setLevel(logging.INFO)
        self.logger.addHandler(self)
        return self.texts

    def __exit__(self, *_):  # noqa: D105
        self.logger.removeHandler(self)
        self.logger.setLevel(self.level)

    def emit(self, record):
        self.texts.append(record.getMessage())


def short_run(model, folder, *, stop_after=None, recipe=TINY, loader=None, resume=True, settings=(), **options):
    """Train by `Sums` with checkpoints in a folder, stopping after `stop_after` calls.

    Returns:
        The history, or the error of a run that was stopped; the step; the messages logged.
    """
    calls, step = itertools.count(1), Sums()
    checkpoints = Checkpoints(folder, **{"every": 4, **dict(settings)})
    stopping = (lambda: next(calls) == stop_after) if stop_after else (lambda: False)
    options = {"checkpoints": checkpoints, "resume": resume, "stopping": stopping, **options}
    with Messages() as messages:
        try:
            history = train(model, loader or small_loader(), recipe, step=step, progress=False, **options)
        except TrainingStoppedError as error:
            history = error
    return history, step, messages
