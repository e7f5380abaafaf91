"""Train and evaluate: batches, progress and saving here, the arithmetic in a step that can be replaced."""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, Protocol

import keras
import numpy as np
from keras import ops
from tqdm import tqdm

from alexnet_repro.data.loader import DataLoader
from alexnet_repro.data.resize import resize_with_pad
from alexnet_repro.losses import LOSSES
from alexnet_repro.model import logits_model
from alexnet_repro.recipe import Recipe
from alexnet_repro.weights import check_weights_path, save_weights

EVALUATION_BATCH = 125  # divides 10,000: one compiled shape
UPDATES_BEFORE_ESTIMATE = 4


class TrainingDivergedError(ArithmeticError):
    """The loss is no longer finite."""


class Step(Protocol):
    """One update of the weights.

    Takes uint8 images `(batch, 28, 28, 1)` and int32 labels `(batch,)`; returns the batch's mean
    loss before the update and its accuracy, each anything that `float` takes.
    """

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
        """Make the update."""
        ...


@dataclass(frozen=True)
class History:
    """What a training run did, update by update."""

    losses: np.ndarray
    """float64 `(updates,)`: each batch's mean loss, before the update."""
    accuracies: np.ndarray
    """float64 `(updates,)`: share of each batch classified correctly, before the update."""
    images: int
    seconds: float
    """Wall time from the first draw to the last update, compiling included, `after_epoch` not."""
    first_update_seconds: float
    """Of these, until the first update was done: tracing and compiling, mostly."""


@dataclass(frozen=True)
class Evaluation:
    """A model's mean loss and accuracy over `num_samples` test images."""

    loss: float
    accuracy: float
    num_samples: int


class _Network(keras.Model):
    """From 28x28 uint8 images to float32 logits, scaling and resizing included, sharing a model's layers."""

    def __init__(self, model: keras.Sequential, *, dropout: bool = True) -> None:
        super().__init__(dtype="float32", name="network")
        self.logits = logits_model(model)
        self.size = model.input_shape[1:3]
        self.dropout = dropout

    def call(self, images: Any, training: bool = False) -> Any:
        pixels = resize_with_pad(ops.cast(images, "float32") / 255.0, *self.size)
        return self.logits(pixels, training=training and self.dropout)


def _compiled(
    network: _Network, loss: str, optimizer: keras.optimizers.Optimizer | None = None, jit_compile: bool | str = "auto"
) -> _Network:
    network.compile(
        optimizer=optimizer,
        loss=LOSSES[loss],
        # The largest logit is the largest sigmoid output.
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        auto_scale_loss=False,
        jit_compile=jit_compile,
    )
    return network


def compiled_network(
    model: keras.Sequential,
    recipe: Recipe,
    optimizer: keras.optimizers.Optimizer | None = None,
    *,
    jit_compile: bool | str = "auto",
) -> keras.Model:
    """Return what `keras_step` updates: a compiled model from uint8 images `(n, 28, 28, 1)` to float32 logits.

    It shares `model`'s layers. Without an `optimizer`, the recipe's own. `jit_compile` is whether XLA
    compiles it; by default Keras decides.
    """
    optimizer = optimizer or recipe.build_optimizer()
    if model.dtype_policy.name == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return _compiled(_Network(model, dropout=recipe.dropout), recipe.loss, optimizer, jit_compile)


