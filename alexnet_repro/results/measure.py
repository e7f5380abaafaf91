"""The one way to time: warm, synchronised at both ends, and checked against the time its result takes to be read."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

import keras
from keras import ops

from alexnet_repro.hardware import devices

MINIMUM_ROUNDS = 5
WARM_UP_SECONDS = 0.5  # a GPU's clocks take that long to rise
LOOKS_AGAIN = 3


@dataclass(frozen=True)
class Measured:
    """What was timed."""

    result: Any
    """The last round's."""
    rounds: list[float]
    """Seconds each; none where timing was off."""
    read_back: float
    """Seconds a round until its result was read, as `alexnet_repro.results.timing.Timing` has it."""
    first: float
    """Seconds of the very first round: tracing, compiling and choosing kernels, mostly."""


def measure(benchmark: Any, work: Callable[[], Any], *, least_rounds: int, seconds: float) -> Measured:
    """Time `work` with pytest-benchmark's fixture.

    Args:
        benchmark: the fixture.
        work: one round; returns tensors, arrays or numbers.
        least_rounds: and never fewer than `MINIMUM_ROUNDS`.
        seconds: how long to go on, at the least.
    """

    def one_round(work: Callable[[], Any]) -> Any:
        result = work()
        devices.synchronise(result)
        return result

    if benchmark.disabled:
        return Measured(benchmark.pedantic(one_round, (work,)), [], 0.0, 0.0)
    start = time.perf_counter()
    one_round(work)
    first = time.perf_counter() - start
    read_back = read_back_seconds(work)
    rounds = max(MINIMUM_ROUNDS, least_rounds, ceil(seconds / read_back))
    # `setup` is outside the timed region: nothing is under way when a round starts, nor when it ends.
    result = benchmark.pedantic(
        one_round,
        (work,),
        setup=devices.synchronise,
        rounds=rounds,
        warmup_rounds=ceil(WARM_UP_SECONDS / read_back),
    )
    times = list(benchmark.stats.stats.data)
    for _ in range(LOOKS_AGAIN):  # the machine may have been busy with something else the first time
        if sorted(times)[len(times) // 2] >= read_back / 2:
            break
        read_back = min(read_back, read_back_seconds(work))
    return Measured(result, times, read_back, first)


def read_back_seconds(work: Callable[[], Any]) -> float:
    """Return the seconds a round of two, of which the second's result is read: needing no other way to wait."""
    start = time.perf_counter()
    work()
    for value in keras.tree.flatten(work()):
        ops.convert_to_numpy(value)
    return (time.perf_counter() - start) / 2
