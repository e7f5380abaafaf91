"""What the check of learning keeps for the report: each update's loss and accuracy, over how many images."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from alexnet_repro import DataLoader, synthetic_fashion
from alexnet_repro.verify.checks import learning as module


class Network:
    """A network whose updates are written down beforehand, four a look."""

    trainable_variables = ()

    def __init__(self, updates, looks):
        self.updates, self.looks = iter(updates), iter(looks)

    def train_on_batch(self, *_):
        return next(self.updates)

    def test_on_batch(self, *_):
        return next(self.looks)


@pytest.mark.parametrize(
    ("looks", "status", "updates"),
    [
        pytest.param([(0.5, 1.0)], "PASS", 4, id="looks=learned at once"),
        pytest.param([(1.5, 0.1), (0.5, 1.0)], "PASS", 8, id="looks=learned at last"),
        pytest.param([(float("nan"), 0.1)], "FAIL", 4, id="looks=nan"),
    ],
)
def test_losses_and_accuracies_are_kept(monkeypatch, looks, status, updates):
    """Whether it learned or not, the finding holds the batch and both of every update, in their order."""
    told = [(2.0 - n / 10, n / 20) for n in range(8)]
    monkeypatch.setattr(module, "build_classifier", lambda *_: Network(told, looks))
    loader = DataLoader.from_arrays(*synthetic_fashion(500, 10, seed=0), seed=0)
    config = SimpleNamespace(loader=lambda: loader, running=nullcontext, model=lambda: (None, []))
    found = module.learning(config)
    assert found.status == status
    assert found.data == {
        "batch": 20,
        "losses": [loss for loss, _ in told[:updates]],
        "accuracies": [accuracy for _, accuracy in told[:updates]],
    }
