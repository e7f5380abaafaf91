"""How far above its reference must a case be in each of several looks? Student's quantile, for looks that must agree.

A look is a new process's level x, held against the mean m and the standard deviation s, of `degrees` degrees of
freedom, of n others: t = (x - m) / (s sqrt(1 + 1/n)). All looks share m and s; given both they are independent, so that

    P(every t > c) = E[(1 - Phi(c sqrt(1 + 1/n) sqrt(w) + z / sqrt(n)))^looks], w ~ chi²(degrees) / degrees, z ~ N(0,1)

which is Student's distribution for one look, and what Dunnett and Sobel (Biometrika 41, 1954) give for equally
correlated t of several. Looks that must all agree need a far lower c, and tails that are heavier than the normal's
count a look at a time: what one busy process does by chance, three must do.
"""

import math
from functools import cache, lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln, ndtr, roots_hermitenorm

FARTHEST = 1e4  # standard errors


@lru_cache(maxsize=4096)
def critical(chance: float, processes: int, degrees: int, looks: int) -> float:
    """Return the c that every one of the looks is above by chance with a probability of `chance`."""
    scale, mean, weights = _nodes(degrees)
    spread = math.sqrt(1 + 1 / processes)

    def too_often(c: float) -> float:
        beyond = ndtr(-(c * spread * scale + mean / math.sqrt(processes))) ** looks
        return float((weights * beyond).sum()) - chance

    return float(brentq(too_often, 0.0, FARTHEST, xtol=1e-6))


@cache
def _nodes(degrees: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return sqrt(w), z and their weights: the trapezoid rule over log w, which converges fast, and Gauss's over z."""
    half = degrees / 2
    wide = math.sqrt(80 / half)  # beyond it, the density is below 1e-17 of its peak
    logs = np.linspace(-wide - 40 / half, wide, 201)
    density = np.exp(half * (math.log(half) + logs - np.exp(logs)) - gammaln(half))
    z, of_z = roots_hermitenorm(20)
    return np.exp(logs / 2)[:, None], z[None, :], (density / density.sum())[:, None] * (of_z / of_z.sum())[None, :]
