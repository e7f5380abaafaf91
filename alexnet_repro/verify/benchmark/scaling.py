"""Scaling efficiency, all-reduce bandwidth and stragglers: pure functions from seconds to findings.

Patarasu and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", Journal of Parallel and
Distributed Computing 69(2), 2009: in a ring each device sends 2(n-1) pieces of an n-th, and none can send less. Thakur,
Rabenseifner and Gropp, "Optimization of collective communication operations in MPICH", International Journal of High
Performance Computing Applications 19(1), 2005: each piece takes a latency, and its bytes over the bandwidth.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alexnet_repro import documented
from alexnet_repro.verify.benchmark.timing import ALONE, MAX_NOISE, MAX_PARITY_GAP
from alexnet_repro.verify.finding import Finding

GRADIENT_BYTES = 4 * documented.TOTAL_PARAMETERS  # float32, in every precision
MAX_UNEXPLAINED = MAX_PARITY_GAP  # of a step's time, beside computing and all-reduce: what equal devices may differ by
MAX_STEP_RATIO = 2.0  # a step that takes twice the time of its parts isn't made of them
THROUGH_HOST = (
    "copies through the host",
    "nvidia-smi topo -m; NCCL_DEBUG=INFO # does it go by NVLink or P2P? if not: virtualisation, ACS, cables",
)
BY_LINK = (
    "copies to the host, once around a ring at the link's speed, and back",
    "iperf3 -c HOST -J; NCCL_DEBUG=INFO # which interface? NCCL_SOCKET_IFNAME and NCCL_IB_HCA choose another",
)
SPLIT_CPU = "on parts of one CPU, which share its cores, speed means nothing"
UNSPLIT = "run it on a machine with two GPUs, without --cpu-replicas"


@dataclass(frozen=True)
class Link:
    """The hops of a ring."""

    bandwidth: float
    """Bytes/s that each device sends, and at the same time receives."""
    latency: float
    """Seconds until a hop's first byte arrives."""


def ring_seconds(devices: int, size: int, link: Link) -> float:
    """Return the seconds of an all-reduce of `size` bytes by a ring."""
    return 2 * (devices - 1) / devices * size / link.bandwidth + 2 * (devices - 1) * link.latency


def algbw(size: int, seconds: float) -> float:
    """Return the algorithm bandwidth in bytes/s: the bytes reduced over the time (nccl-tests, doc/PERFORMANCE.md)."""
    return size / seconds


def busbw(devices: int, size: int, seconds: float) -> float:
    """Return the bus bandwidth in bytes/s, comparable with a link's: 2(n-1)/n of `algbw` (nccl-tests)."""
    return 2 * (devices - 1) / devices * size / seconds


def fit_link(measured: Sequence[tuple[int, int, float]]) -> Link:
    """Return the bandwidth and latency with which a ring comes closest to measured all-reduces.

    Least squares of relative errors, since times span orders of magnitude; neither is below zero.

    Args:
        measured: devices, bytes and seconds of each; of at least two sizes.
    """
    from scipy.optimize import nnls  # a tenth of a second, for those who fit

    devices, sizes, seconds = np.array(measured, float).T
    rows = np.stack([2 * (devices - 1) / devices * sizes / seconds, 2 * (devices - 1) / seconds], axis=1)
    scale = np.abs(rows).max(axis=0)  # bytes are a billion times seconds
    (inverse, latency), _ = nnls(rows / scale, np.ones(len(rows)))
    return Link(float(scale[0] / inverse) if inverse else math.inf, float(latency / scale[1]))


