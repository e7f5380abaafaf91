"""Which devices, nodes and groups of nodes of one cohort are slow: pure functions of arrays of levels.

A device's *shift* is its levels' median distance to the cohort's centre, over the cases that aren't far noisier
than the others. What is beyond both noise and the tolerance is slow; a slow group's nodes are compared with each other,
and a slow node's devices aren't named one by one. The derivation is in docs/method/fleet.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from alexnet_repro.fleet.robust import (
    EFFICIENCY,
    TAIL,
    Values,
    column_spreads,
    critical,
    medians,
    spread_of,
    spread_of_two_speeds,
    tail_of,
)
from alexnet_repro.verify.benchmark.noise import Spread, moderated

PERHAPS, SLOW = 1, 2  # codes, and 0: as the others
MIN_NODES = 5  # of a cohort; of fewer the spread is a guess
MIN_ONE_RUN = 20  # nodes or independent devices by which one run may FAIL: fewer may all have the faster of two speeds
MIN_GROUP = 3  # nodes of a group, and of the others
MIN_TIMED = 3  # cases of a device by which it may FAIL: one or two may have two speeds
MAX_RUNS = 3  # of a device that must agree, the newest of them
SEEN = 0.95
FAST_SHARE = 0.2  # of nodes that are faster: the rest may be slow
_NOISY = 3.0  # a case noisier than the others by as much has no part in a device's shift
_MEDIAN_ERROR = math.sqrt(math.pi / 2)  # of a median to a mean's, of normal values
_FAR = 3.0  # spreads
_NODE_SHARE = 0.5  # of a node's shift, that each of its devices must have for the node to be slow
_SHARES = {"device": 5, "node": 3, "group": 1, "case": 1}  # of the budget, among those that there are
Mask = NDArray[np.bool_]


class Levels(NamedTuple):
    """One cohort's timings. NaN is what wasn't timed, or isn't valid."""

    levels: Values  # (runs, devices, cases): logarithms of seconds, the newest run first
    errors: Values  # (devices, cases): standard errors from within the newest run
    nodes: NDArray[np.intp]  # (devices,): each device's node, as a number from 0


class SlowGroup(NamedTuple):
    """A column's value whose nodes are slower than the others."""

    column: str
    value: str
    shift: float
    bound: float
    nodes: Mask


@dataclass
class Slowness:
    """What was found; logarithms. Codes are 0 (as the others), `PERHAPS` and `SLOW`."""

    ratios: Values  # (devices, cases): to the centre
    case_bounds: Values  # (devices, cases)
    case_codes: NDArray[np.int8]  # (devices, cases): a case by itself
    shifts: Values  # (devices,)
    bounds: Values  # (devices,): of one run
    suspect: Values  # (devices,): above it, further runs decide
    codes: NDArray[np.int8]  # (devices,)
    agreed: NDArray[np.int8]  # (devices,): runs by which a device is slow
    node_shifts: Values  # (nodes,)
    node_codes: NDArray[np.int8]  # (nodes,): of those with several devices
    groups: list[SlowGroup] = field(default_factory=list)
    two_speeds: list[int] = field(default_factory=list)  # cases
    centre: Values = field(default_factory=lambda: np.empty(0))  # (cases,)
    noise: float = math.nan  # standard deviation of a device's shift
    detectable: float = math.inf  # the smallest slowdown of a device that is seen 95 times in 100


