"""Throughput of several devices together, and stragglers among them: two GPUs or more, or parts of a CPU."""

import pytest

from alexnet_repro.verify.benchmark.scaling import find_stragglers, judge_all_reduce, judge_scaling
from alexnet_repro.verify.benchmark.scaling_run import ScalingRun
from alexnet_repro.verify.finding import Finding
from benchmarks.session import VerificationSession

KINDS = ("weak", "strong")


@pytest.fixture(scope="module")
def scaling_run(verification: VerificationSession) -> ScalingRun:
    """The measurements of all GPUs, or of parts of the CPU."""
    config = verification.config
    parts = config.getoption("cpu_replicas")
    gpus = [device for device in verification.devices if device.startswith("gpu")]
    chosen = [f"cpu:{index}" for index in range(parts)] or gpus
    seconds = float(config.getoption("benchmark_max_time"))
    here = verification.machine
    environ = here.only(*([] if parts else gpus))
    given = {"models": here.seen_gpus, "records": here.gpu_records, "environ": environ}
    return ScalingRun(chosen, parts, deadline=config.getoption("deadline"), seconds=seconds, **given)


def test_stragglers(scaling_run: ScalingRun, verification: VerificationSession) -> None:
    """No device, of any machine, is much behind the median at the work that each of them does in an update."""

    def find(count: int) -> list[Finding]:
        models = scaling_run.models()
        return find_stragglers(scaling_run.alone(count), scaling_run.images, models, scaling_run.precision)

    verification.report_findings("fast", *scaling_run.findings("stragglers", find, scaling_run.counts[-1:]))


def test_all_reduce(scaling_run: ScalingRun, verification: VerificationSession) -> None:
    """The gradients are summed up right, faster than through the host, and as NVLink, PCIe or --link-gbps have it."""

    def find(count: int) -> list[Finding]:
        simple, way = scaling_run.simple_all_reduce_seconds(count), scaling_run.way(count)
        return [judge_all_reduce(scaling_run.all_reduces(count), simple, way, network=scaling_run.network)]

    verification.report_findings("fast", *scaling_run.findings("all-reduce", find, scaling_run.counts[1:]))


def test_scaling(kind: str, scaling_run: ScalingRun, verification: VerificationSession) -> None:
    """An update of 2, 4, … devices or machines takes no longer than computing and an all-reduce."""
    counts = scaling_run.counts[1:]
    found = scaling_run.findings("scaling", lambda count: [judge_scaling(scaling_run.point(kind, count))], counts)
    verification.report_findings("fast", *found)
