"""Are devices together as fast as so many should be, is one of them slow? On two GPUs or more, or parts of a CPU."""

from collections.abc import Callable

import keras
import pytest

from alexnet_repro.backend.devices import gpu_models
from alexnet_repro.verify.benchmark import scaling
from benchmarks.summary import DEVICES, LINES
from benchmarks.together import NO_TWO_GPUS, TENSORFLOWS, Together, through_host


@pytest.fixture(scope="module")
def together(request: pytest.FixtureRequest) -> Together:
    """What is measured of all GPUs, or of the parts of the CPU that are asked for; elsewhere it is said why not."""
    config = request.config
    parts, devices = config.getoption("cpu_replicas"), config.stash[DEVICES]
    gpus = [device for device in devices if device.startswith("gpu")]
    why = TENSORFLOWS if keras.backend.backend() != "tensorflow" else "" if parts or len(gpus) > 1 else NO_TWO_GPUS
    if why:
        config.stash[LINES].append(f"scaling: not run; {why}")
        pytest.skip(why)
    chosen = [f"cpu:{number}" for number in range(parts)] or gpus
    return Together(chosen, parts, config.getoption("deadline"), float(config.getoption("benchmark_max_time")))


def test_stragglers(together: Together, conclude: Callable[..., None]) -> None:
    """No device is over 5 % behind the median at the work that each of them does in an update."""

    def find() -> list[scaling.Finding]:
        return scaling.stragglers(together.alone(), together.images, gpu_models(), together.precision)

    conclude("fast", *together.findings("stragglers", [find]))


def test_all_reduce(together: Together, conclude: Callable[..., None]) -> None:
    """The gradients are summed up right, and sooner than through the host, among any number of devices."""
    plainly = None if together.cpu_replicas else through_host(together.devices)
    questions = [
        lambda count=count: [scaling.all_reduce(together.all_reduces(count), plainly)] for count in together.counts[1:]
    ]
    conclude("fast", *together.findings("all-reduce", questions))


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_scaling(kind: str, together: Together, conclude: Callable[..., None]) -> None:
    """An update of 2, 4, … devices takes no longer than computing and an all-reduce."""
    questions = [lambda count=count: [scaling.scaling(together.point(kind, count))] for count in together.counts[1:]]
    conclude("fast", *together.findings("scaling", questions))