def find_slow(
    timed: Levels,
    columns: Mapping[str, Sequence[str]],
    *,
    tolerance: float,
    chance: float,
) -> Slowness:
    """Return what is slow in a cohort; with `chance` of something slow where nothing is.

    `columns` have a value for each node, empty where it is unknown.
    """
    smallest = math.log1p(tolerance)
    count = int(timed.nodes.max()) + 1
    sizes = np.bincount(timed.nodes, minlength=count)
    newest = timed.levels[0]
    # Each node has one vote: a node's devices are first taken together.
    centre = medians(by_node(newest, timed.nodes, count) if sizes.max() > 1 else newest, 0)
    ratios = newest - centre
    spreads, degrees, tail = _case_spreads(ratios, timed)
    quiet = ~(spreads > _NOISY * medians(spreads, 0))
    runs = np.stack([medians((each - centre)[:, quiet], 1) for each in timed.levels])
    shifts = runs[0].copy()
    several = bool((sizes > 1).any())
    grouped = bool(columns) and count >= MIN_ONE_RUN
    chances = _shares(chance, {"device": True, "node": several, "group": grouped, "case": True})
    found = Slowness(
        ratios=ratios,
        case_bounds=np.full(ratios.shape, np.inf),
        case_codes=np.zeros(ratios.shape, np.int8),
        shifts=shifts,
        bounds=np.full(len(shifts), np.inf),
        suspect=np.full(len(shifts), np.inf),
        codes=np.zeros(len(shifts), np.int8),
        agreed=np.zeros(len(shifts), np.int8),
        node_shifts=medians_of_nodes(shifts, timed.nodes, count),
        node_codes=np.zeros(count, np.int8),
        centre=centre,
    )
    if count < MIN_NODES:
        return found
    floor, excess = _errors(timed, quiet)
    if grouped:
        found.groups = _groups(found.node_shifts, columns, smallest, chances["group"])
    moved = np.zeros(count)
    for group in found.groups:
        moved += np.where(group.nodes, group.shift, 0.0)
    own = runs - moved[timed.nodes]
    found.noise = max(spread_of_two_speeds(own[0]), floor)
    steady = max(_steady(own), floor)
    independent = _independent(own[0], timed.nodes, sizes) if several else count
    _judge_devices(
        found,
        own,
        timed,
        (found.noise, steady),
        excess,
        smallest=smallest,
        chance=chances["device"],
        independent=independent,
        one_run=independent >= MIN_ONE_RUN,
    )
    if several:
        _judge_nodes(found, own, timed.nodes, sizes, smallest=smallest, chance=chances["node"])
    _judge_cases(found, timed, spreads, (degrees, tail), smallest=smallest, chance=chances["case"], moved=moved)
    return found


def medians_of_nodes(values: Values, nodes: NDArray[np.intp], count: int) -> Values:
    """Return each node's median over its devices."""
    return by_node(values[:, None], nodes, count)[:, 0]


