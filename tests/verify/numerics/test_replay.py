"""Train steps repeated from one state give identical bits, and the first difference is named."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import alexnet_repro
from alexnet_repro import DataLoader, synthetic_fashion
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.numerics.replay import Replay, StepDigest, first_divergence
from tests.helpers.models import narrow_layers
from tests.helpers.paths import ROOT

STEPS, BATCH = 2, 4


def new_replay(precision="float32"):
    """Return a replay of two steps on a few small generated images."""
    loader = DataLoader.from_arrays(*synthetic_fashion(64, 1, seed=0), seed=0)
    indices = np.stack([loader.draw_train_indices(BATCH) for _ in range(STEPS)])
    with narrow_layers():
        return Replay(loader, indices, 67, CheckConfig(precision=precision).running)


@pytest.fixture(scope="module")
def replay():
    """One replay in float32."""
    return new_replay()


@pytest.fixture(scope="module")
def first(replay):
    """Its first run."""
    return replay.run()


def test_replays_agree(replay, first, request):
    """Loss, gradients and weights of every step are the same bits in each replay, dropout on."""
    assert len(first) == STEPS
    for number in range(2, (request.config.getoption("--replays") or 3) + 1):
        divergence = first_divergence(first, replay.run(), f"replay {number}")
        assert divergence is None


def test_bfloat16_replays_agree():
    """So they are in mixed_bfloat16."""
    replay = new_replay("mixed_bfloat16")
    divergence = first_divergence(replay.run(), replay.run(), "replay 2")
    assert divergence is None


def test_digests_cover_every_weight(first):
    """Each step has a digest of each kernel's and bias's gradient and value, and no two steps share one."""
    for step in first:
        assert len(step.gradients) == len(step.weights) == 16
    for path in first[0].weights:
        assert first[0].weights[path] != first[1].weights[path]


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        pytest.param(StepDigest("0x2", {"b": "1", "a": "1"}, {"b": "1", "a": "1"}), "loss", id="changed=loss"),
        pytest.param(StepDigest("0x1", {"b": "1", "a": "2"}, {"b": "2", "a": "2"}), "gradient of a", id="changed=a"),
        pytest.param(StepDigest("0x1", {"b": "2", "a": "2"}, {"b": "2", "a": "2"}), "gradient of b", id="changed=b"),
        pytest.param(StepDigest("0x1", {"b": "1", "a": "1"}, {"b": "1", "a": "2"}), "weight a", id="changed=weight"),
    ],
)
def test_first_divergence(changed, what):
    """What differs first is named: the loss, then gradients from the last layer back, then weights."""
    same = StepDigest("0x1", {"b": "1", "a": "1"}, {"b": "1", "a": "1"})
    assert first_divergence([same, same], [same, same], "replay 2") is None
    divergence = first_divergence([same, same], [same, changed], "replay 3")
    assert divergence == ("replay 3", 2, what)


@pytest.mark.slow
def test_processes_agree(first):
    """Another process on this machine computes the same bits."""
    program = "from tests.verify.numerics import test_replay; print(repr(test_replay.new_replay().run()))"
    folders = [str(ROOT), str(Path(alexnet_repro.__file__).parents[1])]
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {folders!r}; {program}"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed.strip() == repr(first)
