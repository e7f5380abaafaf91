"""Pipelined rounds: what overlaps, and how many there are."""

from types import SimpleNamespace

import pytest

from alexnet_repro.verify.benchmark import timer as module
from alexnet_repro.verify.benchmark.timer import pipelined_rounds


class Device:
    """Works behind the host's back: each takes a second of made-up time for a round, and they may overlap."""

    def __init__(self):
        self.now, self.done, self.rounds, self.waits = 0.0, 0.0, 0, []

    def work(self):
        self.now += 1
        self.done = max(self.done, self.now) + 1
        self.rounds += 1
        return self.rounds

    def wait(self, *_):
        self.now = max(self.now, self.done)
        self.waits.append(self.rounds)


@pytest.mark.parametrize(
    ("rounds", "waits", "seconds"),
    [
        pytest.param(5, [0, 2], 3 / 2, id="rounds=5"),  # two rounds: the host works for two, the device for one more
        pytest.param(40, [0, 10], 11 / 10, id="rounds=40"),
        pytest.param(96, [0, 8, 8, 16, 16, 24], 9 / 8, id="rounds=96"),
        pytest.param(8000, [0, 666, 666, 1332, 1332, 1998], 667 / 666, id="rounds=8000"),
    ],
)
def test_pipeline_is_synchronized_once(monkeypatch, rounds, waits, seconds):
    """A quarter of the rounds, at least two, in up to three pipelines: host and device overlap, but at their ends."""
    device = Device()
    monkeypatch.setattr(module.devices, "synchronize", device.wait)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: device.now))
    assert pipelined_rounds(device.work, rounds, device.wait) == (waits[-1], seconds)
    assert device.waits == waits
