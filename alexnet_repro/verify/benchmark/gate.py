"""The performance gate: is a run slower than its reference by more than noise? Pure functions from levels to findings.

A case has n >= 5 reference processes; their levels' mean m and moderated variance give the standard error `se` of a new
process of the same code. A case is slower only if it is so in `MEASUREMENTS_TO_FAIL` processes, this run's and fresh
ones: with x the level of the fastest of them, if

    x - m > bound,   bound = max(log(1 + min_slowdown), c(a/k) · se)

where c is Student's quantile for several measurements (`critical_t`), and a the false-alarm budget of the whole run,
shared by its k cases (Bonferroni). A slowdown that would be caught 95 times in 100 is *detectable*; if that is more
than the noise tolerated, the case is INCONCLUSIVE, not PASS. So is a slowdown on a busy machine, and whatever is found
by a reference that nothing can fail by: another virtual machine's, or one of fewer than `MIN_PROCESSES_TO_FAIL`
processes. Derivation, sources and error rates: docs/method/noise.md.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln, ndtr, roots_hermitenorm, stdtrit

from alexnet_repro.layout import update_command
from alexnet_repro.verify.benchmark.noise import Level, Spread, moderated
from alexnet_repro.verify.benchmark.timing import ALONE
from alexnet_repro.verify.benchmark.tolerances import Tolerances
from alexnet_repro.verify.finding import Finding, Status

MIN_PROCESSES = 5
MIN_PROCESSES_TO_FAIL = 8  # fewer may by chance all have the faster of two speeds
MEASUREMENTS_TO_FAIL = 3
POWER = 0.95
CONFIDENCE = 0.95  # of the interval around a ratio
SHARED_SHIFT = 0.5  # of a case's own slowdown: if the others moved by as much, this case isn't the cause
MIN_SHARED = 3
MAKE = f"{update_command('--benchmark-only')} # on an idle machine that passes; then keep the file"


@dataclass(frozen=True)
class GateCase:
    """One case: its reference processes, and this run's measurements."""

    name: str
    device: str
    precision: str
    reference: Sequence[Level]
    # Of this run's process, then of fresh ones; none: it wasn't timed, but its reference still shows the noise.
    measurements: Sequence[Level]
    recorded: str = ""  # the day
    busy: float = 0.0  # largest share of the machine's processors that something else took during a re-measurement
    elsewhere: bool = False  # the reference may be of another host: a virtual machine's, of before its last boot

    @property
    def weakness(self) -> str:
        """Why nothing can fail by its reference; empty if something can."""
        few = f"the reference has {len(self.reference)} processes, too few to fail by"
        other = "the reference is of another virtual machine, or of before this one's last boot, and hosts differ"
        reasons = (few if len(self.reference) < MIN_PROCESSES_TO_FAIL else "", other if self.elsewhere else "")
        return "; ".join(filter(None, reasons))


class _Shift(NamedTuple):
    """A case's shift against its reference, and its bounds, in logarithms."""

    case: GateCase
    shift: float  # of the fastest measurement
    error: float
    bound: float  # above it, the case is slower in all its measurements
    faster: float  # by how much a single measurement is faster beyond noise
    detectable: float  # the smallest slowdown that is caught 95 times in 100
    margin: float  # half the interval around the shift


def judge_speeds(cases: Sequence[GateCase], tolerances: Tolerances) -> list[Finding]:
    """Return the finding of each case that was timed; ValueError: a reference has fewer than `MIN_PROCESSES`."""
    shifts = _shifts(cases, tolerances)
    return [_finding(each, _shift_of_others(each, shifts), tolerances) for each in shifts]


def cases_to_remeasure(cases: Sequence[GateCase], tolerances: Tolerances) -> list[GateCase]:
    """Return the cases that were slower in each measurement so far, and may fail by another."""
    return [
        each.case
        for each in _shifts(cases, tolerances)
        if each.shift > each.bound
        and len(each.case.measurements) < MEASUREMENTS_TO_FAIL
        and len(each.case.reference) >= MIN_PROCESSES_TO_FAIL
    ]


