"""The doctor's word on memory and processors' time: what is limited, against what a verification takes."""

from dataclasses import replace

import pytest

from alexnet_repro.backend.memory_limits import MemoryLimit
from alexnet_repro.verify.doctor.environment import read_machine
from alexnet_repro.verify.doctor.resources import host_memory, processors
from tests.helpers.machines import A100, CPU, box, write

GB = 10**9
RAM = MemoryLimit("RAM", 25 * GB, 21 * GB, "end other programs")
SHELL = MemoryLimit("ulimit -v", 3_145_728 * 1024, 3 * GB, "ulimit -v unlimited", virtual=True)
WIDE = SHELL._replace(size=100 * GB, left=90 * GB)
POD = MemoryLimit("the cgroup's memory.max", 2 * GB, GB, "docker run --memory=, resources.limits.memory of a pod")


@pytest.mark.parametrize(
    ("here", "limits", "status", "words"),
    [
        pytest.param(CPU, [RAM], "PASS", ["21.0 GB are left (RAM)"], id="memory=enough"),
        pytest.param(
            CPU,
            [SHELL, RAM],
            "FAIL",
            ["address space is limited to 3.2 GB (ulimit -v): a verification takes 5.4 GB", "ulimit -v unlimited"],
            id="memory=ulimit",
        ),
        pytest.param(CPU, [RAM, WIDE], "PASS", ["21.0 GB are left"], id="memory=wide_ulimit"),
        pytest.param(
            box(A100),
            [WIDE],
            "INCONCLUSIVE",
            ["CUDA reserves", "ulimit -v unlimited"],
            id="memory=wide_ulimit_with_a_gpu",
        ),
        pytest.param(
            CPU,
            [POD, RAM],
            "FAIL",
            [
                "memory is limited to 2.0 GB (the cgroup's memory.max): a verification takes 3.6 GB",
                "docker run --memory=",
            ],
            id="memory=container",
        ),
        pytest.param(
            replace(CPU, backend="jax"),
            [SHELL, RAM],
            "INCONCLUSIVE",
            ["little address space is left of 3.2 GB (ulimit -v)", "ulimit -v unlimited"],
            id="memory=ulimit_of_another_backend",
        ),
        pytest.param(
            CPU,
            [RAM._replace(left=3 * GB)],
            "INCONCLUSIVE",
            ["little memory is left of 25.0 GB (RAM)", "may be ended", "free -m"],
            id="memory=taken",
        ),
    ],
)
def test_memory(here, limits, status, words):
    """Less than a verification takes fails before it begins, by the limit's name; what is only taken now doesn't."""
    (found,) = host_memory(replace(here, memory=tuple(limits)))
    assert (found.check, found.status) == ("host memory", status)
    assert [each for each in words if each not in str(found)] == []


def test_each_limit_is_a_cause():
    """Two limits that are too low are two failures; where nothing is known there is no finding."""
    found = list(host_memory(replace(CPU, memory=(POD, SHELL))))
    assert [(each.status, each.fix) for each in found] == [("FAIL", POD.fix), ("FAIL", SHELL.fix)]
    assert list(host_memory(replace(CPU, memory=()))) == []


@pytest.mark.parametrize(
    ("quota", "words"),
    [
        pytest.param(None, "2", id="quota=none"),
        pytest.param(0.5, "2, of which a quota leaves the time of 0.5: what is timed is throttled", id="quota=half"),
    ],
)
def test_processors(quota, words):
    """A quota of processors' time is named, with what lifts it; the machine works."""
    (found,) = processors(replace(CPU, processors=2, cpu_quota=quota))
    assert (found.check, found.status, found.message) == ("processors", "PASS", words)
    assert ("docker run --cpus" in found.fix) == ("quota" in words)


def test_limits_are_read(tmp_path):
    """The record has the quota, the processors, and the memory limits of this process."""
    files = {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000", "sys/fs/cgroup/memory.max": f"{GB}"}
    here = read_machine(write(tmp_path, files))
    assert here.cpu_quota == 0.5
    assert here.processors >= 1
    assert "the cgroup's memory.max" in [limit.name for limit in here.memory]
    assert read_machine(tmp_path / "absent").cpu_quota is None
