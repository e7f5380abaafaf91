"""At an equal global batch, replicas learn as one device does: their curves differ by no more than seeds make them."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from scipy import stats

from tests.helpers.paths import PROCESSES
from tests.helpers.workers import free_addresses

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="KERAS_BACKEND isn't tensorflow"),
]
SCRIPT = PROCESSES / "curve.py"
WINDOWS = 6  # that a curve is parted in, of 20 updates each
BY_CHANCE = 1e-4  # that any of them is off, of equal ones


def start(*arguments):
    """Begin to learn, in a process of its own."""
    quiet = {"CUDA_VISIBLE_DEVICES": "", "TF_NUM_INTRAOP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen([sys.executable, SCRIPT, *map(str, arguments)], env={**os.environ, **quiet})


def off(curves, expected):
    """Return by how many of their standard deviations the means of windows differ at most, over pairs by seed.

    A seed's first weights and images are the same in both; masks aren't, and they are what seeds differ by here.
    """
    windows = [each.reshape(len(each), WINDOWS, -1).mean(axis=2) for each in (curves, expected)]
    return np.abs(stats.ttest_rel(*windows).statistic).max()


def bound(seeds):
    """Return Student's bound on that for equal curves, over all windows (Bonferroni)."""
    return stats.t.ppf(1 - BY_CHANCE / (2 * WINDOWS), seeds - 1)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """The curves of one device and of some replicas in one process; each number is learned once."""
    folder, known = tmp_path_factory.mktemp("curves"), {}

    def learned(replicas):
        if replicas not in known:
            path = folder / f"{replicas}.npz"
            assert start(path, replicas).wait(300) == 0
            with np.load(path) as archive:
                known[replicas] = dict(archive)
        return known[replicas]

    return learned


@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_learn_as_one_device_does(learned, replicas):
    """The loss falls by a fifth, and nowhere differs from one device's by more than seeds explain."""
    found = learned(replicas)
    assert found["replicas"][:, -20:].mean() < 0.8 * found["replicas"][:, 0].mean()
    assert off(found["replicas"], found["one"]) < bound(len(found["one"]))


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_learn_as_one_device_does(learned, tmp_path, workers):
    """So do processes that learn together."""
    addresses = ",".join(free_addresses(workers))
    processes = [start(tmp_path / f"{task}.npz", addresses, task) for task in range(workers)]
    try:
        assert [each.wait(300) for each in processes] == [0] * workers
    finally:
        for each in processes:
            each.kill()
    every = [np.load(tmp_path / f"{task}.npz")["replicas"] for task in range(workers)]
    assert all(np.array_equal(each, every[0]) for each in every)
    expected = learned(2)["one"]
    assert off(every[0], expected) < bound(len(expected))


@pytest.mark.parametrize("replicas", [2, 4])
def test_other_learning_would_be_noticed(learned, replicas):
    """Were gradients summed up over replicas instead of averaged, the curve would be off by far more."""
    found = learned(replicas)
    assert off(found["summed"], found["one"]) > 1.5 * bound(len(found["one"]))
