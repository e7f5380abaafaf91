"""How good answers to the test images are, from logits alone."""

import numpy as np
import pytest

from alexnet_repro.verify.report.outcome import outcome, significant


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
    assert set(found["losses"]) == {"normalised_sigmoid", "softmax"}
    assert found["losses"]["softmax"]["low"] < found["losses"]["softmax"]["mean"] < found["losses"]["softmax"]["high"]


@pytest.mark.parametrize(("number", "expected"), [(0.12345678, 0.123457), (1234567.0, 1234570.0), (2.0, 2.0)])
def test_significant(number, expected):
    """Six significant digits are kept."""
    assert significant(number) == expected
