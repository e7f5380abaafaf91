"""The doctor's findings on the driver, CUDA's libraries and packages, and kernels, on every backend."""

from dataclasses import replace

import pytest

from alexnet_repro.verify.doctor import endings
from alexnet_repro.verify.doctor.installation import LIBRARIES, CudaPackages
from alexnet_repro.verify.doctor.unlisted import Unlisted
from tests.helpers.machines import (
    A100,
    CPU,
    NO_DRIVER,
    SYNTHETIC,
    TENSORFLOW,
    TF,
    UNSEEN,
    Case,
    box,
    diagnose,
    driver,
    results,
    without,
)

H100 = replace(A100, name="NVIDIA H100", capability=(9, 0))
RTX_5080 = replace(A100, name="NVIDIA GeForce RTX 5080", capability=(12, 0))
FUSED = (
    "InternalError: Autotuner could not find any supported configs for HLO: %cudnn-conv-bias-activation.7 = "
    '(f32[2,32,12,12], u8[0]) custom-call(), custom_call_target="__cudnn$convBiasActivationForward", in float32'
)
GENERATED = "InternalError: 'cuLaunchKernel(function, gridX, gridY, gridZ)' failed with 'CUDA_ERROR_INVALID_HANDLE'"


def cudnn(version):
    """Return libraries that can be loaded, with this cuDNN."""
    return tuple(
        replace(each, version=version, path=f"/site/{each.name}") if "graph" in each.name else each
        for each in without()
    )


def tried(gpu, log="", **errors):
    """Return TensorFlow's results on the CPU and on this one GPU."""
    found = results("gpu:0", (gpu.name,), **errors)
    return results("cpu:0", (gpu.name,)) + tuple(replace(each, log=log) if each.error else each for each in found)


def on(backend, *gpus, reason="", seen=(), **changes):
    """Return a machine with another backend, which sees these GPUs, and gives this reason if it sees none."""
    found = results("cpu:0", tuple(seen), backend)
    found = tuple(
        replace(each, data={**each.data, "reason": reason}) if each.check == "devices" else each for each in found
    )
    return box(*gpus, **{"backend": backend, "tensorflow": None, "libraries": (), "results": found, **changes})


