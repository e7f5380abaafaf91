"""How fast images are drawn: as documented, and as training does."""

from collections.abc import Callable
from typing import Any

import pytest

from alexnet_repro import DataLoader
from alexnet_repro.hardware.devices import on_device

BATCHES = {"cpu": (128,), "gpu": (128,)}


def test_get_batch_train(device: str, batch: int, loader: DataLoader, measure: Callable[..., Any]) -> None:
    """The documented draw: float32 images (batch, 224, 224, 1) in NumPy, resized on the device."""
    with on_device(device):
        images, labels = measure(lambda: loader.get_batch_train(batch), images=batch)
    assert (images.shape, labels.shape) == ((batch, 224, 224, 1), (batch,))


@pytest.mark.parametrize("batch", [128])
def test_draw_train(batch: int, loader: DataLoader, measure: Callable[..., Any]) -> None:
    """The draw that training takes: uint8 images (batch, 28, 28, 1)."""
    images, labels = measure(lambda: loader.draw_train(batch), images=batch)
    assert (images.shape, labels.shape) == ((batch, 28, 28, 1), (batch,))
