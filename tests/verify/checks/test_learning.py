"""The learning check keeps each update's loss and accuracy, and the batch size, for the report."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from alexnet_repro import DataLoader, synthetic_fashion
from alexnet_repro.verify.checks import learning as module


class Step:
    """A train step whose updates and evaluations are written down beforehand, four updates per evaluation."""

    trainable_variables, images = (), 20

    def __init__(self, updates, evaluations):
        self.updates, self.evaluations, self.classifier = iter(updates), iter(evaluations), self

    def __call__(self, indices):
        assert indices.shape == (4, self.images)
        losses, accuracies = zip(*(next(self.updates) for _ in indices), strict=True)
        return losses, accuracies

    def test_on_batch(self, *_):
        """Return the next evaluation, as Keras's method of this name does: it is no test."""
        return next(self.evaluations)


@pytest.mark.parametrize(
    ("evaluations", "status", "updates"),
    [
        pytest.param([(0.5, 1.0)], "PASS", 4, id="learned=at_once"),
        pytest.param([(1.5, 0.1), (0.5, 1.0)], "PASS", 8, id="learned=at_last"),
        pytest.param([(float("nan"), 0.1)], "FAIL", 4, id="learned=nan"),
    ],
)
def test_losses_and_accuracies_are_kept(monkeypatch, evaluations, status, updates):
    """Whether it learned or not, the finding holds the batch and both of every update, in their order."""
    results = [(2.0 - n / 10, n / 20) for n in range(8)]
    monkeypatch.setattr(module, "best_train_step", lambda *_: Step(results, evaluations))
    loader = DataLoader.from_arrays(*synthetic_fashion(500, 10, seed=0), seed=0)
    config = SimpleNamespace(loader=lambda: loader, running=nullcontext, model=lambda: (None, []))
    found = module.learning(config)
    assert found.status == status
    assert found.data == {
        "batch": 20,
        "losses": [loss for loss, _ in results[:updates]],
        "accuracies": [accuracy for _, accuracy in results[:updates]],
    }


@pytest.mark.parametrize(("accuracy", "updates"), [(0.4, 10), (0.3, 14)])
def test_updates_so_far_may_suffice(accuracy, updates):
    """A batch that timed updates have learned takes no more; one that they haven't takes four at a time."""
    step = Step([(1.0, 0.5)] * 4, [(1.5, accuracy), (0.5, 1.0)])
    loader = DataLoader.from_arrays(*synthetic_fashion(500, 10, seed=0), seed=0)
    found = module.learn(step, loader, module.learnable_batch(loader, 20), [], [2.0] * 10)
    assert (len(found.losses), found.fault) == (updates, None)


@pytest.mark.parametrize(("images", "needed"), [(8, 0.75), (10, 0.6), (20, 0.4), (128, 0.203125)])
def test_accuracy_that_guessing_doesnt_reach(images, needed):
    """Always guessing the commonest label gets that far with a probability below 1e-3 (binomial tables)."""
    step = Step([(2.0, 0.0)] * 4, [(1.5, 1.0)])
    step.images = images
    loader = DataLoader.from_arrays(*synthetic_fashion(5000, 10, seed=0), seed=0)
    assert module.learn(step, loader, module.learnable_batch(loader, images), []).needed == needed
