"""How fast are images drawn: as documented, and as in training?"""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from alexnet_repro import DataLoader, Recipe, build_alexnet
from alexnet_repro.backend.devices import on_device
from alexnet_repro.verify.benchmark import roofline

BATCHES = {"cpu": (128,), "gpu": (128,)}


def _other_shapes(drawn: Any, batch: int, side: int) -> str | None:
    shapes, right = tuple(array.shape for array in drawn), ((batch, side, side, 1), (batch,))
    return None if shapes == right else f"shapes are {shapes}, should be {right}"


def test_get_batch_train(device: str, batch: int, loader: DataLoader, measure: Callable[..., None]) -> None:
    """The documented draw: float32 images (batch, 224, 224, 1) in NumPy, resized on the device."""
    with on_device(device):
        measure(lambda: loader.get_batch_train(batch), lambda drawn: _other_shapes(drawn, batch, 224), images=batch)


def test_training_batch(device: str, batch: int, loader: DataLoader, measure: Callable[..., None]) -> None:
    """Training's own batch on TensorFlow: from a draw's indices to its images, resized, on the device."""
    from alexnet_repro.training.tensorflow_step import TensorFlowTrainStep

    with on_device(device):
        model = build_alexnet(kernel_initializer="zeros")
        step = TensorFlowTrainStep(model, loader, Recipe.documented())

        def other_images(batch: Any) -> str | None:
            pixels, labels = batch
            images, answers = loader.train_batch(indices[-1])
            if not np.array_equal(ops.convert_to_numpy(labels), answers):
                return "the labels are those of other images"
            right = images[..., 0] / 255
            # Where 28 pixels become 224, every eighth, from the fifth on, lies a sixteenth from one of the 28.
            error = np.abs(ops.convert_to_numpy(pixels)[:, 3::8, 3::8, 0] - right).mean()
            return None if error < 0.05 else f"the images are off by {error:.3f} on average"

        indices: list[np.ndarray] = []

        def draw() -> Any:
            indices[:] = [loader.draw_train_indices(batch)]
            return step.batch(indices[-1])

        measure(draw, other_images, images=batch, todo=roofline.resizing(batch))


def test_draw_train(batch: int, loader: DataLoader, measure: Callable[..., None]) -> None:
    """Training's draw: uint8 images (batch, 28, 28, 1)."""
    measure(lambda: loader.draw_train(batch), lambda drawn: _other_shapes(drawn, batch, 28), images=batch)
