"""What of a class's labels and of a loader's batch may be off: next to nothing."""

import numpy as np
import pytest

from alexnet_repro import DataLoader
from alexnet_repro.data import loader
from alexnet_repro.verify.checks import data
from alexnet_repro.verify.checks.config import CheckConfig


@pytest.mark.parametrize(
    ("share", "status", "message"),
    [
        pytest.param({3: 0.0}, "PASS", "", id="other=none"),
        pytest.param({3: 0.07}, "PASS", "", id="other=one"),
        pytest.param({3: 0.2}, "FAIL", "the images drawn of class 3 have other labels", id="other=a fifth of a class"),
        pytest.param({3: 1.0, 9: 1.0}, "FAIL", "of class 3, 9 have other labels", id="other=two classes"),
        pytest.param(
            dict.fromkeys(range(10), 0.2), "FAIL", "don't match their labels: shuffled, or damaged", id="other=a fifth"
        ),
    ],
)
def test_other_labels(monkeypatch, share, status, message):
    """A tenth of one class's labels at most may be another's; the classes of which more are have their names."""
    original = DataLoader.draw_train

    def draw(self, batch_size):
        images, labels = original(self, batch_size)
        changed = labels.copy()
        for number, part in share.items():
            places = np.flatnonzero(labels == number)
            changed[places[: round(part * len(places))]] = (number + 1) % 10
        return images, changed

    monkeypatch.setattr(DataLoader, "draw_train", draw)
    found = data.image_labels(CheckConfig())
    assert (found.status, message in found.message) == (status, True)


@pytest.mark.parametrize(("grey", "status"), [(255, "PASS"), (254.9, "FAIL"), (256, "FAIL")])
def test_scale(monkeypatch, grey, status):
    """The loader's batches are in [0, 1]."""
    monkeypatch.setattr(loader, "_unit", lambda images: images.astype(np.float32) / np.float32(grey))
    assert data.resize(CheckConfig()).status == status
