"""How good answers to the test images are, from logits alone."""

import json

import numpy as np
import pytest

from alexnet_repro.verify.report.outcome import LOSSES, normalised_sigmoid_losses, outcome, significant, softmax_losses
from tests.helpers.paths import RECORDED

CASES = json.loads((RECORDED / "loss_tf_2.0.0.json").read_text())["cases"]


def test_normalised_sigmoid_losses():
    """The losses are those that TensorFlow 2.0.0 gave its sigmoid head, at and beyond its clip too."""
    labels, logits = np.array([case["label"] for case in CASES]), np.array([case["logits"] for case in CASES])
    expected = [case["loss"] for case in CASES]
    np.testing.assert_allclose(normalised_sigmoid_losses(labels, logits), expected, rtol=2e-6, atol=2e-6)


def test_softmax_losses():
    """The cross-entropy of the softmax: ln 10 of equal logits, and finite however large they are."""
    logits = np.zeros((3, 10), np.float32)
    logits[1, 4], logits[2, 4] = 1e4, np.log(9)
    assert softmax_losses(np.array([0, 3, 4]), logits) == pytest.approx([2.302585093, 1e4, 0.6931471806], rel=1e-6)


def test_outcome():
    """Of 300 answers right of 400, accuracy is 0.75; the confusion matrix says which were wrong, and how."""
    labels = np.repeat([0, 1], 200)
    answers = np.array([0] * 190 + [9] * 10 + [1] * 110 + [0] * 90)
    found = outcome(np.eye(10, dtype=np.float32)[answers] * 4, labels)
    assert (found["num_samples"], found["accuracy"]) == (400, 0.75)
    assert [(found["confusion"][a][b]) for a, b in ((0, 0), (0, 9), (1, 1), (1, 0))] == [190, 10, 110, 90]
    assert np.sum(found["confusion"]) == 400
    # Right: ln(e^4 + 9) - 4; wrong: ln(e^4 + 9) = 4.152584.
    assert found["losses"]["softmax"] == pytest.approx(0.152584 * 0.75 + 4.152584 * 0.25, rel=1e-5)


def test_spread_of_the_documents_draws():
    """1,000 draws of 2,000 spread as the binomial says: around the accuracy, by sqrt(p (1 - p) / 2000)."""
    logits = np.zeros((10_000, 10), np.float32)
    logits[:8_400, 0] = logits[8_400:, 1] = 5
    found = outcome(logits, np.zeros(10_000, int))["document_draw"]
    assert (found["samples"], found["repeats"]) == (2_000, 1_000)
    accuracy = found["accuracy"]
    assert accuracy["mean"] == pytest.approx(0.84, abs=4 * 0.0082 / 1_000**0.5)
    assert accuracy["std"] == pytest.approx(0.0082, rel=4 / 2_000**0.5)
    assert (accuracy["low"], accuracy["high"]) == (pytest.approx(0.8239, abs=0.003), pytest.approx(0.8561, abs=0.003))
    assert set(found["losses"]) == set(LOSSES) == {"normalised_sigmoid", "softmax"}
    assert found["losses"]["softmax"]["low"] < found["losses"]["softmax"]["mean"] < found["losses"]["softmax"]["high"]


@pytest.mark.parametrize(("number", "expected"), [(0.12345678, 0.123457), (1234567.0, 1234570.0), (2.0, 2.0)])
def test_significant(number, expected):
    """Six significant digits are kept."""
    assert significant(number) == expected
