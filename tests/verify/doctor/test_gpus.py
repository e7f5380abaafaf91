"""The doctor's findings on machines whose GPUs are out of reach, faulty, or of different models."""

from dataclasses import replace

import pytest

from alexnet_repro.verify.doctor.gpus import kernels
from alexnet_repro.verify.doctor.nvidia import Gpu, Nvidia
from alexnet_repro.verify.doctor.unlisted import Unlisted
from tests.helpers.machines import (
    A100,
    CPU,
    NO_DRIVER,
    SYNTHETIC,
    TENSORFLOW,
    TF,
    TWO,
    UNSEEN,
    Case,
    box,
    driver,
    results,
    without,
)

CASES = {
    "no GPU, one required": Case(
        SYNTHETIC,
        replace(CPU, require_gpu=True),
        "gpu",
        "FAIL",
        ("no NVIDIA GPU", "weren't run", "with a GPU"),
    ),
    "no driver": Case(
        f"{TF}45882: libcuda.so.1 does not exist",
        box(
            A100,
            device_files=(),
            listed_by_driver=0,
            nvidia=NO_DRIVER,
            libraries=without("libcuda.so.1"),
            results=UNSEEN,
        ),
        "driver, library libcuda.so.1, devices",
        "FAIL",
        ("libraries aren't installed", "ubuntu-drivers install", "0 of 1 GPUs"),
    ),
    "driver updated, not yet restarted": Case(
        f"{TF}4349: Failed to initialize NVML: Driver/library version mismatch",
        box(A100, nvidia=Nvidia(error="Driver/library version mismatch"), results=UNSEEN),
        "driver, devices",
        "FAIL",
        ("was updated", "sudo reboot"),
    ),
    "driver hangs": Case(
        SYNTHETIC,
        box(A100, nvidia=Nvidia(error="no answer within 180 s, after 0 GPUs")),
        "driver",
        "FAIL",
        ("hangs", "dmesg"),
    ),
    "nothing to query the driver with": Case(
        SYNTHETIC,
        box(A100, nvidia=Nvidia(error="nvidia-ml-py isn't installed")),
        "driver",
        "INCONCLUSIVE",
        ("can't be queried", "pip install nvidia-ml-py"),
    ),
    "another package named pynvml": Case(
        "github.com/vllm-project/vllm/pull/7649: pynvml 11.4.1 answers in bytes",
        box(A100, nvidia=replace(driver("580.95.5", (13, 0), A100), helper="bytes", intruder="pynvml")),
        "driver",
        "INCONCLUSIVE",
        (
            "another package named pynvml is installed",
            "pip uninstall -y pynvml && pip install --upgrade --force-reinstall nvidia-ml-py",
        ),
    ),
    "a file named pynvml.py": Case(
        SYNTHETIC,
        box(A100, nvidia=Nvidia(helper="/home/user/pynvml.py: AttributeError", intruder="/home/user/pynvml.py")),
        "driver",
        "INCONCLUSIVE",
        ("another module named pynvml", "mv /home/user/pynvml.py /home/user/pynvml.py.other"),
    ),
    "nvidia-ml-py broken": Case(
        SYNTHETIC,
        box(A100, nvidia=Nvidia(helper="/site/pynvml.py: SyntaxError: invalid syntax")),
        "driver",
        "INCONCLUSIVE",
        ("broken, or too old", "SyntaxError", "--force-reinstall nvidia-ml-py"),
    ),
    **{
        f"process that asks: {how}": Case(
            SYNTHETIC,
            box(A100, nvidia=Nvidia(error=f"{how}, after 0 GPUs")),
            "driver",
            status,
            words,
        )
        for how, status, words in (
            ("exit status 1", "INCONCLUSIVE", ("wasn't queried", "exit status 1")),
            ("ended by SIGKILL", "INCONCLUSIVE", ("wasn't queried", "SIGKILL")),
            ("it ended without an answer", "INCONCLUSIVE", ("wasn't queried",)),
            ("ended by SIGSEGV", "FAIL", ("driver doesn't answer", "SIGSEGV")),
        )
    },
    **{
        f"Windows' GPU: {error}": Case(
            "github.com/microsoft/WSL/issues/9938: GPU access blocked by the operating system",
            box(A100, unlisted=Unlisted(wsl="/usr/lib/wsl/lib"), nvidia=Nvidia(error=error), results=UNSEEN),
            "driver, devices",
            "FAIL",
            ("in Windows: install NVIDIA's newest driver", "wsl --shutdown"),
        )
        for error in ("The operating system has blocked the request.", "Driver Not Loaded")
    },
    "GPU lost": Case(
        "docs.nvidia.com/deploy/nvml-api: NVML_ERROR_GPU_IS_LOST",
        box(*TWO, nvidia=driver("580.95.5", (13, 0), A100, Gpu(index=1, error="GPU is lost"))),
        "driver",
        "FAIL",
        ("GPU 1", "lost", "nvidia-smi -r -i 1"),
    ),
    "all GPUs hidden": Case(
        SYNTHETIC,
        box(A100, settings={"CUDA_VISIBLE_DEVICES": "-1"}, results=UNSEEN),
        "visible devices",
        "FAIL",
        ("hides all 1 GPUs", "CUDA_VISIBLE_DEVICES=-1", "unset CUDA_VISIBLE_DEVICES"),
    ),
    **{
        f"all GPUs hidden by {value}": Case(
            "github.com/ray-project/ray/pull/7014: Slurm sets NoDevFiles where a job asks for no GPU",
            box(A100, settings={"CUDA_VISIBLE_DEVICES": value}, results=UNSEEN),
            "visible devices",
            "FAIL",
            ("hides all 1 GPUs", fix),
        )
        for value, fix in (
            ("NoDevFiles", "srun --gpus=1"),
            ("none", "unset CUDA_VISIBLE_DEVICES"),
            ("all", "unset CUDA_VISIBLE_DEVICES"),
            ("-2", "unset CUDA_VISIBLE_DEVICES"),
        )
    },
    "GPU named that isn't there": Case(
        f"{TF}32793: Invalid device ordinal value (1). Valid range is [0, 0]",
        box(*TWO, settings={"CUDA_VISIBLE_DEVICES": "0,7"}, results=results("cpu:0", (A100.name,))),
        "visible devices, devices",
        "FAIL",
        ("names 7", "export CUDA_VISIBLE_DEVICES=0,1"),
    ),
    "GPU named by another machine's name": Case(
        "docs.nvidia.com/cuda/cuda-programming-guide: CUDA_VISIBLE_DEVICES names one by its UUID",
        box(A100, settings={"CUDA_VISIBLE_DEVICES": "GPU-other"}, results=UNSEEN),
        "visible devices, devices",
        "FAIL",
        ("names GPU-other", "export CUDA_VISIBLE_DEVICES=0"),
    ),
    "Blackwell": Case(
        f"{TF}97387, 101746 and 111958: RTX 5080, not built for compute capability 12.0, CUDA_ERROR_INVALID_PTX",
        box(
            replace(A100, name="NVIDIA GeForce RTX 5080", capability=(12, 0)),
            results=results("cpu:0", ("NVIDIA GeForce RTX 5080",))
            + results("gpu:0", xla="PTX version 8.5 does not support target 'sm_120'"),
        ),
        "xla",
        "FAIL",
        ("no kernels for this GPU", "12.0; built for sm_60", "a TensorFlow built for sm_120"),
    ),
    "GPU too old": Case(
        SYNTHETIC, box(replace(A100, name="Tesla M40", capability=(5, 2))), "kernels", "FAIL", ("too old", "5.2")
    ),
    "Docker without --gpus": Case(
        "github.com/NVIDIA/nvidia-docker/issues/1330: /dev/nvidia0 does not exist, and libcuda.so.1 does",
        box(
            A100,
            container="docker",
            device_files=(),
            control_files=(),
            nvidia=NO_DRIVER,
            results=UNSEEN,
        ),
        "device files, driver, devices",
        "FAIL",
        ("docker container was given none", "docker run --gpus all"),
    ),
    "Kubernetes without a limit": Case(
        SYNTHETIC,
        box(
            A100,
            container="kubernetes",
            device_files=(),
            control_files=(),
            nvidia=NO_DRIVER,
            libraries=(),
            results=UNSEEN,
        ),
        "device files, driver, devices",
        "FAIL",
        ("nvidia.com/gpu: 1",),
    ),
    "container without nvidia-uvm": Case(
        SYNTHETIC,
        box(A100, container="docker", control_files=("nvidiactl",)),
        "device files",
        "FAIL",
        ("without nvidia-uvm",),
    ),
    "container that lost its GPUs": Case(
        "github.com/NVIDIA/nvidia-docker/issues/1730: Failed to initialize NVML: Unknown Error",
        box(A100, container="docker", nvidia=Nvidia(error="Unknown Error"), results=UNSEEN),
        "driver, devices",
        "FAIL",
        ("when the host's systemd reloads", "restart the container", "--device=/dev/nvidiactl"),
    ),
    "no permission": Case(
        SYNTHETIC,
        box(A100, nvidia=replace(driver("580.95.5", (13, 0), A100), closed={"/dev/nvidia0": "Permission denied"})),
        "device files",
        "FAIL",
        ("/dev/nvidia0 can't be opened", "Permission denied", "usermod -aG video"),
    ),
    "no GPU given by Slurm": Case(
        SYNTHETIC,
        box(
            A100,
            nvidia=replace(driver("580.95.5", (13, 0)), closed={"/dev/nvidia0": "Operation not permitted"}),
            results=UNSEEN,
        ),
        "device files, devices",
        "FAIL",
        ("Operation not permitted", "srun --gpus=1"),
    ),
}


