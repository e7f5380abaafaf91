"""Is this run slower than its reference by more than noise? Pure functions from processes' levels to findings.

For a case with n >= 5 reference processes of levels y (logarithms of seconds;
`alexnet_repro.verify.benchmark.noise`), of mean m
and standard deviation s, a new process of the same code has a level x, and

    t = (x - m) / se,   se² = v (1 + 1/n) + max(0, e_x² - e_y²)

has Student's distribution if levels are normal (Whitmore, "Prediction limits for a univariate normal observation",
The American Statistician 40, 1986). Here v is the moderated s², which has borrowed degrees of freedom from the other
cases on file for the device, but no less than e_y², the mean square of the references' own errors: processes can't
agree better than each is known. If this run's own error e_x is larger than theirs (fewer rounds, or a busier machine),
the excess is added.

One process may be slow by chance, and with far heavier tails than the normal's: something else ran beside it. So a
case is slower only if it is in `LOOKS` processes one after the other, this run's and fresh ones; most cases need but
the first. With x the fastest of the looks, a case is slower beyond noise if

    x - m > bound,   bound = max(log(1 + smallest slowdown), c(a/k) · se)

with c of `alexnet_repro.verify.benchmark.critical`, and the false-alarm budget a of the whole run shared by all its k
cases
(Bonferroni: no more than a, however cases depend on each other). A slowdown of `visible = exp(bound + t_q · se) - 1`,
q = 0.95^(1/looks), is seen in every look 95 times in 100; where that is more than the most noise tolerated, a case that
isn't slower is INCONCLUSIVE, not PASS. Where all cases of a device moved together, it is said so. No statistics tell a
neighbour that stays for minutes from a slowdown: where something else takes processors while one looks again, what is
slower is INCONCLUSIVE, not FAIL. Nor do they tell a virtual
machine's processors from those of the same name on a slower host: what is slower than another one's reference is
INCONCLUSIVE as well; its calibrated rates, held against nominal ones, have to tell. And where processes come in two
speeds, a few of them may all have the faster one: of less than `ENOUGH_PROCESSES` nothing fails (of five, 8 % of whole
runs of 46 cases as noisy as `recorded_noise.json` did; of eight 0.9 %).
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from alexnet_repro.verify.benchmark.critical import critical
from alexnet_repro.verify.benchmark.noise import Level, Spread, moderated
from alexnet_repro.verify.benchmark.tolerances import Rules
from alexnet_repro.verify.finding import Finding, Status

MIN_PROCESSES = 5
ENOUGH_PROCESSES = 8  # to fail: of fewer, all may be of the faster of two speeds by chance
LOOKS = 3
CAUGHT = 0.95
CONFIDENCE = 0.95  # of the interval around a ratio
TOGETHER = 0.5  # of a case's own slowdown: if the others moved by as much, it isn't the case
MIN_TOGETHER = 3
MAKE = "python -m benchmarks.tools.make_reference # on a quiet machine that is known to be right; then commit the file"
REPEAT = (
    "run it again with nothing else on the machine; if it stays, bisect the change, or python -m alexnet_repro doctor"
)


@dataclass(frozen=True)
class Case:
    """One case: what its reference processes took, and what this run took."""

    name: str
    device: str
    precision: str
    reference: Sequence[Level]
    looks: Sequence[Level]
    """Of this run's process, then of others; none: it wasn't timed, but still tells how much processes differ."""
    recorded: str = ""
    """The day."""
    busy: float = 0.0
    """The largest share of the machine's processors that something else took during a look."""
    elsewhere: bool = False
    """Whether the reference may be of another host: a virtual machine's, of before it started anew."""


@dataclass(frozen=True)
class _Moved:
    """A case with its shift and what it is held against, in logarithms."""

    case: Case
    shift: float
    """Of the fastest look."""
    error: float
    bound: float
    faster: float
    """What a single look would have to be faster by."""
    visible: float
    """The smallest slowdown that is caught 95 times in 100."""
    around: float
    """How far, either way, the interval around the shift reaches."""

    @property
    def suspect(self) -> bool:
        """Return whether it is slower in all its looks."""
        return self.shift > self.bound


def compare(cases: Sequence[Case], rules: Rules) -> list[Finding]:
    """Return what is to be said of each case that was timed, in their order.

    Raises:
        ValueError: a reference of fewer processes than `MIN_PROCESSES`.
    """
    moved = _all_moved(cases, rules)
    return [_finding(each, _others(each, moved), rules) for each in moved]


def suspects(cases: Sequence[Case], rules: Rules) -> list[Case]:
    """Return the cases that were slower in each look so far, and may fail by another."""
    return [
        each.case
        for each in _all_moved(cases, rules)
        if each.suspect and len(each.case.looks) < LOOKS and len(each.case.reference) >= ENOUGH_PROCESSES
    ]


def _all_moved(cases: Sequence[Case], rules: Rules) -> list[_Moved]:
    short = [case.name for case in cases if len(case.reference) < MIN_PROCESSES]
    if short:
        raise ValueError(f"a reference has at least {MIN_PROCESSES} processes, not so {', '.join(short)}")
    chance = rules.false_alarms / max(1, sum(bool(case.looks) for case in cases))
    return [
        _moved(case, spread, rules, chance) for case, spread in zip(cases, _spreads(cases), strict=True) if case.looks
    ]


