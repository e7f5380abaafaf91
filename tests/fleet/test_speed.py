"""Speed of a fleet: what is slow is named as what it is, with its cause; noise and what can't be compared isn't."""

import math
import re

import numpy as np
import pytest

from alexnet_repro.fleet.records import NOT_TIMED, Fleet, FleetSettings
from alexnet_repro.fleet.robust import critical, spread_of, spread_of_two_speeds, tail_of
from alexnet_repro.fleet.speed import judge_speed
from tests.fleet.speeds import CASES, fleet_of, levels_of, racks


def judge(levels, *, by=(), settings=None, **fleet):
    """Return the answer about a fleet of levels."""
    columns = racks(levels.shape[1]) if by else {}
    return judge_speed(fleet_of(levels, **fleet), FleetSettings(columns=columns, by=by, **(settings or {})))


def slowed(where, *, by=0.10, **shape):
    """Return healthy levels, slower at a place of (runs, nodes, devices, cases)."""
    levels = levels_of(**shape)
    levels[where] += math.log1p(by)
    return levels


NEWEST, EVERY = 0, slice(None)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        pytest.param(slowed((NEWEST, 3), nodes=24), [("FAIL", "n003", "gpu:0", "")], id="slow=device"),
        pytest.param(
            slowed((EVERY, 3), nodes=8, runs=3), [("FAIL", "n003", "gpu:0", "")], id="slow=device_of_few,3_runs"
        ),
        pytest.param(
            slowed((NEWEST, 3), nodes=8), [("INCONCLUSIVE", "n003", "gpu:0", "")], id="slow=device_of_few,1_run"
        ),
        pytest.param(slowed((NEWEST, 3, 2), nodes=24, devices=8), [("FAIL", "n003", "gpu:2", "")], id="slow=gpu_of_8"),
        pytest.param(slowed((NEWEST, 3), nodes=24, devices=8), [("FAIL", "n003", "", "")], id="slow=node_of_8"),
        pytest.param(slowed((NEWEST, slice(8, 16)), nodes=64), [("FAIL", "", "", "rack=r1")], id="slow=rack"),
        pytest.param(
            slowed((NEWEST, slice(8, 16)), nodes=64, devices=4), [("FAIL", "", "", "rack=r1")], id="slow=rack_of_4_gpus"
        ),
        pytest.param(
            slowed((NEWEST, slice(0, 60, 10)), nodes=64),
            [("FAIL", f"n{i:03d}", "gpu:0", "") for i in range(0, 60, 10)],
            id="slow=6_of_64",
        ),
        pytest.param(
            slowed((EVERY, slice(0, None, 3)), nodes=30, runs=3),
            [("FAIL", f"n{i:03d}", "gpu:0", "") for i in range(0, 30, 3)],
            id="slow=third,3_runs",
        ),
        pytest.param(
            slowed((NEWEST, slice(0, None, 3)), nodes=30), [("INCONCLUSIVE", "", "", "GPU")], id="slow=third,1_run"
        ),
        pytest.param(levels_of(64), [], id="slow=none"),
        pytest.param(levels_of(64, devices=8, runs=3), [], id="slow=none,3_runs_of_8"),
        pytest.param(slowed((EVERY, 3), by=0.02, nodes=64, runs=3), [], id="slow=below_tolerance"),
        pytest.param(
            slowed((EVERY, 3, 0, 5), nodes=64, runs=3), [("FAIL", "n003", "gpu:0", "")], id="slow=case,3_runs"
        ),
        pytest.param(slowed((EVERY, 3, 0, 5), nodes=64), [("INCONCLUSIVE", "n003", "gpu:0", "")], id="slow=case,1_run"),
        pytest.param(
            slowed((NEWEST, slice(0, 9), 0, 5), by=0.3, nodes=64),
            [("INCONCLUSIVE", "", "", "GPU")],
            id="slow=case_of_two_speeds",
        ),
        pytest.param(levels_of(3), [("INCONCLUSIVE", "", "", "GPU")], id="slow=unknown_of_3"),
        pytest.param(levels_of(24, noise=0.1), [("INCONCLUSIVE", "", "", "GPU")], id="slow=unknown_by_noise"),
        pytest.param(slowed((NEWEST, 3), by=-0.10, nodes=64), [("PASS", "", "", "GPU")], id="fast=one"),
        pytest.param(
            slowed((NEWEST, slice(0, 20)), by=-0.08, nodes=64)[:, :, :, :],
            [("INCONCLUSIVE", "", "", "GPU")],
            id="fast=third",
        ),
    ],
)
def test_what_is_slow_is_named(levels, expected):
    """A slow device, node, group or case is named as that and nothing else is; what noise explains isn't."""
    found = judge(levels, by=("rack",)).findings
    assert [(each.status, each.node, each.device, each.group) for each in found] == expected