CASES = {
    "tensorflow-cpu": Case(
        "github.com/undertherain/benchmarker/pull/54: Tensorflow not compiled with GPU support",
        box(
            A100,
            tensorflow=replace(TENSORFLOW, distributions=("tensorflow-cpu 2.21.0",), cuda_build=False, cuda=None),
            libraries=(),
            results=UNSEEN,
        ),
        "cuda build, devices",
        "FAIL",
        ("tensorflow-cpu 2.21.0 is built without CUDA", "pip uninstall -y tensorflow-cpu", "'tensorflow[and-cuda]'"),
    ),
    "cuDNN missing": Case(
        f"{TF}66987: the module system removed cuDNN from LD_LIBRARY_PATH, and TensorFlow named no library",
        box(A100, libraries=without("libcudnn.so.9"), results=UNSEEN),
        "library libcudnn.so.9, devices",
        "FAIL",
        (
            "libcudnn.so.9 can't be loaded",
            "cannot open",
            "install --force-reinstall 'nvidia-cudnn-cu12<10.0,>=9.3.0.75'",
        ),
    ),
    "no CUDA libraries": Case(
        f"{TF}63362: Cannot dlopen some GPU libraries, after pip install tensorflow[and-cuda]",
        box(A100, libraries=without(*list(LIBRARIES[12])[1:]), results=UNSEEN),
        ", ".join(f"library {name}" for name in list(LIBRARIES[12])[1:]) + ", devices",
        "FAIL",
        ("nvidia-cuda-runtime-cu12", "nvidia-cublas-cu12", "nvidia-cusolver-cu12", "nvidia-nccl-cu12"),
    ),
    "a library's own library missing": Case(
        "github.com/NVIDIA/tensorflow/issues/110: libcusolver: dlerror: libnvJitLink.so.12: cannot open",
        box(A100, libraries=without("libnvJitLink.so.12", "libcusolver.so.11"), results=UNSEEN),
        "library libnvJitLink.so.12, library libcusolver.so.11, devices",
        "FAIL",
        ("nvidia-nvjitlink-cu12",),
    ),
    "libraries well, GPU skipped": Case(
        f"{TF}110956: Skipping registering GPU devices on an A100",
        box(A100, results=UNSEEN),
        "devices",
        "FAIL",
        ("sees 0 of 1 GPUs", "would compute on the CPU", "'tensorflow[and-cuda]'"),
    ),
    "CUDA of another generation": Case(
        SYNTHETIC,
        box(A100, tensorflow=replace(TENSORFLOW, cuda=(14, 0)), nvidia=driver("700.1", (14, 0), A100), libraries=()),
        "libraries",
        "INCONCLUSIVE",
        ("CUDA 14",),
    ),
    "driver too old": Case(
        "docs.nvidia.com/deploy/cuda-compatibility: CUDA 12 needs a driver of 525 or newer",
        box(A100, nvidia=driver("470.57.02", (11, 4), A100), results=UNSEEN),
        "devices",
        "FAIL",
        ("older than CUDA 12.5.1", "470.57.02", "525.60.13", "ubuntu-drivers"),
    ),
    "driver too old for a kernel": Case(
        SYNTHETIC,
        box(
            A100,
            nvidia=driver("470.57.02", (11, 4), A100),
            results=results("cpu:0", ("A100",)) + results("gpu:0", matmul="InternalError: cudaErrorInsufficientDriver"),
        ),
        "matmul",
        "FAIL",
        ("driver 470.57.02 is older", "InsufficientDriver", "ubuntu-drivers"),
    ),
    "capabilities without CUDA": Case(
        "docs.nvidia.com/datacenter/cloud-native/container-toolkit: utility gives NVML, compute CUDA",
        box(
            A100,
            container="docker",
            settings={"NVIDIA_DRIVER_CAPABILITIES": "utility"},
            libraries=without("libcuda.so.1"),
            results=UNSEEN,
        ),
        "library libcuda.so.1, devices",
        "FAIL",
        ("NVIDIA_DRIVER_CAPABILITIES=utility leaves it out", "-e NVIDIA_DRIVER_CAPABILITIES=compute,utility"),
    ),
    "WSL's libraries off the path": Case(
        "github.com/NVIDIA/nvidia-container-toolkit/issues/1739: /usr/lib/wsl/lib",
        box(
            A100,
            unlisted=Unlisted(wsl="/usr/lib/wsl/lib"),
            nvidia=NO_DRIVER,
            libraries=without("libcuda.so.1"),
            results=UNSEEN,
        ),
        "driver, library libcuda.so.1, devices",
        "FAIL",
        ("/usr/lib/wsl/lib aren't found", "export LD_LIBRARY_PATH=/usr/lib/wsl/lib:$LD_LIBRARY_PATH"),
    ),
    "cuDNN too old for XLA": Case(
        "github.com/aws/deep-learning-containers/pull/6417: TF 2.21 GPU training jobs, cuDNN 9.5.1",
        box(A100, libraries=cudnn("9.5.1"), results=tried(A100, xla=FUSED)),
        "xla",
        "FAIL",
        (
            "cuDNN 9.5.1 is /site/libcudnn_graph.so.9",
            "pip install 'nvidia-cudnn-cu12>=9.24'",
            "XLA_FLAGS=--xla_gpu_force_conv_nhwc=true",
            "in float32",
        ),
    ),
    "generated kernels, and a driver before CUDA 12.5": Case(
        "github.com/CY-CHENYUE/ComfyUI-Molmo/issues/26: CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
        box(
            H100,
            nvidia=driver("535.161.7", (12, 2), H100),
            results=tried(
                H100,
                "'cuModuleLoadData(&module, data)' failed with 'CUDA_ERROR_UNSUPPORTED_PTX_VERSION'",
                operations=GENERATED,
            ),
        ),
        "operations",
        "FAIL",
        (
            "the driver is older",
            "driver 535.161.7 knows CUDA up to 12.2, and TensorFlow was built for 12.5",
            "newer driver",
        ),
    ),
    "generated kernels that a new GPU doesn't take": Case(
        f"{TF}99592: RTX 5000 series, 'cuModuleLoadData(&module, data)' failed with 'CUDA_ERROR_INVALID_PTX'",
        box(
            RTX_5080,
            results=tried(
                RTX_5080, "'cuModuleLoadData(&module, data)' failed with 'CUDA_ERROR_INVALID_PTX'", operations=GENERATED
            ),
        ),
        "operations",
        "FAIL",
        ("no kernels for this GPU", "12.0; built for sm_60", "tensorflow:25.02", "a TensorFlow built for sm_120"),
    ),
    "PTX that isn't compiled in time": Case(
        "tensorflow/core/common_runtime/gpu/gpu_device.cc: jit-compiled from PTX, which could take 30 minutes",
        box(RTX_5080, results=tried(RTX_5080, convolution="no answer within 180 s")),
        "convolution",
        "FAIL",
        ("compiles what TensorFlow brings as PTX", "12.0; built for sm_60", "run it with --deadline=1800; then: "),
    ),
    "two CUDAs' cuDNN": Case(
        "github.com/jax-ml/jax: jax_plugins/cuda/__init__.py loads both from nvidia.cudnn",
        box(
            A100,
            cuda_packages=CudaPackages((("nvidia-cudnn-cu12 9.5.1.17", "nvidia-cudnn-cu13 9.24.0.43"),)),
        ),
        "cuda packages",
        "FAIL",
        (
            "nvidia-cudnn-cu12 9.5.1.17 and nvidia-cudnn-cu13 9.24.0.43",
            "pip uninstall -y nvidia-cudnn-cu12 nvidia-cudnn-cu13 && pip install --force-reinstall 'tensorflow[and",
        ),
    ),
    "two CUDAs' NCCL on PyTorch": Case(
        SYNTHETIC,
        on(
            "torch",
            A100,
            seen=("A100",),
            cuda_packages=CudaPackages((("nvidia-nccl-cu12 2.28.9", "nvidia-nccl-cu13 2.30.7"),)),
        ),
        "cuda packages",
        "FAIL",
        ("pip uninstall -y nvidia-nccl-cu12 nvidia-nccl-cu13 && pip uninstall -y torch; then install it with CUDA",),
    ),
    "JAX's plugin of another version": Case(
        "github.com/ma-gilles/recovar/issues/64: JAX plugin jax_cuda12_plugin version 0.9.2 is installed",
        on(
            "jax",
            A100,
            seen=("A100",),
            cuda_packages=CudaPackages(jax={"jaxlib": "0.9.0.1", "jax-cuda12-plugin": "0.9.2"}),
        ),
        "cuda packages",
        "FAIL",
        ("jax-cuda12-plugin 0.9.2 isn't of jaxlib's version", "jaxlib 0.9.0.1", "'jax[cuda13]'"),
    ),
    "JAX for the CPU": Case(
        "github.com/jax-ml/jax/issues/10349: cannot use A100 GPU",
        on(
            "jax",
            A100,
            reason="Unknown backend: 'gpu' requested, but no platforms that are instances of gpu are present",
        ),
        "devices",
        "FAIL",
        ("JAX sees 0 of 1 GPUs", "Unknown backend: 'gpu' requested", "pip install --upgrade 'jax[cuda13]'"),
    ),
    "JAX that is to leave the GPUs out": Case(
        SYNTHETIC,
        on("jax", A100, reason="Unknown backend: 'gpu' requested", settings={"JAX_PLATFORMS": "cpu"}),
        "devices",
        "FAIL",
        ("JAX_PLATFORMS=cpu leaves them out", "Unknown backend: 'gpu' requested", "fix: unset JAX_PLATFORMS"),
    ),
    "JAX for the CPU that is to use CUDA": Case(
        SYNTHETIC,
        on("jax", A100, reason="Unknown backend: 'gpu'", settings={"JAX_PLATFORMS": "cuda"}),
        "devices",
        "FAIL",
        ("JAX sees 0 of 1 GPUs", "Unknown backend: 'gpu'", "pip install --upgrade 'jax[cuda13]'"),
    ),
    "JAX for the CPU, and a driver of CUDA 12": Case(
        SYNTHETIC,
        on("jax", A100, nvidia=driver("550.54", (12, 4), A100)),
        "devices",
        "FAIL",
        ("JAX gave no reason", "pip install --upgrade 'jax[cuda12]'"),
    ),
    "PyTorch for the CPU": Case(
        "github.com/pytorch/pytorch/issues/30664: Torch not compiled with CUDA enabled",
        on("torch", A100, reason="Torch not compiled with CUDA enabled"),
        "devices",
        "FAIL",
        ("PyTorch sees 0 of 1 GPUs", "Torch not compiled with CUDA enabled", "pip uninstall -y torch; then install it"),
    ),
    "one of two GPUs that JAX can't start": Case(
        "jax/_src/xla_bridge.py: Backend '{platform}' failed to initialize",
        on(
            "jax",
            A100,
            replace(A100, index=1, uuid="GPU-b"),
            reason="Backend 'cuda' failed to initialize: INTERNAL: failed to create StreamExecutor for CUDA:0",
        ),
        "devices",
        "FAIL",
        ("JAX sees 0 of 2 GPUs", "failed to create StreamExecutor", "leave that GPU out: export CUDA_VISIBLE_DEVICES"),
    ),
    "one GPU of two isn't seen": Case(
        SYNTHETIC,
        on("torch", A100, replace(A100, index=1, uuid="GPU-b"), seen=("A100",)),
        "devices",
        "FAIL",
        ("PyTorch sees 1 of 2 GPUs",),
    ),
    "a layer that is wrong on JAX": Case(
        SYNTHETIC,
        on(
            "jax",
            A100,
            results=results("cpu:0", ("A100",), "jax")
            + results("gpu:0", ("A100",), "jax", xla="ArithmeticError: kernel's gradient is off by 3, in bfloat16"),
        ),
        "xla",
        "FAIL",
        ("compiling with XLA failed: ArithmeticError: kernel's gradient is off by 3, in bfloat16", "xid"),
    ),
}


