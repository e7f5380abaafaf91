"""Throughput of the training loop from end to end: drawing, sending, resizing and updating."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from alexnet_repro import DataLoader, best_train_step, train
from alexnet_repro.verify.benchmark import roofline
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.learning import LEARNABLE

BATCHES = {"cpu": (32,), "gpu": (512,)}


def test_training(device: str, batch: int, precision: str, loader: DataLoader, measure: Callable[..., None]) -> None:
    """As many updates as `train` makes per call, at least two, each on its own draw; the loss stays finite."""
    config = CheckConfig(device, precision)
    recipe = dataclasses.replace(LEARNABLE, draw_size=batch, batch_size=batch, epochs=1, preliminary_draws=0)

    def fault(losses: Any) -> str | None:
        bad = [loss for loss in losses if not math.isfinite(loss)]
        return f"the loss is {bad[0]}" if bad else None

    with config.running():
        model, _ = config.model()
        step = best_train_step(model, loader, recipe)
        updates = max(2, step.updates_per_call)
        several = dataclasses.replace(recipe, draws_per_epoch=updates)
        measure(
            lambda: train(model, loader, several, step=step, progress=False).losses,
            fault,
            images=updates * batch,
            todo=roofline.train_step(batch, precision, updates),
        )
