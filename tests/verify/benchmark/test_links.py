"""The network between workers: what arrives is measured, who isn't reached is named, and a slow link fails."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from alexnet_repro.training.distributed.cluster import Cluster
from alexnet_repro.verify.benchmark import links as measuring
from alexnet_repro.verify.benchmark.link_speeds import around_a_ring, links
from alexnet_repro.verify.benchmark.links import link_rates

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

        def changed(every):
            return [every[0], [port, every[1][1]], every[2]] if isinstance(every[0][1], str) else every

        rates = measure(Told(changed))
    assert rates[0] == f"127.0.0.1, port {port}: Connection refused"
    assert [len(each) for each in rates[1:]] == [3, 3]


def test_strangers(monkeypatch):
    """Whoever else connects, and says nothing or something, is let go; the links are measured all the same."""
    monkeypatch.setattr(measuring, "INTRODUCTION", 0.2)
    strangers, once = [], threading.Lock()

    def changed(every):
        with once:  # for all three workers
            if isinstance(every[0][1], str) and not strangers:
                strangers.extend(socket.create_connection(("127.0.0.1", place[0])) for place in every)
                strangers[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
        return every

    rates = measure(Told(changed))
    assert [len(each) for each in rates] == [3, 3, 3]
    for each in strangers:
        each.close()


def test_port_speed(monkeypatch):
    """The speed is that of the interface which has the address that connections to the host come from."""
    address = [SimpleNamespace(address="127.0.0.1")]
    others = [SimpleNamespace(address="192.0.2.7")]
    monkeypatch.setattr(measuring.psutil, "net_if_addrs", lambda: {"eth0": others, "lo": address, "gone": address})
    speeds = {"eth0": SimpleNamespace(speed=100_000), "lo": SimpleNamespace(speed=25_000)}
    monkeypatch.setattr(measuring.psutil, "net_if_stats", lambda: speeds)
    assert measuring.port_speed("127.0.0.1") == 25_000
    del speeds["lo"]
    assert measuring.port_speed("127.0.0.1") == 0
    assert measuring.port_speed("nowhere.invalid") == 0


GOOD, SLOW = 1.2e9, 0.12e9
UNTOLD = [0] * 8


@pytest.mark.parametrize(
    ("workers", "rates", "status"),
    [
        pytest.param(3, [GOOD, 1.0e9, 1.25e9], "PASS", id="workers=3-slow=none"),
        # A slow port slows the link to it and the link from it.
        pytest.param(3, [SLOW, SLOW, GOOD], "FAIL", id="workers=3-slow=1"),
        pytest.param(4, [SLOW, SLOW, GOOD, GOOD], "FAIL", id="workers=4-slow=1"),
        pytest.param(5, [GOOD, GOOD, SLOW, SLOW, GOOD], "FAIL", id="workers=5-slow=1"),
        pytest.param(8, [0.5e9, 0.5e9, *[GOOD] * 6], "FAIL", id="workers=8-slow=1"),
        pytest.param(8, [0.7e9, 0.7e9, *[GOOD] * 6], "PASS", id="workers=8-slow=none"),
        pytest.param(2, [SLOW, SLOW], "INCONCLUSIVE", id="workers=2"),
        pytest.param(2, [SLOW, GOOD], "FAIL", id="workers=2-slow=one way"),
    ],
)
def test_slow_port_fails(workers, rates, status):
    """A link below half of the median (of up to three: the best) fails; the slowest is named. The best round counts."""
    names = [f"node{number}" for number in range(workers)]
    found = links(names, [[rate, rate / 10] for rate in rates], UNTOLD[:workers])
    assert (found.status, found.bound) == (status, 0.5)
    slowest = rates.index(min(rates))
    assert found.message.startswith(f"node{slowest} to node{(slowest + 1) % workers} is the slowest, at ")
    assert ("ethtool" in found.fix) is (status != "PASS")


@pytest.mark.parametrize(
    ("speeds", "status", "message"),
    [
        pytest.param((25_000, 25_000), "PASS", "node1 to node2 is the slowest", id="speeds=equal"),
        pytest.param(
            (25_000, 10_000), "FAIL", "node2's port runs at 10,000 Mb/s, another's at 25,000", id="speeds=fallen"
        ),
        pytest.param(
            (50_000, 100_000), "FAIL", "node1's port runs at 50,000 Mb/s, another's at 100,000", id="speeds=half"
        ),
        pytest.param((25_000, 0), "INCONCLUSIVE", "node1 to node2 is the slowest", id="speeds=untold"),
    ],
)
def test_port_that_fell_back(speeds, status, message):
    """Between two machines links can't tell which port is slow; what the ports say of themselves can."""
    found = links(["node1", "node2"], [[1.1e9], [1.2e9]], speeds)
    assert (found.status, found.message[: len(message)]) == (status, message)


def test_link_that_is_cut_fails():
    """Who isn't reached is named, with why."""
    found = links(MACHINES, [[1e9], [1e9], "node1, port 40123: timed out"], UNTOLD[:3])
    assert (found.status, found.message) == (
        "FAIL",
        "a worker isn't reached by node3 to node1: node1, port 40123: timed out",
    )


def test_around_a_ring():
    """187,058,984 bytes by 1 GB/s among four take 2 × 3/4 of 0.187 s; of a link that isn't known nothing is said."""
    assert around_a_ring([[2e9], [1e9, 0.5e9], [2e9], [2e9]]) == pytest.approx(1.5 * 0.187058984)
    assert around_a_ring([[2e9], "node1: timed out"]) is None
