"""The levels: what `--level=quick` asks of each device, and what options are where they aren't given."""

from collections.abc import Mapping
from typing import Any

import keras
import pytest

from alexnet_repro.verify.checks.config import CheckConfig

PRECISION = {"cpu": "float32", "gpu": "mixed_bfloat16"}  # the one that the device is used in most
ASKED = {
    "test_correct": {"shapes", "update"},
    "test_replay": {"replay"},
    "test_calibration": set(),
    "test_forward": set(),
    "test_train_step": set(),
}
LONG_BURN_IN = 600.0  # seconds
QUICK_IMAGES = 6_000  # generated to time with; as many as Fashion-MNIST has take two seconds
QUICK_REPLAYS, QUICK_STEPS = 2, 2  # the second step is made from what the first has changed


def in_quick_level(name: str, params: Mapping[str, Any], *, burn_in: bool = False) -> bool:
    """Return whether the quick level has a test with these parameters: check, precision and XLA's default.

    Which batches it times is the test module's to say. A burn-in it has where the option asks for one.
    """
    if name == "test_burn_in":
        return burn_in
    if name not in ASKED or "device" not in params:
        return False
    kind, check = params["device"].partition(":")[0], params.get("check")
    precision = check.precision if check else params.get("precision", PRECISION[kind])
    # Layers as the device trains with them: on a GPU XLA compiles them, but not on PyTorch.
    layers = "compiled_layers" if kind == "gpu" and keras.backend.backend() != "torch" else "layers"
    return (check is None or check.check in ASKED[name] or (name, check.check) == ("test_correct", layers)) and (
        precision in ("", PRECISION[kind]) and params.get("xla", "default") == "default"
    )


def burn_in_seconds(config: pytest.Config) -> float:
    """Return how long every device burns in: as long as `--burn-in` says, or at the long level ten minutes."""
    given = float(config.getoption("burn_in") or 0.0)
    return given or (LONG_BURN_IN if config.getoption("level") == "long" else 0.0)


def check_config(config: pytest.Config) -> CheckConfig:
    """Return what checks run with: `--replays`, by default three of three steps, or at the quick level two of two."""
    usual, quick = CheckConfig(), config.getoption("level") == "quick"
    replays = config.getoption("replays") or (QUICK_REPLAYS if quick else usual.replays)
    return CheckConfig(replays=replays, steps=QUICK_STEPS if quick else usual.steps)
