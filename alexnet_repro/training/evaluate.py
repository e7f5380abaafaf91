"""Evaluation: a model's loss and accuracy on test images, and whether its answers mean anything."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from alexnet_repro.data.loader import DataLoader
from alexnet_repro.model import LOSSES
from alexnet_repro.training.classifier import Classifier, accuracy, compiled
from alexnet_repro.training.history import Evaluation, progress_bar

EVALUATION_BATCH = 125  # divides 10,000: one compiled shape


class NotFiniteError(ArithmeticError):
    """A model's answers are NaN or infinite."""


def evaluate(
    model: keras.Sequential,
    loader: DataLoader,
    num_samples: int | None = None,
    *,
    loss: str = "normalised_sigmoid",
    classifier: Classifier | None = None,
    progress: bool = True,
) -> Evaluation:
    """Evaluate `model`, from `build_alexnet`, on every test image once, by a loss of `alexnet_repro.model.LOSSES`.

    Or on `num_samples` drawn with replacement, as the document draws 2,000. For many calls, compile `classifier` once:
    `evaluation_classifier(model, loss)`. `progress` is whether to show a bar on stderr.

    Raises:
        ValueError: `num_samples` is less than one, or there is no such loss.
        NotFiniteError: a logit isn't finite, even if the loss is; the message names the first such layer.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}; got {loss!r}")
    if num_samples is not None and num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, or None for every test image; got {num_samples}")
    check_labels(loader, model)
    images, labels = loader.all_test()
    chosen = np.arange(len(labels)) if num_samples is None else loader.draw_test_indices(num_samples)
    classifier = classifier or evaluation_classifier(model, loss)
    sums = np.zeros(2)
    for part in _batches(len(chosen), show=progress):
        batch = chosen[part]
        *means, share_finite = classifier.test_on_batch(images[batch], labels[batch])
        if share_finite != 1:
            raise _not_finite(classifier, model, images[batch])
        sums += np.array(means) * len(batch)
    mean_loss, share = sums / len(chosen)
    found = Evaluation(float(mean_loss), float(share), len(chosen))
    if not found.at_chance(model.output_shape[-1]):
        return found
    seen: set[int] = set()
    for part in _batches(len(chosen), show=False):
        seen.update(np.argmax(classifier.predict_on_batch(images[chosen[part]]), axis=-1).tolist())
        if len(seen) > 1:
            return found
    return dataclasses.replace(found, only_class=seen.pop())


def _not_finite(classifier: Classifier, model: keras.Sequential, images: np.ndarray) -> NotFiniteError:
    """Return the error of images whose logits aren't all finite: it names the first layer whose output isn't."""
    *hidden, head = model.layers
    outputs = classifier.pixels(images)
    for layer in hidden:
        outputs = layer(outputs)
        if not ops.convert_to_numpy(ops.all(ops.isfinite(outputs))):
            break
    else:
        layer = head
    why = "if it is so with --precision=float32 too, its weights are wrong, or the device is"
    return NotFiniteError(f"what layer {layer.name} computes isn't finite ({model.dtype_policy.name}); {why}")


def evaluation_classifier(model: keras.Sequential, loss: str) -> Classifier:
    """Return `model` compiled for `evaluate`, which uses its weights at the time; `loss` is a name in `LOSSES`."""
    return compiled(Classifier(model), loss, metrics=[accuracy(), _finite])


def _finite(_: Any, logits: Any) -> Any:
    """Return for each image whether all its logits are finite, as 1 or 0."""
    return ops.cast(ops.all(ops.isfinite(logits), axis=-1), "float32")


def logits_on_test(model: keras.Sequential, loader: DataLoader, *, progress: bool = True) -> np.ndarray:
    """Return the logits of every test image, in the files' order: float32 `(num_test, classes)`."""
    check_labels(loader, model)
    images, _ = loader.all_test()
    classifier = evaluation_classifier(model, "softmax")  # any loss: none is computed
    batches = _batches(len(images), show=progress)
    logits = np.concatenate([np.asarray(classifier.predict_on_batch(images[part]), np.float32) for part in batches])
    if len(wrong := np.flatnonzero(~np.isfinite(logits).all(axis=1))):
        raise _not_finite(classifier, model, images[wrong[:EVALUATION_BATCH]])
    return logits


def _batches(number: int, *, show: bool) -> Iterator[slice]:
    with progress_bar(number, "evaluating", show=show) as bar:
        for at in range(0, number, EVALUATION_BATCH):
            yield slice(at, at + EVALUATION_BATCH)
            bar.update(min(EVALUATION_BATCH, number - at))


def check_labels(loader: DataLoader, model: keras.Sequential) -> None:
    """Refuse labels the model has no output for: their losses would be numbers too, different on each backend.

    Raises:
        ValueError: the message has their range.
    """
    labels, classes = np.concatenate([loader.train_labels, loader.test_labels]), model.output_shape[-1]
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels go from {labels.min()} to {labels.max()}, but the model has {classes} classes")
