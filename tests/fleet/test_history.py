"""A device beside its own earlier runs: a step with its day, a drift with its rate, and neither by chance."""

import math
from datetime import timedelta

import numpy as np
import pytest

from alexnet_repro.fleet.history import judge_history
from alexnet_repro.fleet.records import Fleet, FleetSettings
from tests.fleet.speeds import DAY, fleet_of, levels_of

DAYS = tuple(range(0, 42, 3))  # before `DAY`


def changed(nodes, added, *, who=3, noise=0.005):
    """Return levels of fourteen runs, the newest first; `added` to one node's, or from a negative one to the last."""
    levels = levels_of(nodes, runs=len(DAYS), noise=noise)
    levels[:, who : who + 1 if who >= 0 else None] += np.asarray(added)[:, None, None, None]
    return levels


def step(runs, by=0.06):
    """Return what the newest runs are slower by."""
    return [math.log1p(by) * (place < runs) for place in range(len(DAYS))]


DRIFT = [math.log1p(0.02) / 7 * (DAYS[-1] - days) for days in DAYS]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        pytest.param(
            changed(12, step(4)), [("FAIL", "n003", "step", "by 5.8% since 2026-10-23 (a step)")], id="change=step"
        ),
        pytest.param(
            changed(1, step(4), who=0), [("FAIL", "n000", "step", "since 2026-10-23 (a step)")], id="change=step_alone"
        ),
        pytest.param(
            changed(12, DRIFT),
            [("FAIL", "n003", "drift", "per week slower for 5.6 weeks (a drift)")],
            id="change=drift",
        ),
        pytest.param(
            changed(12, step(1, 0.1)),
            [("INCONCLUSIVE", "n003", "newest", "slower in its newest run than in 13 before")],
            id="change=newest",
        ),
        pytest.param(changed(12, step(4, -0.06)), [], id="change=faster"),
        pytest.param(changed(12, step(4, 0.02)), [], id="change=below_tolerance"),
        pytest.param(
            changed(12, step(4, 0.3), who=-12),
            [("INCONCLUSIVE", "", "step", "all 12 nodes are slower by 30.1% since 2026-10-23 (a step)")],
            id="change=all_nodes",
        ),
        pytest.param(
            changed(12, DRIFT, who=-12),
            [("INCONCLUSIVE", "", "drift", "all 12 nodes are 2.0% per week slower for 5.6 weeks (a drift)")],
            id="change=all_nodes_drift",
        ),
        pytest.param(
            changed(12, step(1, 0.1), who=-12),
            [("INCONCLUSIVE", "", "newest", "all 12 nodes are 10.2% slower in their newest run than in 13 before")],
            id="change=all_nodes_newest",
        ),
        pytest.param(changed(12, step(4, -0.3), who=-12), [], id="change=all_nodes_faster"),
        pytest.param(changed(12, step(4, 0.02), who=-12), [], id="change=all_nodes_below_tolerance"),
        pytest.param(levels_of(64, runs=14), [], id="change=none"),
        pytest.param(levels_of(64, runs=14, noise=0.05), [], id="change=noise"),
        pytest.param(changed(12, step(4))[:5], [], id="change=too_few_runs"),
    ],
)
def test_changes(levels, expected):
    """A step is named with its day, a drift with its rate; what the whole fleet does, or noise, isn't a device's."""
    found = judge_history(fleet_of(levels, days=DAYS), FleetSettings())
    assert [(each.status, each.node, each.data["change"]) for each in found] == [each[:3] for each in expected]
    assert all(words in each.message for each, (*_, words) in zip(found, expected, strict=True))


@pytest.mark.parametrize("standard", [1, 2, 4], ids=lambda runs: f"standard={runs}")
def test_standard_runs_after_quick_ones(standard):
    """Cases that only a few of a device's runs have are no past of it: a step shows in those that all have."""
    levels = changed(12, step(4, 0.1))
    levels[standard:, :, :, 2:] = math.nan
    found = judge_history(fleet_of(levels, days=DAYS), FleetSettings())
    assert [(each.status, each.node, each.data["change"]) for each in found] == [("FAIL", "n003", "step")]


def test_what_goes_with_a_step():
    """Telemetry since the step is compared with that before."""
    fleet = fleet_of(changed(12, step(1, 0.1)), days=DAYS, telemetry={3: {"gpu_mhz": 1410.0}})
    [found] = judge_history(fleet, FleetSettings())
    assert "its clock is 1,410 MHz, before 1,755" in found.message


def test_another_environment_begins_anew():
    """Runs in another environment aren't a device's own past."""
    fleet = fleet_of(changed(12, step(4)), days=DAYS)
    other = fleet_of(changed(12, step(4)), days=DAYS, speeds={3: "e1"})
    fleet.runs["n003"][-4:] = other.runs["n003"][-4:]
    assert judge_history(fleet, FleetSettings()) == []


def test_a_device_keeps_its_past_in_another_node():
    """A device's past is found by its serial: it was moved to another node, and is slow since."""
    fleet = fleet_of(changed(12, step(3)), days=DAYS)
    moved = fleet.runs["n003"][-3:]
    fleet.runs["n003"] = fleet.runs["n003"][:-3]
    fleet.runs["spare"] = [
        type(run)(**{name: getattr(run, name) for name in run.__slots__} | {"node": "spare"}) for run in moved
    ]
    [found] = judge_history(fleet, FleetSettings())
    assert (found.node, found.data["since"]) == ("spare", (DAY - timedelta(days=6)).date().isoformat())


def test_nothing_read():
    """Of no runs nothing is found."""
    assert judge_history(Fleet(), FleetSettings()) == []
