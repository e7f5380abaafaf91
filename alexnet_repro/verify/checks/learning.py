"""The check that the model learns: what makes a run of train steps valid, timed or not."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from scipy.special import bdtrc

from alexnet_repro.data.loader import DataLoader
from alexnet_repro.data.synthetic import NUM_CLASSES
from alexnet_repro.training.recipe import Recipe
from alexnet_repro.training.train_step import TrainStep, best_train_step
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.finding import Finding

# The documented update, from weights and at a rate with which one batch is learned in ten updates, not thousands.
LEARNABLE = dataclasses.replace(
    Recipe.documented(), name="learnable", loss="softmax", learning_rate=0.003, kernel_initializer="he_normal"
)
MAX_UPDATES = 60
BY_CHANCE = 1e-3  # how often guessing may look like learning
LEARNING_BATCH = 20


class Learning(NamedTuple):
    """Repeated updates on one batch: losses, and the state after them."""

    losses: list[float]  # before each update, dropout on
    accuracies: list[float]  # before each update made by `learn` itself, dropout on
    loss: float  # after the last, dropout off
    accuracy: float
    needed: float  # the smallest accuracy that guessing doesn't reach
    fault: str | None  # what is wrong; None if it learned


def learn(
    step: TrainStep, loader: DataLoader, indices: np.ndarray, before: Sequence[np.ndarray], losses: Sequence[float] = ()
) -> Learning:
    """Resume updates on one batch until it is learned, for `MAX_UPDATES` at most.

    The batch is the training images of `indices`, int64 `(batch_size,)`; `before` are the trainable weights before the
    first update, and `losses` those of the updates made so far.
    """
    classifier, (images, labels) = step.classifier, loader.train_batch(indices)
    losses, accuracies, share = list(losses), [], float(np.bincount(labels).max() / len(labels))
    # What always guessing one label reaches with a smaller probability; of one label all is guessing.
    by_chance = bdtrc(np.arange(len(labels) + 1), len(labels), share) > BY_CHANCE
    needed = 1.0 if share == 1 else float((np.argmin(by_chance) + 1) / len(labels))
    learned = bool(losses)  # perhaps, by the updates so far
    while True:
        if not learned and len(losses) < MAX_UPDATES:
            found = step(np.tile(indices, (4, 1)))
            losses += np.asarray(found[0], float).tolist()
            accuracies += np.asarray(found[1], float).tolist()
        loss, accuracy = map(float, classifier.test_on_batch(images, labels))
        weights = classifier.trainable_variables
        after = {each.path: np.asarray(keras.ops.convert_to_numpy(each.value)) for each in weights}
        done = f"{len(losses)} updates"
        values = enumerate((*losses, loss), 1)
        infinite = [f"the loss is {value} at update {number}" for number, value in values if not math.isfinite(value)]
        # ReLU may hide them from the loss.
        infinite += [f"{path} isn't finite after {done}" for path, new in after.items() if not np.isfinite(new).all()]
        pairs = zip(after.items(), before, strict=True)
        missing = [f"{path} didn't change in {done}" for (path, new), old in pairs if np.array_equal(new, old)]
        if not loss < losses[0]:
            missing.append(f"the loss didn't fall: {losses[0]:.4f} at first, {loss:.4f} after {done}")
        if accuracy < needed:
            missing.append(f"accuracy {accuracy:.3f} after {done} is no better than chance")
        if infinite or not missing or len(losses) >= MAX_UPDATES:
            fault = next(iter(infinite + missing), None)
            return Learning(losses, accuracies, loss, accuracy, needed, fault)
        learned = False


def learnable_batch(loader: DataLoader, batch_size: int) -> np.ndarray:
    """Return training-image indices, int64 `(batch_size,)`, with the classes as equally frequent as can be."""
    indices = loader.draw_train_indices(max(50 * NUM_CLASSES, 4 * batch_size))
    labels = loader.train_labels[indices]
    ranks = np.zeros(len(labels), int)
    for label in range(NUM_CLASSES):
        ranks[labels == label] = np.arange((labels == label).sum())
    return indices[np.lexsort((labels, ranks))[:batch_size]]


def learning(config: CheckConfig) -> Finding:
    """One batch is learned: the loss stays finite and falls, every weight changes, accuracy is above chance."""
    loader = config.loader()
    indices = learnable_batch(loader, LEARNING_BATCH)
    # Where nothing is timed, momentum and no dropout learn it in fewer updates.
    fast: Any = {"dropout": False, "learning_rate": 0.001, "optimizer_arguments": {"momentum": 0.9}}
    recipe = dataclasses.replace(LEARNABLE, draw_size=LEARNING_BATCH, batch_size=LEARNING_BATCH, **fast)
    with config.running():
        model, before = config.model()
        result = learn(best_train_step(model, loader, recipe), loader, indices, before)
    evidence = f"loss {result.losses[0]:.3f} to {result.loss:.3f} in {len(result.losses)} updates"
    data = {"batch": len(indices), "losses": result.losses, "accuracies": result.accuracies}
    found = functools.partial(Finding, "learning", number=result.accuracy, bound=result.needed, data=data)
    if result.fault:
        fix = "see the checks layers and update of this device; if they pass, run it again and suspect the hardware"
        return found("FAIL", result.fault, evidence, fix)
    message = f"accuracy {result.accuracy:.2f}, chance is below {result.needed:.2f}"
    return found("PASS", message, evidence)
