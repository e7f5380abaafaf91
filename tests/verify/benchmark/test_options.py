"""Which of pytest-benchmark's options are refused: those by which a timing would mean something else."""

import math
import time

import pytest

from alexnet_repro.verify.benchmark.options import refusal
from tests.helpers.pytest_here import benchmarks_here

SECONDS = "expected seconds, 0 or more"
TIMER = "timings are by time.perf_counter; leave the option out"


@pytest.mark.parametrize(
    ("timer", "max_time", "message"),
    [
        pytest.param(time.perf_counter, 1.0, "", id="options=default"),
        pytest.param(time.perf_counter, 0.0, "", id="seconds=0"),
        pytest.param(time.perf_counter, math.inf, f"--benchmark-max-time=inf: {SECONDS}", id="seconds=inf"),
        pytest.param(time.perf_counter, math.nan, f"--benchmark-max-time=nan: {SECONDS}", id="seconds=nan"),
        pytest.param(time.perf_counter, -1.0, f"--benchmark-max-time=-1.0: {SECONDS}", id="seconds=-1"),
        pytest.param(time.process_time, 1.0, f"--benchmark-timer=time.process_time: {TIMER}", id="timer=process_time"),
        pytest.param(str, 1.0, f"--benchmark-timer=builtins.str: {TIMER}", id="timer=no clock"),
        pytest.param(None, 1.0, f"--benchmark-timer=.None: {TIMER}", id="timer=no function"),
    ],
)
def test_refusal(timer, max_time, message):
    """What is refused is named in one line, with what is taken instead; the default is taken."""
    assert refusal(timer, max_time) == message


@pytest.mark.parametrize("option", ["--benchmark-timer=time.process_time", "--benchmark-max-time=inf"])
def test_benchmarks_are_refused(tmp_path, option):
    """`pytest benchmarks` ends at once by a usage error of one line, and leaves no results."""
    status, printed = benchmarks_here("--device=cpu:0", f"--report={tmp_path / 'report'}", option)
    assert status == 4
    assert f"ERROR: {option}" in printed
    assert not (tmp_path / "report").exists()
