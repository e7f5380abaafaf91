"""How fast images are drawn: as documented, and as training does."""

from collections.abc import Callable
from typing import Any

import pytest

from alexnet_repro import DataLoader
from alexnet_repro.hardware.devices import on_device

BATCHES = {"cpu": (128,), "gpu": (128,)}


def _other_shapes(drawn: Any, *right: tuple[int, ...]) -> str | None:
    shapes = tuple(array.shape for array in drawn)
    return None if shapes == right else f"shapes are {shapes}, should be {right}"


def test_get_batch_train(device: str, batch: int, loader: DataLoader, measure: Callable[..., None]) -> None:
    """The documented draw: float32 images (batch, 224, 224, 1) in NumPy, resized on the device."""
    right = ((batch, 224, 224, 1), (batch,))
    with on_device(device):
        measure(lambda: loader.get_batch_train(batch), lambda drawn: _other_shapes(drawn, *right), images=batch)


@pytest.mark.parametrize("batch", [128])
def test_draw_train(batch: int, loader: DataLoader, measure: Callable[..., None]) -> None:
    """The draw that training takes: uint8 images (batch, 28, 28, 1)."""
    right = ((batch, 28, 28, 1), (batch,))
    measure(lambda: loader.draw_train(batch), lambda drawn: _other_shapes(drawn, *right), images=batch)
