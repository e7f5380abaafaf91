"""The gate, live: the same code against itself, and slowed by a tenth. Run by `python benchmarks/gate_power.py --live`.

The case is compiled inference of one image on one thread, tens of milliseconds a round. A fresh process for each of
hundreds of sessions would take an hour to import TensorFlow, so few processes live on, and each times a session of
rounds when it is told to: some for references, others for runs, whose looks are taken from one process after the other.
A new reference is made every thirty runs. Slowed runs come in between the others, each round lengthened to 1.1 or 1.05
times what it took, by waiting without sleep.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle

import numpy as np

from alexnet_repro.hardware.load import others, snapshot
from alexnet_repro.results.gate import Case, compare, suspects
from alexnet_repro.results.noise import level
from alexnet_repro.results.rules import read

ROUNDS = 25
LOOKING = 5  # processes
SAME, SLOWED, A_REFERENCE = 300, 60, 30
SLOWDOWNS = (1.10, 1.05)


class Worker:
    """A process that times a session when it is told to."""

    def __init__(self) -> None:
        """Start it; it has compiled when it answers."""
        alone = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.process = subprocess.Popen(  # noqa: S603 - this file
            [sys.executable, __file__],
            env={**os.environ, **alone, "CUDA_VISIBLE_DEVICES": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.session(1.0)

    def session(self, factor: float) -> tuple[list[float], float]:
        """Return the seconds of a session's rounds, each lengthened by a factor, and what share others took."""
        before = snapshot()
        print(factor, file=self.process.stdin, flush=True)
        rounds, own = json.loads(self.process.stdout.readline())
        after = snapshot()
        if before and after:
            after = replace(after, own=after.own + own)
        return rounds, others(before, after, os.cpu_count() or 1)

    def end(self) -> None:
        """End it, by the end of its input."""
        self.process.stdin.close()
        self.process.wait(60)


def live(processes: int) -> int:
    """Print what became of the runs; return the exit status: 1 if more alarms, or fewer slowdowns, than promised."""
    from gate_power import FOLDER, share

    rules = read(FOLDER / "rules.toml")
    counts = {factor: dict.fromkeys(("FAIL", "INCONCLUSIVE", "PASS"), 0) for factor in (1.0, *SLOWDOWNS)}
    references, lookers = [Worker() for _ in range(processes)], [Worker() for _ in range(LOOKING)]
    turns, visible, sessions, start = cycle(lookers), [], 0, time.monotonic()
    for number, factor in enumerate(_order()):
        if number % A_REFERENCE == 0:
            reference = [level(worker.session(1.0)[0]) for worker in references]
        case = Case("forward", "cpu:0", "float32", reference, [level(next(turns).session(factor)[0])])
        while suspects([case], rules):
            rounds, busy = next(turns).session(factor)
            case = replace(case, looks=[*case.looks, level(rounds)], busy=max(case.busy, busy))
        (finding,) = compare([case], rules)
        counts[factor][finding.status] += 1
        visible.append(finding.data["visible"])
        sessions += len(case.looks)
        if number % A_REFERENCE == A_REFERENCE - 1:
            print(f"{number + 1} runs, {time.monotonic() - start:.0f} s: {counts}", flush=True)
    for worker in (*references, *lookers):
        worker.end()
    print(f"\nreferences of {processes} processes, {sessions} looks; smallest slowdown seen 95 times in 100:")
    print("{:.1%} at best, {:.1%} in the middle, {:.1%} at worst".format(*np.quantile(visible, (0, 0.5, 1))))
    for factor, count in counts.items():
        runs = sum(count.values())
        print(
            f"{f'{factor - 1:.0%} slower' if factor > 1 else 'same code':<12}{runs:>4} runs: alarm "
            f"{share(count['FAIL'], runs)}, passed {count['PASS']}, too noisy or busy {count['INCONCLUSIVE']}"
        )
    kept = counts[1.0]["FAIL"] <= 0.01 * SAME and counts[1.10]["FAIL"] >= 0.95 * SLOWED
    print("as promised" if kept else "not as promised: more than 1 % alarms, or fewer than 95 % of 10 % caught")
    return 0 if kept else 1


def _order() -> Iterator[float]:
    """Yield the runs' factors: five of the same code, then a slowed one of each kind."""
    for _ in range(SLOWED):
        yield from (1.0,) * (SAME // SLOWED)
        yield from SLOWDOWNS


def work() -> None:
    """Time a session for each factor that comes in."""
    from keras import ops

    from alexnet_repro import build_alexnet
    from alexnet_repro.hardware.devices import synchronise

    model, image = build_alexnet(), ops.convert_to_tensor(np.zeros((1, 224, 224, 1), np.float32))
    for _ in range(5):
        synchronise(model.predict_on_batch(image))
    for line in sys.stdin:
        rounds, factor, before = [], float(line), time.process_time()
        for _ in range(ROUNDS):
            start = time.perf_counter()
            synchronise(model.predict_on_batch(image))
            end = start + factor * (time.perf_counter() - start)
            while time.perf_counter() < end:
                pass
            rounds.append(time.perf_counter() - start)
        print(json.dumps([rounds, time.process_time() - before]), flush=True)


if __name__ == "__main__":
    work()
