"""How much do processes of one case differ? Each as a level and an error, and what all cases together tell of one.

A process's *level* is the logarithm of the first decile of its rounds: whatever else runs on a machine only adds time,
so low quantiles repeat better than the median, and unlike the fastest round the decile of a case that is slower in nine
rounds of ten is slower too. (Measured, between 15 processes beside other jobs: 1.7 % for the decile of `draw_train`,
1.6 % for the fastest round, 4.4 % for the quartile, 8.9 % for the median; `benchmarks/tools/gate_power.py` prints it
anew.)
Its *error* is that level's standard error from the scatter of the process's rounds,

    error = sqrt(q (1 - q)) / phi(z_q) · IQR / (1.349 · first decile · sqrt(rounds)),  q = 0.1,

the asymptotic error of a quantile (Stuart and Ord, Kendall's Advanced Theory of Statistics 1, section 10.10) with
the normal density phi and its spread taken from the interquartile range, as McGill, Tukey and Larsen do for the
notches of box plots (The American Statistician 32, 1978). Where noise only adds, it is on the safe side.

Eight processes tell a variance with seven degrees of freedom only, for which Student's quantile at one in thousands is
above four. So the cases of one device lend each other degrees of freedom, as genes do in limma: variances s² of `d`
degrees are taken to scatter around a common s0² like an inverse chi² of `d0` degrees, both fitted by the moments of
log s² (Smyth, Statistical Applications in Genetics and Molecular Biology 3(1), 2004, section 6.2), and each becomes

    moderated s² = max(s², (d0 s0² + d s²) / (d0 + d))  with  min(d0, MOST_BORROWED) + d  degrees.

The maximum and the limit are Smyth's no more: they guard a case noisier than its fellows, and tails heavier than the
normal's, at the price of some power. With eight processes and 20 cases at 1 % of noise, 5 % is then caught 92 times in
100, and 86 times without (`benchmarks/tools/gate_power.py --cases 20 --noise 0.01`, and `--no-pooling`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, polygamma

MAX_ROUNDS = 50  # of a process: what is kept on file, and what is looked at in a run
QUANTILE = 0.1
_QUANTILE_ERROR = math.sqrt(QUANTILE * (1 - QUANTILE)) / 0.17550 / 1.349  # 0.17550: the normal density at its decile
MIN_CASES = 3  # that can lend each other anything
MAX_BORROWED = 16.0
SMALLEST = 1e-12  # a variance; clocks have steps, so that processes may agree to the digit


@dataclass(frozen=True)
class Level:
    """One process's timing of one case."""

    log: float
    """Of seconds."""
    error: float
    """Its standard error from within the process."""


@dataclass(frozen=True)
class Spread:
    """How far a process's level lies from its mean."""

    variance: float
    degrees: float


def thinned(rounds: Sequence[float]) -> list[float]:
    """Return at most `MAX_ROUNDS` of the rounds, evenly through the run."""
    places = np.linspace(0, len(rounds) - 1, min(MAX_ROUNDS, len(rounds)))
    return [float(rounds[int(place)]) for place in places]


def level(rounds: Sequence[float]) -> Level:
    """Return the level of a process's rounds, which are thinned first, so that all are treated alike."""
    kept = thinned(rounds)
    first, low, third = np.quantile(kept, (0.25, QUANTILE, 0.75))
    return Level(math.log(low), _QUANTILE_ERROR * float((third - first) / low) / math.sqrt(len(kept)))


def moderated(spreads: Sequence[Spread]) -> list[Spread]:
    """Return the spreads with what they lend each other; fewer than `MIN_CASES` stay as they are."""
    if len(spreads) < MIN_CASES:
        return list(spreads)
    variances = np.maximum([each.variance for each in spreads], SMALLEST)
    degrees = np.array([each.degrees for each in spreads])
    common, borrowed = _prior(variances, degrees)
    borrowed = min(borrowed, MAX_BORROWED)
    posterior = (borrowed * common + degrees * variances) / (borrowed + degrees)
    return [
        Spread(max(float(own), float(shared)), float(own_degrees) + borrowed)
        for own, shared, own_degrees in zip(variances, posterior, degrees, strict=True)
    ]


def _prior(variances: np.ndarray, degrees: np.ndarray) -> tuple[float, float]:
    """Return s0² and d0; d0 is infinite where the variances differ no more than their degrees explain."""
    half = degrees / 2
    logs = np.log(variances) - digamma(half) + np.log(half)
    excess = float(logs.var(ddof=1) - polygamma(1, half).mean())
    if excess <= 0:
        return math.exp(logs.mean()), math.inf
    half_prior = _inverse_trigamma(excess)
    return math.exp(logs.mean() + float(digamma(half_prior)) - math.log(half_prior)), 2 * half_prior


def _inverse_trigamma(value: float) -> float:
    """Return y with trigamma(y) = value, by Newton's method as in Smyth's appendix, which grows and converges."""
    if value > 1e7:  # noqa: PLR2004 - where 1/y² is all of trigamma(y)
        return 1 / math.sqrt(value)
    y = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, y))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, y))
        y += step
        if -step / y < 1e-8:  # noqa: PLR2004 - far below what a fitted variance is known to
            break
    return y
