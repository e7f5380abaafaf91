"""A device's speed, and a whole fleet's, beside its own earlier runs: a step on a day, or a drift over weeks.

A quarter of `FleetSettings.false_alarms` is for what is judged here, shared by all devices that have a history, and
the fleet as a whole. The criteria and their error rates: docs/method/fleet.md.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from alexnet_repro.fleet.causes import Telemetry, fix_of
from alexnet_repro.fleet.cohorts import clean_levels
from alexnet_repro.fleet.records import Fleet, FleetDevice, FleetFinding, FleetRun, FleetSettings
from alexnet_repro.fleet.robust import EFFICIENCY, TAIL, Values, column_spreads, critical, medians, spread_of
from alexnet_repro.fleet.slowness import MIN_NODES
from alexnet_repro.verify.benchmark.noise import Spread, moderated
from alexnet_repro.verify.finding import Status

HISTORY_SHARE = 0.25  # of the false alarms
MIN_EARLIER = 5  # runs
MAX_SERIES = 60  # runs, the newest of them
_NOISY = 3.0  # a case noisier than the others by as much has no part in a run's shift
_MEDIAN_ERROR = math.sqrt(math.pi / 2)
_LIGHT_TAIL = 3 * TAIL  # of a single run that others may yet confirm
_COMMON = 0.8  # of a device's runs with its commonest case, that a case must have to be of its past
_DAYS_OF_DRIFT = 7.0  # a slope over less is a step
_SECONDS = 86400.0


class SpeedChange(NamedTuple):
    """How a series of runs grew slower; logarithms."""

    kind: str  # "step", "drift", or "newest": a step of the newest run alone, which further runs decide
    size: float  # of the step, or of the drift over the whole series
    bound: float
    place: int  # of a step, the first run after it
    slope: float = 0.0  # of a drift, per day


@dataclass
class _Series:
    """One device's runs in one environment, the oldest first."""

    rows: list[tuple[FleetRun, FleetDevice]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)  # in the cohort's arrays


def judge_history(fleet: Fleet, settings: FleetSettings) -> list[FleetFinding]:
    """Return the devices that are slower than they were: a step with its day, or a drift per week."""
    cohorts: dict[tuple[str, str], dict[str, _Series]] = defaultdict(dict)
    for node, runs in fleet.runs.items():
        for run in runs:
            for device in run.devices:
                if device.speed and len(device.cases):
                    name = device.serial or f"{node} {device.name}"
                    series = cohorts[device.kind, device.speed].setdefault(name, _Series())
                    series.rows.append((run, device))
    current = {id(run) for run in fleet.current}
    judged = {key: _with_history(every, current) for key, every in cohorts.items()}
    total = sum(len(some) + (len(some) >= MIN_NODES) for some in judged.values())  # devices, and the fleet as a whole
    found: list[FleetFinding] = []
    for key, some in judged.items():
        if some:
            found += _of_cohort(
                list(cohorts[key].values()), some, settings, HISTORY_SHARE * settings.false_alarms / total
            )
    return found


def _with_history(every: dict[str, _Series], current: set[int]) -> list[_Series]:
    for series in every.values():
        series.rows.sort(key=lambda row: row[0].started)
        del series.rows[:-MAX_SERIES]
    return [each for each in every.values() if len(each.rows) > MIN_EARLIER and id(each.rows[-1][0]) in current]


def _of_cohort(
    every: list[_Series], judged: list[_Series], settings: FleetSettings, chance: float
) -> list[FleetFinding]:
    values, raw = _shifts(every)
    spreads = moderated(
        [Spread(_noise(values[each.places]) ** 2, EFFICIENCY * (len(each.places) - 1) / 2) for each in judged]
    )
    smallest = math.log1p(settings.tolerance)
    found = _of_all(judged, raw, smallest, chance)
    for series, spread in zip(judged, spreads, strict=True):
        kept = [
            (row, place) for row, place in zip(series.rows, series.places, strict=True) if np.isfinite(values[place])
        ]
        if len(kept) <= MIN_EARLIER or not np.isfinite(values[series.places[-1]]):
            continue
        rows, places = [row for row, _ in kept], [place for _, place in kept]
        days = np.array([row[0].started.timestamp() / _SECONDS for row in rows])
        change = find_change(days, values[places], spread, smallest, chance)
        if change:
            found.append(_finding(rows, change))
    return found


