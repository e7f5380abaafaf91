"""How fast the documented model learns: one call of the train step that `train` uses, on the same batch each time."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from alexnet_repro import DataLoader, best_train_step
from alexnet_repro.verify.benchmark import roofline
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.learning import LEARNABLE, learn, learnable_batch
from benchmarks.cases import FOR_XLA, JIT_COMPILE, skip_if_refused

BATCHES = {"cpu": (32, 128), "gpu": (32, 512)}  # compiling a step takes half a minute there
QUICK_BATCHES = {"cpu": (32,), "gpu": (512,)}
ALL_BATCHES = {"cpu": (8, 32, 128, 256), "gpu": (8, 32, 128, 256, 512, 1024, 2048, 4096)}


def test_train_step(
    device: str, batch: int, precision: str, xla: str, loader: DataLoader, measure: Callable[..., None]
) -> None:
    """SGD updates, repeated: the loss stays finite and falls, every weight changes, accuracy gets above chance."""
    config = CheckConfig(device, precision)
    recipe = dataclasses.replace(LEARNABLE, draw_size=batch, batch_size=batch)
    with config.running():
        model, before = config.model(for_xla=FOR_XLA[xla])
        step = best_train_step(model, loader, recipe, jit_compile=JIT_COMPILE[xla])
        skip_if_refused(step.classifier, xla)
        updates, indices = step.updates_per_call, learnable_batch(loader, batch)
        rows = np.tile(indices, (updates, 1))
        losses: list[Any] = []

        def update() -> Any:
            losses.append(step(rows)[0])
            return losses[-1]

        def fault(_: Any) -> str | None:
            return learn(step, loader, indices, before, [float(loss) for call in losses for loss in call]).fault

        measure(
            update,
            fault,
            images=updates * batch,
            todo=roofline.train_step(batch, precision, updates),
            largest=xla == "default" and batch >= BATCHES[device.partition(":")[0]][-1],
        )
