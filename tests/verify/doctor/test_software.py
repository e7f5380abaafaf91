"""The doctor's findings on machines on which TensorFlow can't work, or not as it should."""

from dataclasses import replace

import pytest

from alexnet_repro.backend.memory_limits import MemoryLimit
from alexnet_repro.verify.doctor import software
from alexnet_repro.verify.doctor.device_probe import ProbeResult
from alexnet_repro.verify.doctor.environment import Volume
from tests.helpers.machines import (
    A100,
    CPU,
    MIB,
    SYNTHETIC,
    TENSORFLOW,
    TF,
    TWO,
    Case,
    box,
    requirement,
    results,
)

IMPORT = results("cpu:0")[0]
CASES = {
    "GPU held in an exclusive mode": Case(
        "github.com/google-research/pix2struct/issues/53: CUDA-capable device(s) is/are busy or unavailable",
        box(
            replace(A100, compute_mode=3, processes=("pid 42 (python, 512 MiB)",)),
            results=results("cpu:0", ("A100",))
            + results("gpu:0", matmul="InternalError: CUDA_ERROR_DEVICE_UNAVAILABLE"),
        ),
        "memory, compute mode, matmul",
        "FAIL",
        ("one holds it: pid 42 (python, 512 MiB)", "end that process; or: sudo nvidia-smi -i 0 -c 0"),
    ),
    "little shared memory": Case(
        "github.com/NVIDIA/nccl/issues/342: Docker's 64 MB",
        box(*TWO, container="docker", shared_memory=64 * MIB),
        "shared memory",
        "FAIL",
        ("too small for 2 GPUs", "64 MiB", "--shm-size=1g"),
    ),
    "disk full": Case(
        SYNTHETIC,
        replace(CPU, volumes=(Volume("weights", "/work", 90 * MIB),)),
        "disk",
        "FAIL",
        ("weights: 90 MiB free, 1.0 GiB needed", "df -h /work"),
    ),
    "no home to write to": Case(
        "kubernetes.io/docs/tasks/configure-pod-container/security-context: runAsNonRoot, readOnlyRootFilesystem",
        replace(CPU, volumes=(Volume("data", "/home/user/.keras", None, "Permission denied"),)),
        "disk",
        "INCONCLUSIVE",
        ("/home/user/.keras can't be written to (Permission denied)", "export KERAS_HOME=FOLDER"),
    ),
    "no working folder": Case(
        SYNTHETIC,
        replace(CPU, volumes=(Volume("weights", ".", None, "No such file or directory"),)),
        "disk",
        "INCONCLUSIVE",
        ("can't be written to (No such file or directory), where weights would go", "train --weights=FOLDER"),
    ),
    "nowhere for temporary files": Case(
        SYNTHETIC,
        replace(CPU, volumes=(Volume("temporary files", "/tmp", None, "Read-only file system"),)),
        "disk",
        "FAIL",
        ("/tmp can't be written to (Read-only file system)", "export TMPDIR=FOLDER"),
    ),
    "import fixed by its package": Case(
        "github.com/h5py/h5py/issues/2420",
        replace(CPU, results=(replace(IMPORT, error="h5py can't be imported: ValueError", data={"fix": "pip …"}),)),
        "import",
        "FAIL",
        ("importing TensorFlow failed: h5py can't be imported: ValueError", "fix: pip …"),
    ),
    "two TensorFlows": Case(
        "github.com/openai/spinningup/issues/61: tensorflow installed over tensorflow-gpu",
        replace(CPU, tensorflow=replace(TENSORFLOW, distributions=("tensorflow 2.21.0", "tensorflow-cpu 2.20.0"))),
        "tensorflow",
        "FAIL",
        ("over each other", "tensorflow-cpu 2.20.0", "pip uninstall -y tensorflow tensorflow-cpu && pip install"),
    ),
    "no TensorFlow": Case(
        SYNTHETIC, replace(CPU, tensorflow=None, results=()), "tensorflow", "FAIL", ("isn't installed",)
    ),
    "GPU, no TensorFlow": Case(
        SYNTHETIC,
        box(A100, tensorflow=None, libraries=(), results=()),
        "tensorflow",
        "FAIL",
        ("pip install 'tensorflow[and-cuda]'",),
    ),
    "NumPy too new": Case(
        "github.com/nv-tlabs/vipe/issues/42: compiled using NumPy 1.x, cannot be run in NumPy 2.1.2",
        replace(
            CPU,
            tensorflow=requirement("numpy", "<2.0.0,>=1.23.5", "2.1.2"),
            results=results("cpu:0", **{"import": "ImportError: numpy.core.umath failed to import"})[:1],
        ),
        "import",
        "FAIL",
        ("numpy 2.1.2 is installed", "pip install 'numpy<2.0.0,>=1.23.5'"),
    ),
    "protobuf too new": Case(
        f"{TF}56266: Descriptors cannot not be created directly",
        replace(
            CPU,
            tensorflow=requirement("protobuf", "<3.20,>=3.9.2", "4.21.0"),
            results=results("cpu:0", **{"import": "TypeError: Descriptors cannot not be created directly"})[:1],
        ),
        "import",
        "FAIL",
        ("protobuf 4.21.0", "pip install 'protobuf<3.20,>=3.9.2'"),
    ),
    "requirement missing in a graph": Case(
        SYNTHETIC,
        replace(
            CPU,
            tensorflow=requirement("gast", ">=0.2.1", None),
            results=results("cpu:0", xla="ModuleNotFoundError: No module named 'gast'"),
        ),
        "xla",
        "FAIL",
        ("no gast is installed", "pip install 'gast>=0.2.1'; then: "),
    ),
    "no Keras": Case(
        SYNTHETIC,
        replace(CPU, tensorflow=requirement("keras", ">=3.12.0", None)),
        "requirements",
        "FAIL",
        ("no keras is installed: nothing here runs without", "pip install 'keras>=3.12.0'"),
    ),
    "vendor's TensorFlow that can't be imported": Case(
        SYNTHETIC,
        replace(
            CPU,
            tensorflow=replace(TENSORFLOW, distributions=("tensorflow-rocm 2.18.1",)),
            results=results("cpu:0", **{"import": "ImportError: librocblas.so.4"})[:1],
        ),
        "import",
        "FAIL",
        ("pip install --force-reinstall tensorflow-rocm",),
    ),
    "processor without AVX": Case(
        f"{TF}17411: Illegal instruction (core dumped)",
        replace(CPU, results=results("cpu:0", **{"import": "ended by SIGILL"})[:1]),
        "import",
        "FAIL",
        ("importing TensorFlow failed: this processor lacks an instruction", "ended by SIGILL", "AVX"),
    ),
    "TensorFlow hangs": Case(
        SYNTHETIC,
        replace(CPU, results=results("cpu:0", **{"import": "no answer within 180 s"})[:1]),
        "import",
        "FAIL",
        ("no answer within 180 s", "faulthandler"),
    ),
    "one GPU of two hangs": Case(
        f"{TF}38699: Tensorflow hangs, requires reboot",
        box(
            *TWO,
            results=results("cpu:0", ("A100", "A100"))
            + results("gpu:0")
            + results("gpu:1", convolution="no answer within 180 s"),
        ),
        "convolution",
        "FAIL",
        ("gpu:1", "a convolution failed: no answer", "dmesg | grep -i xid"),
    ),
    "wrong products": Case(
        SYNTHETIC,
        box(A100, results=results("cpu:0", ("A100",)) + results("gpu:0", matmul="ArithmeticError: 1 of 65536 wrong")),
        "matmul",
        "FAIL",
        ("gpu:0", "1 of 65536 wrong"),
    ),
    "GPU memory runs out": Case(
        f"{TF}12237: failed to allocate 1.51G from device: CUDA_ERROR_OUT_OF_MEMORY",
        box(A100, results=results("cpu:0", ("A100",)) + results("gpu:0", matmul="ResourceExhaustedError: OOM")),
        "matmul",
        "FAIL",
        ("end the processes that hold the GPU's memory",),
    ),
    "XLA without libdevice": Case(
        f"{TF}60790: libdevice not found at ./libdevice.10.bc",
        box(
            A100,
            results=results("cpu:0", ("A100",))
            + results("gpu:0", xla="InternalError: libdevice not found at ./libdevice"),
        ),
        "xla",
        "FAIL",
        ("compiling with XLA", "nvidia-cuda-nvcc-cu12"),
    ),
}


