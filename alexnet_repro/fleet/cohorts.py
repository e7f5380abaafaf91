"""Devices that must be equally fast, gathered from runs as arrays: one kind, one environment."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_repro.fleet.records import CASE_NUMBERS, Fleet, FleetDevice, FleetRun
from alexnet_repro.fleet.robust import medians
from alexnet_repro.fleet.slowness import MAX_RUNS, MIN_NODES, Levels, by_node

_LEVEL, _ERROR, _INVALID = (CASE_NUMBERS.index(each) for each in ("level", "error", "invalid"))
MAX_LEVEL = 50.0  # of logarithms of seconds; beyond it is no timing
_SHOWN = 2  # differing keys in a cohort's name


@dataclass
class Timed:
    """One cohort."""

    kind: str
    environment: str
    name: str = ""
    members: list[tuple[FleetRun, FleetDevice]] = field(default_factory=list)
    cases: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    alone: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, bool))
    """`(cases,)`: of too few nodes to be compared, as those of a standard run among quick ones."""
    invalid: NDArray[np.bool_] = field(default_factory=lambda: np.empty((0, 0), bool))  # (devices, cases)
    numbers: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0, len(CASE_NUMBERS)), np.float32))
    levels: Levels = field(default_factory=lambda: Levels(np.empty((1, 0, 0)), np.empty((0, 0)), np.empty(0, np.intp)))


def timed_cohorts(fleet: Fleet) -> list[Timed]:
    """Return the cohorts of the current runs, with levels of earlier ones, by kind and the number of devices."""
    found: dict[tuple[str, str], Timed] = {}
    for run in fleet.current:
        for device in run.devices if run.complete else [each for each in run.devices if each.cases]:
            key = (device.kind, device.speed)
            found.setdefault(key, Timed(*key)).members.append((run, device))
    cohorts = sorted(found.values(), key=lambda each: (each.kind, -len(each.members), each.environment))
    _name(cohorts, fleet.environments)
    for cohort in cohorts:
        _fill(cohort, fleet)
    return cohorts


def earlier_runs(fleet: Fleet, run: FleetRun, device: FleetDevice) -> list[tuple[FleetRun, FleetDevice]]:
    """Return a device's earlier runs in the same environment, the newest first: by serial, else by name."""
    found = []
    for earlier in reversed(fleet.runs.get(run.node, [])):
        if earlier is run or earlier.started > run.started:
            continue
        same = [
            each
            for each in earlier.devices
            if each.kind == device.kind
            and each.speed == device.speed
            and (each.serial == device.serial if each.serial and device.serial else each.name == device.name)
        ]
        if len(same) == 1 and len(same[0].cases):
            found.append((earlier, same[0]))
    return found


