"""How often does the gate raise an alarm, and what does it see? Simulated over recorded timings.

A simulated whole run draws, for each of its cases, reference processes and measurements from the recorded ones, none
twice, and for each of them rounds, with replacement in blocks of four: noise as it was recorded. With --noise,
each case's noise is scaled to that standard deviation between its processes, its shape kept. What was recorded is in
the file, and printed; more is recorded by

    python -m benchmarks.tools.make_reference --processes=16 --into=FILE --device=cpu:0 -k ...
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from alexnet_repro.verify.benchmark import gate, noise
from alexnet_repro.verify.benchmark.noise import Level, level
from alexnet_repro.verify.benchmark.reference import Baseline, read_reference
from alexnet_repro.verify.benchmark.tolerances import read_tolerances

FOLDER = Path(__file__).parents[1] / "references"
BLOCK = 4
RESAMPLED = 200  # levels of each process

Pool = list[list[list[Level]]]
"""By case and process: the levels of its resampled rounds."""


class Outcome(NamedTuple):
    """Numbers of whole runs in which one case was slower, or none."""

    alarms: int  # with a FAIL of a case that wasn't slowed
    caught: int  # with a FAIL of the one that was
    passed: int  # in which that one passed; in the rest noise hid it
    remeasured: int


def pool_of(baselines: Sequence[Baseline], random: np.random.Generator, deviation: float | None = None) -> Pool:
    """Return levels drawn from recorded rounds, scaled to a standard deviation between processes if one is given."""

    def drawn(logs: np.ndarray) -> Level:
        starts = random.integers(0, len(logs), -(-len(logs) // BLOCK))
        places = (starts[:, None] + np.arange(BLOCK)).ravel()[: len(logs)] % len(logs)
        return level(np.exp(logs[places]).tolist())

    pool = []
    for baseline in baselines:
        levels = [level(rounds).log for rounds in baseline.processes]
        middle = float(np.mean(levels))
        scale = deviation / float(np.std(levels, ddof=1)) if deviation else 1.0
        scaled = [middle + scale * (np.log(rounds) - middle) for rounds in baseline.processes]
        pool.append([[drawn(logs) for _ in range(RESAMPLED)] for logs in scaled])
    return pool


def simulate(
    pool: Pool, random: np.random.Generator, *, runs: int, cases: int, processes: int, slowdown: float = 0.0
) -> Outcome:
    """Return the outcomes of whole runs of `cases` cases; one of them, chosen by chance, is slowed throughout."""
    tolerances, outcomes = read_tolerances(FOLDER / "tolerances.toml"), []
    for _ in range(runs):
        chosen = random.permutation(np.resize(random.permutation(len(pool)), cases))
        drawn = [_case(str(i), pool[which], random, processes) for i, which in enumerate(chosen)]
        slow = int(random.integers(cases))
        slower = [each._replace(log=each.log + math.log1p(slowdown)) for each in drawn[slow].measurements]
        drawn[slow] = replace(drawn[slow], measurements=slower)
        found = gate.judge_speeds(drawn, tolerances)
        first = [replace(each, measurements=each.measurements[:1]) for each in drawn]
        remeasured = bool(gate.cases_to_remeasure(first, tolerances))
        failed = [each.status == "FAIL" for each in found]
        alarm = any(fail for i, fail in enumerate(failed) if i != slow or not slowdown)
        outcomes.append((alarm, failed[slow], found[slow].status == "PASS", remeasured))
    return Outcome(*map(sum, zip(*outcomes, strict=True)))


def _case(name: str, levels: list[list[Level]], random: np.random.Generator, processes: int) -> gate.GateCase:
    needed = processes + gate.MEASUREMENTS_TO_FAIL
    if len(levels) < needed:
        raise ValueError(f"{needed} recorded processes are needed, there are {len(levels)}")
    order = random.permutation(len(levels))[:needed]
    drawn = [levels[place][int(random.integers(RESAMPLED))] for place in order]
    return gate.GateCase(name, "cpu:0", "", drawn[:processes], drawn[processes:])


def share(count: int, runs: int) -> str:
    """Return a share with its 95 % interval (Clopper and Pearson, Biometrika 26, 1934)."""
    interval = binomtest(count, runs).proportion_ci()
    return f"{count / runs:6.1%} ({interval.low:.1%} to {interval.high:.1%})"


def table(
    baselines: Sequence[Baseline], runs: int, cases: Sequence[int], processes: int, noise: Sequence[float]
) -> str:
    """Return the lines: noise and cases, false alarms, and slowdowns caught or passed."""
    random = np.random.default_rng(0)
    head = f"{'noise':<10}{'cases':>6}  {'false alarms':<22}{'re-measured':>12}"
    lines = [f"{head}{'10 %: caught':>30}{'passed':>8}{'5 %: caught':>29}{'passed':>8}"]
    for deviation in (None, *noise):
        pool = pool_of(baselines, random, deviation)
        for count in cases:
            same, ten, five = (
                simulate(pool, random, runs=runs, cases=count, processes=processes, slowdown=each)
                for each in (0.0, 0.10, 0.05)
            )
            name = f"{deviation:.1%}" if deviation else "recorded"
            lines.append(
                f"{name:<10}{count:>6}  {share(same.alarms, runs):<22}{same.remeasured / runs:>12.1%}"
                f"{share(ten.caught, runs):>30}{ten.passed / runs:>8.1%}"
                f"{share(five.caught, runs):>29}{five.passed / runs:>8.1%}"
            )
    return "\n".join(lines)


def repeatability(cases: Mapping[str, Baseline]) -> str:
    """Return the standard deviation between recorded processes, by the quantile taken of their rounds."""
    takes = {"fastest": 0.0, "first decile": 0.1, "first quartile": 0.25, "median": 0.5}
    lines = [f"{'standard deviation between processes':<60}" + "".join(f"{name:>16}" for name in takes)]
    for case, baseline in cases.items():
        logs = [np.log([np.quantile(rounds, take) for rounds in baseline.processes]) for take in takes.values()]
        lines.append(f"{case:<60}" + "".join(f"{each.std(ddof=1):>16.1%}" for each in logs))
    return "\n".join(lines)


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recorded", type=Path, default=FOLDER / "recorded_noise.json", metavar="FILE")
    parser.add_argument("--runs", type=int, default=1000, metavar="N", help="whole runs per figure (%(default)s)")
    parser.add_argument("--cases", type=int, nargs="+", default=[1, 6, 20, 46], metavar="N", help="of a run")
    usual = gate.MIN_PROCESSES_TO_FAIL
    parser.add_argument("--processes", type=int, default=usual, metavar="N", help="of a reference (%(default)s)")
    parser.add_argument("--noise", type=float, nargs="*", default=[0.008, 0.015], metavar="SHARE")
    parser.add_argument("--no-pooling", action="store_true", help="cases lend each other no degrees of freedom")
    arguments = parser.parse_args()
    if arguments.no_pooling:
        noise.MAX_BORROWED = 0.0
    reference = read_reference(arguments.recorded)
    if reference is None:
        parser.error(f"there is no {arguments.recorded}")
    baselines, processes = list(reference.cases.values()), arguments.processes
    origins = dict.fromkeys(str(dict(each.provenance)) for each in baselines)
    print(f"{reference.device}; {', '.join(origins)}\n\n{repeatability(reference.cases)}\n")
    counts = f"references of {processes} processes, {gate.MEASUREMENTS_TO_FAIL} measurements"
    print(f"{arguments.runs} whole runs per figure, {counts}")
    print(table(baselines, arguments.runs, arguments.cases, processes, arguments.noise))
    return 0


if __name__ == "__main__":
    sys.exit(main())
