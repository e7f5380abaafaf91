"""How good is a model: its loss and accuracy on test images."""

from dataclasses import dataclass

import keras
import numpy as np

from alexnet_repro.data.loader import DataLoader
from alexnet_repro.model import LOSSES
from alexnet_repro.training.classifier import Classifier, compiled
from alexnet_repro.training.progress import progress_bar

EVALUATION_BATCH = 125  # divides 10,000: one compiled shape


@dataclass(frozen=True)
class Evaluation:
    """A model's mean loss and accuracy over `num_samples` test images."""

    loss: float
    accuracy: float
    num_samples: int


def evaluate(
    model: keras.Sequential,
    loader: DataLoader,
    num_samples: int | None = None,
    *,
    loss: str = "normalised_sigmoid",
    network: Classifier | None = None,
    progress: bool = True,
) -> Evaluation:
    """Measure `model` on test images.

    Args:
        model: from `build_alexnet`.
        loader: where the images come from.
        num_samples: None for every test image once; otherwise so many are drawn with replacement,
            as the document draws 2,000.
        loss: a name in `alexnet_repro.model.LOSSES`.
        network: `evaluation_classifier(model, loss)`, to compile once for many calls; by default for this one alone.
        progress: whether to show a bar on stderr.

    Raises:
        ValueError: `num_samples` is less than one, or there is no such loss.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}; got {loss!r}")
    if num_samples is not None and num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, or None for every test image; got {num_samples}")
    check_labels(loader, model)
    images, labels = loader.all_test() if num_samples is None else loader.draw_test(num_samples)
    network = network or evaluation_classifier(model, loss)
    sums = np.zeros(2)
    with progress_bar(len(labels), "evaluating", show=progress) as bar:
        for at in range(0, len(labels), EVALUATION_BATCH):
            part = slice(at, at + EVALUATION_BATCH)
            sums += np.array(network.test_on_batch(images[part], labels[part])) * len(labels[part])
            bar.update(len(labels[part]))
    mean_loss, accuracy = sums / len(labels)
    return Evaluation(float(mean_loss), float(accuracy), len(labels))


def evaluation_classifier(model: keras.Sequential, loss: str) -> Classifier:
    """Return what `evaluate` measures `model` by, whatever its weights are then; `loss` is a name in `LOSSES`."""
    return compiled(Classifier(model), loss)


def logits_on_test(model: keras.Sequential, loader: DataLoader, *, progress: bool = True) -> np.ndarray:
    """Return what `model` answers to every test image once, in the files' order: float32 logits `(num_test, classes)`.

    From these follow accuracy, every loss and whatever else is asked, without running the model again.
    """
    check_labels(loader, model)
    images, labels = loader.all_test()
    network = compiled(Classifier(model), "softmax")  # any loss: none is computed
    logits = []
    with progress_bar(len(labels), "evaluating", show=progress) as bar:
        for at in range(0, len(labels), EVALUATION_BATCH):
            part = images[at : at + EVALUATION_BATCH]
            logits.append(np.asarray(network.predict_on_batch(part), np.float32))
            bar.update(len(part))
    return np.concatenate(logits)


def check_labels(loader: DataLoader, model: keras.Sequential) -> None:
    """Refuse labels the model has no output for: losses of such are numbers too, and other ones on each backend.

    Raises:
        ValueError: the message has their range.
    """
    labels, classes = np.concatenate([loader.train_labels, loader.test_labels]), model.output_shape[-1]
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels go from {labels.min()} to {labels.max()}, but the model has {classes} classes")
