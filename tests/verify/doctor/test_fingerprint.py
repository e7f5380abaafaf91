"""What identifies a machine and its software: what decides bits, what decides speed, and nothing else."""

import json
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest

from alexnet_repro.verify.benchmark.reference import environment_differences
from alexnet_repro.verify.doctor import fingerprint
from alexnet_repro.verify.doctor.installation import DRIVER, Library
from tests.helpers.machines import CPU, T4, TWO, box, distribution, results, write


def test_environment_of_a_cpu():
    """A CPU's bits depend on packages, numeric settings, processor and threads; on no GPU, nor on files' places."""
    flags = "--xla_gpu_cuda_data_dir=/usr/local/cuda --xla_gpu_autotune_level=0 --xla_b=1 --xla_a=1"
    here = replace(CPU, settings={"TF_ENABLE_ONEDNN_OPTS": "0", "KERAS_HOME": "/home/me", "XLA_FLAGS": flags})
    found = fingerprint.environment_of("cpu:0", here)
    assert set(found) == {"packages", "settings", "cpu", "threads"}
    assert found["settings"] == {"TF_ENABLE_ONEDNN_OPTS": "0", "XLA_FLAGS": "--xla_a=1 --xla_b=1"}
    assert {"keras", "numpy"} <= set(found["packages"])
    assert found["threads"]["processors"] >= 1
    assert json.loads(json.dumps(found)) == found  # or what is read from a file would never be the same


@pytest.mark.parametrize(
    ("device", "here", "gpu"),
    [
        ("gpu:0", box(T4), {"gpu": "Tesla T4", "capability": [7, 5]}),
        ("gpu:1", box(*TWO), {"gpu": "NVIDIA A100-SXM4-80GB", "capability": [8, 0]}),
        ("gpu:0", replace(CPU, results=results("cpu:0", ["AMD Instinct"])), {"gpu": "AMD Instinct", "capability": []}),
    ],
    ids=["device=gpu:0", "device=gpu:1", "device=not the driver's"],
)
def test_environment_of_a_gpu(device, here, gpu):
    """A GPU's bits depend on its kind and driver, not on which of its kind it is, nor on the processor."""
    found = fingerprint.environment_of(device, here)
    assert found == {"packages": found["packages"], "settings": {}, **gpu, "driver": here.nvidia.driver}
    assert json.loads(json.dumps(found)) == found


def test_libraries_of_no_package(tmp_path):
    """Where CUDA's libraries are the system's, a GPU's bits depend on those files; a package's are known by it."""
    system, ours = tmp_path / "cuda/libcublas.so.12.9.1.4", tmp_path / "site-packages/nvidia/libcudnn.so.9"
    for each in (system, ours):
        each.parent.mkdir(parents=True)
        each.touch()
    (tmp_path / "libcublas.so.12").symlink_to(system)
    (tmp_path / "libcudnn.so.9").symlink_to(ours)
    libraries = (
        Library("libcublas.so.12", "nvidia-cublas-cu12", str(tmp_path / "libcublas.so.12")),
        Library("libcudnn.so.9", "nvidia-cudnn-cu12", str(tmp_path / "libcudnn.so.9")),
        Library("libcufft.so.11", "nvidia-cufft-cu12", "libcufft.so.11", "cannot open shared object file"),
        Library("libcuda.so.1", DRIVER, "/usr/lib/libcuda.so.580.1"),
    )
    here = replace(box(T4), libraries=libraries)
    assert fingerprint.environment_of("gpu:0", here)["libraries"] == ["libcublas.so.12.9.1.4"]
    assert "libraries" not in fingerprint.environment_of("gpu:0", replace(here, libraries=libraries[1:]))
    assert "libraries" not in fingerprint.environment_of("cpu:0", here)


@pytest.mark.parametrize(("name", "value"), [("floatx", "float16"), ("epsilon", 0.001)])
def test_keras_counts_as_it_ended_up(monkeypatch, name, value):
    """What Keras computes with is the environment's: by its file, or by what a program set since."""
    here = replace(CPU, settings={f"keras.{name}": "another"})
    assert fingerprint.environment_of("cpu:0", here)["settings"] == {}
    monkeypatch.setattr(keras.config, name, lambda: value)
    assert fingerprint.environment_of("cpu:0", CPU)["settings"] == {f"keras.{name}": str(value)}


@pytest.mark.parametrize(
    ("text", "recorded"),
    [
        pytest.param("1", {"OMP_NUM_THREADS": "1"}, id="threads=1"),
        pytest.param("1,2", {"OMP_NUM_THREADS": "1"}, id="threads=list"),
        pytest.param(" 01 ", {"OMP_NUM_THREADS": "1"}, id="threads=spaces"),
        pytest.param("6", {}, id="threads=default"),
        pytest.param("", {}, id="threads=empty"),
        pytest.param("0x1", {}, id="threads=not a number"),
    ],
)
def test_speed_by_meaning(monkeypatch, text, recorded):
    """References know numbers of threads, not spellings; a thread for each of six processors is the default."""
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    here = replace(CPU, defaults={"OMP_NUM_THREADS": "6"})
    assert fingerprint.speed_environment("cpu:0", here)["settings"] == recorded


INSTALLED = {
    "nvidia-ml-py": "13.0",
    "numpy": "2.4.6",
    "nvidia-cublas": "13.2.0",
    "nvidia_cuda_nvcc": "13.1",  # as older wheels spell it
    "nvidia-cuda-nvrtc-cu12": "12.9",
    "jax-cuda13-plugin": "0.9",
    "triton": "3.6",
    "scipy": "1.17",
}


