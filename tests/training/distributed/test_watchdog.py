"""While workers train together, each finds out within the time when another is lost, and says who it was."""

import contextlib
import itertools
import json
import queue
import socket
import subprocess
import sys
import time

import pytest

from alexnet_repro.training.distributed import watchdog
from alexnet_repro.training.distributed.cluster import Cluster
from alexnet_repro.training.distributed.watchdog import APART, BUSY, TOGETHER, Watch

TIMEOUT = 1.0
CLUSTER = ("host0:1", "host1:1", "host2:1")


class Worker:
    """A worker in a thread, whose end is a line in a queue and not that of this process."""

    def __init__(self, task, connections):
        self.ended = queue.Queue()
        self.watch = Watch(Cluster(CLUSTER, task), connections, TIMEOUT, self.end)
        self.watch.start()

    def end(self, line, status):
        self.ended.put((line, status))
        for each in self.watch.connections.values():  # as the end of a process does
            each.close()

    def line(self):
        """Return the line it ended with."""
        return self.ended.get(timeout=10)[0]


@pytest.fixture(autouse=True)
def _short_farewell(monkeypatch):
    """On loopback, last words arrive at once."""
    monkeypatch.setattr(watchdog, "FAREWELL", 0.1)


@pytest.fixture
def pairs():
    """Connections from the chief to two workers: the chief's side and the workers' side of each."""
    with contextlib.ExitStack() as stack:
        both = {task: socket.socketpair() for task in (1, 2)}
        for each in itertools.chain(*both.values()):
            stack.enter_context(each)
        yield {task: pair[0] for task, pair in both.items()}, {task: pair[1] for task, pair in both.items()}


@pytest.fixture
def workers(pairs):
    """Three workers that watch each other; at the end they part."""
    chief, others = pairs
    workers = [Worker(0, chief), Worker(1, {0: others[1]}), Worker(2, {0: others[2]})]
    yield workers
    for each in workers:
        each.watch._leaving = True


@pytest.fixture
def strange(pairs):
    """The chief and worker 1, with a connection in worker 2's place that the test itself speaks by."""
    chief, others = pairs
    workers = [Worker(0, chief), Worker(1, {0: others[1]})]
    yield *workers, others[2]
    for each in workers:
        each.watch._leaving = True


@pytest.mark.slow
def test_nobody_is_lost(workers):
    """Workers that are all there go on, whatever they are in, and part when all are at their end, the chief last."""
    for what in (APART, BUSY, TOGETHER):
        for each in workers:
            each.watch.move(what, updates=1)
        time.sleep(TIMEOUT / 2)
    workers[1].watch._leaving = workers[2].watch._leaving = True
    time.sleep(TIMEOUT * 2)
    assert not workers[1].watch._over.is_set()
    workers[0].watch.finish()
    for each in workers[1:]:
        each.watch.finish()
        each.watch.connections[0].close()  # none is missed any more
    time.sleep(0.3)
    assert [each.ended.qsize() for each in workers] == [0, 0, 0]


def test_killed(strange):
    """A worker whose connection closes without a word is named at once, by everyone."""
    *survivors, connection = strange
    connection.close()
    for each in survivors:
        assert each.line() == "worker 2 (host2:1) ended without a word: killed, or its machine is down"


def test_chief_killed(pairs):
    """When the chief is killed, the others say so."""
    chief, others = pairs
    workers = [Worker(task, {0: others[task]}) for task in (1, 2)]
    for each in chief.values():
        each.close()
    for each in workers:
        assert each.line() == "worker 0 (host0:1), the chief, ended without a word: killed, or its machine is down"


def test_silent(strange):
    """A worker that falls silent, its connection open, is named after the time, by everyone."""
    *survivors, _ = strange
    begin = time.monotonic()
    for each in survivors:
        assert each.line() == "worker 2 (host2:1) hasn't been heard for 1 s: stopped, hanging, or cut off"
    assert TIMEOUT <= time.monotonic() - begin < TIMEOUT + 5


