"""The levels: what the quick one asks, and what options are where they aren't given."""

import json

import keras
import pytest

from alexnet_repro.verify.checks.registry import CheckId
from benchmarks.level import burn_in_seconds, check_config, in_quick_level
from benchmarks.plan import Asked, plan
from benchmarks.timed import timing_runner
from tests.helpers.machines import A100, box
from tests.helpers.pytest_here import benchmarks_here, collected
from tests.helpers.sessions import session_of
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
    "step_cpu": ("test_train_step", {"device": "cpu:0", "precision": "float32", "batch": 8}, True),
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


def test_digests_are_not_quick():
    """References are digests, too, which the quick level doesn't compute: refused before anything runs."""
    status, printed = benchmarks_here("--level=quick", "--update-reference")
    line = "--level=quick computes no digests to write: add --benchmark-only, or leave out --level=quick"
    assert (status, f"ERROR: {line}" in printed) == (4, True)
    assert collected("--level=quick", "--update-reference", "--benchmark-only") == list(QUICK)


def test_profile_is_not_quick():
    """Quick calibrates one precision, and profiles nothing: asked for both, pytest says so and runs nothing."""
    status, printed = benchmarks_here("--level=quick", "--profile")
    line = "--level=quick profiles no layers: leave out --profile, or --level=quick"
    assert (status, f"ERROR: {line}" in printed) == (4, True)


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_quick_on_each_backend(monkeypatch, backend):
    """On the CPU it asks the same of each."""
    monkeypatch.setattr("benchmarks.level.keras.backend.backend", lambda: backend)
    assert [each.name for each in plan(Asked(level="quick"))] == list(QUICK)


def test_quick_of_each_device():
    """Of a GPU it asks as many things, in the precision and batch that it is used in; others stay in the plan."""
    layers = "layers" if keras.backend.backend() == "torch" else "compiled_layers"
    names = [each.name for each in plan(Asked(level="quick", devices=("cpu:0", "gpu:0"))) if each.device == "gpu:0"]
    assert [name.partition("device=gpu:0")[2] for name in names] == [
        "-check=shapes]",
        f"-check={layers}-precision=mixed_bfloat16]",
        "-check=update-precision=mixed_bfloat16]",
        "-check=replay-precision=mixed_bfloat16]",
        "]",
        "-batch=512-precision=mixed_bfloat16]",
        "-batch=512-precision=mixed_bfloat16]",
    ]


def test_quick_with_a_burn_in():
    """`--burn-in` adds one; without the option there is none, not even as skipped."""
    burn_in = "test_burn_in.py::test_burn_in[device=cpu:0]"
    assert collected("--level=quick", "--burn-in=2m") == [*QUICK[:4], burn_in, *QUICK[4:]]
    assert [each.name for each in plan(Asked(level="quick", burn_in=True))] == [*QUICK[:4], burn_in, *QUICK[4:]]


@pytest.mark.parametrize(
    ("level", "given", "seconds"),
    [("quick", 0.0, 0.0), ("quick", 120.0, 120.0), ("standard", 0.0, 0.0), ("standard", 90.0, 90.0),
     ("long", 0.0, 600.0), ("long", 120.0, 120.0)],
)  # fmt: skip
def test_burn_in(tmp_path, level, given, seconds):
    """It takes as long as the option says, and ten minutes at the long level; else there is none."""
    session = session_of(tmp_path, level=level, burn_in=given)
    assert burn_in_seconds(session.config) == seconds
    assert session.asked.burn_in is (seconds > 0)


@pytest.mark.parametrize(
    ("level", "given", "replays", "steps"),
    [("quick", None, 2, 2), ("quick", 5, 5, 2), ("standard", None, 3, 3), ("long", None, 3, 3), ("long", 9, 9, 3)],
)
def test_replays(tmp_path, level, given, replays, steps):
    """The quick level repeats two steps once, the others three steps twice, or as often as the option says."""
    config = check_config(session_of(tmp_path, level=level, replays=given).config)
    assert (config.replays, config.steps) == (replays, steps)


@pytest.mark.parametrize(
    ("level", "device", "given"),
    [
        ("quick", "cpu:0", {"precisions": ["float32"], "images": 6000, "one_batch": True}),
        ("quick", "gpu:0", {"precisions": ["mixed_bfloat16"], "images": 6000, "one_batch": True}),
        ("standard", "cpu:0", {}),
        ("long", "cpu:0", {}),
    ],
)
def test_what_timings_need(monkeypatch, tmp_path, level, device, given):
    """The quick level measures the rates of the precision that it times in, and generates fewer images."""
    asked = []
    monkeypatch.setattr("benchmarks.timed.answer_each", lambda _, options, *__: asked.append(*options) or iter(()))
    options = {"benchmark_min_rounds": 5, "benchmark_disable": False}
    session = session_of(tmp_path, level=level, **options)
    session.machine = box(A100)
    list(timing_runner(session, [])._run(device, []))
    (found,) = map(json.loads, asked)
    assert {name: found[name] for name in ("precisions", "images", "one_batch") if name in found} == given