def _of_all(judged: Sequence[_Series], raw: Values, smallest: float, chance: float) -> list[FleetFinding]:
    """Return how the devices as a whole grew slower: INCONCLUSIVE, for what all share may be no device's fault."""
    by_day: dict[str, list[tuple[FleetRun, FleetDevice, float]]] = defaultdict(list)
    for series in judged:
        for (run, device), place in zip(series.rows, series.places, strict=True):
            if np.isfinite(raw[place]):
                by_day[run.day].append((run, device, float(raw[place])))
    nodes = len({series.rows[-1][0].node for series in judged})
    each_day = [by_day[day] for day in sorted(by_day)]
    each_day = [some for some in each_day if len({run.node for run, *_ in some}) >= max(MIN_NODES, nodes / 2)]
    if len(each_day) <= MIN_EARLIER:
        return []
    values = np.array([float(np.median([shift for *_, shift in some])) for some in each_day])
    days = np.array([min(run.started for run, *_ in some).timestamp() / _SECONDS for some in each_day])
    spread = Spread(_noise(values) ** 2, EFFICIENCY * (len(values) - 1) / 2)
    change = find_change(days, values, spread, smallest, chance)
    if change is None:
        return []
    starts = [min(run.started for run, *_ in some) for some in each_day]
    numbers = np.stack(
        [medians(np.concatenate([_telemetry([row[:2]]) for row in some])[:, 0], 0)[None] for some in each_day]
    )
    return [_worded(starts, numbers, change, name=f"all {nodes} nodes", group=each_day[0][0][1].kind)]


def _shifts(every: Sequence[_Series]) -> tuple[Values, Values]:
    """Return each run's shift from its device's usual level, less that of all nodes on its day where enough ran.

    Second, the same with what all nodes had on that day.
    """
    rows = [row for series in every for row in series.rows]
    cases = {case: i for i, case in enumerate(dict.fromkeys(case for _, device in rows for case in device.cases))}
    levels = np.full((len(rows), len(cases)), math.nan)
    own, start = np.empty_like(levels), 0
    for series in every:
        series.places = list(range(start, start + len(series.rows)))
        for place, (_, device) in zip(series.places, series.rows, strict=True):
            levels[place, [cases[case] for case in device.cases]] = clean_levels(device.numbers)[0]
        mine = levels[series.places]
        counts = np.isfinite(mine).sum(0)
        own[series.places] = np.where(counts >= _COMMON * counts.max(), mine - medians(mine, 0), math.nan)
        start += len(series.rows)
    spreads = column_spreads(own)
    quiet = ~(spreads > _NOISY * medians(spreads, 0))
    raw = medians(own[:, quiet], 1)
    shifts = raw.copy()
    by_day: dict[str, list[int]] = defaultdict(list)
    for place, (run, _) in enumerate(rows):
        by_day[run.day].append(place)
    for places in by_day.values():
        if len({rows[place][0].node for place in places}) >= MIN_NODES:
            shifts[places] -= medians(shifts[places], 0)
    return shifts, raw


def _noise(values: Values) -> float:
    """Return a series' noise from its successive differences, which steps and drifts hardly move."""
    return float(np.nan_to_num(spread_of(np.diff(values[np.isfinite(values)])) / math.sqrt(2)))


def find_change(days: Values, values: Values, noise: Spread, smallest: float, chance: float) -> SpeedChange | None:
    """Return how a series grew slower, with `chance` of a change where there is none; None where it didn't.

    A step is the difference of the medians before and after a run, at the place beyond its bound that fits best; a
    drift is the slope of Theil and Sen. Where either is beyond noise, the smaller sum of absolute distances decides
    which it is, with a penalty for the step's place (Schwarz's criterion for Laplace's distribution).
    """
    count, sigma = len(values), math.sqrt(noise.variance)
    degrees = round(noise.degrees / EFFICIENCY) + 1
    steps = []
    for place in range(2, count):
        after, fewer = count - place, min(place, count - place)
        error = sigma * (1.0 if fewer == 1 else _MEDIAN_ERROR) * math.sqrt(1 / place + 1 / after)
        light = _LIGHT_TAIL if after == 1 else TAIL * (fewer + 1) / 2
        bound = max(smallest, critical(chance / 2 / count, degrees, light) * error)
        size_there = float(np.median(values[place:]) - np.median(values[:place]))
        if size_there > bound:
            steps.append((_distances(values, place), size_there, bound, place))
    first, second = np.triu_indices(count, 1)
    apart = days[second] - days[first]
    slopes = (values[second] - values[first])[apart > 0] / apart[apart > 0]
    slope = float(np.median(slopes)) if len(slopes) else 0.0
    span = float(days[-1] - days[0])
    scatter = float(np.sqrt(((days - days.mean()) ** 2).sum()))
    slope_error = sigma / scatter * span if scatter else math.inf
    slope_bound = max(smallest, critical(chance / 2, degrees, TAIL * count / 3) * slope_error)
    drifts = slope * span > slope_bound and span >= _DAYS_OF_DRIFT
    if not steps and not drifts:
        return None
    line = values - slope * days
    of_line = float(np.abs(line - np.median(line)).sum())
    best = min(range(1, count), key=lambda k: _distances(values, k))
    of_step = _distances(values, best)
    floor = 1e-9 + sigma * 1e-3
    # Twice the logarithm of Laplace's likelihood, and a parameter more: the step's place.
    prefers_step = 2 * count * math.log((of_line + floor) / (of_step + floor)) > math.log(count)
    if not prefers_step and (drifts or slope * span > smallest):
        return SpeedChange("drift", slope * span, slope_bound, 0, slope)
    if not steps:  # beyond noise as a slope alone, and yet a step
        return SpeedChange("step", float(np.median(values[best:]) - np.median(values[:best])), slope_bound, best)
    _, size, bound, place = min(steps)
    return SpeedChange("newest" if count - place == 1 else "step", size, bound, place)