def keras_step(model: keras.Sequential, recipe: Recipe) -> Step:
    """Return a compiled update on Keras alone, for every backend; resizing happens inside it."""
    network = compiled_network(model, recipe)

    def step(images: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
        loss, accuracy = network.train_on_batch(images, labels)
        return loss, accuracy

    return step


def train(
    model: keras.Sequential,
    loader: DataLoader,
    recipe: Recipe,
    *,
    step: Step | None = None,
    weights: str | os.PathLike[str] | None = None,
    after_epoch: Callable[[int], None] | None = None,
    progress: bool = True,
) -> History:
    """Train `model` in place on what `loader` draws, as `recipe` says.

    Args:
        model: from `build_alexnet`, built under the precision wanted (Keras's dtype policy).
        loader: where the images come from.
        recipe: what to do; its initializer is for whoever builds the model.
        step: makes one update; by default `keras_step(model, recipe)`.
        weights: the file, ending in `.weights.h5`, that weights are saved to as the recipe says.
        after_epoch: called with the number of each epoch done, from 1.
        progress: whether to show a bar on stderr: images/s, loss, accuracy and time left.

    Returns:
        Loss and accuracy of every update, and the time taken.

    Raises:
        TrainingDivergedError: a loss isn't finite; the message names the update.
        ValueError, OSError: `weights` can't be saved there; found out before the first update.
    """
    _check_labels(loader, model)
    if weights is not None:
        check_weights_path(weights)
    step = step or keras_step(model, recipe)
    losses: list[float] = []
    accuracies: list[float] = []
    paused = first_update_seconds = 0.0
    start = time.perf_counter()
    with progress_bar(recipe.num_updates * recipe.batch_size, "training", show=progress) as bar:
        for draw in _draws(recipe):
            images, labels = loader.draw_train(recipe.draw_size)
            for at in range(0, recipe.draw_size, recipe.batch_size):
                loss, accuracy = map(
                    float, step(images[at : at + recipe.batch_size], labels[at : at + recipe.batch_size])
                )
                losses.append(loss)
                accuracies.append(accuracy)
                if not math.isfinite(loss):
                    raise TrainingDivergedError(_diverged(loss, len(losses), recipe))
                bar.set_postfix(loss=f"{loss:.4f}", accuracy=f"{accuracy:.3f}", refresh=False)
                bar.update(recipe.batch_size)
                if len(losses) == 1:
                    first_update_seconds = time.perf_counter() - start
                elif len(losses) == UPDATES_BEFORE_ESTIMATE and progress:
                    pace = (time.perf_counter() - start - first_update_seconds) / (UPDATES_BEFORE_ESTIMATE - 1)
                    bar.write(f"training takes about {bar.format_interval(pace * recipe.num_updates)}", sys.stderr)
            if weights is not None and draw.saves:
                save_weights(model, weights)
            if after_epoch is not None and draw.ends_epoch:
                pause = time.perf_counter()
                after_epoch(draw.epoch)
                paused += time.perf_counter() - pause
    return History(
        losses=np.array(losses),
        accuracies=np.array(accuracies),
        images=recipe.num_updates * recipe.batch_size,
        seconds=time.perf_counter() - start - paused,
        first_update_seconds=first_update_seconds,
    )


def _check_labels(loader: DataLoader, model: keras.Sequential) -> None:
    """Refuse labels the model has no output for: losses of such are numbers too, and other ones on each backend."""
    labels, classes = np.concatenate([loader.train_labels, loader.test_labels]), model.output_shape[-1]
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels go from {labels.min()} to {labels.max()}, but the model has {classes} classes")


class _Draw(NamedTuple):
    epoch: int
    saves: bool
    ends_epoch: bool


def _draws(recipe: Recipe) -> Iterator[_Draw]:
    """Yield the draws of a run in order; the preliminary ones are epoch 0 and save nothing."""
    for _ in range(recipe.preliminary_draws):
        yield _Draw(0, saves=False, ends_epoch=False)
    for epoch in range(1, recipe.epochs + 1):
        for iteration in range(recipe.draws_per_epoch):
            ends_epoch = iteration == recipe.draws_per_epoch - 1
            if recipe.save_every is None:
                saves = ends_epoch and epoch == recipe.epochs
            else:
                saves = iteration % recipe.save_every == 0
            yield _Draw(epoch, saves, ends_epoch)


def _diverged(loss: float, update: int, recipe: Recipe) -> str:
    return (
        f"the loss is {loss} at update {update} of {recipe.num_updates} (recipe {recipe.name}, learning rate "
        f"{recipe.learning_rate:g}). Run it again with the same seed: if it ends at the same update, lower the "
        "learning rate or use --precision=float32; if not, the device doesn't answer the same twice: suspect the "
        "hardware"
    )


def evaluate(
    model: keras.Sequential,
    loader: DataLoader,
    num_samples: int | None = None,
    *,
    loss: str = "normalised_sigmoid",
    progress: bool = True,
) -> Evaluation:
    """Measure `model` on test images.

    Args:
        model: from `build_alexnet`.
        loader: where the images come from.
        num_samples: None for every test image once; otherwise so many are drawn with replacement,
            as the document draws 2,000.
        loss: a name in `alexnet_repro.losses.LOSSES`.
        progress: whether to show a bar on stderr.

    Raises:
        ValueError: `num_samples` is less than one, or there is no such loss.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}; got {loss!r}")
    if num_samples is not None and num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, or None for every test image; got {num_samples}")
    _check_labels(loader, model)
    images, labels = loader.all_test() if num_samples is None else loader.draw_test(num_samples)
    network = _compiled(_Network(model), loss)
    sums = np.zeros(2)
    with progress_bar(len(labels), "evaluating", show=progress) as bar:
        for at in range(0, len(labels), EVALUATION_BATCH):
            part = slice(at, at + EVALUATION_BATCH)
            sums += np.array(network.test_on_batch(images[part], labels[part])) * len(labels[part])
            bar.update(len(labels[part]))
    mean_loss, accuracy = sums / len(labels)
    return Evaluation(float(mean_loss), float(accuracy), len(labels))


def progress_bar(num_images: int, what: str, *, show: bool) -> "tqdm[NoReturn]":
    """Return a bar on stderr that counts images; where stderr isn't a terminal, a line every half minute."""
    interval = 0.5 if sys.stderr.isatty() else 30.0
    return tqdm(total=num_images, desc=what, unit=" images", disable=not show, mininterval=interval, smoothing=0.05)
