"""Which cases each benchmark has, by level."""

import itertools
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import keras
import pytest

from alexnet_repro.verify.checks.overhead import NO_XLA
from alexnet_repro.verify.checks.registry import DEVICE_PRECISIONS, CheckId, expand

JIT_COMPILE = {"default": "auto", "on": True, "off": False}  # by default Keras decides
FOR_XLA = {"default": None, "on": True, "off": False}  # what the model is built for
# What XLA can be set to other than its default, by backend and kind of device; PyTorch has none. Keras decides by the
# GPUs that TensorFlow sees: a process that times a CPU sees none.
OTHER_XLA: dict[str, dict[str, tuple[str, ...]]] = {
    "tensorflow": {"cpu": ("on",), "gpu": ("off",)},
    "jax": {"cpu": ("off",), "gpu": ("off",)},
    "torch": {"cpu": (), "gpu": ()},
}
BATCHES = {"quick": "QUICK_BATCHES", "standard": "BATCHES", "long": "ALL_BATCHES"}  # the module's name for them
ARGUMENTS = ("device", "check", "batch", "precision", "xla", "side", "kind")  # in the order of an id


def grid(names: Sequence[str], devices: Sequence[str], module: ModuleType, *, level: str) -> list[dict[str, Any]]:
    """Return the parameters of a test with the arguments `names`, of `ARGUMENTS`, a dictionary per case.

    Its module has the `CHECKS`, `SIDES` or `KINDS`, or the `BATCHES` and others of the quick and long levels, by
    kind of device. The long level has XLA on and off. A test without `device` has the CPU's.
    """
    found = []
    for device in devices if "device" in names else ("cpu:0",):
        kind = device.partition(":")[0]
        values: dict[str, Sequence[Any]] = {"device": (device,), "precision": DEVICE_PRECISIONS[kind]}
        if "check" in names:
            values["check"] = expand(module.CHECKS, device)
        if "batch" in names:
            values["batch"] = getattr(module, BATCHES[level], module.BATCHES)[kind]
        if "xla" in names:
            values["xla"] = ("default", *(OTHER_XLA[keras.backend.backend()][kind] if level == "long" else ()))
        values |= {"side": getattr(module, "SIDES", ()), "kind": getattr(module, "KINDS", ())}
        found += [dict(zip(names, case, strict=True)) for case in itertools.product(*(values[name] for name in names))]
    return found


def cases(names: Sequence[str], devices: Sequence[str], module: ModuleType, *, level: str) -> list[Any]:
    """Return the cases of `grid` as pytest's parameters; those of a GPU are marked."""
    return [
        pytest.param(
            *params.values(),
            marks=(pytest.mark.gpu,) if params.get("device", "").startswith("gpu") else (),
            id=case_id(params),
        )
        for params in grid(names, devices, module, level=level)
    ]


def case_id(case: dict[str, Any]) -> str:
    """Return `name=value` pairs, by which results are compared; the default of XLA isn't named."""
    if isinstance(check := case.get("check"), CheckId) and check.precision:
        case = {**case, "check": check.check, "precision": check.precision}
    return "-".join(f"{name}={value}" for name, value in case.items() if (name, value) != ("xla", "default"))


def skip_if_refused(network: keras.Model, xla: str) -> None:
    """Skip a case that Keras doesn't compile as requested."""
    if JIT_COMPILE[xla] not in ("auto", network.jit_compile):
        pytest.skip(NO_XLA)