@pytest.mark.slow
@pytest.mark.parametrize("task", [0, 1])
def test_main_thread_hangs(workers, task):
    """A worker whose main thread comes no further outside of collectives, while the others wait, is named by all."""
    for each in workers:
        each.watch.move(TOGETHER if each is not workers[task] else APART)
    begin = time.monotonic()
    lines = {each.line() for each in workers}
    assert len(lines) == 1
    assert lines.pop().startswith(f"worker {task} (host{task}:1) hangs: outside of what is computed together")
    assert TIMEOUT <= time.monotonic() - begin < TIMEOUT + 5


@pytest.mark.slow
def test_all_wait(workers, monkeypatch):
    """Where all wait in a collective, and none comes further, that is said, and no worker is accused."""
    monkeypatch.setitem(watchdog.PATIENCE, TOGETHER, 2)
    for each in workers:
        each.watch.move(TOGETHER)
    begin, lines = time.monotonic(), {each.line() for each in workers}
    assert len(lines) == 1
    assert "all 3 workers wait for each other: which of them hangs can't be told" in lines.pop()
    assert 2 * TIMEOUT <= time.monotonic() - begin < 2 * TIMEOUT + 5


@pytest.mark.slow
def test_saving_takes_its_time(workers):
    """A worker that saves or measures, longer than it may be silent, isn't given up."""
    workers[0].watch.move(APART)
    with workers[0].watch.inside(BUSY):
        for each in workers[1:]:
            each.watch.move(TOGETHER)
        time.sleep(2.5 * TIMEOUT)
    assert [each.ended.qsize() for each in workers] == [0, 0, 0]


@pytest.mark.parametrize("task", [0, 1])
def test_last_words(workers, task):
    """A worker that fails has all others end with its own line, and itself with its own status."""
    with pytest.raises(SystemExit):
        workers[task].watch.fail(f"worker {task} stopped: the disk is full", 130)
    for number, each in enumerate(workers):
        assert each.ended.get(timeout=10) == (f"worker {task} stopped: the disk is full", 130 if number == task else 1)


def test_own_sleep_is_not_theirs(strange, monkeypatch):
    """A worker that was itself stopped for long doesn't take the others for silent when it wakes."""
    chief, _, connection = strange
    clock = time.monotonic
    connection.sendall(json.dumps({"in": TOGETHER, "updates": 1}).encode() + b"\n")
    time.sleep(0.2)
    monkeypatch.setattr("alexnet_repro.training.distributed.watchdog.time.monotonic", lambda: clock() + 100)
    connection.sendall(json.dumps({"in": TOGETHER, "updates": 2}).encode() + b"\n")
    time.sleep(0.4)
    assert chief.ended.empty()


@pytest.mark.slow
@pytest.mark.parametrize("what", [APART, BUSY])
def test_hangs_when_the_chief_is_through(workers, monkeypatch, what):
    """A worker that hangs at the very end, which the chief and another have come to, is named all the same."""
    monkeypatch.setitem(watchdog.PATIENCE, BUSY, 2)
    for each in workers[:2]:
        each.watch.move(TOGETHER)
        each.watch._leaving = True
    workers[2].watch.move(what, updates=1)
    for each in workers:
        assert each.line().startswith("worker 2 (host2:1) hangs: outside of what is computed together")


@pytest.mark.parametrize("reader", ["there", "gone"])
def test_leaving_needs_no_reader(reader):
    """A process that has to end does, with its status, also where nobody reads what it says any more."""
    code = "import os; from alexnet_repro.training.distributed.watchdog import _leave; os.read(0, 1); _leave('lost', 7)"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    if reader == "gone":
        process.stderr.close()
    process.stdin.write(b"x")
    process.stdin.close()
    said = b"" if reader == "gone" else process.stderr.read()
    assert process.wait(timeout=60) == 7
    assert said.endswith(b"" if reader == "gone" else b"\npython -m alexnet_repro: lost\n")


def test_nonsense(strange):
    """Something that can't be read ends the worker, with the reason: it isn't left unwatched."""
    chief, _, connection = strange
    connection.sendall(b"nonsense\n")
    assert chief.line().startswith("the watchdog of worker 0 (host0:1) failed: JSONDecodeError")
