"""What each worker has to say reaches all others; one that is lost is named, and nobody waits for it any longer."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from alexnet_repro.training.distributed import all_gather
from alexnet_repro.training.distributed.all_gather import AllGather
from alexnet_repro.training.distributed.cluster import Cluster, ClusterError
from alexnet_repro.training.distributed.handshake import meet
from tests.helpers.workers import free_addresses

WORKERS = 3


@pytest.fixture
def addresses():
    """Three addresses on loopback that nobody listens at."""
    return tuple(free_addresses(WORKERS))


@pytest.fixture
def gathers(addresses):
    """Three workers that have met, each in a thread; what the chief says meanwhile is kept in its `said`."""

    def one(task):
        said = []
        cluster = Cluster(addresses, task)
        gather = AllGather(cluster, meet(cluster, {"seed": 0}, 5.0), said.append)
        gather.said = said
        return gather

    with ThreadPoolExecutor(WORKERS) as pool:
        met = list(pool.map(one, range(WORKERS)))
    yield met
    for each in met:
        each.close()


def ask(gathers, own, timeout=5.0):
    """Return what each of some workers is told, or the error's text; `own` is what each says, by its number."""

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
def test_all_are_told_the_same(gathers, own):
    """Every worker is told what each says, by its number, again and again."""
    for _ in range(2):
        assert ask(gathers, dict(enumerate(own))) == dict.fromkeys(range(WORKERS), own)


def test_worker_that_is_lost_is_named(gathers, addresses):
    """One that has ended is named to all that are left, at once, and from then on at every call."""
    gathers[2].close()
    start = time.monotonic()
    line = f"worker 2 ({addresses[2]}) ended before its part was done"
    for _ in range(2):
        assert ask(gathers, {0: "a", 1: "b"}) == {0: line, 1: line}
    assert time.monotonic() - start < 4


def test_chief_that_is_lost_is_named(gathers, addresses):
    """Without the chief the others say so, each by itself."""
    gathers[0].close()
    line = f"worker 0 ({addresses[0]}), the chief, ended before its part was done"
    assert ask(gathers, {1: "a", 2: "b"}) == {1: line, 2: line}


def test_worker_that_does_not_come_is_named(gathers, addresses, monkeypatch):
    """One that is there, and doesn't come, is reminded of, then given up."""
    monkeypatch.setattr(all_gather, "REMINDER", 0.5)
    line = f"waited 2 s for worker 1 ({addresses[1]}), in vain"
    assert ask(gathers, {0: "a", 2: "b"}, timeout=2.0) == {0: line, 2: line}
    assert gathers[0].said[0].startswith(f"waiting for worker 1 ({addresses[1]}): ")


def test_worker_that_is_elsewhere_is_named(gathers, addresses):
    """What is said at another point of the work isn't taken for an answer."""
    with ThreadPoolExecutor() as pool:
        elsewhere = pool.submit(gathers[1], "the end", "b", 5.0)
        line = f"worker 1 ({addresses[1]}) went on to the end, while worker 0 is at here"
        assert ask(gathers, {0: "a", 2: "c"}) == {0: line, 2: line}
        with pytest.raises(ClusterError, match="went on to the end"):
            elsewhere.result()


def test_worker_that_comes_late_is_waited_for(gathers):
    """Until its time is over, it is no fault to be late."""

    def late():
        time.sleep(1.5)
        return gathers[1]("here", "b", 5.0)

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(late)
        assert ask(gathers, {0: "a", 2: "c"}) == {0: ["a", "b", "c"], 2: ["a", "b", "c"]}
        assert waiting.result() == ["a", "b", "c"]


def test_lost_worker_is_named_to_who_has_much_to_say(gathers, addresses):
    """Who still sends megabytes when the chief has already left with another's name reads the name all the same."""
    gathers[2].close()
    line = f"worker 2 ({addresses[2]}) ended before its part was done"
    with ThreadPoolExecutor() as pool:
        chief = pool.submit(ask, gathers, {0: "a"})
        assert chief.result() == {0: line}
        leaving = pool.submit(gathers[0].close)
        assert ask(gathers, {1: "x" * 20_000_000}) == {1: line}
        leaving.result()


def test_chief_that_hangs(gathers, addresses, monkeypatch):
    """The chief that doesn't answer is given up after the time that is said."""
    monkeypatch.setattr(all_gather, "GRACE", 0.5)
    assert ask(gathers, {1: "b"}, timeout=0.5) == {1: f"waited 2 s for worker 0 ({addresses[0]}), the chief, in vain"}
