"""The network between workers: what arrives is measured, who isn't reached is named, and a slow link fails."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from alexnet_repro.checks import links as measuring
from alexnet_repro.checks.links import link_rates
from alexnet_repro.cluster import Cluster
from alexnet_repro.results.links import around_a_ring, links

ADDRESSES = ("127.0.0.1:2222", "127.0.0.1:2223", "127.0.0.1:2224")
MACHINES = ("node1", "node2", "node3")


class Told:
    """Stands for the workers' exchange, among threads; `changed` may change what is said of ports."""

    def __init__(self, changed=lambda own: own):
        self.barrier, self.said, self.changed = threading.Barrier(3, timeout=30), [None] * 3, changed

    def by(self, task):
        """Return what that worker exchanges with."""

        def gather(own):
            self.said[task] = own
            self.barrier.wait()
            every = list(self.said)
            self.barrier.wait()
            return self.changed(every)

        return gather


def measure(told):
    """Return what three workers are told of their links; all the same."""
    with ThreadPoolExecutor() as pool:
        every = list(pool.map(lambda task: link_rates(Cluster(ADDRESSES, task), told.by(task), 0.05), range(3)))
    assert every[0] == every[1] == every[2]
    return every[0]


def test_rates_on_loopback():
    """Each worker's bytes arrive at the next, in three rounds, at more than 10 MB/s on any loopback."""
    rates = measure(Told())
    assert [len(each) for each in rates] == [3, 3, 3]
    assert all(1e7 < rate < 1e12 for each in rates for rate in each)


def test_worker_that_is_not_reached(monkeypatch):
    """A port that nobody can connect to is said of the link that needs it, and of no other."""
    monkeypatch.setattr(measuring, "PATIENCE", 0.5)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, and doesn't listen
        port = closed.getsockname()[1]
        rates = measure(Told(lambda every: [every[0], port, every[2]] if isinstance(every[0], int) else every))
    assert rates[0] == f"127.0.0.1, port {port}: Connection refused"
    assert [len(each) for each in rates[1:]] == [3, 3]


@pytest.mark.parametrize(
    ("slowest", "status"),
    [pytest.param(1.0e9, "PASS", id="slowest=1.0"), pytest.param(0.4e9, "FAIL", id="slowest=0.4")],
)
def test_slow_link_fails(slowest, status):
    """A link below half of the median fails, and the slowest is named either way; its best round counts."""
    found = links(MACHINES, [[1.2e9, 0.1e9], [slowest, 0.1e9], [1.25e9, 1.0e9]])
    assert (found.status, found.bound) == (status, 0.5)
    assert found.number == pytest.approx(slowest / 1.2e9)
    assert found.cause.startswith("node2 to node3 is the slowest, at ")
    assert ("ethtool" in found.mend) is (status == "FAIL")


def test_link_that_is_cut_fails():
    """Who isn't reached is named, with why."""
    found = links(MACHINES, [[1e9], [1e9], "node1, port 40123: timed out"])
    assert (found.status, found.cause) == (
        "FAIL",
        "a worker isn't reached by node3 to node1: node1, port 40123: timed out",
    )


def test_around_a_ring():
    """187,058,984 bytes by 1 GB/s among four take 2 × 3/4 of 0.187 s; of a link that isn't known nothing is said."""
    assert around_a_ring([[2e9], [1e9, 0.5e9], [2e9], [2e9]]) == pytest.approx(1.5 * 0.187058984)
    assert around_a_ring([[2e9], "node1: timed out"]) is None
