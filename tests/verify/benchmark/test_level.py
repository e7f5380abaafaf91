"""The quick level: what it asks, and a verdict that doesn't claim the rest."""

import pytest

from alexnet_repro.verify.checks.registry import CheckId
from benchmarks.level import in_quick_level
from tests.helpers.pytest_here import benchmarks_here, collected
from tests.verify.benchmark.test_plan import QUICK

CASES = {
    "shapes": ("test_correct", {"device": "gpu:0", "check": CheckId("shapes")}, True),
    "layers_other_precision": ("test_correct", {"device": "gpu:0", "check": CheckId("layers", "float32")}, False),
    "compiled_cpu": ("test_correct", {"device": "cpu:0", "check": CheckId("compiled_layers", "float32")}, False),
    "layers_cpu": ("test_correct", {"device": "cpu:0", "check": CheckId("layers", "float32")}, True),
    "learning": ("test_correct", {"device": "cpu:0", "check": CheckId("learning", "float32")}, False),
    "replay": ("test_replay", {"device": "gpu:3", "check": CheckId("replay", "mixed_bfloat16")}, True),
    "other_process": ("test_processes", {"device": "gpu:0", "precision": "mixed_bfloat16"}, False),
    "calibration": ("test_calibration", {"device": "cpu:0"}, True),
    "step": ("test_train_step", {"device": "gpu:0", "precision": "mixed_bfloat16", "batch": 512}, True),
    "smaller_batch": ("test_train_step", {"device": "gpu:0", "precision": "mixed_bfloat16", "batch": 32}, False),
    "step_cpu": ("test_train_step", {"device": "cpu:0", "precision": "float32", "batch": 32}, True),
    "xla_named": (
        "test_forward",
        {"device": "cpu:0", "precision": "float32", "batch": 32, "xla": "on"},
        False,
    ),
    "resize": ("test_resize", {"device": "cpu:0", "batch": 128, "side": 28}, False),
}


@pytest.mark.parametrize(("name", "params", "runs"), CASES.values(), ids=[f"case={name}" for name in CASES])
def test_what_it_runs(name, params, runs):
    """Shapes, layers, an update, a replay, rates and two timings, in one precision and batch of each kind of device."""
    assert in_quick_level(name, params) is runs


@pytest.mark.parametrize(
    ("backend", "layers"), [("tensorflow", "compiled_layers"), ("jax", "compiled_layers"), ("torch", "layers")]
)
def test_layers_of_a_gpu(monkeypatch, backend, layers):
    """Its layers are those that it trains with: compiled by XLA, where the backend is."""
    monkeypatch.setattr("benchmarks.level.keras.backend.backend", lambda: backend)
    checks = [CheckId(name, "mixed_bfloat16") for name in ("layers", "compiled_layers")]
    asked = [each.check for each in checks if in_quick_level("test_correct", {"device": "gpu:0", "check": each})]
    assert asked == [layers]


def test_without_a_device():
    """What has no device isn't run."""
    assert not in_quick_level("test_draw_train", {"batch": 128})


def test_collected():
    """Nothing else is collected, in the order of a whole run."""
    assert collected("--level=quick") == list(QUICK)


def test_full_is_not_quick():
    """All batches are of the standard level: the two options together are refused."""
    status, printed = benchmarks_here("--level=quick", "--full", "--collect-only")
    assert status == 4
    assert "ERROR: --full is of the standard level: leave out --level=quick" in printed
