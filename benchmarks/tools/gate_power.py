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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from alexnet_repro.verify.benchmark import noise
from alexnet_repro.verify.benchmark.gate import (
    MEASUREMENTS_TO_FAIL,
    MIN_PROCESSES_TO_FAIL,
    GateCase,
    cases_to_remeasure,
    judge_speeds,
)
from alexnet_repro.verify.benchmark.noise import Level, level
from alexnet_repro.verify.benchmark.reference import Baseline, read_reference
from alexnet_repro.verify.benchmark.tolerances import Tolerances, read_tolerances

FOLDER = Path(__file__).parents[1] / "references"
RECORDED = FOLDER / "recorded_noise.json"
BLOCK = 4
RESAMPLED = 200  # levels of each process

Pool = list[list[list[Level]]]
"""By case and process: the levels of its resampled rounds."""


@dataclass(frozen=True)
class Outcome:
    """Outcomes of whole runs in which one case was slower, or none."""

    runs: int
    alarms: int
    """Runs with a FAIL of a case that wasn't slowed."""
    caught: int
    """Runs with a FAIL of the one that was."""
    passed: int
    """Runs in which that one passed; in the rest noise hid it."""
    remeasured: int
    """Runs with a re-measurement."""


def pool_of(baselines: Sequence[Baseline], random: np.random.Generator, deviation: float | None = None) -> Pool:
    """Return levels drawn from recorded rounds, scaled to a standard deviation between processes if one is given."""
    pool = []
    for baseline in baselines:
        logs = [np.log(rounds) for rounds in baseline.processes]
        middle = float(np.mean([level(rounds).log for rounds in baseline.processes]))
        found = float(np.std([level(rounds).log for rounds in baseline.processes], ddof=1))
        scale = deviation / found if deviation else 1.0
        pool.append([[_level(middle + scale * (each - middle), random) for _ in range(RESAMPLED)] for each in logs])
    return pool


