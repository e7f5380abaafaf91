"""Coordination: a lost or hanging worker is named within the time by all others; values reach all workers."""

import contextlib
import itertools
import json
import queue
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from alexnet_repro.training.distributed import coordination
from alexnet_repro.training.distributed.cluster import Cluster, ClusterError
from alexnet_repro.training.distributed.coordination import COLLECTIVE, HOST, IO, AllGather, Watchdog
from alexnet_repro.training.distributed.rendezvous import Connection, rendezvous
from tests.helpers.workers import free_addresses

TIMEOUT = 0.5  # seconds; heartbeats are five times as frequent
CLUSTER = ("host0:1", "host1:1", "host2:1")


class Worker:
    """A worker in a thread, whose end is a line in a queue and not that of this process."""

    def __init__(self, task, connections):
        self.ended, self.sockets = queue.Queue(), connections.values()
        connections = {other: Connection(each) for other, each in connections.items()}
        self.watchdog = Watchdog(Cluster(CLUSTER, task), connections, TIMEOUT)
        self.watchdog.leave = self.end
        self.watchdog.start()

    def end(self, line, status):
        self.ended.put((line, status))
        for each in self.sockets:  # as the end of a process does
            each.close()

    def line(self):
        """Return the line it ended with."""
        return self.ended.get(timeout=10)[0]


@pytest.fixture(autouse=True)
def _impatience(monkeypatch):
    """On loopback, the last message arrives at once; the clock is read often."""
    monkeypatch.setattr(coordination, "LINGER", 0.1)
    monkeypatch.setattr(coordination, "TICK", 0.02)


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
        each.watchdog._finishing = True


@pytest.fixture
def strange(pairs):
    """The chief and worker 1, with a connection in worker 2's place that the test itself speaks by."""
    chief, others = pairs
    workers = [Worker(0, chief), Worker(1, {0: others[1]})]
    yield *workers, others[2]
    for each in workers:
        each.watchdog._finishing = True


@pytest.mark.slow
def test_nobody_is_lost(workers):
    """Workers that are all there continue in every phase, and part when all have finished, the chief last."""
    for what in (HOST, IO, COLLECTIVE):
        for each in workers:
            each.watchdog.enter(what, updates=1)
        time.sleep(TIMEOUT / 2)
    workers[1].watchdog._finishing = workers[2].watchdog._finishing = True
    time.sleep(TIMEOUT * 2)
    assert not workers[1].watchdog._over.is_set()
    workers[0].watchdog.finish()
    for each in workers[1:]:
        each.watchdog.finish()
        each.sockets.mapping[0].close()  # none is missed any more
    time.sleep(0.3)
    assert [each.ended.qsize() for each in workers] == [0, 0, 0]


def test_killed(strange):
    """A worker whose connection closes is named at once, by all others."""
    *survivors, connection = strange
    connection.close()
    for each in survivors:
        assert each.line() == "worker 2 (host2:1) disconnected unexpectedly: killed, or its machine is down"


def test_chief_killed(pairs):
    """When the chief is killed, the others name it."""
    chief, others = pairs
    workers = [Worker(task, {0: others[task]}) for task in (1, 2)]
    for each in chief.values():
        each.close()
    for each in workers:
        assert each.line() == "worker 0 (host0:1) disconnected unexpectedly: killed, or its machine is down"


def test_silent(strange):
    """A worker that falls silent, its connection open, is named after the time, by all others."""
    *survivors, _ = strange
    begin = time.monotonic()
    for each in survivors:
        assert each.line() == "worker 2 (host2:1) sent no heartbeat for 0.5 s: stopped, hanging, or cut off"
    assert TIMEOUT <= time.monotonic() - begin < TIMEOUT + 5


@pytest.mark.slow
@pytest.mark.parametrize("task", [0, 1])
def test_main_thread_hangs(workers, task):
    """A worker whose main thread makes no progress in host code, while the others wait, is named by all."""
    for each in workers:
        each.watchdog.enter(COLLECTIVE if each is not workers[task] else HOST)
    begin = time.monotonic()
    lines = {each.line() for each in workers}
    assert len(lines) == 1
    assert lines.pop().startswith(f"worker {task} (host{task}:1) hangs in host code: no progress for ")
    assert TIMEOUT <= time.monotonic() - begin < TIMEOUT + 5


