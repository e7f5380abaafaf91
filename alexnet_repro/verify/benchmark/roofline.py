"""The bottleneck of a case: compute, memory or launches, by the time of each at the device's own calibrated rates.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore
architectures", Communications of the ACM 52(4), 2009, with the time of a call and of its kernels' launches beside it.
"""

from math import prod
from typing import NamedTuple

from alexnet_repro import documented
from alexnet_repro.verify.benchmark.timing import Calibration

WEIGHTS = documented.TOTAL_PARAMETERS
ACTIVATIONS = prod(documented.INPUT_SHAPE) + sum(prod(row.output_shape) for row in documented.LAYERS)
BYTES = {"float32": 4, "tf32": 4, "mixed_bfloat16": 2, "mixed_float16": 2}
STEP_WEIGHTS = 6  # times they are moved: once forward and once back, gradients written and read, weights updated


class Work(NamedTuple):
    """The minimum work of a round."""

    flop: int
    bytes: int
    kernels: int


def forward(batch: int, precision: str) -> Work:
    """Return the work of inference: weights are moved once, activations written and read."""
    return Work(batch * documented.FORWARD_FLOP, BYTES[precision] * (WEIGHTS + 2 * ACTIVATIONS * batch), 20)


def train_step(batch: int, precision: str, updates: int = 1) -> Work:
    """Return the work of some updates; weights and their gradients are float32 in every precision.

    Activations are written and read, read again, and their gradients written and read: moved five times.
    """
    moved = 4 * STEP_WEIGHTS * WEIGHTS + BYTES[precision] * 5 * ACTIVATIONS * batch
    return Work(updates * batch * documented.TRAIN_STEP_FLOP, updates * moved, updates * 100)


def bottleneck(work: Work, seconds: float, precision: str, calibration: Calibration) -> str:
    """Return what takes most of a round's time: `compute`, `memory`, `launch`, or `other` if none explains half."""
    times = {
        "compute": work.flop / calibration.matmul[precision],
        "memory": work.bytes / calibration.memory,
        "launch": calibration.call_overhead + work.kernels * calibration.kernel_launch,
    }
    most = max(times, key=lambda name: times[name])
    return most if times[most] >= seconds / 2 else "other"