def none_on_file(names: Sequence[str], device: str, why: str) -> Finding:
    """Return that cases have no reference to be compared with, why, and how to make one."""
    what = names[0] if len(names) == 1 else f"{len(names)} cases"
    evidence = "" if len(names) == 1 else ", ".join(names)
    return Finding("speed", "INCONCLUSIVE", f"{what}: {why}", evidence, MAKE, device)


def _spreads(cases: Sequence[Case]) -> list[Spread]:
    """Return each case's spread: moderated among the cases of its device, and no less than errors explain."""
    spreads: dict[str, Spread] = {}
    for device in dict.fromkeys(case.device for case in cases):
        together = [case for case in cases if case.device == device]
        raw = [
            Spread(max(_variance([each.log for each in case.reference]), _own(case)), len(case.reference) - 1.0)
            for case in together
        ]
        spreads |= {case.name: spread for case, spread in zip(together, moderated(raw), strict=True)}
    return [spreads[case.name] for case in cases]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    """Return what statistics.variance does, which takes fractions for it, and a hundred times as long."""
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _own(case: Case) -> float:
    """Return the mean square of the references' errors."""
    return _mean([each.error**2 for each in case.reference])


def _moved(case: Case, spread: Spread, rules: Rules, chance: float) -> _Moved:
    count, degrees = len(case.reference), int(spread.degrees)
    shift = min(look.log for look in case.looks) - _mean([each.log for each in case.reference])
    excess = max(0.0, max(look.error**2 for look in case.looks) - _own(case))
    error = math.sqrt(spread.variance * (1 + 1 / count) + excess)
    smallest = math.log1p(rules.of(case.name).smallest_slowdown)
    bound = max(smallest, critical(chance, count, degrees, LOOKS) * error)
    faster = max(smallest, critical(chance, count, degrees, 1) * error)
    visible = bound + float(stdtrit(degrees, CAUGHT ** (1 / LOOKS))) * error
    return _Moved(case, shift, error, bound, faster, visible, float(stdtrit(degrees, (1 + CONFIDENCE) / 2)) * error)


def _others(one: _Moved, moved: Sequence[_Moved]) -> float:
    """Return how far the other cases of its device moved, in the middle; 0 where there are too few to tell."""
    shifts = [each.shift for each in moved if each is not one and each.case.device == one.case.device]
    return statistics.median(shifts) if len(shifts) >= MIN_TOGETHER - 1 else 0.0


def _finding(moved: _Moved, others: float, rules: Rules) -> Finding:
    case, ratio, visible = moved.case, math.exp(moved.shift), math.expm1(moved.visible)
    much = f"{abs(ratio - 1):.1%} {'slower' if ratio >= 1 else 'faster'}"
    most = rules.of(case.name).most_noise
    status: Status = "PASS"
    message, fix = case.name, ""
    if moved.suspect:
        looks = len(case.looks)
        status = "FAIL" if looks >= LOOKS else "INCONCLUSIVE"
        message, fix = f"{case.name} is {much} than its reference, in {looks} of {LOOKS} looks", REPEAT
        if len(case.reference) < ENOUGH_PROCESSES:
            status, fix = "INCONCLUSIVE", f"of {ENOUGH_PROCESSES} processes or more: {MAKE}"
            message += f"; which is of {len(case.reference)} processes, too few to fail by"
        if case.busy > rules.most_busy:
            status = "INCONCLUSIVE"
            message += f", while something else took {case.busy:.0%} of the processors"
        if others > TOGETHER * moved.shift:
            message += f", as are the others of {case.device} ({math.expm1(others):.1%} in the middle)"
            message += ": the machine is slower, or busy, rather than this case"
        if case.elsewhere:
            status, fix = "INCONCLUSIVE", f"if it stays, python -m alexnet_repro doctor; of this machine: {MAKE}"
            message += "; it is of another virtual machine, or of before this one started anew, and hosts differ"
    elif visible > most:
        status, fix = "INCONCLUSIVE", f"with nothing else on the machine, of more processes: {MAKE}"
        message = f"{case.name}: noise hides what is slower by less than {visible:.0%}; {most:.0%} should be seen"
    elif moved.shift < -moved.faster:
        message, fix = f"{case.name} is {much} than its reference", f"keep it: {MAKE}"
    return Finding(
        "speed",
        status,
        message,
        f"{much} than {len(case.reference)} processes{f' of {case.recorded}' if case.recorded else ''}; noise explains "
        f"{math.expm1(moved.bound):.1%}, and {CAUGHT:.0%} of slowdowns by {visible:.1%} are caught",
        fix,
        device=case.device,
        precision=case.precision,
        number=ratio,
        bound=math.exp(moved.bound),
        case=case.name,
        data={
            "visible": visible,
            "error": moved.error,
            "others": math.exp(others),
            "looks": len(case.looks),
            "low": math.exp(moved.shift - moved.around),  # the ratio's interval, by noise between processes alone
            "high": math.exp(moved.shift + moved.around),
        },
    )
