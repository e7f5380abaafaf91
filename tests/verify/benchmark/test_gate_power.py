"""The simulation of how often the gate raises an alarm, and what it catches, in small."""

import numpy as np
import pytest

from alexnet_repro.verify.benchmark.reference import Baseline
from benchmarks.tools import gate_power as power


@pytest.fixture(scope="module")
def baselines():
    """Four cases of twelve processes that differ by a hundredth, and within by three."""
    random = np.random.default_rng(0)
    processes = np.exp(random.normal(scale=0.01, size=(4, 12, 1)) + np.abs(random.normal(scale=0.03, size=(4, 12, 20))))
    return [Baseline("cpu:0", "", case) for case in processes.tolist()]


@pytest.mark.parametrize(
    ("slowdown", "caught", "passed"),
    [
        pytest.param(0.0, (0, 0), (15, 20), id="slowdown=none"),
        pytest.param(1.0, (20, 20), (0, 0), id="slowdown=double"),
    ],
)
def test_simulated_runs(baselines, slowdown, caught, passed):
    """What isn't slowed raises no alarm, and what takes twice as long does in each run."""
    random = np.random.default_rng(0)
    pool = power.pool_of(baselines, random, 0.005)
    found = power.simulate(pool, random, runs=20, cases=6, processes=8, slowdown=slowdown)
    assert found.alarms == 0
    assert caught[0] <= found.caught <= caught[1]
    assert passed[0] <= found.passed <= passed[1]


def test_noise_is_scaled(baselines):
    """Levels drawn from recorded rounds differ between processes by the wanted deviation, or as they did."""
    random = np.random.default_rng(0)
    for wanted, seen in ((0.002, 0.002), (None, 0.01)):
        for case in power.pool_of(baselines, random, wanted):
            deviation = np.std([np.mean([level.log for level in process]) for process in case], ddof=1)
            assert 0.6 * seen < deviation < 1.6 * seen


def test_too_few_recorded_processes(baselines):
    """None is drawn twice in a run: too few are an error."""
    random = np.random.default_rng(0)
    pool = power.pool_of(baselines, random)
    with pytest.raises(ValueError, match="13 recorded processes are needed, there are 12"):
        power.simulate(pool, random, runs=1, cases=2, processes=10)


def test_share_has_its_interval():
    """None of 300: below 1.2 % with 97.5 % certainty, 1 - 0.025^(1/300)."""
    assert power.share(0, 300) == "  0.0% (0.0% to 1.2%)"