def test_a_slow_node_of_a_slow_rack():
    """A slow group's nodes are compared with each other: one that is slower yet is named, with its rack."""
    levels = slowed((NEWEST, slice(8, 16)), nodes=64)
    levels[NEWEST, 10] += math.log1p(0.15)
    found = judge(levels, by=("rack",)).findings
    assert [(each.node, each.group) for each in found] == [("", "rack=r1"), ("n010", "")]
    assert found[0].nodes == tuple(f"n{i:03d}" for i in range(8, 16))


@pytest.mark.parametrize(
    ("telemetry", "words", "status"),
    [
        pytest.param({"gpu_mhz": 1410.0}, "its clock is 1,410 MHz, the others' 1,755", "FAIL", id="telemetry=clock"),
        pytest.param({"temperature": 88.0}, "its temperature is 88 °C, the others' 55", "FAIL", id="telemetry=heat"),
        pytest.param({"watts": 200.0}, "it draws 200 W, the others' 300", "FAIL", id="telemetry=power"),
        pytest.param({"pcie_width": 8.0}, "its PCIe link has 8 lanes, the others' 16", "FAIL", id="telemetry=pcie"),
        pytest.param(
            {"throttled": 0.5}, "throttled in 50% of samples, the others' 0%", "FAIL", id="telemetry=throttled"
        ),
        pytest.param(
            {"load": 9.0},
            "something else ran on it, its load is 9.0, the others' 1.0 (lower quartile)",
            "INCONCLUSIVE",
            id="telemetry=load",
        ),
        pytest.param({"gpu_mhz": 1740.0, "temperature": 57.0}, None, "FAIL", id="telemetry=in_line"),
        pytest.param({"gpu_mhz": 1980.0, "temperature": 30.0}, None, "FAIL", id="telemetry=better"),
        pytest.param({"gpu_mhz": math.nan, "watts": math.inf}, None, "FAIL", id="telemetry=unknown"),
    ],
)
def test_what_goes_with_a_slow_device(telemetry, words, status):
    """Telemetry is named if it is out of line to the slow side, and only then; with load by others it is no FAIL."""
    found = judge(slowed((NEWEST, 3), nodes=24), telemetry={3: telemetry}).findings
    assert [each.status for each in found] == [status]
    assert found[0].message.endswith(words or "in all cases")


@pytest.mark.parametrize("loads", [(0.5, 1.0, 3.0, 6.0), (1.0, 1.0, 9.0, 9.0)], ids=lambda loads: f"loads={loads[2]}")
def test_a_loaded_device_among_loaded_ones(loads):
    """A slow device's load is measured by those that are quiet, however many others something else ran on."""
    telemetry = {node: {"load": loads[node % 4]} for node in range(24)} | {3: {"load": 5.0}}
    found = judge(slowed((NEWEST, 3), by=0.3, nodes=24), telemetry=telemetry).findings
    assert [(each.status, each.node) for each in found] == [("INCONCLUSIVE", "n003")]
    assert "something else ran on it, its load is 5.0" in found[0].message


def test_earlier_runs_are_compared_with_their_own_day():
    """What the whole fleet was slower by on earlier days is no device's; nor does it hide what one is slower by."""
    levels = levels_of(10, runs=3, noise=0.003)
    levels[1:] += math.log1p(0.10)
    levels[0, 4] += math.log1p(0.07)
    assert [each.status for each in judge(levels).findings] == ["INCONCLUSIVE"]
    levels[1:] -= 2 * math.log1p(0.10)
    levels[1:, 4] += math.log1p(0.07)
    assert [(each.status, each.node) for each in judge(levels).findings] == [("FAIL", "n004")]


