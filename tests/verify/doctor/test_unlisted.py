"""GPUs that NVIDIA's driver doesn't list, as files show them; and what the doctor says of each."""

import sys
from dataclasses import replace

import pytest

from alexnet_repro.verify.doctor.environment import read_machine
from alexnet_repro.verify.doctor.gpus import driver, presence
from alexnet_repro.verify.doctor.unlisted import Unlisted, read_unlisted
from alexnet_repro.verify.finding import worst
from tests.helpers.machines import NO_DRIVER, write


def pci(address, vendor, kind, bound=""):
    """Return the files of a device on the PCI bus."""
    folder = f"sys/bus/pci/devices/{address}"
    uevent = f"DRIVER={bound}\nPCI_CLASS=30200\n" if bound else "PCI_CLASS=30200\n"
    return {f"{folder}/vendor": f"{vendor}\n", f"{folder}/class": f"{kind}\n", f"{folder}/uevent": uevent}


WSL = {"dev/dxg": "", "usr/lib/wsl/lib/libcuda.so.1": ""}
A, B = "0000:01:00.0", "0000:02:00.0"


@pytest.mark.parametrize(
    ("files", "signs", "count"),
    [
        pytest.param({}, {}, 0, id="machine=empty"),
        pytest.param(WSL, {"wsl": "/usr/lib/wsl/lib"}, 1, id="machine=WSL"),
        pytest.param(
            {"dev/dxg": "", "usr/lib/wsl/lib/libd3d12.so": ""},
            {"others": ("Windows' /dev/dxg, without NVIDIA's libraries in /usr/lib/wsl/lib",)},
            0,
            id="machine=WSL without NVIDIA",
        ),
        pytest.param(
            {"dev/nvhost-ctrl": "", "etc/nv_tegra_release": "# R35"},
            {"jetson": "/dev/nvhost-ctrl"},
            1,
            id="machine=Jetson",
        ),
        pytest.param({"dev/nvgpu/igpu0/ctrl": ""}, {"jetson": "/dev/nvgpu"}, 1, id="machine=newer Jetson"),
        pytest.param(
            {"etc/nv_tegra_release": "# R36"},
            {"jetson": "/etc/nv_tegra_release"},
            1,
            id="machine=Jetson by its release",
        ),
        pytest.param(
            {"proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0"},
            {"jetson": "/proc/device-tree/model"},
            1,
            id="machine=Jetson by its model",
        ),
        pytest.param(
            {"proc/device-tree/compatible": "nvidia,p3701-0000\0nvidia,tegra234\0"},
            {"jetson": "/proc/device-tree/compatible"},
            1,
            id="machine=Jetson by its chip",
        ),
        pytest.param(
            {"proc/sys/kernel/osrelease": "5.15.148-tegra\n"},
            {"jetson": "/proc/sys/kernel/osrelease"},
            1,
            id="machine=container on a Jetson",
        ),
        pytest.param(
            {"proc/sys/kernel/osrelease": "5.15.167.4-microsoft-standard-WSL2\n"},
            {"others": ("Windows' Linux, which was given no /dev/dxg",)},
            0,
            id="machine=container in WSL",
        ),
        pytest.param({"proc/device-tree/model": "Raspberry Pi 5\0"}, {}, 0, id="machine=another board"),
        pytest.param(pci(A, "0x10de", "0x030200", "nvidia"), {"pci": ("nvidia",)}, 1, id="machine=NVIDIA"),
        pytest.param(pci(A, "0x10de", "0x030000", "nouveau"), {"pci": ("nouveau",)}, 1, id="machine=nouveau"),
        pytest.param(
            pci(A, "0x10de", "0x030200", "vfio-pci"), {"for_vms": (f"{A} (vfio-pci)",)}, 0, id="machine=held for a VM"
        ),
        pytest.param(
            pci(A, "0x10de", "0x030200", "nvidia") | pci(B, "0x10de", "0x030200", "vfio-pci"),
            {"pci": ("nvidia",), "for_vms": (f"{B} (vfio-pci)",)},
            1,
            id="machine=one of two held",
        ),
        pytest.param(
            pci(A, "0x1002", "0x038000", "amdgpu") | {"dev/kfd": ""},
            {"others": ("AMD (amdgpu)", "AMD's /dev/kfd")},
            0,
            id="machine=AMD",
        ),
        pytest.param(pci(A, "0x8086", "0x030000", "xe"), {"others": ("Intel (xe)",)}, 0, id="machine=Intel"),
        pytest.param(pci(A, "0x8086", "0x030000"), {"others": ("Intel (no kernel driver)",)}, 0, id="machine=unbound"),
        pytest.param(pci(A, "0x1a03", "0x030000", "ast"), {}, 0, id="machine=a server's console"),
        pytest.param(pci(A, "0x8086", "0x060000"), {}, 0, id="machine=Intel's bridge"),
        pytest.param(
            {"dev/dri/renderD128": ""}, {"others": ("/dev/dri/renderD128",)}, 0, id="machine=render node alone"
        ),
    ],
)
def test_signs_of_gpus(tmp_path, monkeypatch, files, signs, count):
    """Windows' GPU and a Jetson's count as GPUs; those held for virtual machines, and other makers', don't."""
    monkeypatch.setattr(sys, "platform", "linux")
    root = write(tmp_path, files)
    assert read_unlisted(root) == Unlisted(**signs)
    assert read_machine(root, {}).gpus_in_machine == count