def no_reference(names: Sequence[str], device: str, why: str) -> Finding:
    """Return the finding of cases without a reference: why, and how to make one."""
    what = names[0] if len(names) == 1 else f"{len(names)} cases"
    evidence = "" if len(names) == 1 else ", ".join(names)
    return Finding("speed", "INCONCLUSIVE", f"{what}: {why}", evidence, MAKE, device, data={"cases": list(names)})


@lru_cache(maxsize=4096)
def critical_t(chance: float, processes: int, degrees: int, measurements: int) -> float:
    """Return the c that each measurement's t exceeds by chance with a probability of `chance` in all.

    All measurements share the reference's mean and standard deviation; given both they are independent:

        P(every t > c) = E[(1 - Phi(c sqrt(1 + 1/n) sqrt(w) + z / sqrt(n)))^measurements],

    w ~ chi²(degrees) / degrees, z ~ N(0,1): Student's distribution for one; for several of equal correlation, Dunnett
    and Sobel, Biometrika 41, 1954.
    """
    scale, mean, weights = _nodes(degrees)
    spread = math.sqrt(1 + 1 / processes)

    def excess(c: float) -> float:
        beyond = ndtr(-(c * spread * scale + mean / math.sqrt(processes))) ** measurements
        return float((weights * beyond).sum()) - chance

    return float(brentq(excess, 0.0, 1e4, xtol=1e-6))


