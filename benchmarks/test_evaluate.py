"""How fast test images are evaluated from end to end: sending, resizing, inference, loss and accuracy."""

from collections.abc import Callable

import numpy as np

from alexnet_repro import DataLoader, Evaluation, evaluate
from alexnet_repro.training.evaluate import evaluation_classifier
from alexnet_repro.verify.benchmark import roofline
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.numerics import error_bounds, oracle

IMAGES = {"cpu": 250, "gpu": 10_000}  # two of `evaluate`'s batches; all test images
PREDICTED = 250  # at once


def test_evaluate(device: str, precision: str, loader: DataLoader, measure: Callable[..., None]) -> None:
    """Loss and accuracy are those that NumPy computes from the model's outputs for images that NumPy resized."""
    number = IMAGES[device.partition(":")[0]]
    images = loader.all_test()[0][:number]
    with CheckConfig(device, precision).running():
        model, _ = CheckConfig(device, precision).model()
        parts = np.array_split(images, number // PREDICTED)
        outputs = np.concatenate(
            [model.predict_on_batch(oracle.resize_exactly(part / 255.0, 224, 224)) for part in parts]
        )
        labels = likely_then_unlikely(outputs)
        tested = DataLoader.from_arrays((images[:1, ..., 0], labels[:1]), (images[..., 0], labels), seed=0)
        classifier = evaluation_classifier(model, "normalised_sigmoid")
        measure(
            lambda: evaluate(model, tested, classifier=classifier, progress=False),
            lambda found: differs(found, outputs, labels, error_bounds.drift(precision, device)),
            images=number,
            todo=roofline.forward(number, precision, resized=True),
        )


def likely_then_unlikely(outputs: np.ndarray) -> np.ndarray:
    """Return the likeliest labels in the first half, the least likely in the second: no batch can be left out."""
    half = len(outputs) // 2
    return np.concatenate([outputs[:half].argmax(axis=1), outputs[half:].argmin(axis=1)])


def differs(found: Evaluation, outputs: np.ndarray, labels: np.ndarray, drift: float) -> str | None:
    """Return how loss or accuracy differ from the model's own outputs by more than rounding; None if they don't.

    The loss is `normalised_sigmoid`, outputs are sigmoids `(n, classes)`, labels `(n,)`; logits may be off by `drift`,
    relative to the largest.
    """
    p = outputs.astype(np.float64)
    logits = np.log(p) - np.log1p(-p)
    loss = oracle.normalised_sigmoid_loss(labels, logits)[0].mean()
    allowed = 2 * drift * np.abs(logits).max()
    if not abs(found.loss - loss) <= allowed:
        return f"the loss is {found.loss:.6f}, should be {loss:.6f}, give or take {allowed:.1e}"
    accuracy = (p.argmax(axis=1) == labels).mean()
    second, first = np.sort(logits, axis=1)[:, -2:].T
    doubtful = (first - second <= allowed).mean()
    if not abs(found.accuracy - accuracy) <= doubtful + 1e-6:  # float32 means
        return f"accuracy is {found.accuracy:.4f}, should be {accuracy:.4f}, give or take {doubtful:.4f}"
    if found.num_samples != len(p):
        return f"{found.num_samples} images were counted, should be {len(p)}"
    return None
