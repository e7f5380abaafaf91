"""Bits flipped in real train steps, in small, and what is counted from those that show."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from alexnet_repro.data.resize import resize_with_pad
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.repeatability import REPLAY_BATCH
from alexnet_repro.verify.numerics.error_bounds import round_to
from alexnet_repro.verify.numerics.replay import Replay, first_divergence
from benchmarks.tools import detection, detection_tables
from benchmarks.tools.detection import Site
from tests.faults.catalogue import FAULTS
from tests.helpers.models import narrow_layers

ON_TENSORFLOW = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the switches are operations of TensorFlow's"
)
SIGN, EXPONENT, LOWEST = 31, 30, 0
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def replay():
    """A replay's step with switches, of small images."""
    with narrow_layers():
        found = detection.flipping_replay(CheckConfig(side=67))
    assert not found.changed(), "the first step is the clean one"
    return found


@pytest.fixture(scope="module")
def outputs(replay):
    """The output of each layer in the clean step, up to the first dropout."""
    images, _ = CheckConfig(side=67).loader().train_batch(replay.indices[0])
    for variable, value in replay._state:
        variable.assign(value)
    x, found = resize_with_pad(images, 67, 67) / 255.0, {}
    for layer in replay.model.layers[:10]:
        x = layer(x)
        found[layer.name] = ops.convert_to_numpy(x)
    return found


@ON_TENSORFLOW
@pytest.mark.parametrize(
    ("at", "bit", "shows"),
    [
        pytest.param(("sum", True), EXPONENT, True, id="sum=positive-bit=exponent"),
        pytest.param(("sum", True), SIGN, True, id="sum=positive-bit=sign"),
        pytest.param(("sum", False), EXPONENT, False, id="sum=negative-bit=exponent"),
        pytest.param(("sum", False), LOWEST, False, id="sum=negative-bit=lowest"),
        pytest.param(("gradient", False), EXPONENT, False, id="gradient=of-silent-bit=exponent"),
        pytest.param(("output", True), EXPONENT, True, id="output=positive-bit=exponent"),
        pytest.param(("output", False), LOWEST, False, id="output=silent-bit=lowest"),
    ],
)
def test_flip_in_a_hidden_layer(replay, outputs, at, bit, shows):
    """What ReLU lets pass shows, and what it silences doesn't."""
    kind, live = at
    places = np.flatnonzero((outputs["conv2d_2"] > 0) == live)
    assert bool(detection.flip(replay, Site(kind, "conv2d_2"), int(places[0]), bit, "float32").where) == shows
    assert not replay.changed(), "a flip is of one step alone"


@ON_TENSORFLOW
@pytest.mark.parametrize("bit", [pytest.param(30, id="bit=exponent"), pytest.param(0, id="bit=lowest")])
def test_flip_of_a_weight_in_memory(replay, bit):
    """Each flip of a weight shows, if nowhere else then in the weight: it stays there."""
    assert detection.flip(replay, Site("weight", "conv2d_1"), 12_345, bit, "float32").where


@ON_TENSORFLOW
def test_output_beside_its_window_s_maximum(replay, outputs):
    """A flip in an output that isn't its pooling window's maximum doesn't show, and that of the maximum does."""
    first = outputs["conv2d_4"][0, :3, :3]
    channel = int(first.max(axis=(0, 1)).argmax())
    window = first[..., channel]
    largest = np.unravel_index(window.argmax(), window.shape)
    smallest = (0, 0) if largest != (0, 0) else (0, 1)  # of the first window's corner alone, or its edge
    for place, shows in ((largest, True), (smallest, False)):
        at = np.ravel_multi_index((0, *map(int, place), channel), outputs["conv2d_4"].shape)
        assert bool(detection.flip(replay, Site("output", "conv2d_4"), int(at), 1, "float32").where) == shows


@ON_TENSORFLOW
def test_changes_are_those_of_a_replay_s_digests(replay):
    """What is compared array by array is what a replay's digests would name, the switches without effect on a bit."""
    replay.aim(None)
    clean = replay.run()
    site = Site("output", "max_pooling2d_1")
    found = detection.flip(replay, site, 4_321, EXPONENT, "float32")
    replay.aim(site, 4_321, EXPONENT)
    divergence = first_divergence(clean, replay.run(), "flipped")
    replay.aim(None)
    assert (divergence.what if divergence else "") == found.where
    with narrow_layers():
        config = CheckConfig(side=67)
        loader = config.loader()
        plain = Replay(loader, loader.draw_train_indices(REPLAY_BATCH)[np.newaxis], 67, config.running)
        assert plain.run() == clean


def test_rounding_to_bfloat16_loses_flips_of_lower_bits():
    """Of a float32 sum's 32 bits 15 are lost where it is rounded to bfloat16: those below the one worth half a unit."""
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    lost = 0
    for bit in range(32):
        flipped = (values.view(np.uint32) ^ np.uint32(1 << bit)).view(np.float32)
        with np.errstate(invalid="ignore"):
            lost += float((round_to(values, "bfloat16") == round_to(flipped, "bfloat16")).mean()) / 32
    assert lost == pytest.approx(15 / 32, abs=1e-3)
    assert detection_tables.rounded_away() == 15 / 32


@pytest.mark.parametrize(
    ("rate", "shows", "steps"),
    [
        pytest.param(0.001, 1.0, 2_995, id="rate=0.001-shows=1"),
        pytest.param(0.001, 0.5, 5_990, id="rate=0.001-shows=0.5"),
        pytest.param(0.5, 1.0, 5, id="rate=0.5-shows=1"),
    ],
)
def test_steps_needed(rate, shows, steps):
    """As many steps find a fault with 95 %: ln 0.05 / ln(1 - rate × share), rounded up."""
    assert detection_tables.steps_needed(rate, shows) == steps
    assert detection_tables.rate_found(steps, shows) <= rate < detection_tables.rate_found(steps - 1, shows)


def test_compared_steps():
    """The quick level compares 4 steps in bits; the standard one 2 × 4 × 3 on a CPU, 4 × 5 × 3 on a GPU."""
    found = {level.name: level.total for level in detection_tables.levels()}
    assert found == {"quick": 4, "standard, CPU": 24, "standard, GPU": 60}


def test_macs_of_a_step():
    """A train step has the documented 2,780,566,272 multiply-accumulates per image."""
    assert sum(sum(each.values()) for each in detection_tables.macs_of_step().values()) == 2_780_566_272


def test_faults_of_the_kit_that_the_quick_level_checks_for():
    """The quick level has the checks of 32 of the 48 faults, on a GPU in the form of layers that XLA compiles."""
    quick = {"shapes", "layers", "compiled_layers", "update", "replay"}
    assert (sum(fault.check in quick for fault in FAULTS), len(FAULTS)) == (32, 48)


def test_weighted_share():
    """Layers count by their weights: 100 of 100 in three quarters and none of 100 in the rest are 75 %, nearly."""
    middle, low, high = detection_tables.weighted({"a": (100, 100), "b": (0, 100)}, {"a": 3.0, "b": 1.0})
    assert middle == 0.75
    assert 0.73 < low < middle < high < 0.76
