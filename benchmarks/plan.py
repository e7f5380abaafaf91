"""The plan of a run: the tests of each device at a level, their groups, and where one applies."""

import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import keras

from alexnet_repro.verify.checks.repeatability import reference_gpu
from alexnet_repro.verify.verdict import Planned
from benchmarks.cases import ARGUMENTS, case_id, grid
from benchmarks.level import in_quick_level

FOLDER = Path(__file__).parent
# Tests' modules in their order; those that aren't named come last.
ORDER = ("correct", "repeatable", "reference", "burn_in", "overhead", "scaling", "workers", "calibration")
PROFILED = ("float32", "mixed_bfloat16")  # in the others a GPU would compile for minutes
GROUPS = {"correct": "correct", "repeatable": "repeatable", "burn_in": "repeatable", "reference": "reference"}


@dataclass(frozen=True)
class Asked:
    """What is there to verify, and what the options ask of it."""

    devices: Sequence[str] = ("cpu:0",)  # of this machine, whether they are chosen or not
    models: Mapping[str, str] | None = None  # of GPUs, by device
    level: str = "standard"
    burn_in: bool = False
    profile: bool = False
    cpu_replicas: int = 0
    workers: bool = False

    def of(self, devices: Iterable[str], models: Mapping[str, str]) -> Self:
        """Return the same asked of these devices; `models` are the GPUs', by device."""
        return replace(self, devices=tuple(devices), models=models)

    def has(self, name: str, params: Mapping[str, Any]) -> bool:
        """Return whether the level has a test with these parameters."""
        return self.level != "quick" or in_quick_level(name, params, burn_in=self.burn_in)

    @property
    def gpus(self) -> list[str]:
        """Return the GPUs among the devices."""
        return [device for device in self.devices if device.startswith("gpu")]


def _two_gpus(asked: Asked, _: Mapping[str, Any]) -> str:
    return "" if len(asked.gpus) > 1 else "needs two GPUs"


def _busy(asked: Asked, params: Mapping[str, Any]) -> str:
    return _two_gpus(asked, params) if params["device"] in asked.gpus else "needs two GPUs"


def _same_model(asked: Asked, params: Mapping[str, Any]) -> str:
    device = params["device"]
    alone = reference_gpu(device, asked.devices, asked.models or {}) == device
    return "needs two GPUs of one model" if alone else ""


def _burn_in(asked: Asked, _: Mapping[str, Any]) -> str:
    return "" if asked.burn_in else "runs at --level=long, or with --burn-in=10m"


def _profile(asked: Asked, params: Mapping[str, Any]) -> str:
    if not asked.profile:
        return "runs with --profile"
    return "" if params["precision"] in PROFILED else f"{' and '.join(PROFILED)} are profiled"


def _scaling(asked: Asked, params: Mapping[str, Any]) -> str:
    if keras.backend.backend() != "tensorflow":
        return "it needs tf.distribute, and Keras's backend is another"
    parts = asked.cpu_replicas or not _two_gpus(asked, params)
    return "" if parts else "it needs two GPUs (to try it on parts of a CPU: --cpu-replicas=2)"


def _workers(asked: Asked, _: Mapping[str, Any]) -> str:
    return "" if asked.workers else "this is one machine, started by itself; several: --distribute=multiworker on each"


def _tensorflow(_: Asked, __: Mapping[str, Any]) -> str:
    return "" if keras.backend.backend() == "tensorflow" else "other backends train on draw_train's images"


# By module, or module and function; without an entry a test always applies.
NEEDS: dict[tuple[str, ...], Callable[[Asked, Mapping[str, Any]], str]] = {
    ("test_correct", "test_copies_between_gpus"): _two_gpus,
    ("test_repeatable", "test_busy"): _busy,
    ("test_repeatable", "test_gpu_bitwise_parity"): _same_model,
    ("test_burn_in",): _burn_in,
    ("test_profile",): _profile,
    ("test_scaling",): _scaling,
    ("test_workers",): _workers,
    ("test_input_pipeline", "test_training_batch"): _tensorflow,
}


def why_not(module: str, function: str, params: Mapping[str, Any], asked: Asked) -> str:
    """Return why a test of a module doesn't apply to this machine or these options; empty if it does."""
    needs = NEEDS.get((module, function)) or NEEDS.get((module,))
    return needs(asked, params) if needs else ""


def arguments_of(function: Callable[..., Any]) -> list[str]:
    """Return those arguments of a test that the plan gives it, in the order of its id."""
    names = inspect.signature(function).parameters
    return [name for name in ARGUMENTS if name in names]


def turn(stem: str, device: str, asked: Asked) -> tuple[int, ...]:
    """Return what tests are sorted by, from their module's name; a device's rates and timings are one after the other.

    They are a process's, and two devices at a time would be in each other's way.
    """
    name = stem.removeprefix("test_")
    own, timed = (ORDER.index(name) if name in ORDER else len(ORDER)), ORDER.index("calibration")
    devices = list(asked.devices)
    return (min(own, timed), devices.index(device) if own >= timed and device in devices else 0, own)


def plan(asked: Asked) -> list[Planned]:
    """Return every check and case of every device at this level, in the order in which they run."""
    modules = [importlib.import_module(f"benchmarks.{path.stem}") for path in sorted(FOLDER.glob("test_*.py"))]
    every = [planned for module in modules for planned in _of_module(module, asked)]
    return sorted(every, key=lambda each: turn(each.name.partition(".py")[0], each.device, asked))


def _of_module(module: ModuleType, asked: Asked) -> Iterator[Planned]:
    stem = module.__name__.rpartition(".")[2]
    group = GROUPS.get(stem.removeprefix("test_"), "fast")
    for name, function in vars(module).items():
        if not name.startswith("test_") or not inspect.isfunction(function):
            continue
        for params in grid(arguments_of(function), asked.devices, module, level=asked.level):
            if asked.has(name, params) and not why_not(stem, name, params, asked):
                test_id = f"[{case_id(params)}]" if params else ""
                yield Planned(f"{stem}.py::{name}{test_id}", group, str(params.get("device", "")))
