"""pytest-benchmark's options by which a measurement would mean something else: refused before anything is timed.

Our timer calls `pedantic`, with rounds, warm-up and garbage collection of its own. So pytest-benchmark's calibration,
minimum time, warm-up, precision and garbage collection decide nothing; its timer does, and `measure` reads its maximum
time and its minimum number of rounds.
"""

import math
import time
from collections.abc import Callable
from typing import Any

SLEEPS = (0.002, 0.004, 0.008, 0.016)  # seconds
# Of an interval, and seconds: Linux slews its clocks by at most 500 parts in a million (adjtimex(2)), and the float64
# of seconds since 1970 has steps of 2.4e-7.
MAX_RATE_ERROR, STEP = 1e-3, 1e-6


def refusal(timer: Callable[[], Any], max_time: float) -> str:
    """Return why nothing can be timed by this timer, for `max_time` seconds per case; empty if it can."""
    if not 0 <= max_time < math.inf:
        return f"--benchmark-max-time={max_time}: expected seconds, 0 or more"
    name = f"--benchmark-timer={getattr(timer, '__module__', '')}.{getattr(timer, '__qualname__', timer)}"
    wanted = "timings need a clock that measures seconds as they pass: time.perf_counter"
    try:
        wall = is_wall_clock(timer)
    except Exception as error:  # noqa: BLE001 - it may be anyone's function
        return f"{name} can't be called ({' '.join(str(error).split())}); {wanted}"
    return "" if wall else f"{name} isn't a wall clock; {wanted}"


def is_wall_clock(timer: Callable[[], Any]) -> bool:
    """Return whether a timer agrees with `time.perf_counter` while this thread sleeps, to a thousandth.

    A clock of a process or of a thread stands still then; one in steps of milliseconds, or in other units, disagrees.
    """
    return all(_agrees(timer, seconds) for seconds in SLEEPS)


def _agrees(timer: Callable[[], Any], seconds: float) -> bool:
    # Each reading lies between two of the other clock: whatever interrupts them only widens what is allowed.
    before, start, after = time.perf_counter(), timer(), time.perf_counter()
    time.sleep(seconds)
    before_end, end, after_end = time.perf_counter(), timer(), time.perf_counter()
    least, most = before_end - after, after_end - before
    return bool(least * (1 - MAX_RATE_ERROR) - STEP <= end - start <= most * (1 + MAX_RATE_ERROR) + STEP)
