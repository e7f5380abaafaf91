"""The one way to time: warm, waited for at both ends, undisturbed by garbage, and held against reading the result."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any

import keras
from keras import ops

from alexnet_repro.backend import devices

MINIMUM_ROUNDS = 5
WARM_UP_SECONDS = 0.5  # a GPU's clocks take that long to rise
LOOKS_AGAIN = 3
ROWS = 3  # of rounds dispatched one after the other: the median of as many
SHORTEST_ROW = 2
LONG_ROW = 8  # rather one row of so many than several shorter ones: the wait at its end is a smaller part of it
IN_A_ROW = 0.25  # of the rounds are done again in rows


@dataclass(frozen=True)
class Measured:
    """What was timed."""

    result: Any
    """The very last round's."""
    rounds: list[float]
    """Seconds each; none where timing was off."""
    read_back: float
    """Seconds a round until its result was read, as `alexnet_repro.verify.benchmark.timing.Timing` has it."""
    first: float
    """Seconds of the very first round: tracing, compiling and choosing kernels, mostly."""
    pipelined: float | None = None
    """Seconds a round in a row, as `alexnet_repro.verify.benchmark.timing.Timing` has it."""
    began: float = 0.0
    """When the first timed round did, as `time.perf_counter` has it."""


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
        devices.synchronize(result)
        return result

    def before_round() -> None:
        gc.collect()  # quick: only what the last round has left
        devices.synchronize()
        starts.append(time.perf_counter())

    if benchmark.disabled:
        return Measured(benchmark.pedantic(one_round, (work,)), [], 0.0, 0.0)
    start = time.perf_counter()
    one_round(work)
    first = time.perf_counter() - start
    read_back = read_back_seconds(work)
    rounds, starts = max(MINIMUM_ROUNDS, least_rounds, ceil(seconds / read_back)), list[float]()
    with uncollected():
        # `setup` is outside the timed region: nothing is under way when a round starts, nor when it ends.
        result = benchmark.pedantic(
            one_round,
            (work,),
            setup=before_round,
            rounds=rounds,
            warmup_rounds=ceil(WARM_UP_SECONDS / read_back),
        )
    times, began = list(benchmark.stats.stats.data), starts[-rounds]
    for _ in range(LOOKS_AGAIN):  # the machine may have been busy with something else the first time
        if sorted(times)[len(times) // 2] >= read_back / 2:
            break
        read_back = min(read_back, read_back_seconds(work))
    pipelined = None
    if may_be_under_way(result):
        with uncollected():
            result, pipelined = in_rows(work, rounds, before_round)
    return Measured(result, times, read_back, first, pipelined, began)


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect garbage now, and then none that isn't asked for.

    What is alive at the start is set aside, so that `gc.collect` within looks at newer objects alone: microseconds,
    not the tenths of a second that all of a backend's objects take.
    """
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def may_be_under_way(result: Any) -> bool:
    """Return whether the device may still have been computing a result when it was returned: not arrays or numbers."""
    return any(map(ops.is_tensor, keras.tree.flatten(result)))


def in_rows(work: Callable[[], Any], rounds: int, before: Callable[[], None]) -> tuple[Any, float]:
    """Dispatch rounds of `work` one after the other and wait once, at the end of each row.

    Args:
        work: one round; returns without waiting for the device.
        rounds: how many were timed one by one; a share of `IN_A_ROW` of them is done again.
        before: called before each row.

    Returns:
        The last round's result, and the seconds a round: the median of the rows.
    """
    number = max(SHORTEST_ROW, int(IN_A_ROW * rounds))
    rows = min(ROWS, max(1, number // LONG_ROW))
    length, seconds = number // rows, []
    for _ in range(rows):
        before()
        start = time.perf_counter()
        for _ in range(length):
            result = work()
        devices.synchronize(result)
        seconds.append((time.perf_counter() - start) / length)
    return result, statistics.median(seconds)


def read_back_seconds(work: Callable[[], Any]) -> float:
    """Return the seconds a round of two until an element of the second's result is read: that needs no other wait."""
    start = time.perf_counter()
    work()
    for value in keras.tree.flatten(work()):
        # Copying all of a tensor would take its own time.
        ops.convert_to_numpy(ops.reshape(value, (-1,))[:1] if ops.is_tensor(value) else value)
    return (time.perf_counter() - start) / 2
