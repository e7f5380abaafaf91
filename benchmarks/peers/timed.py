"""How both sides are timed, and how they print it: pipelined steps, waited for at both ends of a round."""

import argparse
import gc
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

WARM_UP_SECONDS = 0.5  # a GPU's clocks take that long to rise


class Rows(NamedTuple):
    """How long a case is timed: minimum steps before the first round, rounds, and minimum steps per round."""

    warm_up: int
    rounds: int
    steps: int


def of_device(kind: str) -> Rows:
    """Return how long to time on `gpu`, where a step takes a few ms, and on `cpu`, where it takes a second."""
    return Rows(10, 5, 64) if kind == "gpu" else Rows(2, 5, 1)


def cases(doc: str | None, kind: str, **options: tuple[Iterable[str], Sequence[str]]) -> Iterator[tuple[Any, ...]]:
    """Return each combination of the command line's options, each of choices and defaults, and how long to time it."""
    usual = of_device(kind)
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=usual.rounds)
    parser.add_argument("--steps", type=int, default=usual.steps, help="per round, pipelined (%(default)s)")
    parser.add_argument("--batch", nargs="+", type=int, default=[128])
    for name, (choices, default) in options.items():
        parser.add_argument(f"--{name}", nargs="+", choices=choices, default=default)
    chosen = vars(parser.parse_args())
    rows = usual._replace(rounds=chosen["rounds"], steps=chosen["steps"])
    return itertools.product(*(chosen[name] for name in ("batch", *options)), (rows,))


def step_seconds(work: Callable[[], Any], wait: Callable[[Any], object], rows: Rows, updates: int = 1) -> list[float]:
    """Return the seconds per step of each round.

    `work` makes `updates` steps, and may return before the device has made them; `wait` returns once it has, given what
    `work` returned last.
    """
    wait(work())  # compiles
    made, began = updates, time.perf_counter()
    while made < rows.warm_up or time.perf_counter() - began < WARM_UP_SECONDS:
        wait(work())
        made += updates
    calls, seconds = math.ceil(rows.steps / updates), []
    gc.collect()
    gc.disable()
    for _ in range(rows.rounds):
        start = time.perf_counter()
        for _ in range(calls):
            result = work()
        wait(result)
        seconds.append((time.perf_counter() - start) / (calls * updates))
    gc.enable()
    return seconds


def say(what: str, batch: int, seconds: Sequence[float], **more: object) -> None:
    """Print a case as a line of JSON; without `seconds`, `more` says why there are none."""
    case = {"what": what, "batch": batch, **more}
    if seconds:
        median = statistics.median(seconds)
        case |= {"images/s": batch / median, "median": median, "seconds": list(seconds)}
    print(json.dumps(case), flush=True)


def reason(error: Exception) -> str:
    """Return why a case has no result, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