def test_a_slow_group_that_runs_on_other_days():
    """A day on which a part of the fleet alone ran is no reference: they may all be slow."""
    levels = slowed((EVERY, slice(0, 6)), nodes=30, runs=3)
    fleet = fleet_of(levels)
    alone = fleet_of(levels, days=(0, 10, 20))
    fleet.runs |= {name: alone.runs[name] for name in list(alone.runs)[:6]}
    found = judge_speed(fleet, FleetSettings()).findings
    assert [(each.status, each.node) for each in found] == [("FAIL", f"n{i:03d}") for i in range(6)]


@pytest.mark.parametrize(
    ("change", "codes", "message"),
    [
        pytest.param("invalid", {1}, "12 timings of gpu:0 are no measurement", id="timing=invalid"),
        pytest.param(
            "missing",
            {0, NOT_TIMED},
            "2 valid timings of gpu:0, the others have 12: its speed is unknown",
            id="timing=few",
        ),
        pytest.param("huge", {0, 1}, "1 timing of gpu:0 is no measurement", id="timing=huge"),
    ],
)
def test_what_cannot_be_compared(change, codes, message):
    """What isn't a timing makes its device INCONCLUSIVE, and no other."""
    levels = levels_of(24)
    if change == "missing":
        levels[NEWEST, 4, 0, 2:] = math.nan
    if change == "huge":
        levels[NEWEST, 4, 0, 0] = 1e300
    answer = judge(levels, telemetry={4: {"invalid": 1.0}} if change == "invalid" else {})
    assert message in [each.message for each in answer.findings]
    assert {(each.status, each.node) for each in answer.findings} == {("INCONCLUSIVE", "n004")}
    assert set(answer.tables[0].statuses[4].tolist()) == codes
    assert set(np.delete(answer.tables[0].statuses, 4, axis=0).ravel().tolist()) == {0}


def mixed(standard, *, runs=1):
    """Return levels of 24 nodes, of two cases; those of some nodes of a standard run, of all."""
    levels = levels_of(24, runs=runs)
    levels[:, [node for node in range(24) if node not in standard], :, 2:] = math.nan
    return levels


@pytest.mark.parametrize("standard", [(), (5,), (5, 9, 11, 20)], ids=lambda nodes: f"standard={len(nodes)}")
def test_a_standard_run_among_quick_ones(standard):
    """Devices are compared by the cases that enough nodes have: a node's further cases judge neither it nor others."""
    answer = judge(mixed(standard))
    assert answer.findings == []
    assert [each.status for each in answer.cohorts] == ["PASS"]
    assert ("10 cases, timed on fewer than 5 nodes, aren't compared" in answer.cohorts[0].message) == bool(standard)
    assert set(answer.tables[0].statuses[:, 2:].ravel().tolist()) <= {NOT_TIMED}


@pytest.mark.parametrize("standard", [(), (5,)], ids=lambda nodes: f"standard={len(nodes)}")
def test_a_slow_standard_run_among_quick_ones(standard):
    """A node slow in all its cases is slow, though most of them are its own alone."""
    levels = mixed(standard, runs=3)
    levels[:, 5] += math.log1p(0.30)
    found = judge(levels).findings
    assert [(each.status, each.node) for each in found] == [("FAIL", "n005")]
    assert found[0].number == pytest.approx(1.30, abs=0.02)


def test_the_table_has_each_cell():
    """A table's ratios are those of the times, and a slow device's cells FAIL."""
    table = judge(slowed((NEWEST, 3), nodes=24)).tables[0]
    assert table.members[3] == ("n003", "gpu:0")
    assert table.ratios.shape == (24, CASES)
    assert np.median(table.ratios[3]) == pytest.approx(1.10, abs=0.02)
    assert table.shifts[3] == pytest.approx(1.10, abs=0.02)
    assert (table.statuses[3] == 2).all()
    assert (np.delete(table.statuses, 3, axis=0) == 0).all()