@pytest.mark.parametrize(
    ("gpu", "expected"),
    [
        (False, {"numpy": "2.4.6", "nvidia-cublas": "13.2.0"}),
        (
            True,
            {
                "numpy": "2.4.6",
                "nvidia-cublas": "13.2.0",
                "jax-cuda13-plugin": "0.9",
                "nvidia-cuda-nvcc": "13.1",
                "nvidia-cuda-nvrtc-cu12": "12.9",
                "triton": "3.6",
            },
        ),
    ],
    ids=["gpu=False", "gpu=True"],
)
def test_packages_that_decide_bits(gpu, expected, monkeypatch, tmp_path):
    """On a GPU all of CUDA's packages count, its compilers' among them; a CPU's are those that digests on file have."""
    for name, version in INSTALLED.items():
        write(tmp_path / "first", distribution(name, version, record=None))
    nameless = {"foo-1.2.dist-info/METADATA": "", "bar.egg-info": "", "nvidia_cufft-1.dist-info/METADATA": "Name: x"}
    write(tmp_path / "second", distribution("triton", "1.0", record=None) | nameless)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(tmp_path / "second")])
    monkeypatch.setattr(np, "__version__", "2.4.6")
    assert fingerprint.packages(gpu=gpu) == expected


@pytest.mark.parametrize(
    ("cpuinfo", "found"),
    [
        pytest.param(
            "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Xeon\n"
            "stepping\t: 8\ncpu MHz\t\t: 2000.0\ncache size\t: 105 MB\nflags\t\t: fpu fma avx avx512f amx_tile sse2\n\n"
            "processor\t: 1\nvendor_id\t: another\n",
            {"vendor_id": "GenuineIntel", "cpu family": "6", "model": "143", "stepping": "8", "cache size": "105 MB",
             "vectors": ["amx_tile", "avx", "avx512f", "fma"]},
            id="processor=x86",
        ),
        pytest.param(
            "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd sve\nCPU implementer\t: 0x41\n"
            "CPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: 0xd40\nCPU revision\t: 1\n\n",
            {"CPU implementer": "0x41", "CPU variant": "0x1", "CPU part": "0xd40", "CPU revision": "1",
             "Features": "fp asimd sve", "vectors": []},
            id="processor=arm",
        ),
    ],
)  # fmt: skip
def test_kind_of_processor(tmp_path, cpuinfo, found):
    """What distinguishes one kind of processor from another is kept, what changes by the hour isn't."""
    path = tmp_path / "cpuinfo"
    path.write_text(cpuinfo)
    assert fingerprint.cpu_identity(path) == found


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ("gpu:1", "NVIDIA A100-SXM4-80GB"),
        ("gpu:0", "Tesla T4"),
        ("cpu:0", "AMD EPYC cpu family 25 model 17, 6 processors"),
    ],
)
def test_kind_of_device(tmp_path, monkeypatch, device, kind):
    """A GPU's name is its product's, a CPU's its model and the number of processors that this process may use."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\n")
    monkeypatch.setattr(fingerprint, "thread_counts", lambda: {"processors": 6})
    assert fingerprint.kind_of(device, {"gpu:0": "Tesla T4", "gpu:1": "NVIDIA A100-SXM4-80GB"}, cpuinfo) == kind


@pytest.mark.parametrize(
    ("device", "flags", "boot"),
    [
        ("cpu:0", "fpu hypervisor avx2", "2c26b46b68ff"),  # SHA-256 of "foo" begins with it
        ("cpu:0", "fpu avx2", ""),
        ("cpu:0", "fpu nohypervisor", ""),
        ("gpu:0", "fpu hypervisor avx2", ""),
    ],
)
def test_start_of_a_virtual_machine(tmp_path, device, flags, boot):
    """A virtual machine, known by its CPU's flag, is identified by its last start; its GPUs are whole ones."""
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    (tmp_path / "boot").write_text("foo\n")
    assert fingerprint.boot_of(device, tmp_path / "cpuinfo", tmp_path / "boot") == boot
    assert fingerprint.boot_of(device, tmp_path / "none", tmp_path / "boot") == ""


@pytest.mark.parametrize(
    ("device", "here", "names"),
    [("cpu:0", CPU, "cpu packages python settings threads"),
     ("gpu:0", box(T4), "capability cpu driver gpu packages python settings threads")],
    ids=["device=cpu:0", "device=gpu:0"],
)  # fmt: skip
def test_environment_that_decides_speed(device, here, names, monkeypatch):
    """Packages, settings, threads and processor, for a GPU its driver too; as a file gives it back."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("KERAS_BACKEND", backend := keras.backend.backend())
    found = fingerprint.speed_environment(device, here)
    assert " ".join(sorted(found)) == names
    other = {} if backend == "tensorflow" else {"KERAS_BACKEND": backend}
    assert found["settings"] == {"OMP_NUM_THREADS": "1"} | other
    assert json.loads(json.dumps(found)) == found


def test_quota_is_another_environment():
    """A reference of two processors isn't one of half of one: the quota is what differs, and is recorded."""
    whole, half = (replace(CPU, processors=2, cpu_quota=quota) for quota in (None, 0.5))
    ours, theirs = (fingerprint.speed_environment("cpu:0", here) for here in (half, whole))
    assert environment_differences(ours, theirs) == ["cpu_quota 0.5 (was none)"]
    assert (fingerprint.machine_of(half)["cpu_quota"], "cpu_quota" in fingerprint.machine_of(whole)) == (0.5, False)
    assert fingerprint.environment_of("cpu:0", half) == fingerprint.environment_of("cpu:0", whole)
