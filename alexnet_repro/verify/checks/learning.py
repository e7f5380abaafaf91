"""Does it learn? What makes a run of train steps valid, whether it was timed or not."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from alexnet_repro.data.fashion_mnist import Arrays
from alexnet_repro.data.loader import DataLoader
from alexnet_repro.training.classifier import build_classifier
from alexnet_repro.training.recipe import Recipe
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.finding import Finding

# The documented update, with a start and a rate at which one batch is learned in ten updates, not thousands.
LEARNABLE = dataclasses.replace(
    Recipe.documented(), name="learnable", loss="softmax", learning_rate=0.003, kernel_initializer="he_normal"
)
# Where nothing is timed, momentum and no dropout learn it sooner.
SOONER = dataclasses.replace(LEARNABLE, dropout=False, learning_rate=0.001, optimizer_arguments={"momentum": 0.9})
MAX_UPDATES = 60
BETWEEN_LOOKS = 4
BY_CHANCE = 1e-3  # how rarely guessing the commonest label would score as well
LEARNING_BATCH = 20
CLASSES = 10


@dataclass(frozen=True)
class Learning:
    """What repeated updates on one batch did."""

    losses: tuple[float, ...]
    """Before each update, dropout on."""
    loss: float
    """After the last, dropout off."""
    accuracy: float
    needed: float
    """The least accuracy that guessing doesn't reach."""
    unchanged: tuple[str, ...]
    """Weights that are what they were at the start."""
    infinite: tuple[str, ...]
    """Weights that hold what isn't a finite number; ReLU may hide it from the loss."""
    accuracies: tuple[float, ...] = ()
    """Before each of the updates that were made here, dropout on."""

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
    network: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    before: Sequence[np.ndarray],
    losses: Sequence[float] = (),
) -> Learning:
    """Go on making updates on one batch until it is learned, or isn't in `MAX_UPDATES`.

    Args:
        network: from `alexnet_repro.training.classifier.build_classifier`.
        images: uint8 `(n, 28, 28, 1)`.
        labels: int32 `(n,)`.
        before: its trainable weights before the first update.
        losses: of the updates made so far.
    """
    losses, accuracies = list(losses), []
    while True:
        for _ in range(BETWEEN_LOOKS if len(losses) < MAX_UPDATES else 0):
            each = network.train_on_batch(images, labels)
            losses.append(float(each[0]))
            accuracies.append(float(each[1]))
        loss, accuracy = map(float, network.test_on_batch(images, labels))
        arrays = {each.path: np.asarray(keras.ops.convert_to_numpy(each.value)) for each in network.trainable_variables}
        pairs = zip(arrays.items(), before, strict=True)
        unchanged = tuple(path for (path, new), old in pairs if np.array_equal(new, old))
        infinite = tuple(path for path, new in arrays.items() if not np.isfinite(new).all())
        needed = _beyond_chance(labels)
        result = Learning(tuple(losses), loss, accuracy, needed, unchanged, infinite, tuple(accuracies))
        if result.fault is None or not math.isfinite(loss) or infinite or len(losses) >= MAX_UPDATES:
            return result


def learnable_batch(loader: DataLoader, batch_size: int) -> Arrays:
    """Return generated images with as many of each class as can be: uint8 `(batch_size, 28, 28, 1)`, int32 labels."""
    images, labels = loader.draw_train(max(50 * CLASSES, 4 * batch_size))
    ranks = np.zeros(len(labels), int)
    for label in range(CLASSES):
        ranks[labels == label] = np.arange((labels == label).sum())
    chosen = np.lexsort((labels, ranks))[:batch_size]
    return images[chosen], labels[chosen]


def learning(config: CheckConfig) -> Finding:
    """One batch is learned: the loss stays finite and falls, every weight changes, accuracy is above chance."""
    images, labels = learnable_batch(config.loader(), LEARNING_BATCH)
    with config.running():
        model, before = config.model()
        result = learn(build_classifier(model, SOONER), images, labels, before)
    numbers = f"loss {result.losses[0]:.3f} to {result.loss:.3f} in {len(result.losses)} updates"
    kept = {"batch": len(images), "losses": list(result.losses), "accuracies": list(result.accuracies)}
    found = functools.partial(Finding, "learning", number=result.accuracy, bound=result.needed, data=kept)
    if result.fault:
        fix = "see what layers and update say of this device; if they are right, run it again and suspect the hardware"
        return found("FAIL", result.fault, numbers, fix)
    message = f"accuracy {result.accuracy:.2f}, chance is below {result.needed:.2f}"
    return found("PASS", message, numbers)


def _beyond_chance(labels: np.ndarray) -> float:
    """Return the least share of right answers that always guessing one label reaches with less than `BY_CHANCE`."""
    images, share = len(labels), float(np.bincount(labels).max() / len(labels))
    if share == 1:
        return 1.0  # one label only: nothing but guessing to learn
    rights = np.arange(images + 1)
    ways = np.array([math.lgamma(images + 1) - math.lgamma(k + 1) - math.lgamma(images - k + 1) for k in rights])
    at_least = np.exp(ways + rights * math.log(share) + (images - rights) * math.log1p(-share))[::-1].cumsum()[::-1]
    return float(np.argmax(np.append(at_least, 0) < BY_CHANCE) / images)
