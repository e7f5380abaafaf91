"""The timer: warm, synchronized at both ends, undisturbed by garbage collection, and compared with a read-back."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any, NamedTuple

import keras
from keras import ops

from alexnet_repro.backend import devices
from alexnet_repro.verify.benchmark.timing import MAX_DECAY, MAX_NOISE, grows_slower, levels, relative_iqr

MIN_ROUNDS = 5
MIN_TO_PIPELINE = 12  # rounds, a quarter of which are pipelined
MAX_SECONDS_AGAIN = 2.0  # of rounds that are measured again
WARM_UP_SECONDS = 0.5  # a GPU's clocks take that long to rise


class Measured(NamedTuple):
    """A timing as it was measured: in seconds, as `alexnet_repro.verify.benchmark.timing.Timing` has them."""

    result: Any  # of the very last round
    rounds: list[float]
    read_back: float
    first: float
    pipelined: float | None = None
    began: float = 0.0  # when the timed rounds did, and
    ended: float = 0.0  # when they were over, as `time.perf_counter` has it
    measured: int = 1  # times, of which the last was calm, if any


def measure(work: Callable[[], Any], *, min_rounds: int, seconds: float, times: int = 1) -> Measured:
    """Time rounds of `work`, which returns tensors, arrays or numbers.

    There are at least `MIN_ROUNDS` and `min_rounds`, and as many as fill `seconds`. Where they are noisy or drift, and
    took `MAX_SECONDS_AGAIN` at most, they are measured up to `times` times: others' work may be over by then. The first
    calm measurement counts, unless it is slower than what was seen before it: then the work itself is slow at times.
    """
    kept = latest = _measure(work, min_rounds, seconds)
    fastest, count = min(levels(kept.rounds)), 1
    while count < times and not _calm(latest.rounds) and sum(kept.rounds) <= MAX_SECONDS_AGAIN:
        latest, count = _measure(work, len(kept.rounds), 0.0), count + 1
        if _calm(latest.rounds) and statistics.median(latest.rounds) <= MAX_DECAY * fastest:
            kept = latest._replace(first=kept.first)
        fastest = min(fastest, *levels(latest.rounds))
    return kept._replace(result=latest.result, measured=count)


def _calm(rounds: Sequence[float]) -> bool:
    return relative_iqr(rounds) <= MAX_NOISE and not grows_slower(rounds)


def _measure(work: Callable[[], Any], min_rounds: int, seconds: float) -> Measured:
    _, first = one_round(work)
    result, read_back = read_back_round(work)
    rounds, times = max(MIN_ROUNDS, min_rounds, ceil(seconds / read_back)), list[float]()
    with uncollected():
        for _ in range(ceil(WARM_UP_SECONDS / read_back) - 2):  # reading back took two rounds
            one_round(work)
        began = time.perf_counter()
        for _ in range(rounds):
            result, taken = one_round(work)
            times.append(taken)
        ended = time.perf_counter()
    for _ in range(3):  # the machine may have been busy with something else the first time
        if sorted(times)[len(times) // 2] >= read_back / 2:
            break
        result, again = read_back_round(work)
        read_back = min(read_back, again)
    pipelined = None
    # A device may still be computing tensors when they are returned; arrays and numbers it has finished.
    if any(map(ops.is_tensor, keras.tree.flatten(result))):
        pipelined = read_back  # of two rounds, where no more than two would be pipelined
        if rounds >= MIN_TO_PIPELINE:
            with uncollected():
                result, pipelined = pipelined_rounds(work, rounds)
    return Measured(result, times, read_back, first, pipelined, began, ended)


def one_round(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of `work` and its seconds; nothing is under way when it starts, nor when it ends."""
    before_round()
    start = time.perf_counter()
    result = work()
    devices.synchronize(result)
    return result, time.perf_counter() - start


def before_round() -> None:
    """Leave nothing for a round to collect, or to wait for."""
    gc.collect()  # quick: only what the last round has left
    devices.synchronize()


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect garbage now, and then only by `gc.collect`, among what was made since."""
    enabled = gc.isenabled()
    gc.collect()
    gc.freeze()  # a backend's objects take tenths of a second, those of a round microseconds
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def pipelined_rounds(work: Callable[[], Any], rounds: int) -> tuple[Any, float]:
    """Dispatch rounds of `work` one after the other, and synchronize once, at the end of each pipeline.

    A quarter of the `rounds` that were timed one by one are repeated. Returns the last round's result,
    and the seconds per round: the median of the pipelines.
    """
    number = rounds // 4
    pipelines = min(3, max(1, number // 8))  # rather one of 8 than several shorter: the wait at its end weighs less
    length, seconds = number // pipelines, []
    for _ in range(pipelines):
        before_round()
        start = time.perf_counter()
        for _ in range(length):
            result = work()
        devices.synchronize(result)
        seconds.append((time.perf_counter() - start) / length)
    return result, statistics.median(seconds)


def read_back_round(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of the second of two rounds, and the seconds per round until an element of it is read.

    Reading it needs no other wait.
    """
    start = time.perf_counter()
    work()
    result = work()
    for value in keras.tree.flatten(result):
        # Copying all of a tensor would take its own time.
        ops.convert_to_numpy(ops.reshape(value, (-1,))[:1] if ops.is_tensor(value) else value)
    return result, (time.perf_counter() - start) / 2
