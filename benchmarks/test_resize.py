"""How fast are images resized to 224x224 on the device?"""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from alexnet_repro import resize_with_pad
from alexnet_repro.backend.devices import on_device
from alexnet_repro.verify.benchmark import roofline

BATCHES = {"cpu": (128,), "gpu": (128,)}
SIDES = (28, 448)


def test_resize(device: str, batch: int, side: int, measure: Callable[..., None]) -> None:
    """From uint8 images (batch, side, side, 1) to float32 (batch, 224, 224, 1), range kept."""
    pixels = np.random.default_rng(0).integers(0, 256, (batch, side, side, 1), np.uint8)

    def fault(resized: Any) -> str | None:
        found = np.asarray(ops.convert_to_numpy(resized))
        if found.shape != (batch, 224, 224, 1) or not 0 <= found.min() <= found.max() <= 255:
            return f"of shape {found.shape}, values from {found.min()} to {found.max()}"
        return None

    with on_device(device):
        images = ops.convert_to_tensor(pixels)
        measure(lambda: resize_with_pad(images), fault, images=batch, todo=roofline.resizing(batch, side))
