"""How long does an update take on many devices? A model of its time, pure: seconds and bytes in, seconds out.

T(n) = compute(images of each device) + all-reduce(n) + input(images of all), one after the other: the optimizer has all
gradients summed in one call, after the last of them is there, so that nothing overlaps.

Patarasu and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", Journal of Parallel and
Distributed Computing 69(2), 2009: in a ring each sends 2(n-1) pieces of an n-th, and none can send less. Thakur,
Rabenseifner and Gropp, "Optimization of collective communication operations in MPICH", International Journal of High
Performance Computing Applications 19(1), 2005: each piece takes a latency, and its bytes over the bandwidth.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alexnet_repro import documented

GRADIENT_BYTES = 4 * documented.TOTAL_PARAMETERS  # float32, in every precision
TRAINING_IMAGES = 60_000


@dataclass(frozen=True)
class Link:
    """What a ring's hops are like."""

    bandwidth: float
    """Bytes/s that each device sends and at the same time receives."""
    latency: float
    """Seconds until a hop's first byte is there."""


@dataclass(frozen=True)
class Network:
    """Machines of several devices each."""

    inside: Link
    """Between two devices of a machine."""
    outside: Link
    """Between two machines: all that a machine's ports carry together."""
    devices_per_machine: int

    def machines(self, devices: int) -> int:
        """Return how many machines so many devices are."""
        return -(-devices // self.devices_per_machine)

    def ring(self, devices: int) -> Link:
        """Return the hops of one ring through all of them: the narrowest sets the pace, latencies are the mean.

        NCCL's own model (`src/graph/tuning.cc`) adds up latencies in the same way.
        """
        hops, between = max(devices - 1, 1), self.machines(devices) - 1
        if not between:
            return self.inside
        latency = ((hops - between) * self.inside.latency + between * self.outside.latency) / hops
        return Link(min(self.inside.bandwidth, self.outside.bandwidth), latency)


@dataclass(frozen=True)
class Figures:
    """What the model is fed: measured, or nominal."""

    image: float
    """Seconds that one image takes a device, forward and back."""
    update: float
    """Seconds that an update takes beside that, however few images: reading and writing weights, launching."""
    draw: float
    """Seconds that each image of the whole batch takes the host; every worker draws for all."""
    network: Network
    gradient_bytes: int = GRADIENT_BYTES


@dataclass(frozen=True)
class Update:
    """The parts of an update's time, in seconds."""

    devices: int
    images: int
    """Of each device."""
    compute: float
    bandwidth: float
    """Of the all-reduce: bytes over the bandwidth."""
    latency: float
    """Of the all-reduce: hops times their latency."""
    input: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.compute + self.bandwidth + self.latency + self.input

    @property
    def rate(self) -> float:
        """Images/s of all devices."""
        return self.devices * self.images / self.seconds

    @property
    def communicating(self) -> float:
        """The all-reduce's share of the time."""
        return (self.bandwidth + self.latency) / self.seconds

    @property
    def costliest(self) -> str:
        """What costs most beside computing: bandwidth, latency or input."""
        return max(("bandwidth", "latency", "input"), key=lambda name: float(getattr(self, name)))

    @property
    def updates_an_epoch(self) -> float:
        """How many updates see all training images once."""
        return TRAINING_IMAGES / (self.devices * self.images)


def ring_seconds(devices: int, size: int, link: Link) -> float:
    """Return the seconds of an all-reduce of `size` bytes by a ring."""
    return 2 * (devices - 1) / devices * size / link.bandwidth + 2 * (devices - 1) * link.latency


def algorithm_bandwidth(size: int, seconds: float) -> float:
    """Return bytes/s: of what is reduced, over the time. As `algbw` of nccl-tests (doc/PERFORMANCE.md)."""
    return size / seconds


def bus_bandwidth(devices: int, size: int, seconds: float) -> float:
    """Return bytes/s that each device must have sent at the least, to be held against a link's.

    2(n-1)/n of the algorithm bandwidth, as `busbw` of nccl-tests (doc/PERFORMANCE.md).
    """
    return 2 * (devices - 1) / devices * size / seconds


def fit(measured: Sequence[tuple[int, int, float]]) -> Link:
    """Return the bandwidth and latency with which a ring comes closest to measured all-reduces.

    Least squares of relative errors, since times span orders of magnitude; neither is below zero.

    Args:
        measured: of each, the devices, bytes and seconds; of two sizes at the least.
    """
    from scipy.optimize import nnls  # a tenth of a second, for those who fit

    devices, sizes, seconds = np.array(measured, float).T
    rows = np.stack([2 * (devices - 1) / devices * sizes / seconds, 2 * (devices - 1) / seconds], axis=1)
    scale = np.abs(rows).max(axis=0)  # bytes are a billion times seconds
    (inverse, latency), _ = nnls(rows / scale, np.ones(len(rows)))
    return Link(float(scale[0] / inverse) if inverse else math.inf, float(latency / scale[1]))


def update(devices: int, images: int, figures: Figures) -> Update:
    """Return an update's time with so many images on each of so many devices."""
    link = figures.network.ring(devices)
    pieces = 2 * (devices - 1)
    return Update(
        devices,
        images,
        compute=images * figures.image + figures.update,
        bandwidth=pieces / devices * figures.gradient_bytes / link.bandwidth,
        latency=pieces * link.latency,
        input=devices * images * figures.draw,
    )


def weak_efficiency(devices: int, images: int, figures: Figures) -> float:
    """Return one device's time over that of many, with as many images on each: 1 is linear."""
    return update(1, images, figures).seconds / update(devices, images, figures).seconds


def strong_efficiency(devices: int, batch: int, figures: Figures) -> float:
    """Return one device's time over that of many and their number, with as many images in all: 1 is linear."""
    return update(1, batch, figures).seconds / devices / update(devices, batch // devices, figures).seconds