def _level(logs: np.ndarray, random: np.random.Generator) -> Level:
    starts = random.integers(0, len(logs), -(-len(logs) // BLOCK))
    places = (starts[:, None] + np.arange(BLOCK)).ravel()[: len(logs)] % len(logs)
    return level(np.exp(logs[places]).tolist())


def simulate(
    pool: Pool,
    random: np.random.Generator,
    *,
    runs: int,
    cases: int,
    processes: int,
    slowdown: float = 0.0,
    tolerances: Tolerances = Tolerances(),  # noqa: B008 - frozen
) -> Outcome:
    """Return the outcomes of whole runs of `cases` cases; one of them, chosen by chance, is slowed throughout."""
    alarms = caught = passed = remeasured = 0
    for _ in range(runs):
        chosen = random.permutation(np.resize(random.permutation(len(pool)), cases))
        drawn = [_case(str(i), pool[which], random, processes) for i, which in enumerate(chosen)]
        slow = int(random.integers(cases))
        if slowdown:
            drawn[slow] = _slowed(drawn[slow], slowdown)
        found = judge_speeds(drawn, tolerances)
        first = [replace(each, measurements=each.measurements[:1]) for each in drawn]
        remeasured += bool(cases_to_remeasure(first, tolerances))
        failed = [each.status == "FAIL" for each in found]
        alarms += any(fail for i, fail in enumerate(failed) if i != slow or not slowdown)
        caught += failed[slow]
        passed += found[slow].status == "PASS"
    return Outcome(runs, alarms, caught, passed, remeasured)


def _case(name: str, levels: list[list[Level]], random: np.random.Generator, processes: int) -> GateCase:
    if len(levels) < processes + MEASUREMENTS_TO_FAIL:
        raise ValueError(f"{processes + MEASUREMENTS_TO_FAIL} recorded processes are needed, there are {len(levels)}")
    order = random.permutation(len(levels))[: processes + MEASUREMENTS_TO_FAIL]
    drawn = [levels[place][int(random.integers(RESAMPLED))] for place in order]
    return GateCase(name, "cpu:0", "", drawn[:processes], drawn[processes:])


def _slowed(case: GateCase, slowdown: float) -> GateCase:
    slowed = [each._replace(log=each.log + math.log1p(slowdown)) for each in case.measurements]
    return replace(case, measurements=slowed)


def share(count: int, runs: int) -> str:
    """Return a share with its 95 % interval (Clopper and Pearson, Biometrika 26, 1934)."""
    interval = binomtest(count, runs).proportion_ci()
    return f"{count / runs:6.1%} ({interval.low:.1%} to {interval.high:.1%})"


def table(baselines: Sequence[Baseline], arguments: argparse.Namespace) -> list[str]:
    """Return the lines: noise and cases, false alarms, and slowdowns caught or passed."""
    random, tolerances = np.random.default_rng(arguments.seed), read_tolerances(FOLDER / "tolerances.toml")
    head = f"{'noise':<10}{'cases':>6}  {'false alarms':<22}{'re-measured':>12}"
    lines = [f"{head}{'10 %: caught':>30}{'passed':>8}{'5 %: caught':>29}{'passed':>8}"]
    for deviation in (None, *arguments.noise):
        pool = pool_of(baselines, random, deviation)
        for cases in arguments.cases:
            options = {"runs": arguments.runs, "cases": cases, "processes": arguments.processes}
            same, ten, five = (
                simulate(pool, random, slowdown=slowdown, tolerances=tolerances, **options)
                for slowdown in (0.0, 0.10, 0.05)
            )
            name = f"{deviation:.1%}" if deviation else "recorded"
            lines.append(
                f"{name:<10}{cases:>6}  {share(same.alarms, same.runs):<22}{same.remeasured / same.runs:>12.1%}"
                f"{share(ten.caught, ten.runs):>30}{ten.passed / ten.runs:>8.1%}"
                f"{share(five.caught, five.runs):>29}{five.passed / five.runs:>8.1%}"
            )
    return lines


def repeatability(cases: dict[str, Baseline]) -> list[str]:
    """Return the standard deviation between recorded processes, by the quantile taken of their rounds."""
    takes = {"fastest": 0.0, "first decile": 0.1, "first quartile": 0.25, "median": 0.5}
    lines = [f"{'standard deviation between processes':<60}" + "".join(f"{name:>16}" for name in takes)]
    for case, baseline in cases.items():
        logs = [np.log([np.quantile(rounds, take) for rounds in baseline.processes]) for take in takes.values()]
        lines.append(f"{case:<60}" + "".join(f"{each.std(ddof=1):>16.1%}" for each in logs))
    return lines


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recorded", type=Path, default=RECORDED, metavar="FILE")
    parser.add_argument("--runs", type=int, default=1000, metavar="N", help="whole runs per figure (%(default)s)")
    parser.add_argument("--cases", type=int, nargs="+", default=[1, 6, 20, 46], metavar="N", help="of a run")
    parser.add_argument(
        "--processes", type=int, default=MIN_PROCESSES_TO_FAIL, metavar="N", help="of a reference (%(default)s)"
    )
    parser.add_argument("--noise", type=float, nargs="*", default=[0.008, 0.015], metavar="SHARE")
    parser.add_argument("--no-pooling", action="store_true", help="cases lend each other no degrees of freedom")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.no_pooling:
        noise.MAX_BORROWED = 0.0
    reference = read_reference(arguments.recorded)
    if reference is None:
        parser.error(f"there is no {arguments.recorded}")
    origins = dict.fromkeys(str(dict(each.provenance)) for each in reference.cases.values())
    print(f"{reference.device}; {', '.join(origins)}\n")
    print("\n".join(repeatability(dict(reference.cases))), end="\n\n")
    counts = f"references of {arguments.processes} processes, {MEASUREMENTS_TO_FAIL} measurements"
    print(f"{arguments.runs} whole runs per figure, {counts}")
    print("\n".join(table(list(reference.cases.values()), arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
