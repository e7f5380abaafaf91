"""Noise between processes: each one's level and error, and a case's variance, moderated by the others'.

A process's *level* is the logarithm of the first decile of its rounds: whatever else runs on a machine only adds time,
so low quantiles repeat better than the median. Its *error* is that level's standard error, from the interquartile range
of its rounds. The variance between a case's few processes is *moderated*: the cases of one device lend each other
degrees of freedom, as genes do in limma (Smyth, Statistical Applications in Genetics and Molecular Biology 3(1), 2004).
Formulas, sources and measurements: docs/method/noise.md.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

MAX_ROUNDS = 50  # of a process: what is kept on file, and what is used of a run
QUANTILE = 0.1
_QUANTILE_ERROR = math.sqrt(QUANTILE * (1 - QUANTILE)) / 0.17550 / 1.349  # 0.17550: the normal density at its decile
MIN_CASES = 3  # that can lend each other degrees of freedom
MAX_BORROWED = 16.0
MIN_VARIANCE = 1e-12  # clocks have steps, so that processes may agree to the digit


class Level(NamedTuple):
    """One process's timing of one case."""

    log: float  # logarithm of seconds
    error: float  # its standard error from within the process


class Spread(NamedTuple):
    """Variance of a case's levels between processes, and its degrees of freedom."""

    variance: float
    degrees: float


def thinned(rounds: Sequence[float]) -> list[float]:
    """Return at most `MAX_ROUNDS` of the rounds, evenly through the run."""
    if len(rounds) <= MAX_ROUNDS:
        return [float(each) for each in rounds]
    places = np.linspace(0, len(rounds) - 1, MAX_ROUNDS)
    return [float(rounds[int(place)]) for place in places]


def level(rounds: Sequence[float]) -> Level:
    """Return the level of a process's rounds, thinned first, so that all are treated alike."""
    kept = sorted(thinned(rounds))
    first, low, third = (_quantile(kept, each) for each in (0.25, QUANTILE, 0.75))
    return Level(math.log(low), _QUANTILE_ERROR * ((third - first) / low) / math.sqrt(len(kept)))


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return what `numpy.quantile` returns, to the bit; of few numbers in a hundredth of its time."""
    place = (len(ordered) - 1) * share
    below = math.floor(place)
    low, high, weight = ordered[below], ordered[min(below + 1, len(ordered) - 1)], place - below
    return high - (high - low) * (1 - weight) if weight >= 0.5 else low + (high - low) * weight  # noqa: PLR2004


def moderated(spreads: Sequence[Spread]) -> list[Spread]:
    """Return the spreads moderated by each other; fewer than `MIN_CASES` stay as they are."""
    if len(spreads) < MIN_CASES:
        return list(spreads)
    variances = np.maximum([each.variance for each in spreads], MIN_VARIANCE)
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
    """Return y with trigamma(y) = value, which lies between 1/y and 1/y + 1/y²."""
    low, high = math.log(0.5 / value), math.log((1 + math.sqrt(1 + 4 * value)) / value)
    return math.exp(brentq(lambda log: float(polygamma(1, math.exp(log))) / value - 1, low, high))
