"""What does each device reach by itself, and is that what its data sheet promises?"""

from collections.abc import Callable

import pytest
from bench_summary import HERE, RECORD

from alexnet_repro.checks.plan import PRECISIONS
from alexnet_repro.hardware import nominal
from alexnet_repro.hardware.calibrate import calibrate
from alexnet_repro.hardware.devices import thread_counts
from alexnet_repro.hardware.environment import is_named


def test_calibration(device: str, conclude: Callable[..., None], request: pytest.FixtureRequest) -> None:
    """Products in each precision, memory and copies come near the nominal rates, where those are known."""
    kind, _, number = device.partition(":")
    found = calibrate(device, PRECISIONS[kind])
    here = request.config.stash[HERE]
    request.config.stash[RECORD].add_calibration(vars(found))
    if kind == "cpu":
        should = nominal.of_cpu(thread_counts()["processors"])
    else:
        name = here.named_gpus[int(number)] if here.named_gpus else number
        gpu = next((gpu for gpu in here.nvidia.gpus if is_named(gpu, name)), None)
        should = nominal.of_gpu(gpu) if gpu else nominal.Nominal()
    conclude("fast", *nominal.compare(found, should))