@dataclass(frozen=True)
class Point:
    """An update of several devices together, and the same of each alone."""

    kind: str
    """`weak`: as many images on each device as on one; `strong`: as many on all as on one."""
    images: int
    """Of each device."""
    together: Sequence[float]
    """Seconds per update, by round."""
    alone: Mapping[str, Sequence[float]]
    """The same of each device by itself, in turns with it; no gradients are reduced."""
    all_reduce: float
    """Seconds of an all-reduce of the gradients by itself."""
    precision: str = ""
    one: float = 0.0
    """For strong scaling: seconds of an update of one device with the images of all."""

    @property
    def devices(self) -> int:
        """Number of devices."""
        return len(self.alone)

    @property
    def seconds(self) -> float:
        """Median seconds per update."""
        return statistics.median(self.together)

    @property
    def slowest(self) -> float:
        """Seconds of the slowest device alone: all wait for it."""
        return max(map(statistics.median, self.alone.values()))

    @property
    def linear(self) -> float:
        """Seconds per update under linear scaling.

        One device is under a strategy too, so that neither is compiled with XLA, which TensorFlow has for one alone.
        """
        if self.kind == "strong":
            return self.one / self.devices
        return statistics.median(map(statistics.median, self.alone.values()))

    @property
    def efficiency(self) -> float:
        """Linear scaling's time over the time measured: 1 is linear."""
        return self.linear / self.seconds

    @property
    def communicating(self) -> float:
        """Share of the time that isn't computing: a step together against the slowest device's without all-reduce."""
        return max(0.0, 1 - self.slowest / self.seconds)


def judge_scaling(point: Point) -> Finding:
    """An update takes no longer than computing and an all-reduce, one after the other.

    So the bound of the efficiency isn't picked: it is linear over the slowest device's time and that of the
    all-reduce, both measured, less `MAX_UNEXPLAINED`.
    """
    explained = point.slowest + point.all_reduce
    bound = point.linear / explained * (1 - MAX_UNEXPLAINED)
    message = (
        f"{point.kind}, {point.devices} devices with {point.images} images each: efficiency {point.efficiency:.1%}, "
        f"{point.communicating:.1%} of the time communicating"
    )
    found = Finding(
        "scaling",
        "PASS",
        message,
        f"{point.seconds * 1e3:.4g} ms per update, the slowest device alone {point.slowest * 1e3:.4g} ms, "
        f"an all-reduce {point.all_reduce * 1e3:.4g} ms",
        precision=point.precision,
        number=point.efficiency,
        bound=bound,
        data={
            name: getattr(point, name) for name in ("kind", "devices", "images", "seconds", "linear", "communicating")
        },
    )
    if point.efficiency >= bound:
        return found
    if _noise(point.together) > MAX_NOISE:
        return replace(found, status="INCONCLUSIVE", message=f"{message}; too noisy to judge", fix=ALONE)
    return replace(
        found,
        status="FAIL" if point.seconds > MAX_STEP_RATIO * explained else "INCONCLUSIVE",
        message=f"{message}; computing and all-reduce explain no more than {explained * 1e3:.4g} ms of an update",
        fix="nvidia-smi topo -m; nvidia-smi dmon # are there processors enough, does a GPU throttle beside others",
    )