@pytest.mark.parametrize("case", [pytest.param(case, id=f"case={name}") for name, case in CASES.items()])
def test_fault_is_named_with_evidence_and_fix(case):
    """Exactly these checks fail or are inconclusive, as bad as they are, and their words name the cause and the fix."""
    assert case.mistakes() == []


def test_code_and_ptx_are_machine_code():
    """What is built for `compute_90` has machine code for 9.0: it passes with a driver for it."""
    h100 = replace(A100, name="NVIDIA H100", capability=(9, 0))
    (finding,) = kernels(box(h100))
    assert (finding.status, finding.message) == (
        "PASS",
        "NVIDIA H100, compute capability 9.0; built for sm_60, sm_70, sm_80, sm_89, compute_90",
    )


@pytest.mark.parametrize(
    ("built", "status"),
    [
        ("sm_90", "PASS"),
        ("compute_90a", "PASS"),
        ("9.0", "PASS"),
        ("9.0+PTX", "PASS"),
        ("sm_80", "FAIL"),
        ("", "FAIL"),
        ("8.0+PTX", "PASS"),
        ("compute_80", "PASS"),
        ("compute_80a", "FAIL"),
    ],
)
def test_kernels_by_any_spelling(built, status):
    """What a TensorFlow was built for is read however its vendor wrote it; what can't be read is none."""
    here = box(
        replace(A100, name="NVIDIA H100", capability=(9, 0)), tensorflow=replace(TENSORFLOW, capabilities=(built,))
    )
    (finding,) = kernels(here)
    assert finding.status == status
