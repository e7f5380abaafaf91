"""What limits this process's memory: each limit by its name, with what is left of it."""

import resource
import subprocess
import sys

import pytest

from alexnet_repro.backend.memory_limits import memory_limits
from tests.helpers.paths import ROOT

GB = 10**9
V2 = {"memory.max": 3 * GB, "memory.current": 2 * GB, "memory.stat": f"anon {GB}\nactive_file 7\ninactive_file {GB}"}
V1 = {"memory.limit_in_bytes": 2 * GB, "memory.usage_in_bytes": GB, "memory.stat": "total_inactive_file 1000"}
POD = "kubepods/pod7"


@pytest.mark.parametrize(
    ("cgroup", "folders", "expected"),
    [
        pytest.param("0::/", {"": V2}, [("memory.max", 3 * GB, 2 * GB + 12)], id="cgroup=container"),
        pytest.param(f"0::/{POD}", {POD: V2}, [("memory.max", 3 * GB, 2 * GB + 7)], id="cgroup=nested"),
        pytest.param(
            f"0::/{POD}/a",
            {f"{POD}/a": {"memory.max": "max"}, "kubepods": {**V2, "memory.max": GB}},
            [("memory.max", GB, 7)],
            id="cgroup=outer",
        ),
        pytest.param(
            "0::/", {"": {**V2, "memory.swap.max": 0}}, [("memory.max", 3 * GB, 2 * GB + 7)],
            id="cgroup=without_swap",
        ),
        pytest.param(
            "9:name=systemd:/\n4:memory:/docker/1f\n0::/", {"memory": V1},
            [("memory.limit_in_bytes", 2 * GB, GB + 1000)], id="cgroup=version_1",
        ),
        pytest.param("4:cpu,memory:/", {"memory": {"memory.limit_in_bytes": 2**63 - 4096}}, [], id="cgroup=unlimited"),
        pytest.param("4:memory:/", {"memory": {"memory.limit_in_bytes": "nonsense"}}, [], id="cgroup=unreadable"),
        pytest.param("0::/../..", {}, [], id="cgroup=elsewhere"),
        pytest.param(None, {}, [], id="cgroup=none"),
    ],
)  # fmt: skip
def test_cgroups(tmp_path, monkeypatch, cgroup, folders, expected):
    """A cgroup's limit, of either version and of any level, is found; what the system can take back is left of it."""
    monkeypatch.setattr("psutil.swap_memory", lambda: type("Swap", (), {"total": GB, "free": 5 * (cgroup == "0::/")}))
    (tmp_path / "proc/self").mkdir(parents=True)
    if cgroup is not None:
        (tmp_path / "proc/self/cgroup").write_text(f"{cgroup}\n")
    for name, files in folders.items():
        (tmp_path / "sys/fs/cgroup" / name).mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (tmp_path / "sys/fs/cgroup" / name / file).write_text(f"{content}\n")
    found = [limit for limit in memory_limits(tmp_path) if limit.name.startswith("the cgroup's")]
    assert [(limit.name.split()[-1], limit.size, limit.left) for limit in found] == expected
    assert all("docker run --memory=" in limit.fix and not limit.virtual for limit in found)


def test_ram(tmp_path):
    """Where nothing else limits it, RAM does."""
    unlimited = {resource.getrlimit(each)[0] for each in (resource.RLIMIT_AS, resource.RLIMIT_DATA)}
    if unlimited != {resource.RLIM_INFINITY}:
        pytest.skip("needs a shell without ulimit -v and -d")
    (limit,) = memory_limits(tmp_path)
    assert (limit.name, limit.virtual) == ("RAM", False)
    assert 0 < limit.left <= limit.size


@pytest.mark.parametrize("option", ["v", "d"])
def test_ulimit(option):
    """What `ulimit` limits has its option's name, and is known without Keras; addresses aren't memory in use."""
    code = (
        "import sys; from alexnet_repro.backend.memory_limits import memory_limits\n"
        "print(*next(each for each in memory_limits() if 'ulimit' in each.name), 'keras' in sys.modules, sep='|')"
    )
    command = ["sh", "-c", f'ulimit -{option} 3000000 && exec "$0" "$@"', sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    name, size, left, fix, virtual, keras = done.stdout.strip().split("|")
    assert (name, size, fix) == (f"ulimit -{option}", str(3_000_000 * 1024), f"ulimit -{option} unlimited")
    assert 0 < int(left) < int(size)
    assert (virtual, keras) == (str(option == "v"), "False")


def test_hidden_proc(monkeypatch, tmp_path):
    """Where /proc says nothing of memory, what a cgroup limits is found all the same, and nothing fails."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{GB}\n")

    def hidden():
        raise PermissionError("/proc/meminfo")

    monkeypatch.setattr("psutil.virtual_memory", hidden)
    names = [limit.name for limit in memory_limits(tmp_path) if not limit.name.startswith("ulimit")]
    assert names == ["the cgroup's memory.max"]


def test_swap_is_left_out(monkeypatch, tmp_path):
    """Without swap, what is left is what needn't be swapped out."""
    monkeypatch.setattr("psutil.swap_memory", lambda: type("Swap", (), {"total": 7 * GB, "free": 7 * GB}))
    with_swap, without = (memory_limits(tmp_path, swap=swap)[-1].size for swap in (True, False))
    assert with_swap - without == 7 * GB
