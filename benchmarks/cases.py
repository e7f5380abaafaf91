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

JIT_COMPILE = {"default": "auto", "on": True, "off": False}
"""What Keras is given; by default it decides."""
FOR_XLA = {"default": None, "on": True, "off": False}
"""What the model is built for."""
ARGUMENTS = ("device", "check", "batch", "precision", "xla")


def cases(names: Sequence[str], devices: Sequence[str], module: ModuleType, *, full: bool) -> list[Any]:
    """Return a test's parameters.

    Args:
        names: its arguments, of `ARGUMENTS`.
        devices: those under examination.
        module: the test's: with its `CHECKS`, or its `BATCHES` and the `ALL_BATCHES` that it has in full, each by kind
            of device.
        full: whether the whole grid is asked for.
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
    parts = []
    for name, value in case.items():
        if isinstance(value, CheckId) and value.precision:
            parts.append(f"{name}={value.check}-precision={value.precision}")
        elif (name, value) != ("xla", "default"):
            parts.append(f"{name}={value}")
    return "-".join(parts)


def skip_if_refused(network: keras.Model, xla: str) -> None:
    """Skip a case that Keras won't compile as it was told to."""
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
    session.report_findings("fast", Finding("fits", "INCONCLUSIVE", message, fix=fix, device=device))
    return None
