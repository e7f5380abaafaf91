"""Is a printed figure what was measured? A band at 95 %, and one of three verdicts."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import t

REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE = "reproduced", "not reproduced", "inconclusive"
NORMAL = 1.96  # two-sided, 95 %
MAX_BANDS = 3  # how far another seed may lie beyond the spread of the images, where only one was run


class Band(NamedTuple):
    """The interval in which one more such run lies 19 times out of 20, from a number of runs with a seed each.

    `half` is half its width, `alone` the same if seeds didn't differ.
    """

    middle: float
    half: float
    runs: int
    alone: float

    @property
    def ends(self) -> tuple[float, float]:
        """Its lower and upper end."""
        return self.middle - self.half, self.middle + self.half


def band(values: Sequence[float], spread: float, degrees: float = math.inf) -> Band:
    """Return the band of a figure that was printed of one run, from the values measured in runs of other seeds.

    `spread` is the standard deviation that the printed figure has of its own (mostly: which images were drawn), known
    with `degrees` of freedom. Of one run, the band is that of `spread` alone. Of several, the variance between runs
    is added: Student's interval for one more run, of variance `s² (1 + 1/n) + spread²`. Of the first term there are
    n − 1 degrees of freedom, of the second `degrees`, and of the sum those by Welch (1947) and Satterthwaite (1946).
    """
    n, middle = len(values), statistics.fmean(values)
    between = (1 + 1 / n) * statistics.variance(values, middle) if n > 1 else 0.0
    variance = between + spread**2
    uncertain = between**2 / max(1, n - 1) + spread**4 / degrees
    factor = float(t.ppf(0.975, variance**2 / uncertain)) if uncertain else NORMAL
    return Band(middle, factor * math.sqrt(variance), n, NORMAL * spread)


def binomial(share: float, images: int) -> float:
    """Return the standard deviation of a share of a number of images, each drawn anew with that chance."""
    return math.sqrt(share * (1 - share) / images)


def verdict(printed: float, found: Band) -> tuple[str, str]:
    """Return whether a printed figure is reproduced, and why: inside its band, it is; outside, it isn't.

    It is inconclusive where few seeds make the band more than `MAX_BANDS` times as wide as that of one, since almost
    anything is inside; and where only one seed was run and the figure is within `MAX_BANDS` bands, since what another
    seed gives isn't known.
    """
    off = abs(printed - found.middle)
    seeds = "one seed" if found.runs == 1 else f"{found.runs} seeds"
    if off <= found.half and found.runs > 1 and found.half > MAX_BANDS * found.alone:
        return INCONCLUSIVE, f"inside, but the band of {seeds} is too wide"
    if off <= found.half:
        return REPRODUCED, f"inside the band of {seeds}"
    if found.runs == 1 and off <= MAX_BANDS * found.half:
        return INCONCLUSIVE, "outside the band, but one seed doesn't show what others give"
    return NOT_REPRODUCED, f"{off:.4f} from what was measured, {seeds}"
