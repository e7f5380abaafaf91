"""Does something else run on this machine? On counts that are made up, and on this machine's."""

import time

import pytest

from alexnet_repro.verify.benchmark.load import Snapshot, others, snapshot


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        pytest.param(Snapshot(0, 0, 0), Snapshot(10, 10, 10), 0.0, id="busy=only this"),
        pytest.param(Snapshot(0, 0, 0), Snapshot(10, 15, 10), 0.25, id="busy=half a processor of two"),
        pytest.param(Snapshot(5, 100, 7), Snapshot(15, 120, 7), 1.0, id="busy=both processors"),
        pytest.param(Snapshot(0, 0, 0), Snapshot(10, 9, 10), 0.0, id="busy=less than this"),
        pytest.param(Snapshot(1, 0, 0), Snapshot(1, 9, 0), 0.0, id="time=none"),
        pytest.param(None, Snapshot(1, 9, 0), 0.0, id="before=unknown"),
        pytest.param(Snapshot(1, 9, 0), None, 0.0, id="after=unknown"),
    ],
)
def test_share_that_others_take(before, after, share):
    """Processor time less one's own, as a share of two processors; 0 where it can't be told."""
    assert others(before, after, 2) == share


def test_counts_are_the_kernels(tmp_path):
    """Idle time and waiting don't count, nor guests, which are in the users' time; where nothing is told, None."""
    stat = tmp_path / "stat"
    stat.write_text("cpu  1000 200 300 9999 8888 40 50 600 7777 6666\ncpu0 1 2 3\n")
    assert snapshot(stat).busy == pytest.approx(21.9)  # of ticks of 10 ms, as on every Linux
    assert snapshot(tmp_path / "nothing") is None


def test_own_time_is_counted():
    """What this process computes is its own, and none of others'."""
    before = snapshot()
    start = time.process_time()
    while time.process_time() - start < 0.05:
        pass
    assert snapshot().own - before.own >= 0.045