@cache
def _nodes(degrees: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return sqrt(w), z and their weights: the trapezoid rule over log w, which converges fast, and Gauss's over z."""
    half = degrees / 2
    wide = math.sqrt(80 / half)  # beyond it, the density is below 1e-17 of its peak
    logs = np.linspace(-wide - 40 / half, wide, 201)
    density = np.exp(half * (math.log(half) + logs - np.exp(logs)) - gammaln(half))
    z, of_z = roots_hermitenorm(20)
    return np.exp(logs / 2)[:, None], z[None, :], (density / density.sum())[:, None] * (of_z / of_z.sum())[None, :]


def _shifts(cases: Sequence[GateCase], tolerances: Tolerances) -> list[_Shift]:
    if short := [case.name for case in cases if len(case.reference) < MIN_PROCESSES]:
        raise ValueError(f"a reference has at least {MIN_PROCESSES} processes, not so {', '.join(short)}")
    chance = tolerances.false_alarms / max(1, sum(bool(case.measurements) for case in cases))
    spreads = _spreads(cases)
    return [_shift(case, spreads[case.name], tolerances, chance) for case in cases if case.measurements]


def _spreads(cases: Sequence[GateCase]) -> dict[str, Spread]:
    """Return each case's spread: moderated among the cases of its device, and no less than errors explain."""
    spreads: dict[str, Spread] = {}
    for device in dict.fromkeys(case.device for case in cases):
        group = [case for case in cases if case.device == device]
        variances = [float(np.var([each.log for each in case.reference], ddof=1)) for case in group]
        raw = [
            Spread(max(variance, _squared_error(case)), len(case.reference) - 1.0)
            for case, variance in zip(group, variances, strict=True)
        ]
        spreads |= {case.name: spread for case, spread in zip(group, moderated(raw), strict=True)}
    return spreads


def _squared_error(case: GateCase) -> float:
    """Return the mean square of the references' errors."""
    return statistics.fmean([each.error**2 for each in case.reference])


def _shift(case: GateCase, spread: Spread, tolerances: Tolerances, chance: float) -> _Shift:
    count, degrees = len(case.reference), int(spread.degrees)
    shift = min(each.log for each in case.measurements) - statistics.fmean([each.log for each in case.reference])
    excess = max(0.0, max(each.error**2 for each in case.measurements) - _squared_error(case))
    error = math.sqrt(spread.variance * (1 + 1 / count) + excess)
    smallest = math.log1p(tolerances.of(case.name)[0])
    bound, faster = (
        max(smallest, critical_t(chance, count, degrees, number) * error) for number in (MEASUREMENTS_TO_FAIL, 1)
    )
    detectable = bound + float(stdtrit(degrees, POWER ** (1 / MEASUREMENTS_TO_FAIL))) * error
    margin = float(stdtrit(degrees, (1 + CONFIDENCE) / 2)) * error
    return _Shift(case, shift, error, bound, faster, detectable, margin)


def _shift_of_others(one: _Shift, every: Sequence[_Shift]) -> float:
    """Return the median shift of the other cases of its device; 0 where there are too few."""
    shifts = [each.shift for each in every if each is not one and each.case.device == one.case.device]
    return statistics.median(shifts) if len(shifts) >= MIN_SHARED - 1 else 0.0


def _finding(found: _Shift, others: float, tolerances: Tolerances) -> Finding:
    case, ratio, detectable = found.case, math.exp(found.shift), math.expm1(found.detectable)
    change = f"{abs(ratio - 1):.1%} {'slower' if ratio >= 1 else 'faster'}"
    max_noise = tolerances.of(case.name)[1]
    status: Status = "PASS"
    message, fix, result = case.name, "", "same"
    if found.shift > found.bound:
        result = "slower"
        status, message, fix = _slower(found, change, others, tolerances.max_busy)
    elif detectable > max_noise:
        result = "noisy"
        status, fix = "INCONCLUSIVE", f"record a reference of more processes, with nothing else on the machine: {MAKE}"
        message += f": too noisy: smallest detectable slowdown {detectable:.0%} (required at most {max_noise:.0%})"
    elif found.shift < -found.faster:
        result = "faster"
        message, fix = f"{case.name} is {change} than its reference", f"keep it: {MAKE}"
    if case.weakness:
        # Not PASS, however fast it is: it couldn't have been FAIL.
        hint = "if it stays: python -m alexnet_repro doctor; " if result == "slower" else ""
        record = f"record a reference of this machine, of {MIN_PROCESSES_TO_FAIL} processes or more: {MAKE}"
        status, fix = "INCONCLUSIVE", f"{hint}{record}"
        message += f"{' is as fast as its reference' if result == 'same' else ''}; {case.weakness}"
    return Finding(
        "speed",
        status,
        message,
        f"{change} than {len(case.reference)} processes{f' of {case.recorded}' if case.recorded else ''}; "
        f"noise explains {math.expm1(found.bound):.1%}, and {POWER:.0%} of slowdowns by {detectable:.1%} are caught",
        fix,
        device=case.device,
        precision=case.precision,
        number=ratio,
        bound=math.exp(found.bound),
        case=case.name,
        data={
            "detectable": detectable,
            "error": found.error,
            "others": math.exp(others),
            "measurements": len(case.measurements),
            "result": result,  # slower, noisy, faster or same
            "can_fail": not case.weakness,
            "low": math.exp(found.shift - found.margin),  # the ratio's interval, by noise between processes alone
            "high": math.exp(found.shift + found.margin),
        },
    )


def _slower(found: _Shift, change: str, others: float, max_busy: float) -> tuple[Status, str, str]:
    """Return a slower case's status, message and fix: FAIL only where nothing else may be why."""
    case, count = found.case, len(found.case.measurements)
    status: Status = "FAIL" if count >= MEASUREMENTS_TO_FAIL else "INCONCLUSIVE"
    message = f"{case.name} is {change} than its reference, in {count} of {MEASUREMENTS_TO_FAIL} measurements"
    fix = f"{ALONE}; if it stays, bisect the change, or: python -m alexnet_repro doctor"
    if case.busy > max_busy:
        status = "INCONCLUSIVE"
        message += f", while something else took {case.busy:.0%} of the processors"
    if others > SHARED_SHIFT * found.shift:
        message += f", as are the others of {case.device} ({math.expm1(others):.1%} in the median)"
        message += ": the machine is slower, or busy, rather than this case"
    return status, message, fix
