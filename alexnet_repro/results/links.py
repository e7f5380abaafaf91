"""Is the network between workers even? Pure functions from what arrived to findings."""

import statistics
from collections.abc import Sequence

from alexnet_repro.hardware.finding import Finding
from alexnet_repro.results.growth import GRADIENT_BYTES, Link, ring_seconds

LEAST_OF_MEDIAN = 0.5  # a port that has fallen back a speed has 0.4 of it or less: 100 for 40, 25 for 10, 10 for 1


def links(machines: Sequence[str], rates: Sequence[Sequence[float] | str]) -> Finding:
    """Return whether each worker reaches the next at a rate like the others'; the slowest is named.

    Args:
        machines: what each worker's is called.
        rates: from `alexnet_repro.checks.links.link_rates`.
    """
    names = [f"{machine} to {machines[(task + 1) % len(machines)]}" for task, machine in enumerate(machines)]
    cut = [f"{name}: {rate}" for name, rate in zip(names, rates, strict=True) if isinstance(rate, str)]
    if cut:
        mend = "open the ports between the machines: TensorFlow's, and any above 1023 for NCCL"
        return Finding("links", "FAIL", f"a worker isn't reached by {'; '.join(cut)}", mend=mend, data={"broken": True})
    best = {name: max(rate) for name, rate in zip(names, rates, strict=True) if not isinstance(rate, str)}
    middle, slowest = statistics.median_high(best.values()), min(best, key=lambda name: best[name])
    share = best[slowest] / middle
    said = f"{slowest} is the slowest, at {best[slowest] / 1e9:.3g} GB/s by one TCP stream, {share:.0%} of the median"
    found = Finding(
        "links",
        "PASS",
        said,
        ", ".join(f"{name} {rate / 1e9:.3g} GB/s" for name, rate in best.items()),
        number=share,
        bound=LEAST_OF_MEDIAN,
        data={"rates": best},
    )
    if share >= LEAST_OF_MEDIAN:
        return found
    return Finding(
        "links",
        "FAIL",
        f"{said}: all wait for it",
        found.evidence,
        "ethtool INTERFACE; ip -s link # on both: has the port fallen back to a lower speed, are there errors",
        number=share,
        bound=LEAST_OF_MEDIAN,
        data=found.data,
    )


def around_a_ring(rates: Sequence[Sequence[float] | str]) -> float | None:
    """Return the seconds that the gradients would take around a ring of such links; None if that can't be told."""
    told = [max(rate) for rate in rates if not isinstance(rate, str)]
    if not told or len(told) < len(rates) or min(told) <= 0:
        return None
    return ring_seconds(len(told), GRADIENT_BYTES, Link(min(told), 0.0))