def _distances(values: Values, place: int) -> float:
    before, after = values[:place], values[place:]
    return float(np.abs(before - np.median(before)).sum() + np.abs(after - np.median(after)).sum())


def _finding(rows: Sequence[tuple[FleetRun, FleetDevice]], change: SpeedChange) -> FleetFinding:
    run, device = rows[-1]
    starts = [each.started for each, _ in rows]
    return _worded(starts, _telemetry(rows), change, name=device.name, node=run.node, device=device.name)


def _worded(
    starts: Sequence[datetime], numbers: np.ndarray, change: SpeedChange, *, name: str, **where: Any
) -> FleetFinding:
    """Return the finding about one device, or about all nodes, which is no FAIL."""
    count, of_one = len(starts), "node" in where
    verb = "is" if of_one else "are"
    status: Status = "INCONCLUSIVE" if change.kind == "newest" or not of_one else "FAIL"
    data: dict[str, object] = {"change": change.kind, "runs": count}
    after = range(change.place, count) if change.kind != "drift" else range(2 * count // 3, count)
    causes = Telemetry(numbers).causes(list(after), "before")
    if change.kind == "drift":
        weekly = math.expm1(7 * change.slope)
        weeks = (starts[-1] - starts[0]).total_seconds() / _SECONDS / 7
        message = f"{name} {verb} {weekly:.1%} per week slower for {weeks:.1f} weeks (a drift)"
        data |= {"per_week": weekly, "weeks": weeks}
    elif change.kind == "step":
        day = _day(starts[change.place])
        message = f"{name} {verb} slower by {math.expm1(change.size):.1%} since {day} (a step)"
        data |= {"since": day}
    else:
        runs = "its newest run" if of_one else "their newest run"
        message = f"{name} {verb} {math.expm1(change.size):.1%} slower in {runs} than in {count - 1} before"
    if any(each.column == "load" for each in causes):
        status = "INCONCLUSIVE"
        message += ", something else ran on it" if of_one else ", something else ran on them"
    of_all = "" if of_one else "in the median "
    message = ", ".join([message, *(f"{of_all}{each.words}" for each in causes)])
    first = {
        "drift": "it wears, or dust and heat build up: compare its clock and temperature with those of the first run",
        "step": "find what changed on that day: firmware, cooling, neighbours, a replaced part",
        "newest": "run it twice more: if it stays, it is a step",
    }[change.kind]
    if not of_one:
        first = "find what changed for all of them: power cap, cooling, firmware, settings that aren't recorded"
    fix = "; ".join([first, fix_of(causes, where.get("device", ""))])
    evidence = f"{count} runs since {_day(starts[0])}; noise explains {math.expm1(min(change.bound, 50)):.1%}"
    return FleetFinding(
        "history",
        status,
        message,
        evidence=evidence,
        fix=fix,
        number=math.exp(change.size),
        bound=math.exp(min(change.bound, 50)),
        data=data | {"causes": [each.column for each in causes]},
        **where,
    )


def _telemetry(rows: Sequence[tuple[FleetRun, FleetDevice]]) -> np.ndarray:
    """Return the runs' numbers as `(runs, 1, columns)`: medians over cases."""
    return np.stack([medians(device.numbers.astype(np.float64), 0)[None] for _, device in rows])


def _day(when: datetime) -> str:
    return when.astimezone(UTC).date().isoformat()