def by_node(values: Values, nodes: NDArray[np.intp], count: int) -> Values:
    """Return medians over each node's devices: `(devices, n)` to `(nodes, n)`."""
    order = np.argsort(nodes, kind="stable")
    sizes = np.bincount(nodes, minlength=count)
    places = np.arange(len(nodes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    cube = np.full((count, int(sizes.max()), values.shape[1]), np.nan)
    cube[nodes[order], places] = values[order]
    return medians(cube, 1)


def _shares(chance: float, used: Mapping[str, bool]) -> dict[str, float]:
    total = sum(_SHARES[name] for name, there in used.items() if there)
    return {name: chance * _SHARES[name] / total for name in used}


def _case_spreads(ratios: Values, timed: Levels) -> tuple[Values, float, float]:
    """Return each case's spread, moderated by the others', and no less than errors explain; degrees; and tails."""
    counts = np.isfinite(ratios).sum(0)
    errors = medians(timed.errors, 0)
    raw = np.fmax(column_spreads(ratios), np.nan_to_num(errors))
    known = np.flatnonzero((counts >= MIN_NODES) & np.isfinite(raw))
    spreads = np.full(len(raw), np.nan)
    shared = moderated([Spread(float(raw[i] ** 2), EFFICIENCY * (counts[i] - 1.0)) for i in known])
    spreads[known] = np.sqrt([each.variance for each in shared])
    standard = (ratios / spreads)[:, known]
    degrees = float(np.median([each.degrees for each in shared])) if shared else 1.0
    return spreads, degrees, tail_of(standard[np.isfinite(standard)])


def _errors(timed: Levels, quiet: Mask) -> tuple[float, Values]:
    """Return a shift's typical error from within a run, and the square of what each device's has beyond it."""
    errors = timed.errors[:, quiet]
    cases = np.maximum(1, np.isfinite(timed.levels[0][:, quiet]).sum(1))
    typical = medians(errors, 0)
    usual = float(np.median(cases))
    floor = _MEDIAN_ERROR * float(np.sqrt(np.nanmean(typical**2) / usual)) if np.isfinite(typical).any() else 0.0
    beyond = np.maximum(0.0, np.nan_to_num(errors) ** 2 - np.nan_to_num(typical) ** 2)
    return floor, _MEDIAN_ERROR**2 * beyond.sum(1) / cases**2


def _independent(shifts: Values, nodes: NDArray[np.intp], sizes: NDArray[np.intp]) -> int:
    """Return how many independent devices tell as much of the spread: a node's devices may be slow together."""
    count, size = len(sizes), float(np.median(sizes))
    centres = medians_of_nodes(shifts, nodes, count)
    within = spread_of(shifts - centres[nodes]) ** 2 * size / max(1.0, size - 1)
    between = max(0.0, spread_of(centres) ** 2 - _MEDIAN_ERROR**2 * within / size)
    alike = between / (between + within) if between + within else 1.0
    return max(count, int(len(shifts) / (1 + (size - 1) * alike)))


def _steady(own: Values) -> float:
    """Return the spread of shifts by which runs that agree are judged: of devices, or of a device's runs if it is more.

    Where each device keeps its speed from run to run, noise doesn't have two speeds.
    """
    if len(own) == 1:
        return spread_of_two_speeds(own[0])
    between = np.concatenate([one - other for one, other in pairwise(own)]) / math.sqrt(2)
    if (np.isfinite(own[0] - own[1])).sum() < MIN_NODES:  # only some were run again
        return spread_of_two_speeds(own[0])
    return max(spread_of(own[0]), spread_of_two_speeds(between))


def _judge_devices(
    found: Slowness,
    own: Values,
    timed: Levels,
    noise: tuple[float, float],
    excess: Values,
    *,
    smallest: float,
    chance: float,
    independent: int,
    one_run: bool,
) -> None:
    """Judge each device by its newest run, and by its newest `MAX_RUNS` runs, which must agree."""
    devices = int(np.isfinite(own[0]).sum())
    tail = tail_of(own[0] - np.nanmedian(own[0]))
    each_chance = chance / max(1, devices) / (1 + one_run)
    cases = np.isfinite(timed.levels[0]).sum(1)
    fewer = np.maximum(1.0, max(1.0, float(np.median(cases))) / np.maximum(cases, 1))
    single, agreeing = (critical(each_chance, independent, tail, runs) for runs in (1, MAX_RUNS))
    scale, steady = (np.sqrt(each**2 * fewer + excess) for each in noise)
    found.bounds = np.maximum(smallest, single * scale)
    found.suspect = np.maximum(smallest, min(single, agreeing) * steady)
    with np.errstate(invalid="ignore"):
        found.codes[own[0] > found.suspect] = PERHAPS
        if one_run:
            failed = (own[0] > found.bounds) & (cases >= MIN_TIMED)
            found.codes[failed], found.agreed[failed] = SLOW, 1
        if len(own) >= MAX_RUNS:
            failed = np.min(own[:MAX_RUNS], axis=0) > np.maximum(smallest, agreeing * steady)
            found.codes[failed], found.agreed[failed] = SLOW, MAX_RUNS
    seen = float(ndtri(SEEN)) * noise[1]
    found.detectable = math.expm1(max(smallest, min(single, agreeing) * noise[1]) + seen)


def _judge_nodes(
    found: Slowness, own: Values, nodes: NDArray[np.intp], sizes: NDArray[np.intp], *, smallest: float, chance: float
) -> None:
    """Judge nodes of several devices, all of which must be slower."""
    count = len(sizes)
    shifts = np.stack([medians_of_nodes(each, nodes, count) for each in own])
    several, one_run = sizes > 1, count >= MIN_ONE_RUN
    least = found.noise / math.sqrt(float(np.median(sizes)))
    noise, steady = max(spread_of_two_speeds(shifts[0]), least), max(_steady(shifts), least)
    each_chance = chance / several.sum() / (1 + one_run)
    tail = tail_of(shifts[0] - np.nanmedian(shifts[0]))
    single, agreeing = (critical(each_chance, count, tail, runs) for runs in (1, MAX_RUNS))
    with np.errstate(invalid="ignore"):
        codes = np.where(shifts[0] > max(smallest, min(single, agreeing) * steady), PERHAPS, 0)
        if one_run:
            codes[shifts[0] > max(smallest, single * noise)] = SLOW
        if len(own) >= MAX_RUNS:
            codes[np.min(shifts[:MAX_RUNS], axis=0) > max(smallest, agreeing * steady)] = SLOW
        slower = own[0] > _NODE_SHARE * shifts[0][nodes]
    slower |= ~np.isfinite(own[0])  # what wasn't timed says nothing
    of_devices = np.zeros(count, np.int8)
    np.maximum.at(of_devices, nodes, found.codes)
    suspected = np.bincount(nodes, found.codes > 0, count) == sizes  # each by itself
    codes = np.maximum(codes, np.where(suspected, of_devices, 0))
    together = np.bincount(nodes, slower, count) == sizes
    found.node_codes = np.where(several & together, codes, 0).astype(np.int8)


def _judge_cases(
    found: Slowness,
    timed: Levels,
    spreads: Values,
    known: tuple[float, float],
    *,
    smallest: float,
    chance: float,
    moved: Values,
) -> None:
    """Judge cases by themselves: slow only where `MAX_RUNS` runs agree, for a case may have two speeds."""
    offsets = moved[timed.nodes]
    ratios = found.ratios - offsets[:, None]
    cells = max(1, int(np.isfinite(ratios).sum()))
    typical = np.nan_to_num(medians(timed.errors, 0))
    beyond = np.maximum(0.0, np.nan_to_num(timed.errors) ** 2 - typical**2)
    scale = np.sqrt(np.nan_to_num(spreads, nan=np.inf) ** 2 + beyond)
    count = round(known[0] / EFFICIENCY) + 1
    single, agreeing = (critical(chance / cells / 2, count, known[1], runs) for runs in (1, MAX_RUNS))
    found.case_bounds = np.maximum(smallest, single * scale)
    with np.errstate(invalid="ignore"):
        slow = ratios > found.case_bounds
        found.case_codes[slow] = PERHAPS
        if len(timed.levels) >= MAX_RUNS:
            lowest = np.min(timed.levels[:MAX_RUNS] - found.centre, axis=0) - offsets[:, None]
            found.case_codes[lowest > np.maximum(smallest, agreeing * scale)] = SLOW
    apart = slow & (found.codes == 0)[:, None] & (found.node_codes == 0)[timed.nodes][:, None]
    timed_by = np.maximum(1, np.isfinite(ratios).sum(0))
    found.two_speeds = [int(i) for i in np.flatnonzero(apart.sum(0) >= np.maximum(3, 0.1 * timed_by))]


def _groups(shifts: Values, columns: Mapping[str, Sequence[str]], smallest: float, chance: float) -> list[SlowGroup]:
    """Return slow groups, the slowest first; each is then left out of account, for the next."""
    masks: dict[str, dict[str, Mask]] = {}
    known = np.isfinite(shifts)
    for column, values in columns.items():
        read = np.asarray(values)
        names, places, sizes = np.unique(read, return_inverse=True, return_counts=True)
        masks[column] = {
            str(name): (places == i) & known
            for i, name in enumerate(names)
            if name and sizes[i] >= MIN_GROUP and ((places == i) & known).sum() >= MIN_GROUP
            if (known & (places != i)).sum() >= MIN_GROUP
        }
    tests = sum(map(len, masks.values()))
    rest, slow = shifts.copy(), list[SlowGroup]()
    while len(slow) < tests:
        best: tuple[float, SlowGroup] | None = None
        for column, groups in masks.items():
            noise = _within(rest, groups)
            for value, nodes in groups.items():
                tested = _tested(rest, nodes, known & ~nodes, noise, chance / tests)
                bound = max(smallest, tested[1])
                if tested[0] > bound and (best is None or tested[0] / bound > best[0]):
                    best = (tested[0] / bound, SlowGroup(column, value, tested[0], bound, nodes))
        if best is None or any(each[:2] == best[1][:2] for each in slow):
            break
        slow.append(best[1])
        rest = rest - np.where(best[1].nodes, best[1].shift, 0.0)
    return slow


def _within(shifts: Values, groups: Mapping[str, Mask]) -> float:
    """Return the spread of nodes within their groups."""
    left = shifts - np.nanmedian(shifts)
    for nodes in groups.values():
        left[nodes] = shifts[nodes] - np.median(shifts[nodes])
    count, free = int(np.isfinite(left).sum()), int(np.isfinite(left).sum()) - len(groups)
    # A centre takes as much from its group's spread as a mean.
    return spread_of_two_speeds(left) * math.sqrt(count / max(1, free))


def _tested(shifts: Values, nodes: Mask, others: Mask, noise: float, chance: float) -> tuple[float, float]:
    """Return by how much a group's centre is slower than the others', and what noise explains."""
    size, rest = int(nodes.sum()), int(others.sum())
    shift = _centre(shifts[nodes], noise) - _centre(shifts[others], noise)
    error = noise * math.sqrt(1 / size + 1 / rest)
    return shift, critical(chance, size + rest, TAIL * (min(size, rest) + 1) / 2) * error


def _centre(values: Values, noise: float) -> float:
    """Return the mean of values no further from their median than noise is: a median jumps between two speeds."""
    middle, far = float(np.median(values)), _FAR * noise
    return float(np.clip(values, middle - far, middle + far).mean())
