"""Throughput of several machines together, and stragglers among them: workers of --distribute=multiworker."""

from collections.abc import Callable

import pytest

from alexnet_repro.backend.devices import gpu_names
from alexnet_repro.verify.benchmark.scaling import find_stragglers, judge_all_reduce, judge_scaling
from alexnet_repro.verify.benchmark.scaling_run import ClusterScalingRun
from alexnet_repro.verify.doctor.fingerprint import kind_of
from alexnet_repro.verify.finding import Finding
from benchmarks.session import VerificationSession

ONE_MACHINE = "this is one machine, started by itself; several: --distribute=multiworker on each"


@pytest.fixture(scope="module")
def cluster_run(verification: VerificationSession) -> ClusterScalingRun:
    """The measurements of all workers; skips on one machine by itself."""
    config, group = verification.config, verification.workers
    if group is None:
        pytest.skip(ONE_MACHINE)
    devices = verification.devices
    return ClusterScalingRun(
        group.cluster,
        group.gather,
        [device for device in devices if device.startswith("gpu")] or devices,
        deadline=config.getoption("deadline"),
        seconds=float(config.getoption("benchmark_max_time")),
        doubt=group.doubt,
        link_gbps=config.getoption("link_gbps"),
    )


def test_stragglers(cluster_run: ClusterScalingRun, report_findings: Callable[..., None]) -> None:
    """No device of any machine is over 5 % behind the median at the work that each of them does in an update."""

    def find(count: int) -> list[Finding]:
        models = cluster_run.models({device: kind_of(device, gpu_names()) for device in cluster_run.local})
        return find_stragglers(cluster_run.alone(count), cluster_run.images, models, cluster_run.precision)

    report_findings("fast", *cluster_run.findings("stragglers", find, cluster_run.counts[-1:]))


def test_all_reduce(cluster_run: ClusterScalingRun, report_findings: Callable[..., None]) -> None:
    """The gradients are summed up right, and faster than through the host and once around links of --link-gbps."""

    def find(count: int) -> list[Finding]:
        simple = cluster_run.simple_all_reduce_seconds(count)
        return [judge_all_reduce(cluster_run.all_reduces(count), simple, network=not cluster_run.on_cpu)]

    report_findings("fast", *cluster_run.findings("all-reduce", find, cluster_run.counts[1:]))


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_scaling(kind: str, cluster_run: ClusterScalingRun, report_findings: Callable[..., None]) -> None:
    """An update of 2, 4, … machines takes no longer than computing and an all-reduce."""

    def find(count: int) -> list[Finding]:
        return [judge_scaling(cluster_run.point(kind, count))]

    report_findings("fast", *cluster_run.findings("scaling", find, cluster_run.counts[1:]))
