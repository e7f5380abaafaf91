"""Are machines together as fast as so many should be, is one of them slow? Among workers: --distribute=multiworker."""

from collections.abc import Callable

import pytest

from alexnet_repro.backend.devices import gpu_names
from alexnet_repro.verify.benchmark import scaling
from alexnet_repro.verify.benchmark.link_speeds import links
from alexnet_repro.verify.doctor.fingerprint import kind_of
from alexnet_repro.verify.finding import Finding
from benchmarks.among_workers import AmongWorkers
from benchmarks.summary import DEVICES
from benchmarks.workers import CLUSTER, DOUBT, GATHER

ALONE = "this is one machine, started by itself; several: --distribute=multiworker on each"


@pytest.fixture(scope="module")
def workers(request: pytest.FixtureRequest) -> AmongWorkers:
    """What is measured of all workers; elsewhere it is said why not."""
    config = request.config
    if GATHER not in config.stash:
        pytest.skip(ALONE)
    devices = config.stash[DEVICES]
    local = [device for device in devices if device.startswith("gpu")] or devices
    seconds = float(config.getoption("benchmark_max_time"))
    deadline, doubt = config.getoption("deadline"), config.stash[DOUBT]
    return AmongWorkers(config.stash[CLUSTER], config.stash[GATHER], local, deadline, seconds, doubt=doubt)


def test_links(workers: AmongWorkers, conclude: Callable[..., None]) -> None:
    """Each worker reaches the next one, at a rate like the others'."""

    def find() -> list[Finding]:
        return [links(workers.machines, workers.link_rates(), workers.port_speeds())]

    conclude("fast", *workers.findings("links", [find]))


def test_stragglers(workers: AmongWorkers, conclude: Callable[..., None]) -> None:
    """No device of any machine is over 5 % behind the median at the work that each of them does in an update."""

    def find() -> list[scaling.Finding]:
        models = workers.models({device: kind_of(device, gpu_names()) for device in workers.local})
        return scaling.stragglers(workers.alone(), workers.images, models, workers.precision)

    conclude("fast", *workers.findings("stragglers", [find]))


def test_all_reduce(workers: AmongWorkers, conclude: Callable[..., None]) -> None:
    """The gradients are summed up right, and sooner than by way of the host and plain TCP."""
    questions = [
        lambda count=count: [scaling.all_reduce(workers.all_reduces(count), workers.plainly(count), network=True)]
        for count in workers.counts[1:]
    ]
    conclude("fast", *workers.findings("all-reduce", questions))


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_scaling(kind: str, workers: AmongWorkers, conclude: Callable[..., None]) -> None:
    """An update of 2, 4, … machines takes no longer than computing and an all-reduce."""
    questions = [lambda count=count: [scaling.scaling(workers.point(kind, count))] for count in workers.counts[1:]]
    conclude("fast", *workers.findings("scaling", questions))
