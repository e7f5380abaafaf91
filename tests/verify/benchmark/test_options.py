"""Which of pytest-benchmark's options are refused: those by which a timing would mean something else."""

import math
import time
from itertools import count

import pytest

from alexnet_repro.verify.benchmark.options import is_wall_clock, refusal
from tests.helpers.pytest_here import benchmarks_here


def coarse():
    """Return the time in steps of 4 ms, as Linux's coarse clocks have."""
    return time.perf_counter() // 0.004 * 0.004


def raw():
    """Return the time by a clock that isn't slewed."""
    return time.clock_gettime(time.CLOCK_MONOTONIC_RAW)


@pytest.mark.parametrize(
    ("timer", "wall"),
    [
        pytest.param(time.perf_counter, True, id="timer=perf_counter"),
        pytest.param(time.monotonic, True, id="timer=monotonic"),
        pytest.param(time.time, True, id="timer=time"),
        pytest.param(raw, True, id="timer=raw"),
        pytest.param(lambda: time.perf_counter() - 1e6, True, id="timer=shifted"),
        pytest.param(time.process_time, False, id="timer=process_time"),
        pytest.param(time.thread_time, False, id="timer=thread_time"),
        pytest.param(time.perf_counter_ns, False, id="timer=nanoseconds"),
        pytest.param(lambda: time.perf_counter() * 1.01, False, id="timer=fast"),
        pytest.param(lambda: time.perf_counter() * 0.99, False, id="timer=slow"),
        pytest.param(lambda: -time.perf_counter(), False, id="timer=backwards"),
        pytest.param(coarse, False, id="timer=coarse"),
        pytest.param(lambda: 0.0, False, id="timer=constant"),
        pytest.param(lambda: math.nan, False, id="timer=nan"),
        pytest.param(count().__next__, False, id="timer=count"),
    ],
)
def test_wall_clock(timer, wall):
    """A clock is recognised by what it measures, not by its name."""
    assert is_wall_clock(timer) is wall


def test_wall_clock_on_a_busy_machine(monkeypatch):
    """However long the thread isn't run, before, between and after the readings, a wall clock stays one."""
    now, waits = [100.0], iter([0.5, 0.0, 3.0, 0.2] * 99)

    def clock():
        now[0] += next(waits)
        return now[0]

    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    assert is_wall_clock(clock)


WANTED = "timings need a clock that measures seconds as they pass: time.perf_counter"


@pytest.mark.parametrize(
    ("timer", "max_time", "message"),
    [
        pytest.param(time.perf_counter, 1.0, "", id="options=default"),
        pytest.param(time.perf_counter, 0.0, "", id="seconds=0"),
        pytest.param(
            time.perf_counter, math.inf, "--benchmark-max-time=inf: expected seconds, 0 or more", id="seconds=inf"
        ),
        pytest.param(
            time.perf_counter, math.nan, "--benchmark-max-time=nan: expected seconds, 0 or more", id="seconds=nan"
        ),
        pytest.param(
            time.perf_counter, -1.0, "--benchmark-max-time=-1.0: expected seconds, 0 or more", id="seconds=-1"
        ),
        pytest.param(
            time.process_time,
            1.0,
            f"--benchmark-timer=time.process_time isn't a wall clock; {WANTED}",
            id="timer=process_time",
        ),
        pytest.param(
            math.sqrt,
            1.0,
            "--benchmark-timer=math.sqrt can't be called (math.sqrt() takes exactly one argument (0 given)); " + WANTED,
            id="timer=with an argument",
        ),
        pytest.param(
            str,
            1.0,
            "--benchmark-timer=builtins.str can't be called (unsupported operand type(s) for -: 'str' and 'str'); "
            + WANTED,
            id="timer=text",
        ),
    ],
)
def test_refusal(timer, max_time, message):
    """What is refused is named in one line, with what is taken instead."""
    assert refusal(timer, max_time) == message


@pytest.mark.parametrize("option", ["--benchmark-timer=time.process_time", "--benchmark-max-time=inf"])
def test_benchmarks_are_refused(tmp_path, option):
    """`pytest benchmarks` ends at once by a usage error of one line, and leaves no results."""
    status, printed = benchmarks_here("--device=cpu:0", f"--report={tmp_path / 'report'}", option)
    assert status == 4
    assert f"ERROR: {option}" in printed
    assert not (tmp_path / "report").exists()
