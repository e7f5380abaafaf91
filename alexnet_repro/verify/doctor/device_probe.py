"""Does a backend compute right on a device? Each device is probed in a child process, with a deadline per check."""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from alexnet_repro.startup import explained
from alexnet_repro.verify.doctor.endings import error_lines
from alexnet_repro.verify.subprocesses import answer_each

BACKEND_NAMES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
# What each backend trains by: TensorFlow by its own kernels, on a GPU by XLA's; JAX by XLA's alone, PyTorch by its own.
CHECKS = {
    "tensorflow": ("import", "devices", "operations", "matmul", "convolution", "xla"),
    "jax": ("import", "devices", "operations", "matmul", "xla"),
    "torch": ("import", "devices", "operations", "matmul", "convolution"),
}
STARTS = {"tensorflow": "xla", "jax": "operations", "torch": "operations"}  # what reads all of a backend's flags
# Much is logged, and no more memory is taken than is needed: TensorFlow's variables, and JAX's.
PROBE_VARIABLES = {
    "TF_CPP_MIN_LOG_LEVEL": "0",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu", "JAX_PLATFORM_NAME": "cpu"}


@dataclass(frozen=True)
class ProbeResult:
    """One check's result on one device; `error` is None if it passed."""

    device: str
    check: str
    error: str | None = None
    seconds: float = 0.0
    data: Mapping[str, Any] = field(default_factory=dict)
    log: str = ""  # its process's lines about errors


def probe_device(
    backend: str, device: str, deadline: float, environ: Mapping[str, str] | None = None
) -> Iterator[ProbeResult]:
    """Run every check, in `deadline` seconds each, and yield its result; after a failed one a new process continues.

    `device` is a name for the results, as `cpu:0` or `gpu:3`; of the GPUs, `environ` must show this one alone. Where
    it is the CPU, `devices` names all GPUs that the backend sees, and no other check uses one.
    """
    first = device.partition(":")[0] + ":0"
    variables = {**PROBE_VARIABLES, **(environ or {})}
    with closing(answer_each(__name__, [backend, first], CHECKS[backend], deadline, variables)) as child:
        for check, answer in child:
            yield (result := _result(device, check, answer))
            if check in ("import", "devices") and result.error:
                return


def probe_start(backend: str, deadline: float) -> ProbeResult:
    """Return whether a backend starts, compiles and computes on the CPU, in `deadline` seconds."""
    ((check, answer),) = answer_each(__name__, [backend, "cpu:0"], [STARTS[backend]], deadline, NO_GPU)
    return _result("cpu:0", check, answer)


def _result(device: str, check: str, answer: Mapping[str, Any]) -> ProbeResult:
    return ProbeResult(device, check, **{**answer, "log": error_lines(answer.get("log", ""), device)})


def main(backend: str, device: str, *checks: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run the checks in the child, and yield their results; stop after one that failed, since a CUDA error sticks."""
    for check in checks:
        start = time.monotonic()
        try:
            from alexnet_repro.verify.doctor import probes  # it imports NumPy, which may fail

            data, error = probes.run(backend, device, check), None
        except BaseException as failed:  # noqa: BLE001 - whatever it is, it is the result
            message, fix = explained(failed) or (f"{type(failed).__name__}: {str(failed)[:500]}", "")
            message = ", ".join([message, *getattr(failed, "__notes__", ())])
            data, error = {"fix": fix} if fix else {}, message
        yield check, {"error": error, "seconds": round(time.monotonic() - start, 3), "data": data}
        if error:
            return