def clean_levels(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the levels of valid timings, else NaN, and which timings aren't valid."""
    levels = numbers[..., _LEVEL].astype(np.float64)
    with np.errstate(invalid="ignore"):
        invalid = ~(np.abs(levels) < MAX_LEVEL) | (numbers[..., _INVALID] != 0)
    return np.where(invalid, math.nan, levels), invalid


def _fill(cohort: Timed, fleet: Fleet) -> None:
    cohort.cases = tuple(dict.fromkeys(case for _, device in cohort.members for case in device.cases))
    places = {case: i for i, case in enumerate(cohort.cases)}
    known = _Places(places)
    shape = (len(cohort.members), len(cohort.cases))
    numbers = np.full((*shape, len(CASE_NUMBERS)), math.nan, np.float32)
    timed = np.zeros(shape, bool)
    earlier: list[NDArray[np.float64]] = []
    days = {(0, row): run.day for row, (run, _) in enumerate(cohort.members)}
    for row, (run, device) in enumerate(cohort.members):
        at = known.of(device.cases)
        with np.errstate(over="ignore"):
            numbers[row, at] = device.numbers
        timed[row, at] = True
        if len(fleet.runs.get(run.node, ())) > 1:
            for back, (past, before) in enumerate(earlier_runs(fleet, run, device)[: MAX_RUNS - 1]):
                days[back + 1, row] = past.day
                if back >= len(earlier):
                    earlier.append(np.full(shape, math.nan))
                shared = [i for i, case in enumerate(before.cases) if case in places]
                earlier[back][row, [places[before.cases[i]] for i in shared]] = clean_levels(before.numbers[shared])[0]
    levels, invalid = clean_levels(numbers)
    errors = numbers[..., _ERROR].astype(np.float64)
    errors = np.where(np.isfinite(levels) & (errors >= 0) & (errors < 1), errors, math.nan)
    cohort.numbers, cohort.invalid = numbers, invalid & timed
    cohort.nodes = tuple(dict.fromkeys(run.node for run, _ in cohort.members))
    numbered = {node: i for i, node in enumerate(cohort.nodes)}
    nodes = np.array([numbered[run.node] for run, _ in cohort.members], np.intp)
    having_it = np.zeros((len(cohort.nodes), len(cohort.cases)), bool)
    np.logical_or.at(having_it, nodes, np.isfinite(levels))
    having = having_it.sum(0)
    cohort.alone = (having > 0) & (having < MIN_NODES) & bool((having >= MIN_NODES).any())
    stacked = np.stack([levels, *earlier])
    _as_on_the_newest_day(stacked, nodes, days)
    stacked[..., cohort.alone] = math.nan
    cohort.levels = Levels(stacked, np.where(cohort.alone, math.nan, errors), nodes)


def _as_on_the_newest_day(
    levels: NDArray[np.float64], nodes: NDArray[np.intp], days: Mapping[tuple[int, int], str]
) -> None:
    """Take off each earlier run what all were slower by on its day, where at least half of the nodes ran on it."""
    on_day = defaultdict(list)
    for place, day in days.items():
        on_day[day].append(place)
    newest = _centre(levels[0], nodes)
    moved = []
    for places in on_day.values():
        planes, rows = np.array(places).T
        earlier = planes > 0
        if earlier.any() and len(set(nodes[rows])) >= max(MIN_NODES, len(set(nodes)) / 2):
            by = np.nan_to_num(newest - _centre(levels[planes, rows], nodes[rows]))
            moved.append((planes[earlier], rows[earlier], by))
    for planes, rows, by in moved:
        levels[planes, rows] += by


def _centre(levels: NDArray[np.float64], nodes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the cases' medians over nodes; NaN where fewer than `MIN_NODES` have it."""
    names, numbers = np.unique(nodes, return_inverse=True)
    each = by_node(levels, numbers, len(names))
    return np.where(np.isfinite(each).sum(0) >= MIN_NODES, medians(each, 0), math.nan)


class _Places:
    """Columns of a device's cases; many devices have the same tuple."""

    def __init__(self, places: Mapping[str, int]) -> None:
        self._places = places
        self._known: dict[tuple[str, ...], NDArray[np.intp]] = {}

    def of(self, cases: tuple[str, ...]) -> NDArray[np.intp]:
        if cases not in self._known:
            self._known[cases] = np.array([self._places[case] for case in cases], np.intp)
        return self._known[cases]


def _name(cohorts: Sequence[Timed], environments: Mapping[str, Mapping[str, Any]]) -> None:
    """Name each by its kind, and where that isn't enough by what differs between environments."""
    by_kind = defaultdict(list)
    for cohort in cohorts:
        by_kind[cohort.kind].append(cohort)
    for kind, same in by_kind.items():
        flat = [dict(_flat(environments.get(each.environment, {}))) for each in same]
        keys = [
            key for key in dict.fromkeys(key for each in flat for key in each) if len({e.get(key) for e in flat}) > 1
        ]
        for number, (cohort, values) in enumerate(zip(same, flat, strict=True), 1):
            words = [f"{key.rpartition('.')[2]} {values.get(key, 'unknown')}" for key in keys[:_SHOWN]]
            cohort.name = kind if len(same) == 1 else f"{kind}, {', '.join(words) or f'environment {number}'}"
    names = [cohort.name for cohort in cohorts]
    for number, cohort in enumerate(cohorts, 1):
        if names.count(cohort.name) > 1:
            cohort.name = f"{cohort.name} ({number})"


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return what differs between two environments, as `driver 550.54, not 560.35`."""
    first, second = dict(_flat(one)), dict(_flat(other))
    return [
        f"{key.rpartition('.')[2]} {first.get(key, 'unknown')}, not {second.get(key, 'unknown')}"
        for key in dict.fromkeys([*first, *second])
        if first.get(key) != second.get(key)
    ]


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{before}{key}"
        found += _flat(value, f"{name}.") if isinstance(value, Mapping) else [(name, " ".join(str(value).split())[:60])]
    return found
