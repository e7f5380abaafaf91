"""The doctor's findings on machines whose GPUs are out of reach, faulty, or of different models."""

from dataclasses import replace

import pytest

from alexnet_repro.verify.doctor.gpus import kernels
from alexnet_repro.verify.doctor.nvidia import Gpu, Nvidia
from alexnet_repro.verify.doctor.unlisted import Unlisted
from tests.helpers.machines import (
    A100,
    CPU,
    GIB,
    NO_DRIVER,
    SYNTHETIC,
    T4,
    TENSORFLOW,
    TF,
    TWO,
    UNSEEN,
    Case,
    box,
    driver,
    one,
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
    "nothing may compute": Case(
        "docs.nvidia.com/deploy/nvml-api: NVML_COMPUTEMODE_PROHIBITED",
        one(compute_mode=2),
        "compute mode",
        "FAIL",
        ("lets nothing compute", "nvidia-smi -i 0 -c 0"),
    ),
    "GPU lost": Case(
        SYNTHETIC,
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
        SYNTHETIC,
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
    "another process's memory": Case(
        "github.com/NVIDIA/gpu-operator/issues/2880: a Tesla T4 filled by inference processes that should be gone",
        box(replace(T4, memory_used=14 * GIB, processes=("pid 3794364 (python, 5144 MiB)",))),
        "memory",
        "FAIL",
        ("another process holds memory", "pid 3794364", "14.0 of 15.0 GiB", "fuser -v /dev/nvidia0"),
    ),
    "memory of a process that can't be seen": Case(
        "github.com/apache/mxnet/issues/17837: nvidia-smi shows no process, fuser does",
        one(memory_used=10 * GIB),
        "memory",
        "INCONCLUSIVE",
        ("not visible from here", "fuser -v /dev/nvidia0"),
    ),
    "uncorrected errors": Case(
        "docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt: XID 48",
        one(ecc_uncorrected=2, ecc_corrected=5),
        "ecc",
        "FAIL",
        ("couldn't be corrected", "2 uncorrected, 5 corrected", "nvidia-smi -r -i 0"),
    ),
    "pages to be retired": Case(
        "docs.nvidia.com/deploy/dynamic-page-retirement: Pending Page Blacklist: Yes",
        box(replace(T4, retired_pages=2, retirement_pending=True)),
        "ecc",
        "FAIL",
        ("wait to be retired", "2 in all", "nvidia-smi -r -i 0"),
    ),
    "many pages retired": Case(
        "docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt: at most 64 pages",
        box(replace(T4, retired_pages=60)),
        "ecc",
        "FAIL",
        ("wears out", "replaced"),
    ),
    "row to be remapped": Case(
        "docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt: XID 63, row-remapping pending flag",
        one(remap_pending=True),
        "ecc",
        "FAIL",
        ("waits to be replaced", "row remapping pending", "nvidia-smi -r -i 0"),
    ),
    "row that can't be remapped": Case(
        "docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt: XID 64, row-remapping failure flag",
        one(remap_failed=True),
        "ecc",
        "FAIL",
        ("couldn't be replaced", "ROW_REMAPPER", "board replaced"),
    ),
    "link that lost lanes": Case(
        SYNTHETIC,
        one(pcie_width=4, max_pcie_width=16),
        "link",
        "INCONCLUSIVE",
        ("4 lanes of 16", "reseat", "LnkSta"),
    ),
    "too hot": Case(
        "docs.nvidia.com/deploy/nvml-api: nvmlClocksThrottleReasonHwThermalSlowdown",
        one(throttle_reasons=0x48, temperature=93),
        "clocks",
        "FAIL",
        ("heat (hardware slowdown)", "0x48, 93 °C", "nvidia-smi -q -d PERFORMANCE"),
    ),
    "power limit": Case(
        "docs.nvidia.com/deploy/nvml-api: nvmlClocksEventReasonSwPowerCap",
        one(throttle_reasons=0x4),
        "clocks",
        "INCONCLUSIVE",
        ("its power limit",),
    ),
    "a slice of a GPU": Case(
        "github.com/pytorch/pytorch/issues/130181: a process can use a single MIG device",
        one(mig=True, mig_slices=2),
        "mig",
        "INCONCLUSIVE",
        ("only a slice", "2 slices", "-mig 0"),
    ),
    "a slice named": Case(
        SYNTHETIC,
        box(replace(A100, mig=True, mig_slices=2), TWO[1], settings={"CUDA_VISIBLE_DEVICES": "MIG-5a6b"}),
        "mig",
        "INCONCLUSIVE",
        ("only a slice",),
    ),
    "MIG without a slice": Case(
        SYNTHETIC,
        one(mig=True),
        "mig",
        "FAIL",
        ("without a slice", "-mig 0", "-cgi 0 -C"),
    ),
    "GPUs of two kinds": Case(
        "github.com/NVIDIA/nvidia-container-toolkit/issues/1227: A10 and T4 in one host",
        box(A100, replace(T4, index=1)),
        "mixed_gpu_models",
        "INCONCLUSIVE",
        ("the GPUs differ", "1 × Tesla T4 (15 GiB)", "export CUDA_VISIBLE_DEVICES=GPU-a"),
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


def test_every_case_has_a_source():
    """Each case is taken from a public report or document, or marked synthetic."""
    sources = [case.source for case in CASES.values()]
    assert [source for source in sources if source != SYNTHETIC and "/" not in source and "log" not in source] == []
    assert sources.count(SYNTHETIC) < len(sources) / 2