def test_one_cause_is_one_failure():
    """What ends each probe alike fails the first alone; the setting that is its cause is named once, as the cause."""
    flags = ("exit status 1", 1.0, {}, "Unknown flag in XLA_FLAGS: --bogus")
    found = tuple(ProbeResult(device, "xla", *flags) for device in ("cpu:0", "gpu:0"))
    here = replace(CPU, settings={"XLA_FLAGS": "--bogus"}, results=found)
    (first,), (second,) = (list(software.device_result(here, each)) for each in found)
    assert (first.status, first.message) == (
        *("FAIL", "compiling with XLA failed: XLA_FLAGS has --bogus, which this version doesn't know"),
    )
    assert (first.evidence, first.fix) == (
        *("exit status 1; Unknown flag in XLA_FLAGS: --bogus", "take it out of XLA_FLAGS, or: unset XLA_FLAGS"),
    )
    assert second.status == "INCONCLUSIVE"
    assert second.message.startswith("compiling with XLA failed, as 'xla' of cpu:0 did: XLA_FLAGS has --bogus")


def test_slow_start_is_no_broken_package():
    """What takes too long to import needs more time, not to be installed again."""
    (found,) = software.device_result(CPU, ProbeResult("cpu:0", "import", "no answer within 1 s"))
    assert "raise --deadline" in found.fix
    assert "reinstall" not in found.fix


def test_memory_is_one_cause():
    """What too little memory ends is explained by that finding, which has failed already."""
    limit = MemoryLimit("the cgroup's memory.max", 10**9, 10**8, "docker run --memory=")
    killed = ProbeResult("cpu:0", "xla", "ended by SIGKILL")
    for memory, status in (((), "FAIL"), ((limit,), "INCONCLUSIVE")):
        (found,) = software.device_result(replace(CPU, memory=memory), killed)
        assert found.status == status
        assert "OOM killer" in found.message


def test_fix_is_of_the_device():
    """What isn't known is fixed by the driver on a GPU, and on a CPU it isn't."""
    for device, words in (("cpu:0", "dmesg | tail"), ("gpu:0", "nvidia-smi -r")):
        (found,) = software.device_result(CPU, ProbeResult(device, "matmul", "ended by SIGSEGV"))
        assert words in found.fix
        assert ("xid" in found.fix) == device.startswith("gpu")


@pytest.mark.parametrize("case", [pytest.param(case, id=f"case={name}") for name, case in CASES.items()])
def test_fault_is_named_with_evidence_and_fix(case):
    """Exactly these checks fail or are inconclusive, as bad as they are, and their words name the cause and the fix."""
    assert case.mistakes() == []
