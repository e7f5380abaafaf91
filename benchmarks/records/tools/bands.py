"""Is a printed figure what was measured? A band at 95 %, and one of three verdicts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

REPRODUCED, NOT_REPRODUCED, UNKNOWN = "reproduced", "not reproduced", "can't be told"
NORMAL = 1.96  # two-sided, 95 %
WITHIN_REACH = 3  # bands: what another seed may do beyond the spread of the images, where only one was run


@dataclass(frozen=True)
class Band:
    """Where the same thing done once more would lie, 19 times of 20."""

    middle: float
    half: float
    runs: int
    """Of how many seeds."""
    alone: float
    """Its half, if seeds differed by nothing."""

    @property
    def ends(self) -> tuple[float, float]:
        """Its lower and upper end."""
        return self.middle - self.half, self.middle + self.half


def band(values: Sequence[float], spread: float, degrees: float = math.inf) -> Band:
    """Return the band of a figure that was printed of one run, from what was measured in several.

    Args:
        values: what was measured, a run each, of other seeds; one at least.
        spread: the standard deviation that the printed figure has of its own: which images were drawn, mostly.
        degrees: of freedom of that standard deviation.

    Of one run, the band is that of `spread` alone. Of several, what runs differ by comes on top: Student's interval
    for one more run, of variance `s² (1 + 1/n) + spread²`. Of the first term there are n − 1 degrees of freedom, of the
    second `degrees`, and of the sum those by Welch (1947) and Satterthwaite (1946).
    """
    n = len(values)
    middle = math.fsum(values) / n
    between = (1 + 1 / n) * math.fsum((value - middle) ** 2 for value in values) / max(1, n - 1)
    variance = between + spread**2
    uncertain = between**2 / max(1, n - 1) + spread**4 / degrees
    factor = float(stdtrit(variance**2 / uncertain, 0.975)) if uncertain else NORMAL
    return Band(middle, factor * math.sqrt(variance), n, NORMAL * spread)


def binomial(share: float, images: int) -> float:
    """Return the standard deviation of a share of so many images, each drawn anew with that chance."""
    return math.sqrt(share * (1 - share) / images)


def verdict(printed: float, found: Band) -> tuple[str, str]:
    """Return whether a printed figure is reproduced, and why: inside its band, it is.

    Outside it isn't, unless only one seed was run and the figure is within three bands: then it can't be told, for
    what another seed would give isn't known. Nor can it where a few seeds make the band more than three times as wide
    as that of one: almost anything is inside it.
    """
    off = abs(printed - found.middle)
    seeds = "one seed" if found.runs == 1 else f"{found.runs} seeds"
    if off <= found.half and found.runs > 1 and found.half > WITHIN_REACH * found.alone:
        return UNKNOWN, f"inside, but the band of {seeds} is too wide to tell"
    if off <= found.half:
        return REPRODUCED, f"inside the band of {seeds}"
    if found.runs == 1 and off <= WITHIN_REACH * found.half:
        return UNKNOWN, "outside the band, but one seed doesn't tell what others give"
    return NOT_REPRODUCED, f"{off:.4f} from what was measured, {seeds}"
