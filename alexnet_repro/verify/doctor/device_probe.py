"""Does TensorFlow compute right on a device? Each device is probed in a child process, with a deadline per check."""

import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from alexnet_repro.startup import explained
from alexnet_repro.verify.doctor.endings import error_lines
from alexnet_repro.verify.subprocesses import answer_each

MAX_ERROR = 0.5  # of sums of whole numbers up to 63


@dataclass(frozen=True)
class ProbeResult:
    """One check's result on one device; `error` is None if it passed."""

    device: str
    check: str
    error: str | None = None
    seconds: float = 0.0
    data: Mapping[str, Any] = field(default_factory=dict)
    log: str = ""  # its process's lines about errors


def probe_device(device: str, deadline: float, environ: Mapping[str, str] | None = None) -> Iterator[ProbeResult]:
    """Run every check, in `deadline` seconds each, and yield its result; after a failed one a new process continues.

    `device` is a name for the results, as `cpu:0` or `gpu:3`; of the GPUs, `environ` must show this one alone.
    """
    verbose = {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    first = device.partition(":")[0] + ":0"
    for check, answer in answer_each(__name__, [first], list(PROBES), deadline, {**verbose, **(environ or {})}):
        result = ProbeResult(device, check, **{**answer, "log": error_lines(answer.get("log", ""), device)})
        yield result
        if check in ("import", "devices") and result.error:
            return


def probe_start(backend: str, deadline: float) -> Iterator[ProbeResult]:
    """Yield whether a backend of Keras's starts, compiles and computes on the CPU, in `deadline` seconds."""
    environ = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu", "JAX_PLATFORM_NAME": "cpu"}
    for check, answer in answer_each(__name__, ["cpu:0"], [backend], deadline, environ):
        yield ProbeResult("cpu:0", check, **{**answer, "log": error_lines(answer.get("log", ""), "cpu:0")})


def main(device: str, *checks: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run the checks in the child, and yield their results; stop after one that failed, since a CUDA error sticks."""
    for check in checks:
        start = time.monotonic()
        try:
            data, error = (PROBES | STARTS)[check](device), None
        except BaseException as failed:  # noqa: BLE001 - whatever it is, it is the result
            message, fix = explained(failed) or (f"{type(failed).__name__}: {str(failed)[:500]}", "")
            data, error = {"fix": fix} if fix else {}, message
        yield check, {"error": error, "seconds": round(time.monotonic() - start, 3), "data": data}
        if error:
            return


def _devices(device: str) -> dict[str, Any]:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    names = [str(tf.config.experimental.get_device_details(gpu).get("device_name")) for gpu in gpus]
    if device.startswith("gpu") and not gpus:
        raise RuntimeError("TensorFlow doesn't see this GPU")
    return {"gpus": names, "tf32": tf.config.experimental.tensor_float_32_execution_enabled()}


def _matmul(device: str) -> dict[str, Any]:
    import numpy as np

    tf = _only(device)
    a, b = (np.random.default_rng(seed).integers(-7, 8, (256, 256)) for seed in (0, 1))
    with tf.device(device):  # small whole numbers: exact in every precision
        product = tf.linalg.matmul(tf.constant(a, tf.float32), tf.constant(b, tf.float32)).numpy()
    if wrong := int((product != a @ b).sum()):
        raise ArithmeticError(f"{wrong} of {product.size} products are wrong")
    return {}


def _convolution(device: str, *, xla: bool = False) -> dict[str, Any]:
    """Convolve with a box: each inner pixel is a sum of nine, whose order and precision hardly matter."""
    import numpy as np

    tf = _only(device)
    image = np.random.default_rng(0).integers(0, 8, (1, 32, 32, 1)).astype("float32")
    expected = sum(image[0, i : i + 30, j : j + 30, 0] for i in range(3) for j in range(3))
    convolve = tf.function(lambda x: tf.nn.conv2d(x, tf.ones((3, 3, 1, 1)), 1, "VALID"), jit_compile=xla)
    with tf.device(device):
        result = convolve(tf.constant(image)).numpy()[0, ..., 0]
    off = float(np.abs(result - expected).max())
    if not off <= MAX_ERROR:  # also for NaN
        raise ArithmeticError(f"off by {off:g}")
    return {}


def _only(device: str) -> Any:
    """Return TensorFlow, with no other device to fall back on."""
    import tensorflow as tf

    if device.startswith("cpu"):
        tf.config.set_visible_devices([], "GPU")
    tf.config.set_soft_device_placement(False)
    return tf


def _jax(_device: str) -> dict[str, Any]:
    import jax

    jax.jit(lambda: jax.numpy.zeros(1) + 1)().block_until_ready()
    return {}


def _torch(_device: str) -> dict[str, Any]:
    import torch

    torch.nn.functional.conv2d(torch.ones(1, 1, 9, 9), torch.ones(1, 1, 3, 3))
    return {}


STARTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "tensorflow": lambda device: _convolution(device, xla=True),
    "jax": _jax,
    "torch": _torch,
}
PROBES: dict[str, Callable[[str], dict[str, Any]]] = {
    "import": lambda _device: {"version": importlib.import_module("tensorflow").__version__},
    "devices": _devices,
    "matmul": _matmul,
    "convolution": _convolution,
    "xla": STARTS["tensorflow"],
}
