"""Checks of the train step that `train` uses: loss, gradients, update and dropout are the recipe's."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from alexnet_repro import documented
from alexnet_repro.backend.devices import device_of
from alexnet_repro.data.loader import DataLoader
from alexnet_repro.training.evaluate import evaluate
from alexnet_repro.training.train_step import best_train_step
from alexnet_repro.verify.checks.config import RERUN_FIX, CheckConfig
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.numerics import error_bounds, oracle

DROPPED_UNITS = 1 << 16


def update(config: CheckConfig) -> Finding:
    """One step's loss is the one named, and each weight moves by the learning rate times its gradient.

    The loss and, by norm, each gradient are compared with float64 from the pixels on; the addition of the update
    element by element.
    """
    loader = config.loader()
    indices = loader.draw_train_indices(config.batch)
    images, labels = loader.train_batch(indices)
    with config.running():
        model, before = config.model()
        # The momentum is exact in every precision; with it, the first velocity is the update itself.
        recipe = config.recipe(dropout=False, optimizer_arguments={"momentum": 0.5})
        step = best_train_step(model, loader, recipe)
        optimizer: Any = getattr(step.classifier.optimizer, "inner_optimizer", step.classifier.optimizer)
        for _ in range(20):  # float16's loss scale skips updates until it has found its size
            loss = float(step(indices[np.newaxis])[0][0])
            velocities = [_array(variable) for variable in optimizer.momentums]
            if any(velocity.any() for velocity in velocities):
                break
        after = [_array(variable) for variable in model.trainable_variables]
        variables = (*model.trainable_variables, *optimizer.momentums)
        places = {variable.path: device_of(variable.value) for variable in variables}
    for path, where in places.items():
        if where != config.device:
            fix = "python -m alexnet_repro doctor # is this device usable?"
            return Finding("update", "FAIL", f"{path} lies on {where}, should be updated on {config.device}", fix=fix)
    names = [variable.path for variable in model.trainable_variables]
    expected, loss_bound, gradients = _exact_step(config, before, images, labels)

    if not abs(loss - expected) <= loss_bound:
        message = f"the step's {recipe.loss} loss is {loss:.6f}, should be {expected:.6f}"
        return _off(message, abs(loss - expected), loss_bound)

    bound, worst = error_bounds.gradient_drift(config.precision, config.device), 0.0
    for name, velocity, gradient in zip(names[::-1], velocities[::-1], gradients[::-1], strict=True):
        right = -documented.LEARNING_RATE * gradient
        error = float(np.linalg.norm(velocity - right) / np.linalg.norm(right))
        if not error <= bound:
            times = float(np.vdot(velocity, right) / np.vdot(right, right))
            size = f"it is off by {error:.1e} of its size, and {times:.2g} times as long"
            return _off(f"the update of {name} isn't the learning rate times its gradient: {size}", error, bound)
        worst = max(worst, error)

    for name, old, velocity, new in zip(names, before, velocities, after, strict=True):
        differ = np.flatnonzero(new != old + velocity)  # few do, if any: rounded once less where compiled into one
        sums = old.flat[differ].astype(np.float64) + velocity.flat[differ]
        allowed = error_bounds.FLOAT32 * (np.abs(sums) + np.abs(velocity.flat[differ])) * (1 + 1e-6)
        error = np.abs(new.flat[differ] - sums)
        wrong = np.flatnonzero(~(error <= np.maximum(allowed, error_bounds.SMALLEST_NORMAL["float32"])))
        if wrong.size:
            place = tuple(map(int, np.unravel_index(differ[wrong[0]], new.shape)))
            message = f"{name} at {place} isn't the old weight plus its update"
            return _off(message, float(error[wrong[0]]), float(allowed[wrong[0]]))
    closest = f"the gradient furthest off, by norm, at {worst / bound:.0%} of its bound"
    message = f"loss {loss:.6f} and {len(names)} updates; {closest}"
    return Finding("update", "PASS", message, number=worst, bound=bound)


def dropout(config: CheckConfig) -> Finding:
    """Dropout drops half of the units, new ones at each step, and doubles the rest in training; evaluation has none."""
    images, labels = config.loader().all_test()
    pair = images[..., 0], labels
    loader, indices = DataLoader.from_arrays(pair, pair), np.arange(config.batch)  # trains on what it evaluates
    recipe = config.recipe(learning_rate=1e-30)  # changes no float32 weight
    with config.running():
        model, weights = config.model()
        step = best_train_step(model, loader, recipe)
        trained = [float(step(indices[np.newaxis])[0][0]) for _ in range(2)]
        evaluated = evaluate(model, loader, progress=False, loss=recipe.loss).loss
        dropped = [
            _array(layer(ops.ones((1, DROPPED_UNITS)), training=True)).astype(np.float64)
            for layer in model.layers
            if isinstance(layer, keras.layers.Dropout)
        ]
    expected, bound, _ = _exact_step(config, weights, images, labels)
    off = abs(evaluated - expected)
    evidence = f"losses in training {trained[0]:.6f}, {trained[1]:.6f}; evaluated {evaluated:.6f}"
    if not off <= bound:
        message = f"in evaluation the loss isn't the whole network's, {expected:.6f}: is dropout on, or drops inputs?"
        return _off(message, off, bound, "dropout", evidence)
    if trained[0] == trained[1]:
        how = "does nothing in training" if abs(trained[0] - expected) <= bound else "drops the same units at each step"
        return _off(f"dropout {how}", 0.0, None, "dropout", evidence)
    spread = error_bounds.confidence(1) / 2 / math.sqrt(DROPPED_UNITS)
    for units in dropped:
        share = float((units == 0).mean())
        if abs(share - documented.DROPOUT_RATE) > spread or set(np.unique(units)) != {0.0, 2.0}:
            message = f"dropout leaves {np.unique(units)[-1]:g} and drops {share:.3f} of the units, should be 2 and 0.5"
            return _off(message, abs(share - documented.DROPOUT_RATE), spread, "dropout", evidence)
    return Finding("dropout", "PASS", "on in training, off in evaluation", evidence, number=off, bound=bound)


def _off(message: str, number: float, bound: float | None, check: str = "update", evidence: str = "") -> Finding:
    difference = "" if bound is None else f"off by {number:.2e}, allowed {bound:.2e}"
    evidence = "; ".join(filter(None, (difference, evidence)))
    return Finding(check, "FAIL", message, evidence, RERUN_FIX, number=number, bound=bound)


def _exact_step(
    config: CheckConfig, weights: list[np.ndarray], images: np.ndarray, labels: np.ndarray
) -> tuple[float, float, list[np.ndarray]]:
    """Return one batch's mean loss, its bound, and the gradients, in float64 from the pixels on."""
    pixels = oracle.resize_exactly(images / 255.0, config.side, config.side)
    outputs = oracle.forward_pass(weights, pixels)
    losses, slope = oracle.normalised_sigmoid_loss(labels, outputs[-1])
    bound = 2 * error_bounds.drift(config.precision, config.device) * float(np.abs(outputs[-1]).max())
    return float(losses.mean()), bound, oracle.backward_pass(weights, pixels, outputs, slope / len(labels))


def _array(variable: object) -> np.ndarray:
    return np.array(ops.convert_to_numpy(variable))
