"""A train step's times in one combination of determinism, precision and XLA, and what one combination costs."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from alexnet_repro.verify.finding import Number

COST_CONFIDENCE = 0.95
MAX_LOG = 700.0  # of what a file may state; its exponential is a number yet


@dataclass(frozen=True)
class OverheadCell:
    """A combination, and the seconds of an update at each visit; visits take turns among a precision's cells."""

    device: str
    precision: str
    deterministic: bool
    xla: bool
    batch: int
    seconds: Sequence[Number]
    why: str = ""  # there are no seconds

    @property
    def median(self) -> float:
        """Seconds; NaN where there are none."""
        return statistics.median(self.seconds) if self.seconds else math.nan


class Cost(NamedTuple):
    """What a combination takes beyond another, as a fraction of it, and how far noise may move that either way."""

    extra: float
    noise: float

    @property
    def seen(self) -> bool:
        """Whether it is more than noise."""
        return abs(self.extra) > self.noise


def cost(cell: OverheadCell, other: OverheadCell) -> Cost | None:
    """Return what `cell` costs beyond `other`, visit by visit; None where fewer than two visits can be compared.

    By the mean of the logarithms of the ratios, with its interval by Student's t: what slows both cells of a visit is
    in neither.
    """
    pairs = zip(cell.seconds, other.seconds, strict=False)
    logs = [math.log(one) - math.log(two) for one, two in pairs if 0 < one < math.inf and 0 < two < math.inf]
    if len(logs) < 2:  # noqa: PLR2004 - one has no spread
        return None
    from scipy.stats import t  # importing it takes a second

    half = float(t.ppf((1 + COST_CONFIDENCE) / 2, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Cost(*(math.expm1(min(each, MAX_LOG)) for each in (statistics.fmean(logs), half)))