@pytest.mark.parametrize("case", [pytest.param(case, id=f"case={name}") for name, case in CASES.items()])
def test_fault_is_named_with_evidence_and_fix(case, monkeypatch):
    """Exactly these checks fail or are inconclusive, as bad as they are, and their words name the cause and the fix."""
    monkeypatch.setattr(endings, "package_version", {}.get)  # CUDA's packages of another test environment
    assert case.mistakes() == []


@pytest.mark.parametrize(
    ("here", "message", "fix"),
    [
        pytest.param(
            box(A100, libraries=cudnn("9.28.0")), "all 15 can be loaded; cuDNN 9.28.0", "", id="case=new cuDNN"
        ),
        pytest.param(
            box(H100, libraries=cudnn("9.19.0")),
            "cuDNN 9.19.0 is /site/libcudnn_graph.so.9; on some GPUs XLA needs 9.24",
            "pip install 'nvidia-cudnn-cu12>=9.24'",
            id="case=old cuDNN",
        ),
        pytest.param(
            box(
                A100,
                libraries=cudnn("9.3.0"),
                tensorflow=replace(TENSORFLOW, distributions=("tensorflow 2.20.0",)),
            ),
            "all 15 can be loaded; cuDNN 9.3.0",
            "",
            id="case=old cuDNN and TensorFlow",
        ),
        pytest.param(
            box(H100, nvidia=driver("535.161.7", (12, 2), H100)),
            "which a driver older than its CUDA may not compile",
            "ubuntu-drivers",
            id="case=old driver",
        ),
        pytest.param(
            box(RTX_5080), "the driver compiles what TensorFlow brings as PTX", "built for sm_120", id="case=PTX alone"
        ),
        pytest.param(
            on(
                "jax",
                A100,
                seen=("A100",),
                cuda_packages=CudaPackages(jax={"jaxlib": "0.9", "jax-cuda13-plugin": "0.9"}),
            ),
            "JAX sees 1 GPUs: A100",
            "",
            id="case=JAX",
        ),
        pytest.param(
            replace(CPU, cuda_packages=CudaPackages((("nvidia-cudnn-cu12 9", "nvidia-cudnn-cu13 9"),))),
            "the GPU checks weren't run",
            "",
            id="case=no GPU",
        ),
    ],
)
def test_what_is_old_passes_where_the_probes_do(here, message, fix):
    """A version or a missing kernel is no fault by itself: the finding says it, with the fix, and passes."""
    findings = diagnose(here)
    assert [each for each in findings if each.status != "PASS"] == []
    text = "\n".join(map(str, findings))
    assert message in text
    assert fix in text
    assert ("nvidia-cudnn-cu12>=" in text) == ("nvidia-cudnn-cu12>=" in fix)
