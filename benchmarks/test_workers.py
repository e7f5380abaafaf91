"""Throughput of several machines together, and stragglers among them: workers of --distribute=multiworker.

The tests are those of the devices of one machine, on the measurements of all workers.
"""

import pytest

from alexnet_repro.verify.benchmark.scaling_run import ClusterScalingRun
from alexnet_repro.verify.doctor.fingerprint import kind_of
from benchmarks import test_scaling as local
from benchmarks.session import VerificationSession

# In the order in which they run.
KINDS = local.KINDS
test_stragglers, test_all_reduce, test_scaling = local.test_stragglers, local.test_all_reduce, local.test_scaling


@pytest.fixture(scope="module")
def scaling_run(verification: VerificationSession) -> ClusterScalingRun:
    """The measurements of all workers."""
    config, group = verification.config, verification.workers
    assert group is not None  # or the tests don't apply
    here = verification.machine
    devices = [device for device in verification.devices if device.startswith("gpu")] or verification.devices
    return ClusterScalingRun(
        group.cluster,
        group.gather,
        devices,
        deadline=config.getoption("deadline"),
        seconds=float(config.getoption("benchmark_max_time")),
        models={device: kind_of(device, here.seen_gpus) for device in devices},
        environ=here.only(*here.all_gpus),
        doubt=group.doubt,
        link_gbps=config.getoption("link_gbps"),
    )
