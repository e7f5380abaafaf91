"""Are devices together as fast as so many should be, is one of them slow? On two GPUs or more, or parts of a CPU."""

from collections.abc import Callable

import keras
import pytest
from bench_summary import DEVICES, LINES
from bench_together import NO_TWO_GPUS, TENSORFLOWS, Together

from alexnet_repro.checks.plan import PRECISIONS
from alexnet_repro.hardware.calibrate import calibrate
from alexnet_repro.hardware.devices import gpu_names
from alexnet_repro.results import scaling
from alexnet_repro.results.growth import GRADIENT_BYTES


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
    models = {f"gpu:{number}": name for number, name in enumerate(gpu_names())}

    def find() -> list[scaling.Finding]:
        return scaling.stragglers(together.alone(), together.images, models, together.precision)

    conclude("fast", *together.findings("stragglers", [find]))


@pytest.fixture(scope="module")
def through_host(together: Together) -> float | None:
    """Seconds of a copy of the gradients to the host and back, by the slowest device at its calibrated rates."""
    if together.cpu_replicas:
        return None
    rates = [calibrate(device, PRECISIONS["gpu"]) for device in together.devices]
    return max(GRADIENT_BYTES / each.to_host + GRADIENT_BYTES / each.to_device for each in rates)


def test_all_reduce(together: Together, through_host: float | None, conclude: Callable[..., None]) -> None:
    """The gradients are summed up right, and sooner than through the host, among any number of devices."""
    questions = [
        lambda count=count: [scaling.all_reduce(together.all_reduces(count), through_host)]
        for count in together.counts[1:]
    ]
    conclude("fast", *together.findings("all-reduce", questions))


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_scaling(kind: str, together: Together, conclude: Callable[..., None]) -> None:
    """An update of 2, 4, … devices takes no longer than computing and an all-reduce."""
    questions = [lambda count=count: [scaling.scaling(together.point(kind, count))] for count in together.counts[1:]]
    conclude("fast", *together.findings("scaling", questions))
