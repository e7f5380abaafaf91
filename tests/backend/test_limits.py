"""What else than memory limits this process: each limit in words, with what lifts it."""

import resource

import pytest

from alexnet_repro.backend import limits
from alexnet_repro.backend.limits import cpu_quota, limit_in_words, oom_kills
from tests.helpers.machines import write

V1 = "4:cpu,cpuacct:/docker/1\n3:pids:/docker/1\n2:memory:/docker/1\n"
V2 = "0::/kubepods/pod7\n"
CPU1, CPU2 = "sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup"


@pytest.mark.parametrize(
    ("cgroup", "files", "quota"),
    [
        pytest.param("0::/", {f"{CPU2}/cpu.max": "50000 100000"}, 0.5, id="quota=container"),
        pytest.param(V2, {f"{CPU2}/kubepods/pod7/cpu.max": "150000 100000"}, 1.5, id="quota=nested"),
        pytest.param(
            V2,
            {f"{CPU2}/kubepods/pod7/cpu.max": "max 100000", f"{CPU2}/kubepods/cpu.max": "300000 100000"},
            *(3.0,),
            id="quota=outer",
        ),
        pytest.param(V2, {f"{CPU2}/kubepods/pod7/cpu.max": "max 100000"}, None, id="quota=none"),
        pytest.param(
            V1,
            {f"{CPU1}/cpu.cfs_quota_us": "50000", f"{CPU1}/cpu.cfs_period_us": "100000"},
            *(0.5,),
            id="quota=version_1",
        ),
        pytest.param(
            V1,
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            *(2.0,),
            id="quota=version_1_by_its_link",
        ),
        pytest.param(
            V1,
            {f"{CPU1}/cpu.cfs_quota_us": "-1", f"{CPU1}/cpu.cfs_period_us": "100000"},
            *(None,),
            id="quota=version_1_none",
        ),
        pytest.param("0::/", {f"{CPU2}/cpu.max": ""}, None, id="quota=empty"),
        pytest.param("0::/", {f"{CPU2}/cpu.max": "many 0"}, None, id="quota=nonsense"),
        pytest.param("0::/", {f"{CPU2}/cpu.max": "50000 0"}, None, id="quota=no_period"),
        pytest.param("0::/", {f"{CPU2}/cpu.max": "400000 100000"}, None, id="quota=of_all"),
        pytest.param("0::/", {f"{CPU2}/cpu.max": "6400000 100000"}, None, id="quota=of_more"),
        pytest.param("0::/", {}, None, id="quota=absent"),
    ],
)
def test_cpu_quota(tmp_path, monkeypatch, cgroup, files, quota):
    """A cgroup's share of processors' time is found, of either version, at any level; the least that limits counts."""
    monkeypatch.setattr(limits, "usable_processors", lambda: 4)
    write(tmp_path, {"proc/self/cgroup": cgroup, **files})
    assert cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(
    ("cgroup", "files", "found"),
    [
        pytest.param(
            "0::/", {f"{CPU2}/memory.events": "oom 3\noom_kill 2"}, (2, "memory.events"), id="kills=container"
        ),
        pytest.param(
            V1,
            {"sys/fs/cgroup/memory/memory.oom_control": "under_oom 0\noom_kill 1\n"},
            *((1, "memory.oom_control"),),
            id="kills=version_1",
        ),
        pytest.param("0::/", {"proc/vmstat": "nr_free 5\noom_kill 7\n"}, (7, "vmstat"), id="kills=machine"),
        pytest.param("0::/", {}, (0, ""), id="kills=unknown"),
    ],
)
def test_oom_kills(tmp_path, cgroup, files, found):
    """How many the kernel has killed is this cgroup's own count, or else the machine's."""
    write(tmp_path, {"proc/self/cgroup": cgroup, **files})
    count, path = oom_kills(tmp_path)
    assert (count, path.rpartition("/")[2]) == found


@pytest.mark.parametrize(
    ("letters", "sizes", "words"),
    [
        pytest.param("v", {"AS": 3_000_000 * 1024}, "address space limited to 3 GB (ulimit -v)", id="limit=v"),
        pytest.param("vd", {"DATA": 1_500_000 * 1024}, "data limited to 1.5 GB (ulimit -d)", id="limit=d"),
        pytest.param("u", {"NPROC": 60}, "processes and threads of this user limited to 60 (ulimit -u)", id="limit=u"),
        pytest.param("up", {}, "processes and threads limited to 100 (the cgroup's pids.max)", id="limit=pids"),
        pytest.param("n", {"NOFILE": 40}, "open files limited to 40 (ulimit -n)", id="limit=n"),
        pytest.param("s", {"STACK": 65536}, "stack limited to 64 kB (ulimit -s)", id="limit=s"),
        pytest.param("s", {"STACK": 8 << 20}, None, id="limit=s_usual"),
        pytest.param("t", {"CPU": 60}, "processor time limited to 60 s (ulimit -t)", id="limit=t"),
        pytest.param("vdnsft", {}, None, id="limit=none"),
    ],
)
def test_limits_in_words(monkeypatch, tmp_path, letters, sizes, words):
    """A limit of the shell's is named by its option, with the digits that were typed; what is unlimited isn't."""
    numbers = {getattr(resource, f"RLIMIT_{name}"): size for name, size in sizes.items()}
    monkeypatch.setattr(resource, "getrlimit", lambda number: (numbers.get(number, resource.RLIM_INFINITY), 0))
    monkeypatch.setattr(limits.os, "geteuid", lambda: 1000)
    pids = {"sys/fs/cgroup/pids.max": "100\n", "sys/fs/cgroup/kubepods/pids.max": "max\n"}
    write(tmp_path, {"proc/self/cgroup": V2, **pids})
    found = limit_in_words(letters, tmp_path)
    assert (found and found[0]) == words
    if "STACK" in sizes and found:
        assert found[1] == "ulimit -s 8192"
        monkeypatch.setattr(resource, "getrlimit", lambda _number: (65536, 65536))
        assert limit_in_words("s")[1] == "ulimit -s 8192 # where it was set: this shell can't lift its own hard limit"
    if "NPROC" in sizes:  # root isn't bound by it
        monkeypatch.setattr(limits.os, "geteuid", lambda: 0)
        assert limit_in_words(letters, tmp_path) is None
