"""The plan of a run: every check and case of every device, and what applies only to some machines."""

from collections import Counter
from types import SimpleNamespace

import pytest

from benchmarks.plan import Asked, plan, why_not
from tests.helpers.histories import run
from tests.helpers.pytest_here import collected

BACKEND = "benchmarks.plan.keras.backend.backend"
TWO = Asked(devices=("cpu:0", "gpu:0", "gpu:1"), models={"gpu:0": "A100", "gpu:1": "A100"})
ONE = Asked(devices=("cpu:0", "gpu:0"), models={"gpu:0": "A100"})
QUICK = (
    "test_correct.py::test_correct[device=cpu:0-check=shapes]",
    "test_correct.py::test_correct[device=cpu:0-check=layers-precision=float32]",
    "test_correct.py::test_correct[device=cpu:0-check=update-precision=float32]",
    "test_repeatable.py::test_replay[device=cpu:0-check=replay-precision=float32]",
    "test_calibration.py::test_calibration[device=cpu:0]",
    "test_forward.py::test_forward[device=cpu:0-batch=32-precision=float32]",
    "test_train_step.py::test_train_step[device=cpu:0-batch=32-precision=float32]",
)


@pytest.fixture(autouse=True)
def tensorflow(monkeypatch):
    """The plan of Keras on TensorFlow, whatever runs here."""
    monkeypatch.setattr(BACKEND, lambda: "tensorflow")


def test_quick():
    """The quick level asks seven things of a CPU, in this order, each in the group that it counts in."""
    planned = plan(Asked(level="quick"))
    assert [each.name for each in planned] == list(QUICK)
    assert [each.group for each in planned] == ["correct"] * 3 + ["repeatable"] + ["fast"] * 3
    assert {(each.device, each.state, each.status) for each in planned} == {("cpu:0", "waiting", None)}


@pytest.mark.parametrize(
    ("asked", "groups"),
    [
        pytest.param(Asked(), {"correct": 15, "repeatable": 4, "fast": 21, "reference": 2}, id="devices=cpu"),
        pytest.param(
            Asked(burn_in=True), {"correct": 15, "repeatable": 5, "fast": 21, "reference": 2}, id="option=burn_in"
        ),
        pytest.param(
            Asked(level="long", burn_in=True),
            {"correct": 15, "repeatable": 5, "fast": 47, "reference": 2},
            id="level=long",
        ),
        pytest.param(
            Asked(profile=True), {"correct": 15, "repeatable": 4, "fast": 23, "reference": 2}, id="option=profile"
        ),
        pytest.param(TWO, {"correct": 62, "repeatable": 32, "fast": 93, "reference": 10}, id="devices=two GPUs"),
    ],
)
def test_size(asked, groups):
    """Each group has a check and case of each device, in each of its precisions; names are there once."""
    planned = plan(asked)
    assert Counter(each.group for each in planned) == groups
    assert len({each.name for each in planned}) == len(planned)


def test_timings_of_a_device_follow_each_other():
    """One process of a device times them; checks go from device to device, module by module."""
    devices = [(each.name.partition("::")[0], each.device) for each in plan(TWO)]
    first = next(number for number, (name, _) in enumerate(devices) if name == "test_calibration.py")
    order = list(dict.fromkeys(device or "cpu:0" for _, device in devices[first:]))
    assert order == ["cpu:0", "gpu:0", "gpu:1"]
    by_device = [device or "cpu:0" for _, device in devices[first:]]
    assert by_device == sorted(by_device)
    assert [device for name, device in devices[:first] if name == "test_repeatable.py"][:2] == ["cpu:0", "cpu:0"]
    assert {name for name, _ in devices[:first]} >= {"test_correct.py", "test_overhead.py", "test_scaling.py"}


APPLIES = [
    (TWO, "test_correct", "test_copies_between_gpus", {}, ""),
    (ONE, "test_correct", "test_copies_between_gpus", {}, "needs two GPUs"),
    (TWO, "test_repeatable", "test_busy", {"device": "gpu:1"}, ""),
    (TWO, "test_repeatable", "test_busy", {"device": "cpu:0"}, "needs two GPUs"),
    (ONE, "test_repeatable", "test_busy", {"device": "gpu:0"}, "needs two GPUs"),
    (TWO, "test_repeatable", "test_gpu_bitwise_parity", {"device": "gpu:1"}, ""),
    (TWO, "test_repeatable", "test_gpu_bitwise_parity", {"device": "gpu:0"}, "needs two GPUs of one model"),
    (TWO, "test_burn_in", "test_burn_in", {"device": "gpu:0"}, "runs at --level=long, or with --burn-in=10m"),
    (Asked(burn_in=True), "test_burn_in", "test_burn_in", {"device": "cpu:0"}, ""),
    (TWO, "test_profile", "test_profile", {"device": "gpu:0", "precision": "float32"}, "runs with --profile"),
    (Asked(profile=True), "test_profile", "test_profile", {"device": "gpu:0", "precision": "float32"}, ""),
    (
        Asked(profile=True),
        "test_profile",
        "test_profile",
        {"device": "gpu:0", "precision": "tf32"},
        "float32 and mixed_bfloat16 are profiled",
    ),
    (TWO, "test_scaling", "test_scaling", {"kind": "weak"}, ""),
    (Asked(cpu_replicas=2), "test_scaling", "test_all_reduce", {}, ""),
    (
        ONE,
        "test_workers",
        "test_all_reduce",
        {},
        "this is one machine, started by itself; several: --distribute=multiworker on each",
    ),
    (Asked(workers=True), "test_workers", "test_all_reduce", {}, ""),
    (ONE, "test_correct", "test_correct", {"device": "gpu:0"}, ""),
]


@pytest.mark.parametrize("number", range(len(APPLIES)))
def test_what_applies(number):
    """What needs more than one GPU, or an option, is planned only where there is one."""
    asked, module, test, params, why = APPLIES[number]
    assert why_not(module, test, params, asked) == why


def test_other_devices_are_planned(tmp_path):
    """A device that isn't chosen is in the plan, and named as missing."""
    found = run(tmp_path / "run", ["pass"] * 4, extra=[SimpleNamespace(name="test_any.py::test_any", device="gpu:1")])
    assert found.results["verdict"] == "INCONCLUSIVE"
    assert "gpu:1: not asked (not chosen by --device): any" in found.printed


@pytest.mark.parametrize("level", ["standard", "long"])
def test_plan_is_what_pytest_collects(level):
    """Pytest collects all that is planned, in that order, and else only what doesn't apply here."""
    found = collected(f"--level={level}")
    planned = [each.name for each in plan(Asked(level=level))]
    assert [each for each in found if each in planned] == planned
    others = {each.partition("[")[0] for each in found if each not in planned}
    assert others == {
        "test_correct.py::test_copies_between_gpus",
        "test_repeatable.py::test_busy",
        "test_repeatable.py::test_gpu_bitwise_parity",
        "test_burn_in.py::test_burn_in",
        "test_profile.py::test_profile",
        *(
            f"test_{module}.py::test_{name}"
            for module in ("scaling", "workers")
            for name in ("stragglers", "all_reduce", "scaling")
        ),
    }
