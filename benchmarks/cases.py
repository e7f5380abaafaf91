"""Which cases each benchmark has, by default and with --full; and what becomes of those that don't fit into memory."""

import itertools
import math
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import keras
import pytest

from alexnet_repro.verify.checks.memory import is_out_of_memory
from alexnet_repro.verify.checks.overhead import NO_XLA
from alexnet_repro.verify.checks.registry import DEVICE_PRECISIONS, CheckId, expand
from alexnet_repro.verify.finding import Finding
from benchmarks.session import VerificationSession

JIT_COMPILE = {"default": "auto", "on": True, "off": False}  # by default Keras decides
FOR_XLA = {"default": None, "on": True, "off": False}  # what the model is built for
ARGUMENTS = ("device", "check", "batch", "precision", "xla")


def cases(names: Sequence[str], devices: Sequence[str], module: ModuleType, *, full: bool) -> list[Any]:
    """Return the parameters of a test with the arguments `names`, of `ARGUMENTS`.

    Its module has the `CHECKS`, or the `BATCHES` and, for the `full` grid, `ALL_BATCHES`, each by kind of device.
    """
    found = []
    for device in devices:
        kind = device.partition(":")[0]
        values: dict[str, Sequence[Any]] = {"device": (device,), "precision": DEVICE_PRECISIONS[kind]}
        if "check" in names:
            values["check"] = expand(module.CHECKS, device)
        if "batch" in names:
            values["batch"] = getattr(module, "ALL_BATCHES" if full else "BATCHES", module.BATCHES)[kind]
        if "xla" in names:
            values["xla"] = ("default", *(other_than_default() if full else ()))
        marks = (pytest.mark.gpu,) if kind == "gpu" else ()
        found += [
            pytest.param(*case, marks=marks, id=_id(dict(zip(names, case, strict=True))))
            for case in itertools.product(*(values[name] for name in names))
        ]
    return found


def other_than_default() -> tuple[str, ...]:
    """Return what XLA can be set to other than its default; nothing on PyTorch, which has no XLA."""
    if keras.backend.backend() == "torch":
        return ()
    return ("off",) if keras.Sequential([keras.Input((1,))]).jit_compile else ("on",)


def _id(case: dict[str, Any]) -> str:
    """Return `name=value` pairs, by which results are compared; the default of XLA isn't named."""
    if isinstance(check := case.get("check"), CheckId) and check.precision:
        case = {**case, "check": check.check, "precision": check.precision}
    return "-".join(f"{name}={value}" for name, value in case.items() if (name, value) != ("xla", "default"))


def skip_if_refused(network: keras.Model, xla: str) -> None:
    """Skip a case that Keras doesn't compile as requested."""
    if JIT_COMPILE[xla] not in ("auto", network.jit_compile):
        pytest.skip(NO_XLA)


def unless_too_large(item: pytest.Function, session: VerificationSession) -> Iterator[None]:
    """Run a timed test at the `yield`; one that doesn't fit into memory is inconclusive, and larger ones aren't run."""
    params = item.callspec.params
    device, batch = params.get("device", "cpu:0"), params.get("batch", 0)
    series = (item.originalname, *(str(params.get(name)) for name in ("device", "precision", "xla")))
    smaller = session.too_large.get(series, math.inf)
    if batch > smaller:
        message = f"{item.name} isn't run: a batch of {smaller} didn't fit into the device's memory"
    else:
        try:
            return (yield)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        session.too_large[series] = batch
        message = f"{item.name} doesn't fit into the device's memory"
    # Not while the error is handled: it holds all that the test had in memory.
    fix = "free its memory: nvidia-smi, or free -m on a CPU"
    return session.report_findings("fast", Finding("fits", "INCONCLUSIVE", message, fix=fix, device=device))
