"""Does a device answer the same twice? Digests of train steps repeated from one state."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from alexnet_repro.backend.devices import on_device
from alexnet_repro.backend.precision import precision as numerics
from alexnet_repro.data.fashion_mnist import Arrays
from alexnet_repro.model import build_alexnet
from alexnet_repro.training.classifier import build_classifier
from alexnet_repro.training.recipe import Recipe

# Momentum keeps each step's gradient, exactly: after the first step the velocity is -gradient / 128.
LEARNING_RATE, MOMENTUM = 2.0**-7, 0.5


@dataclass(frozen=True)
class StepDigest:
    """The bits of one train step: its loss, and digests of what each layer's variables hold after it."""

    loss: str
    """As a hexadecimal float: equal text, equal bits."""
    gradients: dict[str, str]
    """Variable's path to the digest of its accumulated gradient."""
    weights: dict[str, str]
    """Variable's path to the digest of its value."""


@dataclass(frozen=True)
class Divergence:
    """The first place where a run left the first one; steps count from 1."""

    run: str
    """Which: `replay 2`, `another process`, …"""
    step: int
    what: str
    """`loss`, or `gradient of` or `weight` and the variable's path; the last layer first, as gradients flow."""

    def __str__(self) -> str:
        """Say what it means, and what to do next."""
        return (
            f"{self.run} differs from the first run in the {self.what} at step {self.step}: the device "
            "didn't answer the same twice. Run it again; if it differs again with determinism on, suspect the hardware"
        )


class Replay:
    """One model on one device, its state put back before each run; dropout is on."""

    def __init__(
        self,
        batches: Sequence[Arrays],
        *,
        device: str = "cpu:0",
        precision: str = "float32",
        side: int = 224,
        seed: int = 0,
    ) -> None:
        """Build the documented model from the seed and remember its state.

        Args:
            batches: what each step trains on: uint8 `(n, 28, 28, 1)` and int32 `(n,)`.
            device: a name of `usable_devices`.
            precision: a name of `PRECISIONS`; on a GPU, turn op determinism on before.
            side: of the images that the model sees.
            seed: what its weights and dropout follow from.
        """
        self.batches, self.device, self.precision, self.seed = batches, device, precision, seed
        with on_device(device), numerics(precision):
            keras.utils.set_random_seed(seed)
            self.model = build_alexnet((side, side, 1), kernel_initializer="he_normal")
            self.optimizer = keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)
            recipe = dataclasses.replace(Recipe.documented(), loss="softmax")
            self.network = build_classifier(self.model, recipe, self.optimizer)
            self.network.optimizer.build(self.model.trainable_variables)  # in float16, it scales losses
            self._state = [(variable, _array(variable)) for variable in self._variables()]

    def _variables(self) -> Iterator[keras.Variable]:
        yield from self.model.variables  # dropout's seeds among them
        yield from self.network.optimizer.variables

    def run(self) -> list[StepDigest]:
        """Put the state back, make one step on each batch, and return their digests."""
        with on_device(self.device), numerics(self.precision):
            keras.utils.set_random_seed(self.seed)  # on PyTorch dropout draws from its one generator, not the layer's
            for variable, value in self._state:
                variable.assign(value)
            return [self._step(*batch) for batch in self.batches]

    def _step(self, images: np.ndarray, labels: np.ndarray) -> StepDigest:
        loss = float(self.network.train_on_batch(images, labels)[0])
        variables = self.model.trainable_variables[::-1]
        velocities = self.optimizer.momentums[::-1]
        return StepDigest(
            loss.hex(),
            {variable.path: _digest(velocity) for variable, velocity in zip(variables, velocities, strict=True)},
            {variable.path: _digest(variable) for variable in variables},
        )


def first_divergence(first: Sequence[StepDigest], other: Sequence[StepDigest], run: str) -> Divergence | None:
    """Return where `other`, called `run`, first differs from `first`; None if every bit is the same."""
    for number, (expected, found) in enumerate(zip(first, other, strict=True), 1):
        if expected.loss != found.loss:
            return Divergence(run, number, "loss")
        for what, ours, theirs in (
            ("gradient of", expected.gradients, found.gradients),
            ("weight", expected.weights, found.weights),
        ):
            for path, digest in ours.items():
                if theirs[path] != digest:
                    return Divergence(run, number, f"{what} {path}")
    return None


def _array(variable: keras.Variable) -> np.ndarray:
    return np.array(ops.convert_to_numpy(variable.value))


def _digest(variable: keras.Variable) -> str:
    return hashlib.blake2b(_array(variable).data, digest_size=16).hexdigest()
