"""Two runs compared case by case: ratios of median times, with bootstrap intervals of the rounds' spread."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alexnet_repro.verify.benchmark.timing import Timing
from alexnet_repro.verify.report.run_record import RunRecord

MIN_ROUNDS_TO_COMPARE = 5  # of four, even the fastest and the slowest leave the median out in one run of eight
RESAMPLES = 10_000


class Ratio(NamedTuple):
    """A case in two runs: the second's median time over the first's, and the ends of its 95 % interval.

    Above 1, the second is slower. NaN: the ratio where a run's timing is invalid, the ends where there are too few
    rounds as well.
    """

    first: Timing
    second: Timing
    ratio: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @property
    def result(self) -> Literal["slower", "faster", "no difference seen", "too few rounds", "invalid"]:
        """The second run, compared with the first."""
        if math.isnan(self.ratio):
            return "invalid"
        if math.isnan(self.low):
            return "too few rounds"
        return "slower" if self.low > 1 else "faster" if self.high < 1 else "no difference seen"


class Comparison(NamedTuple):
    """Two runs, case by case, and the cases that only one has."""

    ratios: Sequence[Ratio]
    only: Mapping[str, Sequence[str]]  # by run: `A` is the first, `B` the second


def compare(first: RunRecord, second: RunRecord) -> Comparison:
    """Compare the cases of the same name, in the first run's order, and name those that only one run has."""
    one = {each.case: each for each in first.timings}
    other = {each.case: each for each in second.timings}
    invalid = first.invalid | second.invalid
    return Comparison(
        [compare_case(one[case], other[case], invalid=case in invalid) for case in one if case in other],
        {"A": [case for case in one if case not in other], "B": [case for case in other if case not in one]},
    )


def compare_case(first: Timing, second: Timing, *, invalid: bool = False) -> Ratio:
    """Return the ratio of medians with a 95 % percentile-bootstrap interval (Efron and Tibshirani, 1993).

    Rounds are resampled within each run: the interval holds the spread of these rounds, not of other runs on other
    days. `invalid`: one of the two is no measurement.
    """
    times = np.array([*first.rounds, *second.rounds])
    if invalid or not (np.isfinite(times).all() and (times > 0).all()):
        return Ratio(first, second)
    ratio = second.median / first.median
    if min(len(first.rounds), len(second.rounds)) < MIN_ROUNDS_TO_COMPARE:
        return Ratio(first, second, ratio)
    random = np.random.default_rng(0)
    under, over = (_medians(each.rounds, random) for each in (first, second))
    low, high = np.quantile(over / under, (0.025, 0.975))
    return Ratio(first, second, ratio, float(low), float(high))


def _medians(rounds: Sequence[float], random: np.random.Generator) -> NDArray[np.float64]:
    """Return medians of resamples, without drawing those: the middle of `n` uniform draws has a beta distribution.

    `scipy.stats.bootstrap` draws them: 40 ms for 99 rounds, where this takes 1, and gigabytes for ten thousand.
    """
    count, half = len(rounds), len(rounds) // 2
    lower = upper = random.beta((count + 1) // 2, half + 1, RESAMPLES)
    if count % 2 == 0:
        upper = lower + (1 - lower) * random.beta(1, half, RESAMPLES)  # the smallest of the half that lies above
    places = np.minimum((np.array([lower, upper]) * count).astype(int), count - 1)
    medians: NDArray[np.float64] = np.sort(np.asarray(rounds, np.float64))[places].mean(0)
    return medians
