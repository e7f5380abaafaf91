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
from benchmarks.summary import DEVICES

# What Keras is told: by default it decides.
JIT_COMPILE = {"default": "auto", "on": True, "off": False}
FOR_XLA = {"default": None, "on": True, "off": False}  # what the model is built for
ARGUMENTS = ("device", "check", "batch", "precision", "xla")
UNFIT = pytest.StashKey[dict[tuple[str, ...], int]]()  # the batch that didn't fit, by series


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test its devices, and the checks or else the batches, precisions and XLA of each."""
    names = [name for name in ARGUMENTS if name in metafunc.fixturenames]
    if "device" not in names:
        return
    devices, full = metafunc.config.stash[DEVICES], metafunc.config.getoption("full")
    metafunc.parametrize(names, cases(names, devices, metafunc.module, full=full))


def cases(names: Sequence[str], devices: Sequence[str], module: ModuleType, *, full: bool) -> list[Any]:
    """Return a test's parameters.

    Args:
        names: its arguments, of `ARGUMENTS`.
        devices: those under examination.
        module: where it stands: with its `CHECKS`, or its `BATCHES` and the `ALL_BATCHES` that it has in full, each by
            kind of device.
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
    """Return what XLA can be told to be, other than what it is by itself; nothing on PyTorch, which has none."""
    if keras.backend.backend() == "torch":
        return ()
    return ("off",) if keras.Sequential([keras.Input((1,))]).jit_compile else ("on",)


def _id(case: dict[str, Any]) -> str:
    """Return `name=value` pairs; XLA as it is by itself isn't named: results are compared by ids."""
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


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Leave a timing that doesn't fit into memory in doubt, and don't try larger batches of its series."""
    if "measure" not in pyfuncitem.fixturenames:
        return (yield)
    params, unfit = pyfuncitem.callspec.params, pyfuncitem.config.stash[UNFIT]
    device, batch = params.get("device", "cpu:0"), params.get("batch", 0)
    series = (pyfuncitem.originalname, *(str(params.get(name)) for name in ("device", "precision", "xla")))
    smaller = unfit.get(series, math.inf)
    if batch > smaller:
        message = f"{pyfuncitem.name} isn't tried: a batch of {smaller} didn't fit into the device's memory"
    else:
        try:
            return (yield)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        unfit[series] = batch
        message = f"{pyfuncitem.name} doesn't fit into the device's memory"
    # Not while the error is handled: it holds all that the test had in memory.
    finding = Finding(
        "fits", "INCONCLUSIVE", message, fix="free its memory: nvidia-smi, or free -m on a CPU", device=device
    )
    pyfuncitem.funcargs["conclude"]("fast", finding)
    return None
