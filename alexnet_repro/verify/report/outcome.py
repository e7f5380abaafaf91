"""How good are a trained model's answers to the test images, and how much would another draw of 2,000 differ?

NumPy alone, in float64, from logits: nothing that trained the model is asked how good it is.
"""

from typing import Any

import numpy as np

from alexnet_repro.documented import TEST_SAMPLES
from alexnet_repro.verify.numerics.oracle import EXACT_LOSSES

REPEATS = 1_000


def outcome(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Return how good the answers are.

    Args:
        logits: float `(n, classes)`.
        labels: integers `(n,)`.

    Returns:
        `num_samples`; `accuracy`, and `losses`, the mean of each loss by name, on all images; `confusion`, a row a
        label and a column an answer, in images; and `document_draw`: the document's 2,000 images, drawn with
        replacement `repeats` times, always the same ones: `mean`, `std` and the quantiles `low` and `high` (2.5 and
        97.5 %) of `accuracy` and of each of `losses`.
    """
    classes = logits.shape[1]
    answers = logits.argmax(1)
    each = {"accuracy": (answers == labels).astype(np.float64)}
    each |= {name: losses(labels, logits)[0] for name, losses in EXACT_LOSSES.items()}
    # RandomState, not default_rng: NumPy promises that its stream never changes (NEP 19).
    drawn = np.random.RandomState(0).randint(0, len(labels), (REPEATS, TEST_SAMPLES))
    spread = {name: _spread(values[drawn].mean(1)) for name, values in each.items()}
    confusion = np.bincount(labels * classes + answers, minlength=classes**2).reshape(classes, classes)
    return {
        "num_samples": len(labels),
        "accuracy": significant(each["accuracy"].mean()),
        "losses": {name: significant(each[name].mean()) for name in EXACT_LOSSES},
        "confusion": confusion.tolist(),
        "document_draw": {
            "samples": TEST_SAMPLES,
            "repeats": REPEATS,
            "accuracy": spread["accuracy"],
            "losses": {name: spread[name] for name in EXACT_LOSSES},
        },
    }


def significant(number: float) -> float:
    """Return a number with six significant digits."""
    return float(f"{number:.6g}")


def _spread(means: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(means, [0.025, 0.975])
    numbers = {"mean": means.mean(), "std": means.std(ddof=1), "low": low, "high": high}
    return {name: significant(number) for name, number in numbers.items()}
