"""Each layer is timed alone: one that is slow is named, and so is what there is no time for."""

import time
from types import SimpleNamespace

import keras
import pytest

from alexnet_repro.verify.benchmark import profile as module
from alexnet_repro.verify.benchmark.layer_timing import most_lost
from alexnet_repro.verify.benchmark.timing import Calibration

LAYERS = [
    "resize", "conv2d", "max_pooling2d", "conv2d_1", "max_pooling2d_1", "conv2d_2", "conv2d_3", "conv2d_4",
    "max_pooling2d_2", "dense", "dropout", "dense_1", "dropout_1", "dense_2",
]  # fmt: skip
FAST = Calibration("cpu:0", {"float32": 1e15, "mixed_bfloat16": 1e15}, memory=1e15)


@pytest.fixture
def fast(monkeypatch):
    """Rates by which every roofline is next to nothing, and a batch of one image."""
    monkeypatch.setattr(module, "calibrate", lambda *_: FAST)
    monkeypatch.setattr(module, "PROFILED_BATCH", {"cpu": 1})


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_every_layer_is_timed(monkeypatch, precision):
    """Forward and, but for resizing, backward; what has weights is updated; in the order of the model."""
    monkeypatch.setattr(module, "PROFILE_ROUNDS", 1)
    found, missing = module.layer_timings("cpu:0", precision, 300)
    assert missing == []
    assert list(dict.fromkeys(each.layer for each in found)) == LAYERS
    weighted = [name for name in LAYERS if name.startswith(("conv", "dense"))]
    assert [each.layer for each in found if each.direction == "update"] == weighted
    assert [each.layer for each in found if each.direction == "backward"] == LAYERS[1:]
    assert {(each.device, each.precision, each.batch) for each in found} == {("cpu:0", precision, 1)}
    assert all(each.seconds > 0 for each in found if each.direction != "backward")


@pytest.mark.usefixtures("fast")
def test_slow_layer_is_named(monkeypatch):
    """A layer that waits for 2 s at each update, as by a fault, loses most."""
    monkeypatch.setattr(module, "PROFILE_ROUNDS", 1)
    update_program = module.update_program

    def slow(optimizer, variables, *, xla):
        update = update_program(optimizer, variables, xla=xla)
        is_it = "conv2d_4" in variables[0].path
        return lambda: (time.sleep(2.0 * is_it), update())[1]

    monkeypatch.setattr(module, "update_program", slow)
    found, _ = module.layer_timings("cpu:0", "float32", 300)
    worst = most_lost(found)[0]
    assert (worst.layer, worst.direction) == ("conv2d_4", "update")
    assert worst.seconds > 2


@pytest.fixture
def programs(monkeypatch):
    """Programs of three layers, of which none computes anything: `clock` is what each takes, and `done` their order."""
    found = SimpleNamespace(clock={}, done=[], now=0.0)
    keys = [("conv2d", "forward"), ("conv2d", "backward"), ("conv2d", "update"), ("dense", "forward")]

    def program(key):
        def run():
            found.done.append(key)
            found.now += found.clock.get(key, [1.0]).pop(0) if len(found.clock.get(key, ())) else 1.0

        return run

    monkeypatch.setattr(module, "_programs", lambda *_: ((key, program(key)) for key in keys))
    monkeypatch.setattr(module, "synchronize", lambda *_: None)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: found.now))
    monkeypatch.setattr(module, "calibrate", lambda *_: FAST)
    return found


def test_fastest_round_counts(programs, monkeypatch):
    """Rounds go from layer to layer, after a call of each that compiles and doesn't count; backward is what is left."""
    monkeypatch.setattr(module, "PROFILE_ROUNDS", 2)
    programs.clock = {("conv2d", "forward"): [9.0, 3.0, 2.0], ("conv2d", "backward"): [9.0, 6.0, 7.0]}
    found, missing = module.layer_timings("cpu:0", "float32", 1000)
    by_name = {(each.layer, each.direction): each.seconds for each in found}
    assert by_name[("conv2d", "forward")] == 2.0
    assert by_name[("conv2d", "backward")] == 6.0 - 2.0
    assert programs.done[4:8] == programs.done[8:] == programs.done[:4]
    assert "dense_2" in missing
    assert "conv2d" not in missing


def test_time_is_kept(programs):
    """After half of the time nothing is compiled any more, after all of it nothing timed; the rest is missing."""
    found, missing = module.layer_timings("cpu:0", "float32", 4.0)
    assert programs.now == 5.0  # three were compiled, and two timed
    assert [(each.layer, each.direction) for each in found] == [("conv2d", "forward"), ("conv2d", "backward")]
    assert {"conv2d", "dense"} < set(missing)


@pytest.mark.parametrize(
    ("forward", "both", "seconds"),
    [
        pytest.param([3.0, 3.0, 3.0], [2.0, 2.0, 2.0], 0.0, id="both=faster than one"),
        pytest.param([1.0, 1.125, 1.25], [1.125, 1.25, 1.375], 0.0, id="difference=as large as noise"),
        pytest.param([1.0, 1.125, 1.25], [1.5, 1.625, 1.75], 0.5, id="difference=larger than noise"),
    ],
)
def test_backward_lost_in_noise(programs, monkeypatch, forward, both, seconds):
    """Where both ways differ from one by no more than each from itself, backward took no time that could be seen."""
    monkeypatch.setattr(module, "PROFILE_ROUNDS", 3)
    programs.clock = {("conv2d", "forward"): [9.0, *forward], ("conv2d", "backward"): [9.0, *both]}
    found, _ = module.layer_timings("cpu:0", "float32", 1000)
    assert next(each.seconds for each in found if each.direction == "backward") == seconds


def test_a_gpus_calls_are_waited_for_together(programs, monkeypatch):
    """Ten of each, so that launching isn't what is timed."""
    monkeypatch.setattr(module, "PROFILE_ROUNDS", 1)
    monkeypatch.setattr(module.CheckConfig, "running", lambda _: keras.device("cpu"))
    found, _ = module.layer_timings("gpu:0", "mixed_bfloat16", 1000)
    assert found[0].batch == 512
    assert len(programs.done) == 4 + 4 * 10
    assert found[0].seconds == 1.0
