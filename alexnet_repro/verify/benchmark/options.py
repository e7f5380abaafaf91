"""pytest-benchmark's options by which a measurement would mean something else: refused before anything is timed.

Our timer calls `pedantic`, with rounds, warm-up and garbage collection of its own. So pytest-benchmark's calibration,
minimum time, warm-up, precision and garbage collection decide nothing; its timer does, and `measure` reads its maximum
time and its minimum number of rounds.
"""

import math
import time
from collections.abc import Callable
from typing import Any


def refusal(timer: Callable[[], Any], max_time: float) -> str:
    """Return why nothing can be timed by this timer, for `max_time` seconds per case; empty if it can.

    One timer is taken, `time.perf_counter`: others may stand still in a sleep, be adjusted, or tick in other units.
    """
    if not 0 <= max_time < math.inf:
        return f"--benchmark-max-time={max_time}: expected seconds, 0 or more"
    if timer is not time.perf_counter:
        name = f"{getattr(timer, '__module__', '')}.{getattr(timer, '__qualname__', timer)}"
        return f"--benchmark-timer={name}: timings are by time.perf_counter; leave the option out"
    return ""
