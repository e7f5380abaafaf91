"""How fast is inference of the documented model: compiled, on images that are on the device already?"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from alexnet_repro import DataLoader
from alexnet_repro.backend.devices import predictor
from alexnet_repro.verify.benchmark import roofline
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.numerics import error_bounds, oracle
from benchmarks.cases import FOR_XLA, JIT_COMPILE, skip_if_refused

BATCHES = {"cpu": (1, 32, 128), "gpu": (1, 32, 512)}
QUICK_BATCHES = {"cpu": (32,), "gpu": (512,)}
ALL_BATCHES = {"cpu": (1, 8, 32, 128, 256), "gpu": (1, 8, 32, 128, 256, 512, 1024, 2048, 4096)}
COMPARED = 2  # images


def test_forward(
    device: str, batch: int, precision: str, xla: str, loader: DataLoader, measure: Callable[..., None]
) -> None:
    """From float images (batch, 224, 224, 1) to sigmoid outputs (batch, 10): those of float64, within rounding."""
    config = CheckConfig(device, precision)
    with config.running():
        model, weights = config.model(for_xla=FOR_XLA[xla])
        model.compile(optimizer=None, jit_compile=JIT_COMPILE[xla])
        skip_if_refused(model, xla)
        predict = predictor(model)
        pixels, _ = loader.get_batch_train(batch)
        images = ops.convert_to_tensor(pixels)

        def fault(outputs: Any) -> str | None:
            logits = oracle.forward_pass(weights, pixels[:COMPARED])[-1]
            bound = error_bounds.drift(precision, device) * np.abs(logits).max() / 4 + error_bounds.SIGMOID
            found = np.asarray(keras.ops.convert_to_numpy(outputs))
            if found.shape != (batch, 10) or not np.isfinite(found).all():
                return f"outputs are {found.shape}, of which {(~np.isfinite(found)).sum()} aren't numbers"
            off = np.abs(found[:COMPARED] - oracle.sigmoid(logits)).max()
            return None if off <= bound else f"outputs are off by {off:.1e}, allowed {bound:.1e}"

        measure(
            lambda: predict(images),
            fault,
            images=batch,
            todo=roofline.forward(batch, precision),
            largest=xla == "default" and batch >= BATCHES[device.partition(":")[0]][-1],
        )
