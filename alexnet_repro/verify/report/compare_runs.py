"""Is one run faster than another? Ratios of medians, case by case, with what the rounds' spread allows to be said."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alexnet_repro.verify.report.read import Case, Results

MIN_ROUNDS = 5  # of four, even the fastest and the slowest leave the median out in one run of eight
RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0

Word = Literal["slower", "faster", "no difference seen", "too few rounds", "void"]


@dataclass(frozen=True)
class Ratio:
    """A case in two runs: the second's time over the first's. Above 1, the second is slower."""

    first: Case
    second: Case
    ratio: float
    """NaN where a run's speed is void."""
    low: float
    """The interval's ends; NaN where there are too few rounds for one."""
    high: float

    @property
    def word(self) -> Word:
        """What may be said of the second."""
        if math.isnan(self.ratio):
            return "void"
        if math.isnan(self.low):
            return "too few rounds"
        return "slower" if self.low > 1 else "faster" if self.high < 1 else "no difference seen"


@dataclass(frozen=True)
class Comparison:
    """Two runs, case by case."""

    ratios: tuple[Ratio, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]


def compare(first: Results, second: Results) -> Comparison:
    """Compare the cases of the same name, in the first run's order, and name those that one run alone has."""
    one = {each.case: each for each in first.timings}
    other = {each.case: each for each in second.timings}
    return Comparison(
        tuple(compare_case(one[case], other[case]) for case in one if case in other),
        tuple(case for case in one if case not in other),
        tuple(case for case in other if case not in one),
    )


def compare_case(first: Case, second: Case) -> Ratio:
    """Return the ratio of medians with a 95 % percentile-bootstrap interval (Efron and Tibshirani, 1993).

    Rounds are resampled within each run: the interval holds the spread of these rounds, and not what another
    run on another day would add.
    """
    nan = math.nan
    times = np.array([*first.rounds, *second.rounds])
    if first.void or second.void or not (np.isfinite(times).all() and (times > 0).all()):
        return Ratio(first, second, nan, nan, nan)
    ratio = second.median / first.median
    if min(len(first.rounds), len(second.rounds)) < MIN_ROUNDS:
        return Ratio(first, second, ratio, nan, nan)
    random = np.random.default_rng(SEED)
    under, over = _medians(first.rounds, random), _medians(second.rounds, random)
    low, high = np.quantile(over / under, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Ratio(first, second, ratio, float(low), float(high))


def _medians(rounds: Sequence[float], random: np.random.Generator) -> NDArray[np.float64]:
    """Return medians of resamples, without making those: the middle of `n` uniform draws has a beta distribution."""
    count = len(rounds)
    ordered, half = np.sort(np.asarray(rounds, np.float64)), count // 2

    def at(draws: NDArray[np.float64]) -> NDArray[np.float64]:
        chosen: NDArray[np.float64] = ordered[np.minimum((draws * count).astype(int), count - 1)]
        return chosen

    if count % 2:
        return at(random.beta(half + 1, half + 1, RESAMPLES))
    lower = random.beta(half, half + 1, RESAMPLES)
    upper = lower + (1 - lower) * random.beta(1, half, RESAMPLES)  # the least of the half that lies above
    return (at(lower) + at(upper)) / 2
