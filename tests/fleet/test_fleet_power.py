"""The simulation of how often a fleet's comparison raises an alarm, and what it catches, in small."""

import math

import numpy as np
import pytest

from benchmarks.tools import fleet_power as power
from benchmarks.tools.fleet_power import Fleets


@pytest.mark.parametrize("noise", ["recorded", "student"], ids=lambda noise: f"noise={noise}")
@pytest.mark.parametrize("nodes", [8, 24], ids=lambda nodes: f"nodes={nodes}")
def test_levels_are_as_noisy_as_wanted(nodes, noise):
    """Levels drawn differ by the wanted deviation in each case, and some of it is common to a device's cases."""
    random, fleets = np.random.default_rng(0), Fleets(nodes, 1, 6, noise, 0.01)
    levels = np.concatenate([power.drawn(fleets, random, 3)[0][:, :, :] for _ in range(60)], axis=1)[0]
    assert 0.006 < levels.std(axis=0).mean() < 0.014
    assert np.median(levels, axis=1).std() > 0.003


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fleets", "caught"),
    [
        pytest.param(Fleets(8, 1, 20, "recorded", 0.008), (38, 0, 30), id="nodes=8-noise=recorded"),
        pytest.param(Fleets(8, 1, 20, "student", 0.008), (38, 0, 34), id="nodes=8-noise=student"),
        pytest.param(Fleets(64, 1, 20, "recorded", 0.008), (40, 10, 38), id="nodes=64-noise=recorded"),
    ],
)
def test_simulated_fleets(fleets, caught):
    """At most 2 of 200 healthy fleets raise an alarm; of 40 slow by 10 %, the share in the documents is caught."""
    random = np.random.default_rng(7)
    assert power.healthy(fleets, 200, random).alarms <= 2
    found = power.caught(fleets, 40, random, 0.10)
    assert all(number >= least for number, least in zip(found, caught, strict=True))


def test_nothing_slow_is_caught_where_it_is_hidden():
    """A slowdown below the tolerance isn't a FAIL, however still the noise."""
    found = power.caught(Fleets(24, 1, 6, "student", 0.002), 10, np.random.default_rng(0), 0.02)
    assert found == power.Caught(0, 0, 0)


def test_kinds_are_named():
    """One slow device, node or rack is named as that alone, where noise is far below."""
    right = power.kinds(Fleets(24, 4, 6, "student", 0.002), 5, np.random.default_rng(0), 0.10)
    assert right == {"device": 5, "node": 5, "rack": 5}


@pytest.mark.parametrize("kind", ["step", "drift"], ids=lambda kind: f"kind={kind}")
def test_changes_are_named(kind):
    """A step and a drift FAIL as what they are, and no other device."""
    assert power.changes(Fleets(8, 1, 6, "student", 0.003), 5, np.random.default_rng(0), kind) == (5, 5, 0)


@pytest.mark.parametrize(
    ("rate", "steps"),
    [pytest.param(0.5, 5, id="rate=0.5"), pytest.param(0.001, 2995, id="rate=0.001")],
)
def test_steps_needed(rate, steps):
    """That number of steps has one that differs 95 times in 100: 0.5^5 = 3 %; 0.999^2995 = 5 %."""
    assert power.steps_needed(rate) == steps
    assert math.pow(1 - rate, steps) <= 0.05 < math.pow(1 - rate, steps - 1)


def test_tables_are_printed(capsys):
    """All tables have their rows."""
    shape = ["--nodes", "24", "--devices", "2", "--noise", "0.003", "--cases", "6", "--fleets", "2", "--slowed", "2"]
    assert power.main([*shape, "--processes", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("student 0.3%") == 3
    assert [line.split() for line in printed.splitlines()][-1] == ["1", "of", "1,000", "2,995", "1,498", "999"]
