"""What the plots read of a case, until they take `Timing` and the invalid cases themselves."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alexnet_repro.verify.benchmark.timing import Timing


@dataclass(frozen=True)
class Case(Timing):
    """A timing, and whether it is invalid."""

    void: bool = False


@dataclass(frozen=True)
class Rates:
    """Of a `Calibration`, what the roofline draws."""

    matmul: Mapping[str, float]
    memory: float


def numbers(values: Any) -> list[float]:
    """Return the numbers in a list that a finding keeps as data; none where it is anything else."""
    try:
        known = [math.nan if each is None else each for each in (values if isinstance(values, list) else ())]
        return [float(each) for each in known if not isinstance(each, bool)] if all(map(_is_number, known)) else []
    except OverflowError:
        return []


def _is_number(value: Any) -> bool:
    return (isinstance(value, int | float) and not isinstance(value, bool)) or value in ("nan", "inf", "-inf")
