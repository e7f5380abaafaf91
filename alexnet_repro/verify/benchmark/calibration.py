"""Calibration: the rates that a device reaches in products, memory, copies and launches."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from functools import cache
from typing import Any, cast

import keras
import numpy as np
from keras import ops, random

from alexnet_repro.backend.devices import on_device, synchronize
from alexnet_repro.backend.limits import usable_processors
from alexnet_repro.backend.precision import PRECISIONS
from alexnet_repro.backend.precision import precision as numerics
from alexnet_repro.verify.benchmark.telemetry import Sampler, held_clock
from alexnet_repro.verify.benchmark.timing import Calibration
from alexnet_repro.verify.checks.registry import DEVICE_PRECISIONS

# Rows, terms and columns of the products: squares, and what the second convolution and the first dense layer come to.
PRODUCTS = {
    "cpu": ((2048, 2048, 2048), (4096, 4096, 4096), (8 * 676, 2400, 256), (128, 6400, 4096)),
    "gpu": ((4096, 4096, 4096), (8192, 8192, 8192), (512 * 676, 2400, 256), (512, 6400, 4096)),
}
WARM_UP, TIMED = 1, 4
MEMORY_BYTES = {"cpu": 1 << 28, "gpu": 1 << 30}  # far more than any cache holds
MEMORY_CALLS = {"cpu": 1, "gpu": 8}  # waited for once: a call takes a fifth of the time in which a GPU reads as much
COPIED_BYTES = 1 << 26
SAMPLED_EVERY = 0.02  # seconds
LINK = ("pcie_generation", "pcie_width")
KERNELS = 200  # in the chain, and calls of the shortest one


@cache
def calibrate(device: str, precisions: tuple[str, ...] = ()) -> Calibration:
    """Return the rates of a device, as `on_device` takes it, in these precisions, by default in all; measured once.

    A GPU is sampled meanwhile: at what clocks its power limit holds it, and what its link to the host has come to.
    """
    kind = device.partition(":")[0]
    matmul: dict[str, float] = {}
    clocks: dict[str, float] = {}
    with closing(Sampler(device, SAMPLED_EVERY)) if kind == "gpu" else nullcontext() as sampler:
        began = start = time.perf_counter()
        for name in precisions or DEVICE_PRECISIONS[kind]:
            matmul[name] = max(matmul_rate(device, name, shape) for shape in PRODUCTS[kind])
            end = time.perf_counter()
            if sampler and (clock := held_clock(sampler.between(start, end))):
                clocks[name] = clock
            start = end
        others = _other_rates(device)
        samples = sampler.between(began, time.perf_counter()) if sampler else {}
    generation, width = (max((int(each or 0) for each in samples.get(name, ())), default=0) or None for name in LINK)
    return Calibration(device, matmul, **others, clocks=clocks, pcie_generation=generation, pcie_width=width)


def _other_rates(device: str) -> dict[str, float]:
    """Return the rates of memory and of copies to the device and from it, and the seconds of a call and of a launch."""
    memory = memory_rates(device)
    to_device, to_host = copy_rates(device)
    with on_device(device):
        tiny, one, many = random.uniform((1,), seed=0), _chain(1), _chain(KERNELS)
        call_overhead = _best(lambda: one(tiny), KERNELS)
        # Not below 0: XLA fuses the chain on a CPU, where the launch is lost in noise.
        kernel_launch = max(0.0, (_best(lambda: many(tiny)) - call_overhead) / (KERNELS - 1))
    names = ("to_device", "to_host", "call_overhead", "kernel_launch")
    return memory | dict(zip(names, (to_device, to_host, call_overhead, kernel_launch), strict=True))


def memory_rates(device: str) -> dict[str, float]:
    """Return the best rates of a large array, in bytes/s: `memory` of an addition, `read` and `write`.

    It is read by a maximum, a sum and a product with a vector, of which a backend's best counts. On a CPU it is written
    in place: new memory comes page by page from the operating system, at a fraction of the rate.
    """
    kind = device.partition(":")[0]
    size, calls = MEMORY_BYTES[kind], MEMORY_CALLS[kind]
    with on_device(device):
        tensor = ops.reshape(ops.tile(random.uniform((1024,), dtype="float32", seed=0), size // 4096), (-1, 1024))
        row = ops.ones((1024, 1))
        readers = (lambda: ops.max(tensor), lambda: ops.sum(tensor), lambda: ops.matmul(tensor, row))
        memory = 2 * size / _best(lambda: ops.add(tensor, 1.0), calls=calls)
        read = size / min(_best(reader, calls=calls) for reader in readers)
        if kind == "cpu":
            write = size / _written_by_threads(np.empty(size // 4, np.float32))
        else:
            write = size / _best(lambda: ops.full(tensor.shape, 0.5), calls=calls)
    # Neither is slower than what an addition shows, which reads and writes.
    faster = max(1.0, memory / 2 * (1 / read + 1 / write))
    return {"memory": memory, "read": faster * read, "write": faster * write}


def _written_by_threads(array: np.ndarray) -> float:
    """Return the seconds in which each usable processor fills its part of an array, at best."""
    parts = np.array_split(array, usable_processors())
    with ThreadPoolExecutor(len(parts)) as threads:
        return _best(lambda: list(threads.map(lambda part: part.fill(0.5), parts)))


def copy_rates(device: str) -> tuple[float, float]:
    """Return the best rates of copies from NumPy to a device, and from it to NumPy, in bytes/s."""
    host = np.random.default_rng(0).integers(0, 256, COPIED_BYTES, np.uint8)
    with on_device(device):
        to_device = COPIED_BYTES / _best(lambda: _moved(host))
        # Each round has a tensor of its own: a backend may keep the host's copy with what it was copied from.
        there = iter([_moved(host) for _ in range(WARM_UP + TIMED)])
        return to_device, COPIED_BYTES / _best(lambda: _on_host(next(there), device.partition(":")[0]))


def matmul_rate(device: str, precision: str, shape: tuple[int, int, int]) -> float:
    """Return the best rate of a product of `(rows, terms)` by `(terms, columns)`, in FLOP/s.

    The operands are of the type that hidden layers compute in at this precision.
    """
    rows, terms, columns = shape
    dtype = PRECISIONS[precision][0].removeprefix("mixed_")
    with on_device(device), numerics(precision):
        # Drawn in float32: what is drawn in bfloat16 has 128 different values.
        a = ops.cast(random.uniform((rows, terms), -1.0, 1.0, "float32", seed=0), dtype)
        b = ops.cast(random.uniform((terms, columns), -1.0, 1.0, "float32", seed=1), dtype)
        return 2 * rows * terms * columns / _best(lambda: ops.matmul(a, b))


def _moved(host: np.ndarray) -> Any:
    # Added to, since a backend may take a NumPy array as it is.
    return ops.bitwise_or(ops.convert_to_tensor(host), np.uint8(0))


def _on_host(tensor: Any, kind: str) -> np.ndarray:
    """Return a copy on the host; `keras.ops.convert_to_numpy` copies what came from a GPU once more there."""
    if keras.backend.backend() == "torch":
        tensor = tensor.cpu()
    return np.array(tensor) if kind == "cpu" else np.asarray(tensor)  # on a CPU nothing else may copy


def _chain(kernels: int) -> Callable[[Any], Any]:
    """Return a function of `kernels` kernels, one after the other and none fused, run as a train step's are.

    On TensorFlow that is a graph without XLA, whose executor takes a little longer for each kernel than XLA's does;
    of products, since on a CPU it fuses what has one operand.
    On JAX barriers keep XLA from fusing on a GPU. On PyTorch Keras calls each operation.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

    def chain(x: Any) -> Any:
        product = x
        for _ in range(kernels):
            product = ops.multiply(product, x)
            if backend == "jax":
                product = jax.lax.optimization_barrier(product)
        return product

    if backend == "tensorflow":
        import tensorflow as tf

        return cast("Callable[[Any], Any]", tf.function(chain, autograph=False))
    return cast("Callable[[Any], Any]", jax.jit(chain)) if backend == "jax" else chain


def _best(work: Callable[[], Any], rounds: int = TIMED, calls: int = 1) -> float:
    """Return the seconds of a call in the fastest round of several, which are waited for once."""
    seconds = []
    for _ in range(WARM_UP + rounds):
        synchronize()
        start = time.perf_counter()
        for _ in range(calls - 1):
            work()
        synchronize(work())
        seconds.append((time.perf_counter() - start) / calls)
    return min(seconds[WARM_UP:])
