"""Does something else run on this machine? From the kernel's count of processor time, less one's own."""

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")
BUSY = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, steal; guests are in user (man 5 proc_stat)


@dataclass(frozen=True)
class Snapshot:
    """Seconds up to now."""

    wall: float
    busy: float
    """Of all processors, since the machine started."""
    own: float
    """Of this process, and of its children that have ended."""


def snapshot(stat: Path = STAT) -> Snapshot | None:
    """Return the seconds up to now; None where the kernel doesn't tell."""
    try:
        ticks = [int(each) for each in stat.read_text().split("\n", 1)[0].split()[1:]]
    except OSError:
        return None
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    own = sum(use.ru_utime + use.ru_stime for use in uses)
    return Snapshot(time.monotonic(), sum(ticks[place] for place in BUSY) / os.sysconf("SC_CLK_TCK"), own)


def others(before: Snapshot | None, after: Snapshot | None, processors: int) -> float:
    """Return which share of the processors others took between two snapshots; 0 where it can't be told."""
    if before is None or after is None or after.wall <= before.wall:
        return 0.0
    taken = (after.busy - before.busy) - (after.own - before.own)
    return max(0.0, taken / (after.wall - before.wall) / processors)