def test_apples_gpu_is_told(tmp_path, monkeypatch):
    """It has no file that shows it."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert read_unlisted(tmp_path).others == ("Apple (Metal)",)


def test_files_that_cant_be_read(tmp_path):
    """A folder in a file's place, and bytes that are no text, are no GPU."""
    files = {f"sys/bus/pci/devices/{A}/vendor/x": "", "proc/device-tree/model": b"\xff\xfe", "proc/device-tree/x": ""}
    assert read_unlisted(write(tmp_path, files)).jetson == ""


@pytest.mark.parametrize(
    ("files", "environ", "status", "words"),
    [
        pytest.param(WSL, {}, "FAIL", "libraries in /usr/lib/wsl/lib aren't found", id="machine=WSL"),
        pytest.param({"dev/nvhost-gpu": ""}, {}, "INCONCLUSIVE", "nvidia-l4t-nvml", id="machine=Jetson"),
        pytest.param(
            {"dev/nvhost-gpu": "", ".dockerenv": ""}, {}, "INCONCLUSIVE", "nvidia-l4t-nvml", id="machine=Jetson, given"
        ),
        pytest.param(
            {"proc/sys/kernel/osrelease": "5.15.148-tegra", ".dockerenv": ""},
            {},
            "FAIL",
            "docker run --runtime nvidia",
            id="machine=Jetson, not given",
        ),
        pytest.param(
            pci(A, "0x10de", "0x030000", "nouveau"), {}, "FAIL", "nouveau driver holds the GPU", id="machine=nouveau"
        ),
        pytest.param(
            pci(A, "0x10de", "0x030000", "vfio-pci"),
            {},
            "PASS",
            "held for virtual machines",
            id="machine=held for a VM",
        ),
        pytest.param(
            pci(A, "0x1002", "0x030000", "amdgpu"),
            {},
            "PASS",
            "other GPUs aren't verified, for this suite uses CUDA",
            id="machine=AMD",
        ),
        pytest.param(
            pci(A, "0x10de", "0x030200", "nvidia") | {".dockerenv": ""},
            {"NVIDIA_VISIBLE_DEVICES": "void"},
            "FAIL",
            "NVIDIA_VISIBLE_DEVICES=void withholds them",
            id="variable=void",
        ),
        pytest.param(
            pci(A, "0x10de", "0x030200", "nvidia") | {".dockerenv": ""},
            {"NVIDIA_VISIBLE_DEVICES": ""},
            "FAIL",
            "docker run --gpus all -e NVIDIA_VISIBLE_DEVICES=all",
            id="variable=empty",
        ),
        pytest.param(
            {".dockerenv": ""},
            {"NVIDIA_VISIBLE_DEVICES": "none"},
            "PASS",
            "NVIDIA_VISIBLE_DEVICES=none gives this container none",
            id="variable=none-nothing visible",
        ),
        pytest.param(
            {".dockerenv": ""},
            {"NVIDIA_VISIBLE_DEVICES": "all"},
            "INCONCLUSIVE",
            "though NVIDIA_VISIBLE_DEVICES=all asks for one",
            id="variable=all-nothing visible",
        ),
        pytest.param(
            {"run/.containerenv": ""},
            {"NVIDIA_VISIBLE_DEVICES": "GPU-5a6b"},
            "INCONCLUSIVE",
            "podman run --device nvidia.com/gpu=all …; to verify the CPU: unset NVIDIA_VISIBLE_DEVICES",
            id="variable=UUID-nothing visible",
        ),
        pytest.param(
            {},
            {"CUDA_VISIBLE_DEVICES": "GPU-5a6b"},
            "INCONCLUSIVE",
            "though CUDA_VISIBLE_DEVICES=GPU-5a6b asks for one",
            id="variable=CUDA's-nothing visible",
        ),
        pytest.param({}, {"CUDA_VISIBLE_DEVICES": "0"}, "PASS", "weren't run", id="variable=a habit"),
        pytest.param({}, {"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, "PASS", "weren't run", id="variable=Slurm's"),
        pytest.param(
            pci(A, "0x10de", "0x030200", "nvidia") | {".dockerenv": ""},
            {"NVIDIA_DRIVER_CAPABILITIES": "compute"},
            "FAIL",
            "docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility",
            id="variable=no utility",
        ),
        pytest.param(
            pci(A, "0x10de", "0x030200", "nvidia")
            | {"dev/nvidia0": "", ".dockerenv": ""}
            | {"dev/nvidiactl": "", "dev/nvidia-uvm": ""},
            {"NVIDIA_DRIVER_CAPABILITIES": "compute,video"},
            "INCONCLUSIVE",
            "NVIDIA_DRIVER_CAPABILITIES=compute,video gives no NVML",
            id="variable=no utility-given",
        ),
        pytest.param(
            pci(A, "0x10de", "0x030200", "nvidia"),
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "NVIDIA_VISIBLE_DEVICES": "void"},
            "FAIL",
            "fix: ask for it in the pod's spec: resources: {limits: {nvidia.com/gpu: 1}}\n",
            id="variable=void-in=kubernetes",
        ),
        pytest.param(
            pci(A, "0x10de", "0x030200", "nvidia"),
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "NVIDIA_DRIVER_CAPABILITIES": "utility"},
            "FAIL",
            "resources: {limits: {nvidia.com/gpu: 1}}; and in its env: NVIDIA_DRIVER_CAPABILITIES=compute,utility",
            id="variable=no compute-in=kubernetes",
        ),
        pytest.param(
            pci(A, "0x10de", "0x030200", "nvidia"),
            {"APPTAINER_CONTAINER": "/a.sif", "NVIDIA_VISIBLE_DEVICES": "void"},
            "FAIL",
            "apptainer exec --nv --env NVIDIA_VISIBLE_DEVICES=all …",
            id="variable=void-in=apptainer",
        ),
        pytest.param(
            pci(A, "0x10de", "0x030200", "nvidia") | {".dockerenv": ""},
            {"NVIDIA_VISIBLE_DEVICES": "all"},
            "FAIL",
            "none of the GPUs, though NVIDIA_VISIBLE_DEVICES=all asks for them: NVIDIA's runtime didn't start it",
            id="variable=all-without the runtime",
        ),
        pytest.param(
            pci(A, "0x10de", "0x030200", "nvidia"),
            {"NVIDIA_VISIBLE_DEVICES": "none"},
            "FAIL",
            "-e NVIDIA_VISIBLE_DEVICES=all",
            id="variable=none-in=a container that leaves no sign",
        ),
    ],
)
def test_gpu_that_isnt_seen_is_named(tmp_path, files, environ, status, words):
    """Without NVML, no machine passes whose GPU is there, or wanted by name; the variable or the path is named."""
    here = replace(read_machine(write(tmp_path, files), environ), nvidia=NO_DRIVER)
    found = [*presence(here), *driver(here)]
    assert worst(found) == status
    assert words in "\n".join(map(str, found))
    required = [*presence(replace(here, require_gpu=True)), *driver(here)]
    assert worst(required) == ("INCONCLUSIVE" if status == "INCONCLUSIVE" and here.gpus_in_machine else "FAIL")
