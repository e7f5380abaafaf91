"""One layer timed alone, beside its roofline, and where most time is lost: pure functions of seconds."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from alexnet_repro.layout import VERIFY
from alexnet_repro.verify.benchmark.roofline import Direction
from alexnet_repro.verify.finding import Finding, Number

NAMED = 3  # of what loses most


@dataclass(frozen=True)
class LayerTiming:
    """One direction of one layer, by itself: the fastest round, and what it would take at the device's own rates."""

    device: str
    precision: str
    batch: int
    layer: str
    direction: Direction
    seconds: Number  # 0: lost in noise, for backward is what forward and backward take, less forward
    roofline: Number  # seconds
    bottleneck: str = ""  # of the roofline: compute or memory

    @property
    def lost(self) -> float:
        """Seconds beyond the roofline; below 0 where it is faster."""
        return self.seconds - self.roofline


def most_lost(timings: Iterable[LayerTiming]) -> list[LayerTiming]:
    """Return the few that lose most time, in seconds; none that reaches its roofline."""
    lost = [each for each in timings if 0 < each.lost < math.inf]
    return sorted(lost, key=lambda each: each.lost, reverse=True)[:NAMED]


def most_lost_in_words(timings: Iterable[LayerTiming]) -> str:
    """Return them as text; empty where nothing is lost."""
    return ", ".join(
        f"{each.layer} {each.direction} {each.lost * 1e3:,.{_digits(each.lost)}f} ms "
        f"({each.roofline / each.seconds * 100:.0f} % of its roofline)"
        for each in most_lost(timings)
    )


def _digits(seconds: float) -> int:
    """Return the decimals of milliseconds: two below ten of them."""
    return 0 if seconds >= 0.01 else 2  # noqa: PLR2004 - ten milliseconds


def profiled(device: str, precision: str, timings: Sequence[LayerTiming], missing: Sequence[str]) -> Finding:
    """Return the finding on a profile, which has no bound: where time is lost, and for which layers it didn't suffice.

    One device in one precision has all of a profile's time.
    """
    words = most_lost_in_words(timings)
    message = f"most time is lost in {words}" if words else "every layer that was timed reaches its roofline"
    if unseen := ", ".join(f"{each.layer} {each.direction}" for each in timings if not each.seconds):
        message += f"; lost in noise: {unseen}"
    found = Finding("profile", "PASS", message, device=device, precision=precision, data={"missing": list(missing)})
    if not missing:
        return found
    fix = f'{VERIFY} --profile --device={device} -k "test_profile and {precision}"'
    return replace(found, message=f"{message}; its time didn't suffice for {', '.join(missing)}", fix=fix)