@pytest.mark.slow
def test_all_wait(workers, monkeypatch):
    """Where all wait in a collective, and none makes progress, all report that, and no worker is named."""
    monkeypatch.setitem(coordination.MAX_TIMEOUTS, COLLECTIVE, 2)
    for each in workers:
        each.watchdog.enter(COLLECTIVE)
    begin, lines = time.monotonic(), {each.line() for each in workers}
    assert len(lines) == 1
    assert "all 3 workers wait in a collective; to find which of them hangs, run" in lines.pop()
    assert 2 * TIMEOUT <= time.monotonic() - begin < 2 * TIMEOUT + 5


@pytest.mark.slow
def test_saving_takes_its_time(workers):
    """A worker that saves or evaluates for longer than it may be silent isn't lost."""
    workers[0].watchdog.enter(HOST)
    with workers[0].watchdog.inside(IO):
        for each in workers[1:]:
            each.watchdog.enter(COLLECTIVE)
        time.sleep(2.5 * TIMEOUT)
    assert [each.ended.qsize() for each in workers] == [0, 0, 0]


@pytest.mark.parametrize("task", [0, 1])
def test_failure(workers, task):
    """A worker that fails ends all others with its own line, and itself with its own status."""
    with pytest.raises(SystemExit):
        workers[task].watchdog.fail(f"worker {task} stopped: the disk is full", 130)
    for number, each in enumerate(workers):
        assert each.ended.get(timeout=10) == (f"worker {task} stopped: the disk is full", 130 if number == task else 1)


def test_own_sleep_is_not_theirs(strange, monkeypatch):
    """A worker that was itself stopped for long doesn't hold the others for silent when it wakes."""
    chief, _, connection = strange
    clock = time.monotonic
    connection.sendall(json.dumps({"phase": COLLECTIVE, "updates": 1}).encode() + b"\n")
    time.sleep(0.1)
    monkeypatch.setattr("alexnet_repro.training.distributed.coordination.time.monotonic", lambda: clock() + 100)
    connection.sendall(json.dumps({"phase": COLLECTIVE, "updates": 2}).encode() + b"\n")
    time.sleep(0.2)
    assert chief.ended.empty()


@pytest.mark.slow
@pytest.mark.parametrize("what", [HOST, IO])
def test_hangs_when_the_chief_is_through(workers, monkeypatch, what):
    """A worker that hangs at the very end, which the chief and another have reached, is named all the same."""
    monkeypatch.setitem(coordination.MAX_TIMEOUTS, IO, 2)
    for each in workers[:2]:
        each.watchdog.enter(COLLECTIVE)
        each.watchdog._finishing = True
    workers[2].watchdog.enter(what, updates=1)
    for each in workers:
        assert each.line().startswith("worker 2 (host2:1) hangs in host code: no progress for ")


@pytest.mark.parametrize("reader", ["there", "gone"])
def test_leaving_needs_no_reader(reader):
    """A process that has to end does, with its status, also where nobody reads its output any more."""
    code = "import os; from alexnet_repro.training.distributed import coordination as module; os.read(0, 1); "
    code += "module._leave('lost', 7)"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    if reader == "gone":
        process.stderr.close()
    process.stdin.write(b"x")
    process.stdin.close()
    output = b"" if reader == "gone" else process.stderr.read()
    assert process.wait(timeout=60) == 7
    assert output.endswith(b"" if reader == "gone" else b"\npython -m alexnet_repro: lost\n")


def test_nonsense(strange):
    """A message that can't be read ends the worker, with the reason: it isn't left unwatched."""
    chief, _, connection = strange
    connection.sendall(b"nonsense\n")
    assert chief.line().startswith("the watchdog of worker 0 (host0:1) failed: JSONDecodeError")


WORKERS = 3


@pytest.fixture
def addresses():
    """Three addresses on loopback that nobody listens at."""
    return tuple(free_addresses(WORKERS))


@pytest.fixture
def gathers(addresses):
    """Three workers that have met, each in a thread; `reports` keeps what the chief reports meanwhile."""

    def one(task):
        reports = []
        cluster = Cluster(addresses, task)
        gather = AllGather(cluster, rendezvous(cluster, {"seed": 0}, 5.0), reports.append)
        gather.reports = reports
        return gather

    with ThreadPoolExecutor(WORKERS) as pool:
        met = list(pool.map(one, range(WORKERS)))
        yield met
        list(pool.map(AllGather.close, met))


