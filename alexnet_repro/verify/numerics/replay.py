"""Does a device answer the same twice? Digests of train steps repeated from one state."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from alexnet_repro.data.loader import DataLoader
from alexnet_repro.model import build_alexnet
from alexnet_repro.training.recipe import Recipe
from alexnet_repro.training.train_step import best_train_step

# Momentum keeps each step's gradient, exactly: after the first step the velocity is -gradient / 128.
REPLAY_RATE, REPLAY_MOMENTUM = 2.0**-7, 0.5


@dataclass(frozen=True)
class StepDigest:
    """The bits of one train step: its loss, and digests of what each layer's variables hold after it."""

    loss: str  # as a hexadecimal float: equal text, equal bits
    gradients: dict[str, str]  # the variable's path to the digest of its accumulated gradient
    weights: dict[str, str]  # the variable's path to the digest of its value


class Divergence(NamedTuple):
    """The first place where a run differs from the first one: the run's name, the step, from 1, and what differs."""

    run: str
    step: int
    what: str  # `loss`, or `gradient of` or `weight` and the variable's path; the last layer first, as gradients flow


class Replay:
    """Train steps of one model on one device, repeated from one state; dropout is on."""

    def __init__(
        self, loader: DataLoader, indices: np.ndarray, side: int, running: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Build the documented model, and keep its state.

        `indices`, int64 `(steps, batch_size)`, choose each step's training images; `side` is what they are resized to.
        `running` returns the context that all runs in: device and precision, and Keras's generators seeded, so that
        weights and dropout are the same each time. On a GPU, turn op determinism on before.
        """
        self.indices, self.running = indices, running
        batch_size = indices.shape[1]
        recipe = dataclasses.replace(Recipe.documented(), loss="softmax", draw_size=batch_size, batch_size=batch_size)
        with running():
            self.model = build_alexnet((side, side, 1), kernel_initializer="he_normal")
            self.optimizer = keras.optimizers.SGD(REPLAY_RATE, momentum=REPLAY_MOMENTUM)
            self.train_step = best_train_step(self.model, loader, recipe, optimizer=self.optimizer)
            self._state = [(variable, _array(variable)) for variable in self.train_step.variables]

    def run(self) -> list[StepDigest]:
        """Restore the state, make one step on each batch, and return their digests."""
        with self.running():  # seeded: on PyTorch dropout draws from its one generator, not the layer's
            for variable, value in self._state:
                variable.assign(value)
            return [self._step(batch) for batch in self.indices]

    def _step(self, batch: np.ndarray) -> StepDigest:
        losses, _ = self.train_step(batch[np.newaxis])
        variables = self.model.trainable_variables[::-1]
        velocities = self.optimizer.momentums[::-1]
        # Half of a replay's time, and two threads' work: hashing lets go of Python's lock.
        with ThreadPoolExecutor(2) as threads:
            gradients, weights = (threads.submit(_digests_of, each) for each in (velocities, variables))
        paths = [variable.path for variable in variables]
        return StepDigest(
            float(losses[0]).hex(),
            dict(zip(paths, gradients.result(), strict=True)),
            dict(zip(paths, weights.result(), strict=True)),
        )


def first_divergence(first: Sequence[StepDigest], other: Sequence[StepDigest], run: str) -> Divergence | None:
    """Return where `other`, called `run`, first differs from `first`; None if every bit is the same."""
    for number, (expected, found) in enumerate(zip(first, other, strict=True), 1):
        digests = _digests(found)
        for what, digest in _digests(expected).items():
            if digests[what] != digest:
                return Divergence(run, number, what)
    return None


def _digests(step: StepDigest) -> dict[str, str]:
    gradients = {f"gradient of {path}": digest for path, digest in step.gradients.items()}
    return {"loss": step.loss, **gradients, **{f"weight {path}": digest for path, digest in step.weights.items()}}


def _array(variable: keras.Variable) -> np.ndarray:
    return np.array(ops.convert_to_numpy(variable.value))


def _digests_of(variables: Sequence[keras.Variable]) -> list[str]:
    return [_digest(variable) for variable in variables]


def _digest(variable: keras.Variable) -> str:
    array = np.ascontiguousarray(ops.convert_to_numpy(variable.value))  # not copied: 187 MB are read, twice per step
    return hashlib.blake2b(array.data, digest_size=16).hexdigest()
