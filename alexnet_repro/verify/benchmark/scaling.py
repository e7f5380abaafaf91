"""Are devices together as fast as they should be, and is one of them slow? Pure functions from seconds to findings."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alexnet_repro.verify.benchmark.growth import algorithm_bandwidth, bus_bandwidth, fit
from alexnet_repro.verify.benchmark.timing import MAX_NOISE, MAX_PARITY_GAP
from alexnet_repro.verify.finding import Finding

# What computing and all-reduce leave unexplained of a step's time: as much as equal devices may differ by.
UNEXPLAINED = MAX_PARITY_GAP
# A step that takes twice the time of its parts isn't made of them.
FAR_BEYOND = 2.0
THROUGH_HOST = (
    "copies through the host",
    "nvidia-smi topo -m; NCCL_DEBUG=INFO # does it go by NVLink or P2P? if not: virtualisation, ACS, cables",
)
BY_TCP = (
    "copies to the host, one TCP stream and back",
    "NCCL_DEBUG=INFO # which interface does it take? NCCL_SOCKET_IFNAME and NCCL_IB_HCA choose another",
)
SPLIT_CPU = "on parts of one CPU, which share its cores, it means nothing"
UNSPLIT = "run it on a machine with two GPUs, without --cpu-replicas"
ALONE = "run it again with nothing else on the machine"


@dataclass(frozen=True)
class Point:
    """An update of several devices together, and the same of each alone."""

    kind: str
    """`weak`: as many images on each device as on one; `strong`: as many on all as on one."""
    images: int
    """Of each device."""
    together: Sequence[float]
    """Seconds of an update, by round."""
    alone: Mapping[str, Sequence[float]]
    """The same of each device by itself, in turns with it; no gradients are reduced."""
    all_reduce: float
    """Seconds of an all-reduce of the gradients by itself."""
    precision: str = ""
    one: float = 0.0
    """For strong scaling: seconds of an update of one device with the images of all."""

    @property
    def devices(self) -> int:
        """How many there are."""
        return len(self.alone)

    @property
    def seconds(self) -> float:
        """Of an update, by its median."""
        return statistics.median(self.together)

    @property
    def slowest(self) -> float:
        """Seconds of the slowest device alone: all wait for it."""
        return max(map(statistics.median, self.alone.values()))

    @property
    def linear(self) -> float:
        """Seconds that an update would take if devices cost nothing together.

        One device is under a strategy too, so that neither is compiled with XLA, which TensorFlow has for one alone.
        """
        if self.kind == "strong":
            return self.one / self.devices
        return statistics.median(map(statistics.median, self.alone.values()))

    @property
    def efficiency(self) -> float:
        """Against linear: 1 is as fast as so many devices could be."""
        return self.linear / self.seconds

    @property
    def communicating(self) -> float:
        """Share of the time that isn't computing: a step together against the slowest device's without all-reduce."""
        return max(0.0, 1 - self.slowest / self.seconds)


def scaling(point: Point) -> Finding:
    """An update takes no longer than computing and an all-reduce, one after the other.

    So the efficiency to be reached isn't picked: it is linear over the slowest device's time and that of the
    all-reduce, both measured, less `UNEXPLAINED`.
    """
    explained = point.slowest + point.all_reduce
    bound = point.linear / explained * (1 - UNEXPLAINED)
    said = (
        f"{point.kind}, {point.devices} devices with {point.images} images each: efficiency {point.efficiency:.1%}, "
        f"{point.communicating:.1%} of the time communicating"
    )
    found = Finding(
        "scaling",
        "PASS",
        said,
        f"{point.seconds * 1e3:.4g} ms an update, the slowest device alone {point.slowest * 1e3:.4g} ms, "
        f"an all-reduce {point.all_reduce * 1e3:.4g} ms",
        precision=point.precision,
        number=point.efficiency,
        bound=bound,
        data=_kept(point),
    )
    if point.efficiency >= bound:
        return found
    if _noise(point.together) > MAX_NOISE:
        return replace(found, status="INCONCLUSIVE", message=f"{said}; too noisy to judge", fix=ALONE)
    return replace(
        found,
        status="FAIL" if point.seconds > FAR_BEYOND * explained else "INCONCLUSIVE",
        message=f"{said}; computing and all-reduce explain no more than {explained * 1e3:.4g} ms of an update",
        fix="nvidia-smi topo -m; nvidia-smi dmon # are there processors enough, does a GPU throttle beside others",
    )


def _kept(point: Point) -> dict[str, Any]:
    return {
        "kind": point.kind,
        "devices": point.devices,
        "images": point.images,
        "seconds": point.seconds,
        "linear": point.linear,
        "communicating": point.communicating,
    }


def all_reduce(measured: Sequence[Mapping[str, Any]], plainly: float | None, *, network: bool = False) -> Finding:
    """The gradients are summed up faster than by the plainest way there is.

    Args:
        measured: what `alexnet_repro.verify.benchmark.replicas.ask` answers, the gradients' own last.
        plainly: seconds that they would take by that way. On one machine: copied to the host and back by one device
            by itself, at its calibrated rates; devices that send to each other have less to do. None where it isn't
            known.
        network: whether that way is one between machines.
    """
    seconds = [statistics.median(each["seconds"]) for each in measured]
    own, devices, size = seconds[-1], measured[-1]["devices"], measured[-1]["bytes"]
    link = fit([(each["devices"], each["bytes"], time) for each, time in zip(measured, seconds, strict=True)])
    rate, bus = algorithm_bandwidth(size, own), bus_bandwidth(devices, size, own)
    bound = algorithm_bandwidth(size, plainly) if plainly else None
    rates = f"{rate / 1e9:.3g} GB/s, {bus / 1e9:.3g} GB/s on the bus"
    said = f"{size / 1e6:.0f} MB of gradients among {devices} devices: {rates}"
    found = Finding(
        "all-reduce",
        "PASS",
        said,
        f"{own * 1e3:.4g} ms; fitted to all sizes: {link.bandwidth / 1e9:.3g} GB/s, {link.latency * 1e6:.3g} µs a hop",
        number=rate,
        bound=bound,
        data={
            "devices": devices,
            "measured": [[each["bytes"], time] for each, time in zip(measured, seconds, strict=True)],
            "bandwidth": link.bandwidth,
            "latency": link.latency,
        },
    )
    faults = [each["fault"] for each in measured if each["fault"]]
    if faults:
        return void("all-reduce", faults[0])
    if bound is None:
        message = f"{said}; nothing is known to hold it against"
        fix = "run it where there are GPUs, and their machines reach each other"
        return replace(found, status="INCONCLUSIVE", message=message, fix=fix)
    if rate < bound:
        way, fix = BY_TCP if network else THROUGH_HOST
        return replace(found, status="FAIL", message=f"{said}; {way} would be faster", fix=fix)
    return found


def stragglers(
    alone: Mapping[str, Sequence[float]], images: int, models: Mapping[str, str], precision: str = ""
) -> list[Finding]:
    """Return, for each model of which there are several devices, whether one is slow at the work of all.

    Held against the median; of an even number the faster of the middle two, so that two devices are held against
    the faster, and half of a machine can't hide in it.

    Args:
        alone: seconds of an update without all-reduce, by device and round; measured in turns.
        images: of an update.
        models: product names, by device.
        precision: what they computed in.
    """
    groups: dict[str, dict[str, Sequence[float]]] = {}
    for device, rounds in alone.items():
        groups.setdefault(models.get(device, ""), {})[device] = rounds
    found = [_straggler(group, images, model or "device") for model, group in groups.items() if len(group) > 1]
    return [replace(each, precision=precision) for each in found]


def _straggler(alone: Mapping[str, Sequence[float]], images: int, model: str) -> Finding:
    medians = {device: statistics.median(rounds) for device, rounds in alone.items()}
    middle = statistics.median_low(medians.values())
    behind = {device: seconds / middle - 1 for device, seconds in medians.items()}
    slowest = max(behind, key=lambda device: behind[device])
    slow = [device for device in medians if behind[device] > MAX_PARITY_GAP]
    said = f"{slowest} is {behind[slowest]:.1%} behind the median of {len(medians)} × {model}"
    found = Finding(
        "stragglers",
        "PASS",
        f"{said}, and the slowest",
        f"{medians[slowest] * 1e3:.4g} ms an update of {images} images, the median is {middle * 1e3:.4g} ms",
        number=behind[slowest],
        bound=MAX_PARITY_GAP,
        data={"images": images, "seconds": medians, "slow": slow},
    )
    if not slow:
        return found
    others = [device for device in slow if device != slowest]
    said += "".join(f", {device} {behind[device]:.1%}" for device in others)
    if max(map(_noise, alone.values())) > MAX_NOISE:
        message = f"{said}; too noisy to judge"
        return replace(found, status="INCONCLUSIVE", message=message, fix=ALONE, device=slowest)
    number = slowest.rpartition(":")[2]
    fix = f"nvidia-smi -q -i {number} -d CLOCK,POWER,TEMPERATURE,PERFORMANCE # and of another; then reseat it"
    return replace(found, status="FAIL", message=f"{said}; all wait for it", fix=fix, device=slowest)


def void(check: str, fault: str) -> Finding:
    """Return the finding of what was timed and computed wrongly."""
    fix = "see what correct and copies say of these devices; then NCCL_DEBUG=WARN"
    return Finding(check, "FAIL", f"invalid: {fault}", fix=fix, kind="crash")


def by_design(finding: Finding, why: str = SPLIT_CPU, fix: str = UNSPLIT) -> Finding:
    """Return what was found on devices that share one machine's cores as in doubt: only whether it runs is told."""
    if finding.kind == "crash":
        return finding
    return replace(finding, status="INCONCLUSIVE", message=f"{finding.message}; {why}", fix=fix)


def _noise(rounds: Sequence[float]) -> float:
    """Return the distance between the quartiles over the median."""
    first, middle, third = statistics.quantiles(rounds, n=4, method="inclusive")
    return (third - first) / middle