def test_cohorts_of_other_environments():
    """A slower environment is INCONCLUSIVE by what differs; its devices aren't."""
    levels = slowed((NEWEST, slice(12, 24)), nodes=24)
    environments = {"e0": {"driver": "560.35"}, "e1": {"driver": "550.54"}}
    answer = judge(levels, speeds=dict.fromkeys(range(12, 24), "e1"), environments=environments)
    assert [each.status for each in answer.cohorts] == ["PASS", "PASS"]
    assert [each.name for each in answer.cohorts] == ["GPU, driver 560.35", "GPU, driver 550.54"]
    [found] = answer.findings
    assert (found.status, found.group) == ("INCONCLUSIVE", "GPU, driver 550.54")
    assert found.evidence == "driver 550.54, not 560.35"


@pytest.mark.parametrize(
    ("fleet", "statuses"),
    [
        pytest.param(Fleet(), [], id="fleet=none"),
        pytest.param(
            fleet_of(levels_of(8), speeds=dict.fromkeys(range(8), "")), ["INCONCLUSIVE"], id="fleet=unknown_environment"
        ),
        pytest.param(fleet_of(np.full((1, 8, 1, CASES), math.nan)), ["INCONCLUSIVE"], id="fleet=without_timings"),
    ],
)
def test_nothing_to_compare(fleet, statuses):
    """Without timings, or what decides them, speed is INCONCLUSIVE, never PASS."""
    answer = judge_speed(fleet, FleetSettings())
    assert [each.status for each in answer.cohorts] == statuses
    assert [each.status for each in answer.findings] == statuses


def test_detectable_slowdown_is_detected():
    """What a healthy fleet says is seen 95 times in 100 is named in at least 85 of 100 fleets."""
    seen = [
        re.search(r"by ([\d.]+)% is seen", judge(levels_of(30, noise=0.012, seed=i)).cohorts[0].message)[1]
        for i in range(10)
    ]
    by, named = float(np.median([float(each) for each in seen])) / 100, 0
    for seed in range(100):
        found = judge(slowed((NEWEST, 3), by=by, nodes=30, noise=0.012, seed=seed)).findings
        named += "n003" in [each.node for each in found]
    assert named >= 85


@pytest.mark.parametrize("count", [5, 8, 9, 50, 299, 1001], ids=lambda count: f"count={count}")
def test_spread_of_normal_values(count):
    """The spread is normal values' standard deviation within 5 % on average; a third of outliers moves it little."""
    random = np.random.default_rng(1)
    assert np.mean([spread_of(random.normal(size=count)) for _ in range(400)]) == pytest.approx(1, rel=0.05)
    values = random.normal(size=max(count, 50))
    values[: len(values) // 3] += 100
    assert spread_of(values) < 2.5


def test_two_speeds_are_spread():
    """Half of the values at a second speed is noise, a tenth isn't."""
    values = np.random.default_rng(2).normal(size=100)
    half, tenth = values.copy(), values.copy()
    half[:50] += 20
    tenth[:10] += 20
    assert spread_of_two_speeds(half) > 10
    assert spread_of_two_speeds(tenth) < 2


@pytest.mark.parametrize(
    ("degrees", "shown"),
    [pytest.param(4.0, (4, 4), id="degrees=4"), pytest.param(1e6, (15, 50), id="degrees=normal")],
)
def test_tails(degrees, shown):
    """Many values show how heavy their tails are, at their fast side alone; few don't."""
    values = np.random.default_rng(3).standard_t(degrees, size=20_000)
    values[values > 1.5] = 1e6
    assert shown[0] <= tail_of(values) <= shown[1]
    assert tail_of(values[:60]) == 4


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # Student's quantiles from a table, by the ratio of the normal's to Student's quartile: 0.67449 / 0.74070.
        pytest.param((0.001, 1000, 4.0, 1), 7.17318 * 0.67449 / 0.74070, id="runs=1"),
        # p: normal (over 800 degrees) 3.2905 of 0.0005; t: 1.8807 of 0.0005^(1/3) = 0.07937 with 4 degrees... of 0.0794
        pytest.param((0.001, 1_000_000, 4.0, 3), math.hypot(3.2905, 1.7376 * 0.67449 / 0.74070), id="runs=3"),
    ],
)
def test_critical_values(arguments, expected):
    """How many spreads noise explains: Student's quantile for one run; of several, what stays and what is new."""
    assert critical(*arguments) == pytest.approx(expected, rel=2e-3)