def call(gathers, own, timeout=5.0):
    """Return what each of some workers gets, or the error's text; `own` is the value of each, by index."""

    def one(task):
        try:
            return gathers[task]("here", own[task], timeout)
        except ClusterError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        waiting = {task: pool.submit(one, task) for task in own}
        return {task: each.result() for task, each in waiting.items()}


@pytest.mark.parametrize(
    "own",
    [
        pytest.param([1, 2, 3], id="own=numbers"),
        pytest.param([None, {"a": [0.1, "\n"]}, []], id="own=json"),
        pytest.param(["x" * 5_000_000, "", "y"], id="own=megabytes"),
    ],
)
def test_all_get_all_values(gathers, own):
    """Every worker gets the values of all, by index, again and again."""
    for _ in range(2):
        assert call(gathers, dict(enumerate(own))) == dict.fromkeys(range(WORKERS), own)


def test_worker_that_is_lost_is_named(gathers, addresses):
    """A worker that has left is named by all others, at once, and from then on at every call."""
    gathers[2].close()
    start = time.monotonic()
    line = f"worker 2 ({addresses[2]}) disconnected unexpectedly"
    for _ in range(2):
        assert call(gathers, {0: "a", 1: "b"}) == {0: line, 1: line}
    assert time.monotonic() - start < 4


def test_chief_that_is_lost_is_named(gathers, addresses):
    """Without the chief the others name it, each by itself."""
    gathers[0].close()
    line = f"worker 0 ({addresses[0]}) disconnected unexpectedly"
    assert call(gathers, {1: "a", 2: "b"}) == {1: line, 2: line}


def test_worker_that_does_not_come_is_named(gathers, addresses, monkeypatch):
    """A worker that is there and doesn't come is reported, then named as lost."""
    monkeypatch.setattr(coordination, "REMINDER", 0.1)
    line = f"timed out after 0.5 s waiting for worker 1 ({addresses[1]})"
    assert call(gathers, {0: "a", 2: "b"}, timeout=0.5) == {0: line, 2: line}
    assert gathers[0].reports[0].startswith(f"waiting for worker 1 ({addresses[1]}): ")


def test_worker_that_is_elsewhere_is_named(gathers, addresses):
    """A value of another point of the work isn't taken for an answer."""
    with ThreadPoolExecutor() as pool:
        elsewhere = pool.submit(gathers[1], "the end", "b", 5.0)
        line = f"worker 1 ({addresses[1]}) went on to 'the end', while worker 0 is at 'here'"
        assert call(gathers, {0: "a", 2: "c"}) == {0: line, 2: line}
        with pytest.raises(ClusterError, match="went on to 'the end'"):
            elsewhere.result()


def test_worker_that_comes_late_is_waited_for(gathers):
    """Until the time is over, a late worker is waited for."""

    def late():
        time.sleep(0.5)
        return gathers[1]("here", "b", 5.0)

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(late)
        assert call(gathers, {0: "a", 2: "c"}) == {0: ["a", "b", "c"], 2: ["a", "b", "c"]}
        assert waiting.result() == ["a", "b", "c"]


def test_lost_worker_is_named_to_one_that_sends(gathers, addresses):
    """A worker that still sends megabytes when the chief has left with another's name reads the name all the same."""
    gathers[2].close()
    line = f"worker 2 ({addresses[2]}) disconnected unexpectedly"
    with ThreadPoolExecutor() as pool:
        chief = pool.submit(call, gathers, {0: "a"})
        assert chief.result() == {0: line}
        leaving = pool.submit(gathers[0].close)
        assert call(gathers, {1: "x" * 20_000_000}) == {1: line}
        leaving.result()


def test_chief_that_hangs(gathers, addresses, monkeypatch):
    """A chief that doesn't answer is lost after the time that is stated."""
    monkeypatch.setattr(coordination, "GRACE", 0.5)
    assert call(gathers, {1: "b"}, timeout=0.2) == {1: f"timed out after 1 s waiting for worker 0 ({addresses[0]})"}
