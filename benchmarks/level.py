"""What `--level=quick` asks of each device: its layers, an update, a replay, its rates and two timings."""

from collections.abc import Mapping
from typing import Any

import keras

PRECISION = {"cpu": "float32", "gpu": "mixed_bfloat16"}  # the one that the device is used in most
BATCH = {"cpu": 32, "gpu": 512}
ASKED = {
    "test_correct": {"shapes", "update"},
    "test_replay": {"replay"},
    "test_calibration": set(),
    "test_forward": set(),
    "test_train_step": set(),
}


def in_quick_level(name: str, params: Mapping[str, Any]) -> bool:
    """Return whether the quick level has a test with these parameters: check, batch, precision and XLA's default."""
    if name not in ASKED or "device" not in params:
        return False
    kind, check = params["device"].partition(":")[0], params.get("check")
    precision = check.precision if check else params.get("precision", PRECISION[kind])
    # Layers as the device trains with them: on a GPU XLA compiles them, but not on PyTorch.
    layers = "compiled_layers" if kind == "gpu" and keras.backend.backend() != "torch" else "layers"
    return (
        (check is None or check.check in ASKED[name] or (name, check.check) == ("test_correct", layers))
        and precision in ("", PRECISION[kind])
        and params.get("batch", BATCH[kind]) == BATCH[kind]
        and params.get("xla", "default") == "default"
    )
