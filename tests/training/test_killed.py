"""SIGKILL at any moment, during a save too, costs the updates since the last checkpoint and nothing else."""

import multiprocessing
import random
import shutil
import time

import pytest

from tests.helpers.processes import training

KILLS, UPDATES = 20, 100
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([training.__name__])


class Life:
    """A process that trains."""

    def __init__(self, folder):
        self.log = folder.with_suffix(".log")
        self.receiver, sender = FORKS.Pipe(duplex=False)
        self.process = FORKS.Process(target=training.begin, args=(folder, UPDATES, self.log, sender))
        self.process.start()
        sender.close()
        assert self.receiver.recv() == "begins"

    def kill(self):
        """Kill it; whatever it was doing is not finished."""
        self.process.kill()
        self.process.join()
        return self.log.read_text()

    def end(self):
        """Let it come to its end; returns its digest."""
        digest = self.receiver.recv()
        self.process.join()
        assert self.process.exitcode == 0, self.log.read_text()
        return digest


def latest(folder):
    """Return how many updates the latest checkpoint holds."""
    return max((int(path.stem.removeprefix("update-")) for path in folder.glob("update-*.npz")), default=0)


def wait(life, for_what):
    """Wait until a condition is true, in a running life."""
    deadline = time.monotonic() + 60
    while not for_what():
        assert life.process.is_alive(), "the run ended before it was killed: more updates are needed"
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """After twenty kills the run ends with the bits of one that wasn't killed, and every checkpoint could be read."""
    moments, cut, folder = random.Random(0), 0, tmp_path / "killed"
    digest = Life(tmp_path / "whole").end()
    for number in range(KILLS):
        before, life = latest(folder), Life(folder)
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
    assert Life(folder).end() == digest
    assert digest.startswith(f"{UPDATES} losses ")
    shutil.rmtree(tmp_path)
