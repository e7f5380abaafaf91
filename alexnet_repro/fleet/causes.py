"""What goes with a slow device: which of its telemetry is out of line with its cohort's."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from alexnet_repro.fleet.records import CASE_NUMBERS
from alexnet_repro.fleet.robust import Values, medians, spread_of
from alexnet_repro.verify.benchmark.timing import ALONE, COMPARE_GPUS

_OUT_OF_LINE = 5.0  # spreads of the cohort's
_LOAD = "load"  # of others on a machine: their number has no usual spread, and any of them may be what slows it


class _Sign(NamedTuple):
    """A column of telemetry, and when it may be why a device is slow."""

    column: str
    words: str  # with this device's value and the others'
    side: int  # 1: slow with a higher value, -1: with a lower one, 0: with either
    least: float  # of a difference that matters, in the column's unit
    share: float  # of the others' value, likewise
    fix: str


_CLOCKS = "nvidia-smi -q -d CLOCK,PERFORMANCE,POWER # which limit holds its clock"
_COOLING = "check fans, air flow and power limit: nvidia-smi -q -d TEMPERATURE,POWER,PERFORMANCE"
_LINK = "nvidia-smi -q | grep -A9 'GPU Link Info' # then reseat the card, or set the slot's speed in the firmware"
_SIGNS = (
    _Sign("gpu_mhz", "its clock is {0:,.0f} MHz, {others} {1:,.0f}", -1, 15, 0.02, _CLOCKS),
    _Sign(
        "cpu_mhz",
        "its processor's clock is {0:,.0f} MHz, {others} {1:,.0f}",
        -1,
        50,
        0.02,
        "cpupower frequency-info",
    ),
    _Sign("throttled", "throttled in {0:.0%} of samples, {others} {1:.0%}", 1, 0.05, 0, _COOLING),
    _Sign("temperature", "its temperature is {0:.0f} °C, {others} {1:.0f}", 1, 5, 0, _COOLING),
    _Sign("watts", "it draws {0:,.0f} W, {others} {1:,.0f}", 0, 5, 0.05, _CLOCKS),
    _Sign("pcie_width", "its PCIe link has {0:.0f} lanes, {others} {1:.0f}", -1, 0.5, 0, _LINK),
    _Sign("pcie_generation", "its PCIe link is of generation {0:.0f}, {others} {1:.0f}", -1, 0.5, 0, _LINK),
    _Sign(_LOAD, "its load is {0:.1f}, {others} {1:.1f} (lower quartile)", 1, 1, 0.5, ALONE),
)


class Reading(NamedTuple):
    """One reading out of line."""

    column: str
    words: str
    fix: str


class Telemetry:
    """A cohort's telemetry: `(devices, columns)`, medians over cases, beside the cohort's."""

    def __init__(self, numbers: np.ndarray) -> None:
        """Take `(devices, cases, len(CASE_NUMBERS))`; NaN is what wasn't recorded."""
        self._columns = [CASE_NUMBERS.index(each.column) for each in _SIGNS]
        kept = numbers[:, :, self._columns].astype(np.float64)
        self._values: Values = medians(np.where(np.isfinite(kept), kept, math.nan), 1)
        self._load = [each.column for each in _SIGNS].index(_LOAD)
        self._spreads = np.array([spread_of(column) for column in self._values.T])

    def causes(self, devices: Sequence[int], others: str = "the others'") -> list[Reading]:
        """Return what is out of line in the median of some devices, in the order of `_SIGNS`; `others` in words."""
        values = medians(self._values[list(devices)], 0)
        # Of the others: a slow group's own readings aren't what it is compared with.
        rest = np.ones(len(self._values), dtype=bool)
        rest[list(devices)] = False
        compared = self._values[rest] if rest.any() else self._values
        centres = medians(compared, 0)
        loads = compared[:, self._load]
        if np.isfinite(loads).any():
            centres[self._load] = np.nanquantile(loads, 0.25)
        found = []
        for sign, value, centre, spread in zip(_SIGNS, values, centres, self._spreads, strict=True):
            away = value - centre
            enough = max(sign.least, sign.share * abs(centre))
            usual = 0.0 if sign.column == _LOAD else _OUT_OF_LINE * min(np.nan_to_num(spread), enough)
            if not math.isfinite(away) or abs(away) < max(enough, usual):
                continue
            if sign.side * away >= 0:
                found.append(Reading(sign.column, sign.words.format(value, centre, others=others), sign.fix))
        return found


def fix_of(causes: Sequence[Reading], device: str) -> str:
    """Return what to do about a slow device."""
    fixes = list(dict.fromkeys(each.fix for each in causes))
    otherwise = COMPARE_GPUS if device.startswith("gpu") else "compare its firmware's settings and memory modules"
    return "; ".join(fixes[:2]) or f"{ALONE}; if it stays: {otherwise}"
