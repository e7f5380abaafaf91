"""How fast the documented model learns: one compiled update, on a batch that is on the device already."""

import dataclasses
from collections.abc import Callable
from typing import Any

from keras import ops

from alexnet_repro import DataLoader
from alexnet_repro.backend.dispatch import updater
from alexnet_repro.training.classifier import build_classifier
from alexnet_repro.verify.benchmark import roofline
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.learning import LEARNABLE, learn, learnable_batch
from benchmarks.cases import FOR_XLA, JIT_COMPILE, skip_if_refused

BATCHES = {"cpu": (32, 128), "gpu": (32, 128, 256, 512)}
ALL_BATCHES = {"cpu": (8, 32, 128, 256), "gpu": (8, 32, 128, 256, 512, 1024, 2048, 4096)}


def test_train_step(
    device: str, batch: int, precision: str, xla: str, loader: DataLoader, measure: Callable[..., None]
) -> None:
    """An SGD update, repeated: the loss stays finite and falls, every weight changes, accuracy gets above chance."""
    config = CheckConfig(device, precision)
    recipe = dataclasses.replace(LEARNABLE, draw_size=batch, batch_size=batch)
    with config.running():
        model, before = config.model(for_xla=FOR_XLA[xla])
        network = build_classifier(model, recipe, jit_compile=JIT_COMPILE[xla])
        skip_if_refused(network, xla)
        update_once = updater(network)
        images, labels = learnable_batch(loader, batch)
        there, answers = map(ops.convert_to_tensor, (images, labels))
        losses: list[Any] = []

        def update() -> Any:
            losses.append(update_once(there, answers))
            return losses[-1]

        def fault(_: Any) -> str | None:
            return learn(network, images, labels, before, [float(loss) for loss in losses]).fault

        measure(
            update,
            fault,
            images=batch,
            todo=roofline.train_step(batch, precision),
            largest=xla == "default" and batch >= BATCHES[device.partition(":")[0]][-1],
        )
