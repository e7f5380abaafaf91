"""How often a fleet's comparison of speeds raises an alarm, and what it catches: whole fleets, simulated.

    python -m benchmarks.tools.fleet_power [--nodes=8,64,1000] [--fleets=1000] …

Devices' levels are resampled from recorded timings, those of one recorded process for all cases of a device, scaled to
a standard deviation; or drawn from Student's distribution with 4 degrees of freedom, half of the variance being common
to all cases of a run. docs/method/fleet.md explains the figures.
"""

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alexnet_repro.fleet import history, speed
from alexnet_repro.fleet.records import CASE_NUMBERS, Fleet, FleetDevice, FleetRun, FleetSettings
from alexnet_repro.fleet.slowness import MAX_RUNS, PERHAPS, SLOW, Levels, Slowness, find_slow
from alexnet_repro.verify.benchmark.reference import read_reference
from benchmarks.tools.gate_power import FOLDER, pool_of, share

SETTINGS = FleetSettings()
RECORDED = FOLDER / "recorded_noise.json"
RACK = 8  # nodes
RUNS = 14  # of a history, every third day
EVERY = 3  # days
STEP, STEP_RUNS = 0.06, 4  # a step's size, and the runs since
PER_WEEK = 0.02  # of a drift
Draw = Callable[[np.random.Generator, tuple[int, int, int]], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""From runs, devices and cases to levels and errors of that shape."""


class Fleets(NamedTuple):
    """A row's fleets."""

    nodes: int
    devices: int
    cases: int
    noise: str  # "recorded" or "student"
    deviation: float | None  # None: as recorded


@cache
def _pool(deviation: float | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return recorded levels and their errors, resampled: `(cases, processes, draws)`; each case around zero."""
    reference = read_reference(RECORDED)
    if reference is None:
        raise FileNotFoundError(RECORDED)
    pool = pool_of(list(reference.cases.values()), np.random.default_rng(0), deviation)
    count = min(len(case) for case in pool)
    levels = np.array([[[each.log for each in process] for process in case[:count]] for case in pool])
    errors = np.array([[[each.error for each in process] for process in case[:count]] for case in pool])
    return levels - np.median(levels, axis=(1, 2), keepdims=True), errors


def drawn(
    fleets: Fleets, random: np.random.Generator, runs: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return levels and errors of a healthy fleet: `(runs, nodes * devices, cases)`, and without the runs."""
    shape = (runs, fleets.nodes * fleets.devices, fleets.cases)
    if fleets.noise == "student":
        deviation = fleets.deviation or 0.01
        common, own = random.standard_t(4, size=(*shape[:2], 1)), random.standard_t(4, size=shape)
        return deviation / 2 * (common + own), np.full(shape[1:], deviation / 10)
    levels, errors = _pool(fleets.deviation)
    which = random.permutation(np.resize(random.permutation(len(levels)), fleets.cases))
    process = random.integers(levels.shape[1], size=(*shape[:2], 1))
    draw = random.integers(levels.shape[2], size=shape)
    return levels[which, process, draw], errors[which, process, draw][0]


def judged(fleets: Fleets, levels: NDArray[np.float64], errors: NDArray[np.float64]) -> Slowness:
    """Return what is slow in a fleet, by the budget that `judge_speed` has; with its racks as groups."""
    nodes = np.repeat(np.arange(fleets.nodes), fleets.devices)
    racks = [str(node // RACK) for node in range(fleets.nodes)]
    chance = speed.SPEED_SHARE * SETTINGS.false_alarms
    return find_slow(Levels(levels, errors, nodes), {"rack": racks}, tolerance=SETTINGS.tolerance, chance=chance)


def _alarm(found: Slowness) -> bool:
    codes = (found.codes, found.node_codes, found.case_codes)
    return bool(found.groups) or any(bool((each == SLOW).any()) for each in codes)


def _suspected(found: Slowness) -> bool:
    return bool((found.codes == PERHAPS).any() or (found.node_codes == PERHAPS).any() or (found.case_codes > 0).any())


class Healthy(NamedTuple):
    """Numbers of healthy fleets."""

    alarms: int
    inconclusive: int  # without an alarm: a device suspected, or too noisy
    noisy: int  # of these, those in which noise hides a slowdown by `max_noise`


def healthy(fleets: Fleets, count: int, random: np.random.Generator) -> Healthy:
    """Return how many of `count` healthy fleets raise an alarm, and how many are inconclusive."""
    alarms = inconclusive = noisy = 0
    for _ in range(count):
        found = judged(fleets, *drawn(fleets, random))
        hidden = found.detectable > SETTINGS.max_noise
        alarm = _alarm(found)
        alarms += alarm
        inconclusive += not alarm and (hidden or _suspected(found))
        noisy += not alarm and hidden
    return Healthy(alarms, inconclusive, noisy)


class Caught(NamedTuple):
    """Numbers of fleets in which one device is slow."""

    named: int  # FAIL or INCONCLUSIVE by its name, or the whole cohort is too noisy: not PASS
    failed: int  # FAIL by its name, by one run
    agreed: int  # FAIL by its name, by `MAX_RUNS` runs of each device


def caught(fleets: Fleets, count: int, random: np.random.Generator, slowdown: float) -> Caught:
    """Return what becomes of one device that is slow in all cases."""
    named = failed = agreed = 0
    for _ in range(count):
        levels, errors = drawn(fleets, random, MAX_RUNS)
        slow = int(random.integers(levels.shape[1]))
        levels[:, slow] += math.log1p(slowdown)
        one, all_runs = (judged(fleets, each, errors) for each in (levels[:1], levels))
        named += bool(one.codes[slow]) or one.detectable > SETTINGS.max_noise
        failed += bool(one.codes[slow] == SLOW)
        agreed += bool(all_runs.codes[slow] == SLOW)
    return Caught(named, failed, agreed)


def kinds(fleets: Fleets, count: int, random: np.random.Generator, slowdown: float) -> dict[str, int]:
    """Return how often one slow device, node or rack is named as what it is, and nothing else is."""
    right = dict.fromkeys(("device", "node", "rack"), 0)
    for kind in right:
        for _ in range(count):
            levels, errors = drawn(fleets, random)
            node = int(random.integers(fleets.nodes))
            first = {"device": node * fleets.devices, "node": node * fleets.devices}
            first["rack"] = node // RACK * RACK * fleets.devices
            size = {"device": 1, "node": fleets.devices, "rack": RACK * fleets.devices}[kind]
            levels[:, first[kind] : first[kind] + size] += math.log1p(slowdown)
            found = judged(fleets, levels, errors)
            codes = np.where(found.node_codes[np.repeat(np.arange(fleets.nodes), fleets.devices)] > 0, 0, found.codes)
            seen = {
                "device": list(np.flatnonzero(codes == SLOW)),
                "node": list(np.flatnonzero(found.node_codes == SLOW)),
                "rack": [int(each.value) for each in found.groups],
            }
            wanted = {"device": first["device"], "node": node, "rack": node // RACK}[kind]
            right[kind] += all(seen[each] == ([wanted] if each == kind else []) for each in seen)
    return right


def _history_of(fleets: Fleets, random: np.random.Generator, added: NDArray[np.float64]) -> Fleet:
    """Return a fleet of `RUNS` runs every third day; `added` to the first device's levels, the oldest run first."""
    fleet, start = Fleet(), datetime(2026, 1, 5, 6, tzinfo=UTC)
    levels, errors = drawn(fleets, random, RUNS)
    levels[:, 0] += added[:, None]
    numbers = np.zeros((*levels.shape, len(CASE_NUMBERS)))
    numbers[..., CASE_NUMBERS.index("level")] = levels
    numbers[..., CASE_NUMBERS.index("error")] = errors
    cases = tuple(f"case[n={i}]" for i in range(fleets.cases))
    for node in range(fleets.nodes):
        name = f"n{node}"
        fleet.runs[name] = [
            FleetRun(
                *(f"{name}-{run}", name, start + timedelta(days=EVERY * run), "PASS", True),
                devices=tuple(
                    FleetDevice(f"gpu:{i}", "", f"{node}-{i}", speed="e", cases=cases, numbers=numbers[run, row])
                    for i, row in enumerate(range(node * fleets.devices, (node + 1) * fleets.devices))
                ),
            )
            for run in range(RUNS)
        ]
    return fleet


def changes(fleets: Fleets, count: int, random: np.random.Generator, kind: str) -> tuple[int, int, int]:
    """Return in how many fleets the first device FAILs, is named as a step or drift rightly, and another one FAILs."""
    added = np.zeros(RUNS)
    if kind == "step":
        added[-STEP_RUNS:] = math.log1p(STEP)
    elif kind == "drift":
        added = math.log1p(PER_WEEK) * EVERY / 7 * np.arange(RUNS)
    failed = right = others = 0
    for _ in range(count):
        found = history.judge_history(_history_of(fleets, random, added), SETTINGS)
        failing = [each for each in found if each.status == "FAIL"]
        mine = [each for each in failing if (each.node, each.device) == ("n0", "gpu:0") and kind]
        failed += bool(mine)
        right += any(each.data["change"] == kind for each in mine)
        others += len(failing) > len(mine)
    return failed, right, others


def steps_needed(rate: float, confidence: float = 0.95) -> int:
    """Return how many steps it takes until one of those that differ at this rate is among them."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-rate))


def _row(fleets: Fleets, count: int, slowed: int) -> str:
    random = np.random.default_rng(0)
    found = healthy(fleets, count, random)
    name = "as recorded" if fleets.deviation is None else f"{fleets.noise} {fleets.deviation:.1%}"
    line = f"{f'{fleets.nodes} x {fleets.devices}':<10}{name:<15}{count:>7}  {share(found.alarms, count):<22}"
    line += f"{found.inconclusive / count:>13.1%}{found.noisy / count:>7.0%}"
    for slowdown in (0.10, 0.05):
        each = caught(fleets, slowed, random, slowdown)
        line += f"{each.named / slowed:>10.1%}{each.failed / slowed:>8.1%}{share(each.agreed, slowed):>26}"
    return line


def _kinds_row(fleets: Fleets, slowed: int) -> str:
    right = kinds(fleets, slowed, np.random.default_rng(1), 0.10)
    name = f"{fleets.noise} {fleets.deviation:.1%}"
    return f"{f'{fleets.nodes} x {fleets.devices}':<10}{name:<15}" + "".join(
        f"{share(each, slowed):>28}" for each in right.values()
    )


def _history_row(fleets: Fleets, count: int, slowed: int) -> str:
    random = np.random.default_rng(2)
    alarms = changes(fleets, count, random, "")[2]
    name = f"{fleets.noise} {fleets.deviation:.1%}"
    line = f"{f'{fleets.nodes} x {fleets.devices}':<10}{name:<15}{count:>7}  {share(alarms, count):<22}"
    for kind in ("step", "drift"):
        failed, right, _ = changes(fleets, slowed, random, kind)
        line += f"{share(failed, slowed):>28}{share(right, max(1, failed)):>28}"
    return line


def _bits_table() -> str:
    lines = [f"{'steps that differ':<20}{'steps until one is seen':>24}{'quick replays':>15}{'standard replays':>18}"]
    for rate in (0.1, 0.01, 0.001):
        steps = steps_needed(rate)
        lines.append(f"1 of {round(1 / rate):<15,}{steps:>24,}{math.ceil(steps / 2):>15,}{math.ceil(steps / 3):>18,}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="*", default=[8, 64, 1000], metavar="N")
    parser.add_argument("--devices", type=int, nargs="*", default=[1], metavar="N", help="of a node")
    parser.add_argument(
        "--noise", type=float, nargs="*", default=[0.008, 0.015, 0.03, 0], metavar="SHARE", help="0: as recorded"
    )
    parser.add_argument("--cases", type=int, default=20, metavar="N", help="of a device (%(default)s)")
    parser.add_argument("--fleets", type=int, default=1000, metavar="N", help="healthy ones per figure (%(default)s)")
    parser.add_argument("--slowed", type=int, default=300, metavar="N", help="with something slow (%(default)s)")
    parser.add_argument("--only", choices=["speed", "kinds", "history", "bits"], help="one of the tables")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), metavar="N")
    asked = parser.parse_args(arguments)
    rows = [
        Fleets(nodes, devices, asked.cases, noise, deviation)
        for nodes in asked.nodes
        for devices in asked.devices
        for noise, deviation in [
            *(("recorded", each or None) for each in asked.noise),
            *(("student", each) for each in asked.noise if each),
        ]
    ]
    shaped = [row for row in rows if row.deviation]
    wanted = [asked.only] if asked.only else ["speed", "kinds", "history", "bits"]
    with ProcessPoolExecutor(asked.processes) as pool:
        if "speed" in wanted:
            print(f"{asked.cases} cases; not PASS, FAIL by one run, FAIL by {MAX_RUNS} runs, of {asked.slowed} fleets")
            head = f"{'nodes':<10}{'noise':<15}{'fleets':>7}  {'false alarms':<22}{'inconclusive':>13}{'noisy':>7}"
            print(head + "".join(f"{f'{by} slow':>10}{'1 run':>8}{f'{MAX_RUNS} runs':>26}" for by in ("10 %", "5 %")))
            for line in pool.map(_row, rows, *([each] * len(rows) for each in (asked.fleets, asked.slowed))):
                print(line, flush=True)
        if "kinds" in wanted:
            print(f"\n10 % slow by one run, named as what it is and nothing else, of {asked.slowed} fleets each")
            print(f"{'nodes':<10}{'noise':<15}" + "".join(f"{each:>28}" for each in ("a GPU", "a node", "a rack of 8")))
            several = [row for row in shaped if row.devices > 1 and row.nodes > RACK]
            for line in pool.map(_kinds_row, several, [asked.slowed] * len(several)):
                print(line, flush=True)
        if "history" in wanted:
            print(f"\n{RUNS} runs, every {EVERY} days; {STEP:.0%} slower for {STEP_RUNS} runs; {PER_WEEK:.0%} per week")
            print(
                f"{'nodes':<10}{'noise':<15}{'fleets':>7}  {'false alarms':<22}"
                + "".join(f"{each:>28}" for each in ("step: FAIL", "named a step", "drift: FAIL", "named a drift"))
            )
            small = [row for row in shaped if row.nodes * row.devices <= 64]
            for line in pool.map(_history_row, small, *([each] * len(small) for each in (asked.fleets, asked.slowed))):
                print(line, flush=True)
    if "bits" in wanted:
        print("\n95 of 100 times, by counting; a quick replay has 2 steps, a standard one 3")
        print(_bits_table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
