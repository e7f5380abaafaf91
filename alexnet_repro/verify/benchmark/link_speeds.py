"""Is the network between workers even? Pure functions from what arrived to findings."""

import statistics
from collections.abc import Sequence
from dataclasses import replace

from alexnet_repro.verify.benchmark.growth import GRADIENT_BYTES, Link, ring_seconds
from alexnet_repro.verify.finding import Finding

LEAST = 0.5  # a port that has fallen back a speed has 0.4 of it or less: 100 for 40, 25 for 10, 10 for 1
FEW = 3  # machines, of which a slow port makes most links slow: then the best is what the others should be like
MEND = "ethtool INTERFACE; ip -s link # on both: has the port fallen back to a lower speed, are there errors"


def links(machines: Sequence[str], rates: Sequence[Sequence[float] | str], speeds: Sequence[int]) -> Finding:
    """Return whether each worker reaches the next at a rate like the others'; the slowest is named.

    Args:
        machines: what each worker's is called.
        rates: from `alexnet_repro.verify.benchmark.links.link_rates`.
        speeds: from `alexnet_repro.verify.benchmark.links.port_speed`, one a machine.
    """
    names = [f"{machine} to {machines[(task + 1) % len(machines)]}" for task, machine in enumerate(machines)]
    cut = [f"{name}: {rate}" for name, rate in zip(names, rates, strict=True) if isinstance(rate, str)]
    if cut:
        fix = "open the ports between the machines: TensorFlow's, and any above 1023 for NCCL"
        return Finding("links", "FAIL", f"a worker isn't reached by {'; '.join(cut)}", fix=fix, kind="crash")
    best = {name: max(rate) for name, rate in zip(names, rates, strict=True) if not isinstance(rate, str)}
    few = len(machines) <= FEW
    standard = max(best.values()) if few else statistics.median_high(best.values())
    slowest = min(best, key=lambda name: best[name])
    share = best[slowest] / standard
    said = (
        f"{slowest} is the slowest, at {best[slowest] / 1e9:.3g} GB/s by one TCP stream, {share:.0%} of the "
        f"{'best' if few else 'median'}"
    )
    found = Finding(
        "links",
        "PASS",
        said,
        ", ".join(f"{name} {rate / 1e9:.3g} GB/s" for name, rate in best.items()),
        number=share,
        bound=LEAST,
        data={"rates": best, "ports": dict(zip(machines, speeds, strict=True))},
    )
    if share < LEAST:
        return replace(found, status="FAIL", message=f"{said}: all wait for it", fix=MEND)
    lowest = min(speeds)
    if lowest and lowest < max(speeds):
        message = f"{machines[speeds.index(lowest)]}'s port runs at {lowest:,} Mb/s, another's at {max(speeds):,}"
        return replace(found, status="FAIL", message=message, fix=MEND, number=lowest / max(speeds))
    if len(machines) < FEW and not lowest:
        message = f"{said}; of two machines a slow port slows both links, and the ports don't tell their speed"
        return replace(found, status="INCONCLUSIVE", message=message, fix=MEND)
    return found


def around_a_ring(rates: Sequence[Sequence[float] | str]) -> float | None:
    """Return the seconds that the gradients would take around a ring of such links; None if that can't be told."""
    told = [max(rate) for rate in rates if not isinstance(rate, str)]
    if not told or len(told) < len(rates) or min(told) <= 0:
        return None
    return ring_seconds(len(told), GRADIENT_BYTES, Link(min(told), 0.0))
