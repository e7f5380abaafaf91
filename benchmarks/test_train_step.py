"""How fast the documented model learns: one compiled update, on a batch that is on the device already."""

import dataclasses
from collections.abc import Callable
from typing import Any

from keras import ops

from alexnet_repro import DataLoader
from alexnet_repro.checks.learning import LEARNABLE, learn, learnable_batch
from alexnet_repro.checks.subject import Subject
from alexnet_repro.results import limits
from alexnet_repro.training import compiled_network

BATCHES = {"cpu": (32, 128), "gpu": (32, 128, 256, 512)}


def test_train_step(device: str, batch: int, precision: str, loader: DataLoader, measure: Callable[..., None]) -> None:
    """An SGD update, repeated: the loss stays finite and falls, every weight changes, accuracy gets above chance."""
    subject = Subject(device, precision)
    recipe = dataclasses.replace(LEARNABLE, draw_size=batch, batch_size=batch)
    with subject.running():
        model, before = subject.model()
        network = compiled_network(model, recipe)
        images, labels = learnable_batch(loader, batch)
        there, answers = map(ops.convert_to_tensor, (images, labels))
        losses: list[float] = []

        def update() -> Any:
            losses.append(network.train_on_batch(there, answers)[0])
            return losses[-1]

        def fault(_: Any) -> str | None:
            return learn(network, images, labels, before, [float(loss) for loss in losses]).fault

        measure(
            update,
            fault,
            images=batch,
            todo=limits.train_step(batch, precision),
            largest=batch == BATCHES[device.partition(":")[0]][-1],
        )
