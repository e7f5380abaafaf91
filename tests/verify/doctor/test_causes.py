"""The cause of how a process ended, by lines from public reports: its words, its fix, and what it isn't."""

import resource
import time
import tomllib
from pathlib import Path

import pytest

from alexnet_repro.verify.doctor import causes, endings
from alexnet_repro.verify.doctor.endings import error_lines, find_ending, has_nvidia
from alexnet_repro.verify.doctor.nvidia import Gpu, Nvidia

CU_INIT = (
    "E0000 00:00:1795527018.296294 10993 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: Failed call "
    "to cuInit: UNKNOWN ERROR (303)"
)
CRASH, ABORT = "ended by SIGSEGV", "ended by SIGABRT"

LINES = tomllib.loads((Path(__file__).parent / "endings.toml").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """Return a function that sets the limits in force, by `ulimit`'s letters; at first there is none, nor a GPU."""

    def limit(**sizes):
        numbers = {getattr(resource, f"RLIMIT_{RLIMITS[letter]}"): size for letter, size in sizes.items()}
        monkeypatch.setattr(resource, "getrlimit", lambda number: (numbers.get(number, resource.RLIM_INFINITY), -1))

    monkeypatch.setattr(endings, "_nvidia_files", lambda _root: False)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(endings, "package_version", {}.get)  # CUDA's packages of another test environment
    monkeypatch.setattr("alexnet_repro.backend.limits.cgroup_folders", lambda _controller, _root: [])
    (tmp_path / "cpuinfo").write_text("flags\t: fpu sse4_2\n")
    monkeypatch.setattr(endings, "_CPUINFO", tmp_path / "cpuinfo")
    limit()
    return limit


RLIMITS = {"v": "AS", "d": "DATA", "u": "NPROC", "n": "NOFILE", "f": "FSIZE", "t": "CPU", "s": "STACK", "l": "MEMLOCK"}


@pytest.mark.parametrize("line", [pytest.param(line, id=f"line={name}") for name, line in LINES.items()])
def test_cause_is_named(line):
    """What a process said, or how it ended, is named, with the fix that fits it; the line is evidence."""
    device, how, log = line["device"], line["how"], line["log"]
    found = find_ending(device, how, log)
    assert found.name == line["cause"]
    assert [each for each in line["words"] if each not in f"{found.message}\n{found.fix}"] == []
    assert line.get("evidence", "") in found.evidence
    if device.startswith("cpu"):
        assert "nvidia-smi" not in found.fix
        assert "xid" not in found.fix
    shown = error_lines(log, device)
    again = find_ending(device, how, shown)
    assert (again.name, again.message) == (found.name, found.message)  # what is kept of a log still has it


@pytest.mark.parametrize(
    ("how", "log", "limits", "expected"),
    [
        pytest.param(
            "ImportError: libtensorflow_cc.so.2: failed to map segment from shared object",
            "",
            {"v": 3_000_000 * 1024},
            "address space limited to 3 GB (ulimit -v): ulimit -v unlimited",
            id="limit=v",
        ),
        pytest.param(
            ABORT,
            "terminate called after throwing an instance of 'std::bad_alloc'",
            {"v": 2_600_000 * 1024},
            "address space limited to 2.6 GB (ulimit -v): ulimit -v unlimited",
            id="limit=v_by_bad_alloc",
        ),
        pytest.param(
            "exit status 127",
            "cannot allocate memory for thread-local data: ABORT",
            {"v": 2_600_000 * 1024},
            "address space limited to 2.6 GB (ulimit -v): ulimit -v unlimited",
            id="limit=v_by_glibc",
        ),
        pytest.param(
            ABORT,
            f"{CU_INIT}\nF0000 00:00:1795783351.784275   16448 env.cc:84] Check failed: ret == 0 (11 vs. 0) Thread "
            "tf_Compute creation via pthread_create() failed.",
            {"u": 20},
            "processes and threads of this user limited to 20 (ulimit -u): ulimit -u unlimited",
            id="limit=u",
        ),
        pytest.param(
            # github.com/Medical-Event-Data-Standard/MIMIC_IV_MEDS/issues/20
            CRASH,
            "OpenBLAS blas_thread_init: pthread_create failed for thread 18 of 56: Resource temporarily unavailable",
            {"u": 128},
            "processes and threads of this user limited to 128 (ulimit -u): ulimit -u unlimited",
            id="limit=u_by_openblas",
        ),
        pytest.param(
            "OSError: [Errno 24] Too many open files",
            "",
            {"n": 40},
            "open files limited to 40 (ulimit -n): ulimit -n 65536",
            id="limit=n",
        ),
        pytest.param(
            CRASH,
            CU_INIT,
            {"s": 64 * 1024},
            "perhaps it is this: stack limited to 64 kB (ulimit -s): ulimit -s 8192",
            id="limit=s",
        ),
        pytest.param(
            # github.com/NVIDIA/nccl-tests/issues/206
            "exit status 1",
            "misc/ibvwrap.cc:278 NCCL WARN Call to ibv_reg_mr_iova2 failed with error Cannot allocate memory",
            {"l": 8192 * 1024},
            "locked memory limited to 8192 kB (ulimit -l): ulimit -l unlimited",
            id="limit=l",
        ),
        pytest.param(
            "ended by SIGXFSZ",
            "",
            {"f": 20_000 * 1024},
            "size of a file limited to 20000 kB (ulimit -f): ulimit -f unlimited",
            id="limit=f",
        ),
        pytest.param(
            "ended by SIGXCPU",
            "",
            {"t": 60},
            "processor time limited to 60 s (ulimit -t): ulimit -t unlimited",
            id="limit=t",
        ),
        pytest.param(
            CRASH,
            "",
            {"v": 3_000_000 * 1024},
            "perhaps it is this: address space limited to 3 GB (ulimit -v): ulimit -v unlimited",
            id="limit=v_by_a_crash",
        ),
    ],
)
def test_limit_is_named(machine, how, log, limits, expected):
    """What a limit of the shell's ends is explained by that limit, on a GPU as well; without the limit it isn't."""
    machine(**limits)
    for device in ("cpu:0", "gpu:0"):
        found = find_ending(device, how, log)
        assert f"{found.message}: {found.fix}" == expected
    machine(s=8 << 20)
    unlimited = find_ending("cpu:0", how, log)
    assert unlimited is None or "ulimit" not in unlimited.message


@pytest.mark.parametrize(
    ("device", "how", "log"),
    [
        pytest.param("cpu:0", CRASH, CU_INIT, id="ending=a_crash"),
        pytest.param(
            "gpu:0",
            "ArithmeticError: off by 7",
            "Loaded runtime CuDNN library: 9.1.0 but source was compiled with: 9.3.0",
            id="ending=a_wrong_result",
        ),
        pytest.param(
            "gpu:0",
            CRASH,
            "2020-01-01 00:00:00.000000: W tensorflow/core/common_runtime/bfc_allocator.cc:243] Allocator (GPU_0_bfc) "
            "ran out of memory trying to allocate 2.20GiB. The caller indicates that this is not a failure, but may "
            "mean that there could be performance gains if more memory were available.",
            id="ending=no_failure",
        ),
        pytest.param(
            "gpu:0",
            CRASH,
            "I0000 00:00:1738697930.202924 7665 service.cc:1] XLA_FLAGS are parsed; no out of memory",
            id="ending=information",
        ),
        pytest.param(
            # github.com/xai-org/grok-1/issues/249
            *("cpu:0", CRASH, "INFO:jax._src.xla_bridge:Unable to initialize backend 'cuda':"),
            id="ending=information_of_jax",
        ),
        pytest.param(
            # github.com/ikostrikov/walk_in_the_park/issues/5
            "cpu:0",
            CRASH,
            "I0919 21:58:29.120949 139995721590592 xla_bridge.py:350] Unable to initialize backend 'rocm': NOT_FOUND: "
            "Could not find registered platform",
            id="ending=information_of_absl",
        ),
        pytest.param("cpu:0", "ValueError: CUDNN_STATUS_NOT_INITIALIZED", "", id="ending=no_gpu"),
        pytest.param("", "", "", id="ending=nothing"),
    ],
)
def test_unknown(device, how, log):
    """What isn't known isn't guessed at: a GPU's errors where there is no GPU, and what calls itself no failure."""
    assert find_ending(device, how, log) is None


def test_long_lines_take_no_time():
    """What a child wrote is searched in a moment, whatever it is."""
    log = (
        f"Unknown flag in XLA_FLAGS: --a{' ' * 60_000}b\n{'a' * 60_000}\nLoaded runtime CuDNN library: 9{'.9' * 30_000}"
    )
    begin = time.monotonic()
    assert find_ending("cpu:0", "x" * 60_000, log).name == "unknown flag"
    assert error_lines(log, "gpu:0")
    assert time.monotonic() - begin < 2


def test_cu_init_is_evidence_where_a_gpu_is(monkeypatch):
    """On a machine without NVIDIA's GPU or driver cuInit always fails, which explains nothing."""
    assert error_lines(CU_INIT, "cpu:0") == ""
    assert error_lines(CU_INIT, "gpu:0").startswith("failed call to cuInit")
    monkeypatch.setattr(endings, "_nvidia_files", lambda _root: True)
    assert error_lines(CU_INIT, "cpu:0").startswith("failed call to cuInit")


@pytest.mark.parametrize(
    ("path", "content", "there"),
    [
        pytest.param("dev/nvidiactl", "", True, id="file=driver"),
        pytest.param("dev/dxg", "", True, id="file=windows"),
        pytest.param("dev/nvmap", "", True, id="file=jetson"),
        pytest.param("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n", True, id="file=without_driver"),
        pytest.param("sys/bus/pci/devices/0000:01:00.0/vendor", "0x1002\n", False, id="file=other_vendor"),
        pytest.param("dev/null", "", False, id="file=none"),
    ],
)
def test_nvidia_is_there(monkeypatch, tmp_path, path, content, there):
    """A GPU of NVIDIA's, or its driver, is seen by files alone."""
    monkeypatch.undo()
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(content)
    assert has_nvidia("cpu:0", tmp_path) == there


def test_holders_of_memory(monkeypatch):
    """Of a full GPU's memory the evidence is who else holds it."""
    gpus = (Gpu(0, processes=("pid 7 (python, 70000 MiB)",)), Gpu(1))
    monkeypatch.setattr(endings, "_nvidia_files", lambda _root: True)
    monkeypatch.setattr(endings, "read_nvidia", lambda _files, _deadline: Nvidia(gpus=gpus))
    found = find_ending("gpu:0", "CUDA out of memory. Tried to allocate 1.71 GiB")
    assert found.evidence == "GPU 0 is held by pid 7 (python, 70000 MiB)"


def test_library_is_evidence(monkeypatch, tmp_path):
    """The evidence of cuDNN is the file that is loaded, and LD_LIBRARY_PATH, by which it was found."""
    (tmp_path / "libcudnn.so.9").touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nonexistent:{tmp_path}")
    found = find_ending("gpu:0", LINES["cudnn version"]["how"], LINES["cudnn version"]["log"])
    assert found.evidence.startswith(f"found as {tmp_path}/libcudnn.so.9")
    assert f"LD_LIBRARY_PATH=/nonexistent:{tmp_path}" in found.evidence


@pytest.mark.parametrize(
    ("installed", "package"),
    [
        pytest.param({}, "nvidia-cudnn-cu12>=9.3.0'", id="cuda=unknown"),
        pytest.param({"nvidia-cudnn-cu12": "9.1"}, "nvidia-cudnn-cu12>=9.3.0'", id="cuda=12"),
        pytest.param({"nvidia-cudnn-cu13": "9.1"}, "nvidia-cudnn-cu13>=9.3.0'", id="cuda=13"),
    ],
)
def test_package_is_of_the_cuda_here(monkeypatch, installed, package):
    """CUDA 12's cuDNN isn't installed over CUDA 13's, whose files have the same names."""
    monkeypatch.setattr(endings, "package_version", installed.get)
    assert package in find_ending("gpu:0", LINES["cudnn version"]["how"], LINES["cudnn version"]["log"]).fix


def test_table_is_whole():
    """Each cause has a name of its own, and a fix."""
    names = [cause.name for cause in causes.CAUSES]
    assert len(names) == len(set(names))
    assert all(cause.message and cause.fix for cause in causes.CAUSES)
    tried = {line["cause"] for line in LINES.values()}
    assert [cause.name for cause in causes.CAUSES if not cause.limits and cause.name not in tried] == []


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        pytest.param("", "", id="log=empty"),
        pytest.param(
            # github.com/tensorflow/tensorflow/issues/63362
            "2024-03-11 02:00:01.180445: W tensorflow/core/common_runtime/gpu/gpu_device.cc:2251] Cannot dlopen some "
            "GPU libraries. Please make sure\nSkipping registering GPU devices...\n",
            "Cannot dlopen some GPU libraries. Please make sure",
            id="log=63362",
        ),
        pytest.param(
            "I0000 00:00:1795527016.222005 10993 port.cc:153] oneDNN custom operations are on. You may see slightly "
            "different numerical results due to floating-point round-off errors\n"
            "E0000 00:00:1795527018.296294 10993 cuda_platform.cc:52] failed call to cuInit: UNKNOWN ERROR (303)\n",
            "failed call to cuInit: UNKNOWN ERROR (303)",
            id="log=2.21.0",
        ),
        pytest.param(
            # github.com/tensorflow/tensorflow/issues/111958
            "LLVM ERROR: PTX version 8.5 does not support target 'sm_120'\n" * 2,
            "LLVM ERROR: PTX version 8.5 does not support target 'sm_120'",
            id="log=111958",
        ),
        pytest.param(
            "F0000 00:00:1795773788.916166 2341 parse_flags_from_env.cc:234] Unknown flag in XLA_FLAGS: --xla_bogus\n",
            "Unknown flag in XLA_FLAGS: --xla_bogus",
            id="log=fatal",
        ),
    ],
)
def test_error_lines(log, expected):
    """TensorFlow's lines about errors are kept, once each, without time stamps and the rest of its log."""
    assert error_lines(log, "gpu:0") == expected
