"""What rate does a device reach on a plain product of matrices? The yardstick for everything timed."""

import time

import numpy as np
from keras import ops

from alexnet_repro.hardware.devices import on_device, synchronise
from alexnet_repro.hardware.precision import PRECISIONS
from alexnet_repro.hardware.precision import precision as numerics

SIDE = {"cpu": 2048, "gpu": 8192}  # large enough to be bound by arithmetic alone
WARM_UP, TIMED = 2, 5


def matmul_rate(device: str, precision: str, side: int | None = None) -> float:
    """Return the best of five square products' rates, in FLOP/s.

    Args:
        device: as `alexnet_repro.hardware.devices.on_device` takes it.
        precision: a name in `PRECISIONS`; the operands are of what hidden layers compute in.
        side: of the matrices; by default 2048 on a CPU, 8192 on a GPU.
    """
    side = side or SIDE[device.partition(":")[0]]
    dtype = PRECISIONS[precision][0].removeprefix("mixed_")
    with on_device(device), numerics(precision):
        a, b = (
            ops.cast(ops.convert_to_tensor(np.random.default_rng(i).standard_normal((side, side), np.float32)), dtype)
            for i in range(2)
        )
        seconds = []
        for _ in range(WARM_UP + TIMED):
            synchronise()
            start = time.perf_counter()
            synchronise(ops.matmul(a, b))
            seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds[WARM_UP:])
