"""The check that the model learns: what makes a run of train steps valid, timed or not."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from scipy import stats

from alexnet_repro.data.loader import DataLoader
from alexnet_repro.training.recipe import Recipe
from alexnet_repro.training.train_step import TrainStep, best_train_step
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.finding import Finding

# The documented update, from weights and at a rate with which one batch is learned in ten updates, not thousands.
LEARNABLE = dataclasses.replace(
    Recipe.documented(), name="learnable", loss="softmax", learning_rate=0.003, kernel_initializer="he_normal"
)
# Where nothing is timed, momentum and no dropout learn it in fewer updates.
FAST_LEARNABLE = dataclasses.replace(
    LEARNABLE, dropout=False, learning_rate=0.001, optimizer_arguments={"momentum": 0.9}
)
MAX_UPDATES = 60
UPDATES_PER_EVALUATION = 4
BY_CHANCE = 1e-3  # probability that guessing the most frequent label scores as well
LEARNING_BATCH = 20
CLASSES = 10


@dataclass(frozen=True)
class Learning:
    """Repeated updates on one batch: losses, and the state after them."""

    losses: tuple[float, ...]
    """Before each update, dropout on."""
    loss: float
    """After the last, dropout off."""
    accuracy: float
    needed: float
    """The smallest accuracy that guessing doesn't reach."""
    unchanged: tuple[str, ...]
    """Weights that didn't change."""
    infinite: tuple[str, ...]
    """Weights with values that aren't finite; ReLU may hide them from the loss."""
    accuracies: tuple[float, ...] = ()
    """Before each update made by `learn` itself, dropout on."""

    @property
    def fault(self) -> str | None:
        """What is wrong, None if it learned."""
        for update, loss in enumerate((*self.losses, self.loss), 1):
            if not math.isfinite(loss):
                return f"the loss is {loss} at update {update}"
        if self.infinite:
            return f"{self.infinite[0]} isn't finite after {len(self.losses)} updates"
        if self.unchanged:
            return f"{self.unchanged[0]} didn't change in {len(self.losses)} updates"
        if not self.loss < self.losses[0]:
            return (
                f"the loss didn't fall: {self.losses[0]:.4f} at first, {self.loss:.4f} after {len(self.losses)} updates"
            )
        if self.accuracy < self.needed:
            return f"accuracy {self.accuracy:.3f} after {len(self.losses)} updates is no better than chance"
        return None


def learn(
    step: TrainStep,
    loader: DataLoader,
    indices: np.ndarray,
    before: Sequence[np.ndarray],
    losses: Sequence[float] = (),
) -> Learning:
    """Go on with updates on one batch until it is learned, for `MAX_UPDATES` at most.

    Args:
        step: as `best_train_step` returns it.
        loader: of the training images.
        indices: of the training images in the batch, int64 `(batch_size,)`.
        before: the trainable weights before the first update.
        losses: of the updates made so far.
    """
    classifier, batch = step.classifier, loader.train_batch(indices)
    losses, accuracies = list(losses), []
    while True:
        if len(losses) < MAX_UPDATES:
            found = step(np.tile(indices, (UPDATES_PER_EVALUATION, 1)))
            losses += np.asarray(found[0], float).tolist()
            accuracies += np.asarray(found[1], float).tolist()
        loss, accuracy = map(float, classifier.test_on_batch(*batch))
        weights = classifier.trainable_variables
        arrays = {each.path: np.asarray(keras.ops.convert_to_numpy(each.value)) for each in weights}
        pairs = zip(arrays.items(), before, strict=True)
        unchanged = tuple(path for (path, new), old in pairs if np.array_equal(new, old))
        infinite = tuple(path for path, new in arrays.items() if not np.isfinite(new).all())
        needed = _beyond_chance(batch[1])
        result = Learning(tuple(losses), loss, accuracy, needed, unchanged, infinite, tuple(accuracies))
        if result.fault is None or not math.isfinite(loss) or infinite or len(losses) >= MAX_UPDATES:
            return result


def learnable_batch(loader: DataLoader, batch_size: int) -> np.ndarray:
    """Return training-image indices, int64 `(batch_size,)`, with the classes as equally frequent as can be."""
    indices = loader.draw_train_indices(max(50 * CLASSES, 4 * batch_size))
    labels = loader.train_labels[indices]
    ranks = np.zeros(len(labels), int)
    for label in range(CLASSES):
        ranks[labels == label] = np.arange((labels == label).sum())
    return indices[np.lexsort((labels, ranks))[:batch_size]]


def learning(config: CheckConfig) -> Finding:
    """One batch is learned: the loss stays finite and falls, every weight changes, accuracy is above chance."""
    loader = config.loader()
    indices = learnable_batch(loader, LEARNING_BATCH)
    recipe = dataclasses.replace(FAST_LEARNABLE, draw_size=LEARNING_BATCH, batch_size=LEARNING_BATCH)
    with config.running():
        model, before = config.model()
        result = learn(best_train_step(model, loader, recipe), loader, indices, before)
    evidence = f"loss {result.losses[0]:.3f} to {result.loss:.3f} in {len(result.losses)} updates"
    data = {"batch": len(indices), "losses": list(result.losses), "accuracies": list(result.accuracies)}
    found = functools.partial(Finding, "learning", number=result.accuracy, bound=result.needed, data=data)
    if result.fault:
        fix = "see the checks layers and update of this device; if they pass, run it again and suspect the hardware"
        return found("FAIL", result.fault, evidence, fix)
    message = f"accuracy {result.accuracy:.2f}, chance is below {result.needed:.2f}"
    return found("PASS", message, evidence)


def _beyond_chance(labels: np.ndarray) -> float:
    """Return the least share of right answers that always guessing one label reaches with less than `BY_CHANCE`."""
    images, share = len(labels), float(np.bincount(labels).max() / len(labels))
    if share == 1:
        return 1.0  # one label only: nothing but guessing to learn
    return float((stats.binom.isf(BY_CHANCE, images, share) + 1) / images)
