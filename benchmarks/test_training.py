"""How fast the training loop is from end to end: drawing, sending, resizing and updating."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from alexnet_repro import DataLoader, best_step, train
from alexnet_repro.checks.learning import LEARNABLE
from alexnet_repro.checks.subject import Subject
from alexnet_repro.results import limits

BATCHES = {"cpu": (32,), "gpu": (128, 512)}
UPDATES = 2


def test_training(device: str, batch: int, precision: str, loader: DataLoader, measure: Callable[..., None]) -> None:
    """A few updates by `train`, each on a draw of its own; the loss stays finite."""
    subject = Subject(device, precision)
    recipe = dataclasses.replace(
        LEARNABLE, draw_size=batch, batch_size=batch, epochs=1, draws_per_epoch=UPDATES, preliminary_draws=0
    )

    def fault(losses: Any) -> str | None:
        bad = [loss for loss in losses if not math.isfinite(loss)]
        return f"the loss is {bad[0]}" if bad else None

    with subject.running():
        model, _ = subject.model()
        step = best_step(model, loader, recipe)
        one = limits.train_step(batch, precision)
        todo = limits.Work(UPDATES * one.flop, UPDATES * one.bytes, UPDATES * one.kernels)
        measure(
            lambda: train(model, loader, recipe, step=step, progress=False).losses,
            fault,
            images=UPDATES * batch,
            todo=todo,
        )
