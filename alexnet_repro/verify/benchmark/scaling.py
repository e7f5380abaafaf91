"""Scaling efficiency, all-reduce bandwidth and stragglers: pure functions from seconds to findings.

Patarasu and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", Journal of Parallel and
Distributed Computing 69(2), 2009: in a ring each device sends 2(n-1) pieces of an n-th, and none can send less. Thakur,
Rabenseifner and Gropp, "Optimization of collective communication operations in MPICH", International Journal of High
Performance Computing Applications 19(1), 2005: each piece takes a latency, and its bytes over the bandwidth.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from alexnet_repro import documented
from alexnet_repro.verify.benchmark.interconnect import Interconnect
from alexnet_repro.verify.benchmark.timing import (
    ALONE,
    COMPARE_GPUS,
    MAX_NOISE,
    MAX_PARITY_GAP,
    SOUND_GAP,
    WITHIN_SOUND,
    relative_iqr,
)
from alexnet_repro.verify.finding import Finding, Status

GRADIENT_BYTES = 4 * documented.TOTAL_PARAMETERS  # float32, in every precision


FALLEN_BACK = (
    "nvidia-smi topo -m; nvidia-smi nvlink -s; NCCL_DEBUG=INFO # is it 'via P2P'? if it is SHM or NET: unset "
    "NCCL_P2P_DISABLE NCCL_P2P_LEVEL NCCL_SHM_DISABLE; systemctl status nvidia-fabricmanager; docker run --ipc=host"
)


class Link(NamedTuple):
    """The hops of a ring."""

    bandwidth: float  # bytes/s that each device sends, and at the same time receives
    latency: float  # seconds until a hop's first byte arrives


def ring_seconds(devices: int, size: int, link: Link) -> float:
    """Return the seconds of an all-reduce of `size` bytes by a ring."""
    return 2 * (devices - 1) / devices * size / link.bandwidth + 2 * (devices - 1) * link.latency


def fit_link(measured: Sequence[tuple[int, int, float]]) -> Link:
    """Return the bandwidth and latency with which a ring comes closest to all-reduces of at least two sizes.

    Each is given by devices, bytes and seconds. Least squares of relative errors, since times span orders of magnitude;
    neither bandwidth nor latency is below zero.
    """
    from scipy.optimize import nnls  # a tenth of a second, for those who fit

    devices, sizes, seconds = np.array(measured, float).T
    rows = np.stack([2 * (devices - 1) / devices * sizes / seconds, 2 * (devices - 1) / seconds], axis=1)
    scale = np.abs(rows).max(axis=0)  # bytes are a billion times seconds
    (inverse, latency), _ = nnls(rows / scale, np.ones(len(rows)))
    return Link(float(scale[0] / inverse) if inverse else math.inf, float(latency / scale[1]))


class Point(NamedTuple):
    """An update of several devices together, and the same of each alone."""

    kind: str  # `weak`: as many images on each device as on one; `strong`: as many on all as on one
    images: int  # of each device
    together: Sequence[float]  # seconds per update, by round
    alone: Mapping[str, Sequence[float]]  # the same of each device, in turns with it; no gradients are reduced
    all_reduce: float  # seconds of an all-reduce of the gradients by itself
    precision: str = ""
    one: float = 0.0  # for strong scaling: seconds of an update of one device with the images of all


def judge_scaling(point: Point) -> Finding:
    """An update takes no longer than computing and an all-reduce, one after the other.

    Efficiency is linear scaling's time over the time measured. Its bound isn't picked: it is linear over the slowest
    device's time and that of the all-reduce, both measured, less what equal devices may differ by. One device is under
    a strategy too, so that neither is compiled with XLA, which TensorFlow has for one alone.
    """
    devices, seconds = len(point.alone), statistics.median(point.together)
    medians = [statistics.median(rounds) for rounds in point.alone.values()]
    linear, slowest = statistics.median(medians), max(medians)  # all wait for the slowest
    if point.kind == "strong":
        linear = point.one / devices
    explained, efficiency = slowest + point.all_reduce, linear / seconds
    bound = linear / explained * (1 - MAX_PARITY_GAP)
    communicating = max(0.0, 1 - slowest / seconds)  # the share that isn't computing
    message = (
        f"{point.kind}, {devices} devices with {point.images} images each: efficiency {efficiency:.1%}, "
        f"{communicating:.1%} of the time communicating"
    )
    data = {"kind": point.kind, "devices": devices, "images": point.images, "seconds": seconds, "linear": linear}
    found = Finding(
        "scaling",
        "PASS",
        message,
        f"{seconds * 1e3:.4g} ms per update, the slowest device alone {slowest * 1e3:.4g} ms, "
        f"an all-reduce {point.all_reduce * 1e3:.4g} ms",
        precision=point.precision,
        number=efficiency,
        bound=bound,
        data={**data, "communicating": communicating},
    )
    if efficiency >= bound:
        return found
    if relative_iqr(point.together) > MAX_NOISE:
        return replace(found, status="INCONCLUSIVE", message=f"{message}; too noisy to judge", fix=ALONE)
    return replace(
        found,
        status="FAIL" if seconds > 2 * explained else "INCONCLUSIVE",  # something else takes it
        message=f"{message}; computing and all-reduce explain no more than {explained * 1e3:.4g} ms of an update",
        fix="nvidia-smi topo -m; nvidia-smi dmon # are there processors enough, does a GPU throttle beside others",
    )


def judge_all_reduce(
    measured: Sequence[Mapping[str, Any]],
    simple_seconds: float | None,
    way: Interconnect | None = None,
    *,
    network: bool = False,
) -> Finding:
    """The gradients are summed up faster than in the simplest way there is, and as fast as the way between GPUs has it.

    The simplest takes `simple_seconds`, if known. On one machine: copied to the host and back by one device by itself;
    devices that send to each other have less to do. Across machines (`network`) also around a ring of links. With what
    `way` carries is compared what is on the bus, or what was fitted to all sizes, without the time of launching,
    whichever is more. `measured` are the answers of `alexnet_repro.verify.benchmark.replicas.answers_to`, the
    gradients' own last.
    """
    if faults := [each["fault"] for each in measured if each["fault"]]:
        return invalid_result("all-reduce", faults[0])
    rows = [(each["devices"], each["bytes"], statistics.median(each["seconds"])) for each in measured]
    (devices, size, own), link = rows[-1], fit_link(rows)
    rate = size / own  # nccl-tests' algbw; on the bus it is busbw (its doc/PERFORMANCE.md)
    bus = 2 * (devices - 1) / devices * rate
    message = f"{size / 1e6:.0f} MB of gradients among {devices} devices: {rate / 1e9:.3g} GB/s, "
    message += f"{bus / 1e9:.3g} GB/s on the bus"
    found = Finding(
        "all-reduce",
        "PASS",
        message,
        f"{own * 1e3:.4g} ms; fitted to all sizes: {link.bandwidth / 1e9:.3g} GB/s, "
        f"{link.latency * 1e6:.3g} µs per hop{_carries(way)}",
        number=rate,
        bound=size / simple_seconds if simple_seconds else None,
        data={
            "devices": devices,
            "measured": [[size, time] for _, size, time in rows],
            **link._asdict(),
            **({"way": way._asdict()} if way else {}),
        },
    )
    if found.bound is None and network:
        fix = "--link-gbps=N # Gb/s between two machines, as measured by iperf3 -c HOST -J"
        return replace(found, message=f"{message}; no bound: name the link's speed with --link-gbps", fix=fix)
    if found.bound is None:
        fix = "run it where there are GPUs"
        return replace(found, status="INCONCLUSIVE", message=f"{message}; no bound is known between CPUs", fix=fix)
    carried = max(bus, link.bandwidth) if math.isfinite(link.bandwidth) else bus
    if way and carried < way.doubt * way.bandwidth:
        share = f"{carried / way.bandwidth:.1%} of what {way.way} carry; at least {way.doubt:.0%} should be reached"
        status: Status = "FAIL" if carried < way.fault * way.bandwidth or rate < found.bound else "INCONCLUSIVE"
        return replace(found, status=status, message=f"{message}: {share}", fix=FALLEN_BACK)
    if rate >= found.bound:
        return found
    simplest = "copies through the host"
    fix = "nvidia-smi topo -m; NCCL_DEBUG=INFO # does it go by NVLink or P2P? if not: virtualisation, ACS, cables"
    if network:
        simplest = "copies to the host, once around a ring at the link's speed, and back"
        fix = "iperf3 -c HOST -J; NCCL_DEBUG=INFO # which interface? NCCL_SOCKET_IFNAME and NCCL_IB_HCA choose another"
    return replace(found, status="FAIL", message=f"{message}; {simplest} would be faster", fix=fix)


def _carries(way: Interconnect | None) -> str:
    return f"; {way.way} carry {way.bandwidth / 1e9:.3g} GB/s, as NCCL reckons" if way else ""


def find_stragglers(
    alone: Mapping[str, Sequence[float]], images: int, models: Mapping[str, str], precision: str = ""
) -> list[Finding]:
    """Return, for each model of which there are several devices, whether one is slow at the work of all.

    `alone` has the seconds per update of `images` without all-reduce, by device and round; `models` product names, by
    device. Compared with the median; of an even number with the faster of the middle two, so that of two devices the
    faster is the standard, and half of a machine can't hide in it.
    """
    groups: dict[str, dict[str, Sequence[float]]] = {}
    for device, rounds in alone.items():
        groups.setdefault(models.get(device) or "device", {})[device] = rounds
    return [_straggler(group, images, model, precision) for model, group in groups.items() if len(group) > 1]


def _straggler(alone: Mapping[str, Sequence[float]], images: int, model: str, precision: str) -> Finding:
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
        precision=precision,
        number=behind[slowest],
        bound=MAX_PARITY_GAP,
        data={"images": images, "seconds": medians, "slow": slow},
    )
    if not slow:
        return found
    message += "".join(f", {device} {behind[device]:.1%}" for device in slow if device != slowest)
    if max(map(relative_iqr, alone.values())) > MAX_NOISE:
        message = f"{message}; too noisy to judge"
        return replace(found, status="INCONCLUSIVE", message=message, fix=ALONE, device=slowest)
    found = replace(found, status="FAIL", message=f"{message}; all wait for it", fix=COMPARE_GPUS, device=slowest)
    if behind[slowest] > SOUND_GAP:
        return found
    return replace(found, status="INCONCLUSIVE", message=f"{found.message}; {WITHIN_SOUND}")


def invalid_result(check: str, fault: str) -> Finding:
    """Return the finding of a measurement whose result is wrong."""
    fix = "see what the checks of correctness and copies report of these devices; then NCCL_DEBUG=WARN"
    return Finding(check, "FAIL", f"invalid: {fault}", fix=fix, kind="crash")


def inconclusive_speed(
    finding: Finding,
    why: str = "on parts of one CPU, which share its cores, speed means nothing",
    fix: str = "run it on a machine with two GPUs, without --cpu-replicas",
) -> Finding:
    """Return a finding as inconclusive where speed means nothing, as on devices that share cores; a crash stays one."""
    if finding.kind == "crash":
        return finding
    return replace(finding, status="INCONCLUSIVE", message=f"{finding.message}; {why}", fix=fix)