def judge_all_reduce(
    measured: Sequence[Mapping[str, Any]], simple_seconds: float | None, *, network: bool = False
) -> Finding:
    """The gradients are summed up faster than in the simplest way there is.

    Args:
        measured: answers of `alexnet_repro.verify.benchmark.replicas.answers_to`, the gradients' own last.
        simple_seconds: what they would take in that way. On one machine: copied to the host and back by one device by
            itself, at its calibrated rates; devices that send to each other have less to do. Across machines also
            around a ring of links. None: unknown.
        network: whether GPUs of several machines took part.
    """
    seconds = [statistics.median(each["seconds"]) for each in measured]
    own, devices, size = seconds[-1], measured[-1]["devices"], measured[-1]["bytes"]
    faults = [each["fault"] for each in measured if each["fault"]]
    if faults:
        return invalid_result("all-reduce", faults[0])
    link = fit_link([(each["devices"], each["bytes"], time) for each, time in zip(measured, seconds, strict=True)])
    rate, bus = algbw(size, own), busbw(devices, size, own)
    message = (
        f"{size / 1e6:.0f} MB of gradients among {devices} devices: {rate / 1e9:.3g} GB/s, "
        f"{bus / 1e9:.3g} GB/s on the bus"
    )
    found = Finding(
        "all-reduce",
        "PASS",
        message,
        f"{own * 1e3:.4g} ms; fitted to all sizes: {link.bandwidth / 1e9:.3g} GB/s, "
        f"{link.latency * 1e6:.3g} µs per hop",
        number=rate,
        bound=algbw(size, simple_seconds) if simple_seconds else None,
        data={
            "devices": devices,
            "measured": [[each["bytes"], time] for each, time in zip(measured, seconds, strict=True)],
            "bandwidth": link.bandwidth,
            "latency": link.latency,
        },
    )
    if found.bound is None and network:
        fix = "--link-gbps=N # Gb/s between two machines, as measured by iperf3 -c HOST -J"
        return replace(found, message=f"{message}; no bound: name the link's speed with --link-gbps", fix=fix)
    if found.bound is None:
        fix = "run it where there are GPUs"
        return replace(found, status="INCONCLUSIVE", message=f"{message}; no bound is known between CPUs", fix=fix)
    if rate < found.bound:
        way, fix = BY_LINK if network else THROUGH_HOST
        return replace(found, status="FAIL", message=f"{message}; {way} would be faster", fix=fix)
    return found


def find_stragglers(
    alone: Mapping[str, Sequence[float]], images: int, models: Mapping[str, str], precision: str = ""
) -> list[Finding]:
    """Return, for each model of which there are several devices, whether one is slow at the work of all.

    Compared with the median; of an even number with the faster of the middle two, so that of two devices the faster is
    the standard, and half of a machine can't hide in it.

    Args:
        alone: seconds per update without all-reduce, by device and round; measured in turns.
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
    message = f"{slowest} is {behind[slowest]:.1%} behind the median of {len(medians)} × {model}"
    found = Finding(
        "stragglers",
        "PASS",
        f"{message}, and the slowest",
        f"{medians[slowest] * 1e3:.4g} ms per update of {images} images, the median is {middle * 1e3:.4g} ms",
        number=behind[slowest],
        bound=MAX_PARITY_GAP,
        data={"images": images, "seconds": medians, "slow": slow},
    )
    if not slow:
        return found
    message += "".join(f", {device} {behind[device]:.1%}" for device in slow if device != slowest)
    if max(map(_noise, alone.values())) > MAX_NOISE:
        message = f"{message}; too noisy to judge"
        return replace(found, status="INCONCLUSIVE", message=message, fix=ALONE, device=slowest)
    number = slowest.rpartition(":")[2]
    fix = f"nvidia-smi -q -i {number} -d CLOCK,POWER,TEMPERATURE,PERFORMANCE # and of another; then reseat it"
    return replace(found, status="FAIL", message=f"{message}; all wait for it", fix=fix, device=slowest)


def invalid_result(check: str, fault: str) -> Finding:
    """Return the finding of a measurement whose result is wrong."""
    fix = "see what the checks of correctness and copies report of these devices; then NCCL_DEBUG=WARN"
    return Finding(check, "FAIL", f"invalid: {fault}", fix=fix, kind="crash")


def inconclusive_speed(finding: Finding, why: str = SPLIT_CPU, fix: str = UNSPLIT) -> Finding:
    """Return a finding as inconclusive where speed means nothing, as on devices that share cores; a crash stays one."""
    if finding.kind == "crash":
        return finding
    return replace(finding, status="INCONCLUSIVE", message=f"{finding.message}; {why}", fix=fix)


def _noise(rounds: Sequence[float]) -> float:
    """Return the interquartile range over the median."""
    first, middle, third = statistics.quantiles(rounds, n=4, method="inclusive")
    return (third - first) / middle
