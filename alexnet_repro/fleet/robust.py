"""Robust spread, tails and bounds of many devices' values: what noise explains, however few are faulty.

Centre and spread are those that up to half of the values can't move: the median, and Qn (Rousseeuw and Croux, Journal
of the American Statistical Association 88, 1993). The tails beyond are Student's, no lighter than the values of the
fast side show: nothing that is slow can be seen there. Formulas and sources: docs/method/fleet.md.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrik, ndtri, stdtrit

Values = NDArray[np.float64]
TAIL = 4.0  # Student's degrees of freedom where nothing shows lighter tails
LIGHTEST = 50.0  # what may be shown
EFFICIENCY = 0.82  # of Qn: n values give its degrees of freedom
MAX_PAIRS_OF = 300  # values; of more the median absolute deviation is precise enough, and fast
_TAIL_QUANTILE = 0.97  # of the fast side, compared with its median
_TAIL_DOUBT = 0.05  # by chance, tails are thought lighter than they are
_GRID = (5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 15.0, 20.0, 30.0, LIGHTEST)
_NORMAL_QN = 2.2191  # of a normal's standard deviation to Qn's quartile of distances
_NORMAL_MAD = 1.4826
_NORMAL_QUARTILES = 1.349
MIN_QUARTILES = 8  # values
_SMALL_QN = (math.nan, math.nan, 0.399, 0.994, 0.512, 0.844, 0.611, 0.857, 0.669, 0.872)  # by n, Croux and Rousseeuw


def spread_of(values: Values) -> float:
    """Return the standard deviation of normal values, NaN left out, that outliers among them don't move; NaN of one."""
    kept = values[np.isfinite(values)]
    count = len(kept)
    if count <= 1:
        return math.nan
    if count > MAX_PAIRS_OF:
        return float(_NORMAL_MAD * np.median(np.abs(kept - np.median(kept))))
    distances = np.abs(kept[:, None] - kept)[np.triu_indices(count, 1)]
    half = count // 2 + 1
    place = half * (half - 1) // 2 - 1
    small = _SMALL_QN[count] if count < len(_SMALL_QN) else count / (count + (1.4 if count % 2 else 3.8))
    return float(_NORMAL_QN * small * np.partition(distances, place)[place])


def spread_of_two_speeds(values: Values) -> float:
    """Return `spread_of`, or what the quartiles show if that is more: noise may have two speeds, as hosts with others.

    Qn sees the spread within the speeds then. A quarter of slow values makes it as wide as a quarter at a second speed:
    in one run they are alike.
    """
    kept = values[np.isfinite(values)]
    if len(kept) < MIN_QUARTILES:
        return spread_of(values)
    first, third = np.quantile(kept, (0.25, 0.75))
    return max(spread_of(kept), float(third - first) / _NORMAL_QUARTILES)


def tail_of(values: Values) -> float:
    """Return Student's degrees of freedom that the fast side of values around zero shows; `TAIL` where it can't.

    A quantile far out is compared with the side's median; with 95 % confidence the tails are no heavier.
    """
    side = np.sort(-values[values < 0])
    count = len(side)
    place = math.ceil(float(bdtrik(1 - _TAIL_DOUBT, count, _TAIL_QUANTILE))) if count else 0
    if place >= count:
        return TAIL
    ratio = float(side[place] / np.median(side))
    return max((each for each in _GRID if _tail_ratio(each) >= ratio), default=TAIL)


@lru_cache
def _tail_ratio(degrees: float) -> float:
    return float(stdtrit(degrees, (1 + _TAIL_QUANTILE) / 2) / stdtrit(degrees, 0.75))


@lru_cache(maxsize=4096)
def critical(chance: float, count: int, tail: float, runs: int = 1) -> float:
    """Return how many spreads a value of `count` exceeds by chance with a probability of `chance`, in each of `runs`.

    Part of a device's value stays from run to run, as equal chips differ: normal, and of an unknown share. The rest is
    new in each run, and has the tails. A sum of both is over `sqrt(p² + t²)` spreads, whatever the shares, only if the
    part that stays is over p of its own, or the rest is over t of its own in every run.
    """
    degrees = max(1.0, EFFICIENCY * (count - 1))
    if runs == 1:
        return _student(chance, min(tail, degrees))
    stays = _student(chance / 2, degrees)
    return math.hypot(stays, _student((chance / 2) ** (1 / runs), min(tail, degrees)))


def _student(chance: float, degrees: float) -> float:
    """Return Student's quantile in units of the normal spread that has the same quartiles."""
    return -float(stdtrit(degrees, chance)) * float(ndtri(0.75)) / float(stdtrit(degrees, 0.75))


def column_spreads(values: Values) -> Values:
    """Return `spread_of_two_speeds` of each column of `(members, cases)`."""
    return np.array([spread_of_two_speeds(column) for column in values.T])


def medians(values: Values, axis: int) -> Values:
    """Return medians without the NaN; NaN where there is nothing else, without a warning."""
    if not values.shape[axis]:
        return np.full(np.delete(values.shape, axis), math.nan)
    ordered = np.sort(values, axis=axis)  # NaN come last
    counts = np.isfinite(values).sum(axis=axis, keepdims=True)
    low, high = np.maximum(counts - 1, 0) // 2, np.maximum(counts, 1) // 2
    low = np.minimum(low, values.shape[axis] - 1)
    high = np.minimum(high, values.shape[axis] - 1)
    both = np.take_along_axis(ordered, low, axis) + np.take_along_axis(ordered, high, axis)
    found: Values = np.where(counts > 0, both / 2, math.nan).squeeze(axis)
    return found
