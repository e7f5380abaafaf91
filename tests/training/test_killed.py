"""SIGKILL at any moment, during a save too, costs the updates since the last checkpoint and nothing else."""

import os
import random
import shutil
import subprocess
import sys
import time

import pytest

from tests.helpers.paths import PROCESSES

KILLS, UPDATES = 20, 100


class Life:
    """A process that trains once `begin` is called."""

    def __init__(self, folder):
        script = PROCESSES / "training.py"
        self.process = subprocess.Popen(
            [sys.executable, script, folder, str(UPDATES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
        )

    def begin(self):
        """Let it train."""
        assert self.process.stdout.readline() == "ready\n"
        print(file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "begins\n"
        return self

    def kill(self):
        """Kill it; whatever it was doing is not finished."""
        self.process.kill()
        _, err = self.process.communicate()
        return err

    def end(self):
        """Let it come to its end; returns its digest."""
        out, err = self.process.communicate()
        assert self.process.returncode == 0, err
        return out.strip()


def latest(folder):
    """Return how many updates the latest checkpoint holds."""
    return max((int(path.stem.removeprefix("update-")) for path in folder.glob("update-*.npz")), default=0)


def wait(life, for_what):
    """Wait until a condition is true, in a running life."""
    deadline = time.monotonic() + 60
    while not for_what():
        assert life.process.poll() is None, "the run ended before it was killed: more updates are needed"
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """After twenty kills the run ends with the bits of one that wasn't killed, and every checkpoint could be read."""
    moments, cut = random.Random(0), 0
    folder, whole = tmp_path / "killed", Life(tmp_path / "whole").begin()
    following = Life(folder)
    digest = whole.end()
    for number in range(KILLS):
        life, before = following.begin(), latest(folder)
        following = Life(folder)
        if number % 4 == 0:  # at any moment, before anything new is saved as well
            time.sleep(moments.uniform(0, 4))
        elif number % 4 == 1:
            wait(life, lambda before=before: latest(folder) > before)
            time.sleep(moments.uniform(0, 0.6))
        else:
            wait(life, lambda: list(folder.glob(".update-*")))
            time.sleep(moments.uniform(0, 0.1))
        err = life.kill()
        assert "skipped" not in err
        assert latest(folder) >= before
        cut += bool(list(folder.glob(".update-*")))
    assert cut > KILLS / 10, "no kills fell into a save"
    assert latest(folder) > 0
    assert following.begin().end() == digest
    assert digest.startswith(f"{UPDATES} losses ")
    shutil.rmtree(tmp_path)
