"""Settings by meaning: a default is none, what changes numbers has one name, what isn't understood none."""

import os
import re
import subprocess
import sys

import pytest

from alexnet_repro.verify.doctor.settings import SETTINGS, doubts, recorded_settings

# As TensorFlow, XLA and oneDNN have it on a machine with two processors, of which oneDNN is on by default.
DEFAULTS = {
    "TF_ENABLE_ONEDNN_OPTS": "1",
    **dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "PJRT_NPROC", "NPROC", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "2"),
}


@pytest.mark.parametrize(
    ("setting", "backend"),
    [
        ("TF_DETERMINISTIC_OPS=0", "tensorflow"),
        ("TF_CUDNN_DETERMINISTIC=false", "tensorflow"),
        ("TF_CUDNN_DETERMINISTIC=FALSE", "tensorflow"),
        ("TF_DISABLE_MKL=0", "tensorflow"),
        ("TF_CUDNN_USE_AUTOTUNE=1", "tensorflow"),
        ("TF_ENABLE_ONEDNN_OPTS=1", "tensorflow"),
        ("TF_ENABLE_ONEDNN_OPTS=true", "tensorflow"),
        ("TF_ENABLE_ONEDNN_OPTS=", "tensorflow"),
        ("TF_ENABLE_CUBLAS_TENSOR_OP_MATH_FP32=0", "tensorflow"),
        ("TF_XLA_FLAGS=--tf_xla_auto_jit=0", "tensorflow"),
        ("TF_XLA_FLAGS=--tf_xla_auto_jit=2 --tf_xla_auto_jit=-1", "tensorflow"),
        ("TF_NUM_INTRAOP_THREADS=0", "tensorflow"),
        ("TF_NUM_INTRAOP_THREADS=2", "tensorflow"),
        ("TF_NUM_INTRAOP_THREADS=+2", "tensorflow"),
        ("TF_NUM_INTEROP_THREADS=1", "tensorflow"),
        ("TF_FUNCTION_JIT_COMPILE_DEFAULT=false", "tensorflow"),
        ("ONEDNN_MAX_CPU_ISA=DEFAULT", "tensorflow"),
        ("DNNL_DEFAULT_FPMATH_MODE=strict", "tensorflow"),
        ("XLA_FLAGS=--xla_dump_to=/tmp/x --xla_dump_hlo_as_text", "tensorflow"),
        ("XLA_FLAGS=--xla_gpu_autotune_level=4", "tensorflow"),
        ("XLA_FLAGS=--xla_gpu_force_conv_nhwc=false --xla_gpu_force_compilation_parallelism=2", "tensorflow"),
        ("CUDA_DEVICE_MAX_CONNECTIONS=8", "tensorflow"),
        ("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=100", "torch"),
        ("CUBLAS_EMULATE_SINGLE_PRECISION=0", "jax"),
        ("TF_FORCE_GPU_ALLOW_GROWTH=true", "tensorflow"),
        ("TF_FORCE_UNIFIED_MEMORY=0", "jax"),
        ("TF_ENABLE_FFT_TILING_FORWARD=1", "tensorflow"),
        ("XLA_PYTHON_CLIENT_ALLOCATOR=default", "jax"),
        ("XLA_PYTHON_CLIENT_ALLOCATOR=platform", "torch"),
        ("XLA_FLAGS=--xla_cpu_multi_thread_eigen", "jax"),
        ("XLA_FLAGS=--xla_cpu_enable_fast_math=0", "jax"),
        ("XLA_FLAGS=--xla_gpu_autotune_level=04", "jax"),
        ("XLA_FLAGS=--xla_force_host_platform_device_count=2", "jax"),
        ("XLA_FLAGS=--xla_force_host_platform_device_count=8", "tensorflow"),
        ("XLA_FLAGS=", "jax"),
        ("JAX_NUM_CPU_DEVICES=2", "jax"),
        ("JAX_NUM_CPU_DEVICES=-1", "jax"),
        ("JAX_EXEC_TIME_OPTIMIZATION_EFFORT=0", "jax"),
        ("NPROC=2", "jax"),
        ("JAX_ENABLE_X64=off", "jax"),
        ("TORCH_BLAS_PREFER_CUBLASLT=0", "torch"),
        ("OMP_NUM_THREADS=2,1", "torch"),
        ("MKL_NUM_THREADS=+2,1", "torch"),
        ("OMP_THREAD_LIMIT=2", "torch"),
        ("OMP_THREAD_LIMIT=64", "torch"),
        ("OMP_THREAD_LIMIT=1", "tensorflow"),
        ("OMP_MAX_ACTIVE_LEVELS=1", "torch"),
        ("OMP_DYNAMIC=FALSE", "torch"),
        ("OMP_PROC_BIND=False", "torch"),
        ("keras.floatx=float32", "tensorflow"),
        ("keras.epsilon=1e-07", "tensorflow"),
        # set, but read by another backend
        ("TF_NUM_INTRAOP_THREADS=1", "jax"),
        ("NPROC=1", "tensorflow"),
        ("ATEN_CPU_CAPABILITY=avx2", "jax"),
        ("MKLDNN_MAX_CPU_ISA=AVX2", "tensorflow"),
    ],
)
def test_a_default_is_no_setting(setting, backend):
    """A default, however it is spelt, is no doubt, and digests made without it still apply."""
    name, _, text = setting.partition("=")
    assert list(doubts({name: text}, backend, DEFAULTS)) == []
    assert recorded_settings({name: text}, backend, DEFAULTS, speed=True) == {}


@pytest.mark.parametrize(
    ("settings", "backend", "recorded"),
    [
        ("TF_ENABLE_ONEDNN_OPTS=False", "tensorflow", {"TF_ENABLE_ONEDNN_OPTS": "0"}),
        ("ONEDNN_MAX_CPU_ISA=SSE41", "tensorflow", {"ONEDNN_MAX_CPU_ISA": "sse41"}),
        ("DNNL_MAX_CPU_ISA=sse41", "tensorflow", {"ONEDNN_MAX_CPU_ISA": "sse41"}),
        ("DNNL_MAX_CPU_ISA=AVX2;ONEDNN_MAX_CPU_ISA=SSE41", "tensorflow", {"ONEDNN_MAX_CPU_ISA": "sse41"}),
        ("MKLDNN_MAX_CPU_ISA=AVX2", "torch", {"ONEDNN_MAX_CPU_ISA": "avx2"}),
        ("MKLDNN_MAX_CPU_ISA=AVX2;DNNL_MAX_CPU_ISA=SSE41", "torch", {"ONEDNN_MAX_CPU_ISA": "sse41"}),
        ("ONEDNN_MAX_CPU_ISA=AVX512_CORE_AMX", "jax", {"ONEDNN_MAX_CPU_ISA": "avx10_1_512_amx"}),
        ("TF_SET_ONEDNN_FPMATH_MODE=BF16", "tensorflow", {"TF_SET_ONEDNN_FPMATH_MODE": "bf16"}),
        ("ONEDNN_DEFAULT_FPMATH_MODE=BF16", "tensorflow", {"ONEDNN_DEFAULT_FPMATH_MODE": "bf16"}),
        ("TF_ONEDNN_ASSUME_FROZEN_WEIGHTS=1", "tensorflow", {"TF_ONEDNN_ASSUME_FROZEN_WEIGHTS": "1"}),
        ("TENSORFLOW_USE_CUSTOM_CONTRACTION_KERNEL=0", "jax", {"TENSORFLOW_USE_CUSTOM_CONTRACTION_KERNEL": "0"}),
        ("NPROC=1", "jax", {"PJRT_NPROC": "1"}),
        ("NPROC=1;PJRT_NPROC=4", "jax", {"PJRT_NPROC": "4"}),
        ("NPROC=1;PJRT_NPROC=two", "jax", {"PJRT_NPROC": "1"}),
        ("DNNL_MAX_CPU_ISA=SSE41;ONEDNN_MAX_CPU_ISA=SSE2", "tensorflow", {}),
        # of devices and threads, XLA takes the larger number
        ("JAX_NUM_CPU_DEVICES=3", "jax", {"JAX_NUM_CPU_DEVICES": "3"}),
        ("JAX_NUM_CPU_DEVICES=2;PJRT_NPROC=1", "jax", {"JAX_NUM_CPU_DEVICES": "2", "PJRT_NPROC": "1"}),
        (
            *("XLA_FLAGS=--xla_force_host_platform_device_count=3", "jax"),
            {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"},
        ),
        ("XLA_FLAGS=--xla_force_host_platform_device_count=3;NPROC=4", "jax", {"PJRT_NPROC": "4"}),
        # of threads and their limit, OpenMP the smaller one
        ("OMP_THREAD_LIMIT=1", "torch", {"OMP_THREAD_LIMIT": "1"}),
        ("OMP_THREAD_LIMIT=2;OMP_NUM_THREADS=4,1", "torch", {"OMP_THREAD_LIMIT": "2"}),
        ("OMP_THREAD_LIMIT=4;OMP_NUM_THREADS=4,1", "torch", {}),
        ("OMP_MAX_ACTIVE_LEVELS=0", "torch", {"OMP_MAX_ACTIVE_LEVELS": "0"}),
        ("OMP_DYNAMIC=true", "torch", {"OMP_DYNAMIC": "1"}),
        ("OMP_PROC_BIND=TRUE", "torch", {"OMP_PROC_BIND": "true"}),
        ("GOMP_CPU_AFFINITY=0", "torch", {"GOMP_CPU_AFFINITY": "0"}),
        # the last of a flag counts, all of a list
        ("XLA_FLAGS=--xla_gpu_ftz=0 --xla_gpu_ftz=1", "jax", {"XLA_FLAGS": "--xla_gpu_ftz=true"}),
        (
            *("XLA_FLAGS=--xla_disable_hlo_passes=a --xla_disable_hlo_passes=", "jax"),
            {"XLA_FLAGS": "--xla_disable_hlo_passes=a"},
        ),
        ("XLA_FLAGS=--xla_a=1 --xla_a=2 --xla_a=1", "jax", {"XLA_FLAGS": "--xla_a=1 --xla_a=2 --xla_a=1"}),
        ("XLA_FLAGS=--xla_b --xla_a=1 --xla_dump_to=/x", "tensorflow", {"XLA_FLAGS": "--xla_a=1 --xla_b=true"}),
        ("XLA_FLAGS=--xla_gpu_ftz=1 x --xla_b=1", "jax", {"XLA_FLAGS": "--xla_gpu_ftz=true"}),
        ("KERAS_USE_BACKEND_AGNOSTIC_OPS=1", "torch", {"KERAS_USE_BACKEND_AGNOSTIC_OPS": "1"}),
        ("keras.floatx=float16", "jax", {"keras.floatx": "float16"}),
        ("TF_DETERMINISTIC_OPS=1", "tensorflow", {}),
        ("XLA_FLAGS=--xla_gpu_deterministic_ops=true", "jax", {}),
        ("TF_NUM_INTRAOP_THREADS=1", "tensorflow", {}),  # the environment has it as its threads
    ],
)
def test_bits_are_recorded_by_meaning(settings, backend, recorded):
    """What is one to a library has one name and one spelling; what replays have anyway parts no digests."""
    environ = dict(each.split("=", 1) for each in settings.split(";"))
    assert recorded_settings(environ, backend, DEFAULTS) == recorded


BITS = {
    *("NVIDIA_TF32_OVERRIDE=1", "CUBLAS_WORKSPACE_CONFIG=:16:8", "CUBLAS_EMULATE_SINGLE_PRECISION=1"),
    *("CUBLAS_EMULATION_STRATEGY=eager", "CUBLASLT_HEURISTICS_LUT_FILE=/x", "CUDNN_ERRATA_JSON_FILE=/x"),
    *("CUDNN_UNFUSE_FMA=1", "CUDA_FORCE_PTX_JIT=1", "CUDA_DISABLE_PTX_JIT=1", "TF_FP16_CONV_USE_FP32_COMPUTE=0"),
    *("TF_FP16_MATMUL_USE_FP32_COMPUTE=0", "TF_ENABLE_WINOGRAD_NONFUSED=0", "TF_ENABLE_FFT_TILING_FORWARD=0"),
    *("TF_CUDNN_WORKSPACE_LIMIT_IN_MB=64", "TF_CUBLAS_WORKSPACE_LIMIT_IN_MB=64"),
}
SPEED = {
    *("CUDA_LAUNCH_BLOCKING=1", "CUDA_DEVICE_MAX_CONNECTIONS=1", "CUDA_INJECTION64_PATH=/x.so"),
    *("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=50.0", "TF_CUDA_PLATFORM_GPU_DEVICE_SCHEDULE=blocking_sync"),
    *("TF_FORCE_UNIFIED_MEMORY=1", "TF_GPU_ALLOCATOR=cuda_malloc_async", "TF_GPU_THREAD_MODE=gpu_private"),
}
BETWEEN = {"NCCL_ALGO=Ring", "NCCL_PROTO=LL", "NCCL_P2P_DISABLE=1", "NCCL_NVLS_ENABLE=0", "NCCL_MAX_NCHANNELS=1"}


@pytest.mark.parametrize("setting", sorted(BITS | SPEED | BETWEEN))
def test_what_changes_a_gpus_numbers(setting):
    """Each makes the doctor inconclusive on a GPU, none on a CPU alone; bits, speed or neither have it recorded."""
    name, _, text = setting.partition("=")
    (found,) = doubts({name: text}, "tensorflow")
    assert (found.meaning, found.setting.several) == (text, setting in BETWEEN)
    assert list(doubts({name: text}, "tensorflow", gpu=False)) == []
    assert recorded_settings({name: text}, "tensorflow") == ({name: text} if setting in BITS else {})
    assert recorded_settings({name: text}, "tensorflow", speed=True) == ({} if setting in BETWEEN else {name: text})


@pytest.mark.parametrize(
    ("setting", "backend"),
    [
        ("PYTORCH_NO_CUDA_MEMORY_CACHING=1", "torch"),
        ("CUBLASLT_WORKSPACE_SIZE=1024", "torch"),
        ("TORCH_CUBLASLT_UNIFIED_WORKSPACE=0", "torch"),
        ("XLA_PYTHON_CLIENT_ALLOCATOR=platform", "jax"),
        ("TF_FORCE_UNIFIED_MEMORY=1", "jax"),
        ("TF_FORCE_GPU_ALLOW_GROWTH=false", "tensorflow"),
    ],
)
def test_what_changes_it_elsewhere(setting, backend):
    """What one backend alone reads counts there alone."""
    name, _, text = setting.partition("=")
    assert [each.name for each in doubts({name: text}, backend)] == [name]
    others = {"tensorflow", "jax", "torch"} - {*SETTINGS[name].readers}
    assert [each for other in others for each in doubts({name: text}, other)] == []


def test_flags_of_a_file(tmp_path):
    """XLA reads its flags from a file where the variable begins with no dash."""
    (tmp_path / "flags").write_text("--xla_gpu_autotune_level=0\n--xla_dump_to=/x")
    found = recorded_settings({"XLA_FLAGS": str(tmp_path / "flags")}, "tensorflow")
    assert found == {"XLA_FLAGS": "--xla_gpu_autotune_level=0"}


@pytest.mark.parametrize(
    ("settings", "speed", "gpu", "recorded"),
    [
        ({"TF_DETERMINISTIC_OPS": "1"}, True, True, {"TF_DETERMINISTIC_OPS": "1"}),
        ({"XLA_FLAGS": "--xla_gpu_deterministic_ops=1"}, True, True, {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}),
        ({"CUDA_LAUNCH_BLOCKING": "1"}, True, True, {"CUDA_LAUNCH_BLOCKING": "1"}),
        ({"CUDA_LAUNCH_BLOCKING": "1", "TF_GPU_THREAD_MODE": "gpu_private"}, False, True, {}),
        ({"TF_GPU_THREAD_MODE": "GPU_private"}, True, True, {"TF_GPU_THREAD_MODE": "gpu_private"}),
        ({"TF_GPU_THREAD_MODE": "global", "CUDA_LAUNCH_BLOCKING": "0"}, True, True, {}),
        ({"TF_CUDNN_USE_AUTOTUNE": "0"}, False, True, {"TF_CUDNN_USE_AUTOTUNE": "0"}),
        ({"TF_CUDNN_USE_AUTOTUNE": "0", "XLA_FLAGS": "--xla_gpu_autotune_level=0"}, False, False, {}),
        ({"NVIDIA_TF32_OVERRIDE": "0"}, False, False, {}),
    ],
    ids=[
        f"case={name}"
        for name in (
            "deterministic",
            "deterministic_flag",
            "blocking",
            "bits",
            "thread_mode",
            "defaults",
            "gpu",
            "cpu_flags",
            "cpu",
        )
    ],
)
def test_what_concerns_a_device(settings, speed, gpu, recorded):
    """A CPU's bits depend on no GPU's settings; deterministic kernels have another speed."""
    assert recorded_settings(settings, "tensorflow", DEFAULTS, gpu=gpu, speed=speed) == recorded


@pytest.mark.parametrize(
    ("setting", "backend", "fatal"),
    [
        ("TF_ENABLE_ONEDNN_OPTS=off", "tensorflow", False),
        ("TF_ENABLE_ONEDNN_OPTS=2", "tensorflow", False),
        ("TF_NUM_INTRAOP_THREADS=two", "tensorflow", False),
        ("TF_NUM_INTRAOP_THREADS=1.0", "tensorflow", False),
        ("TF_SET_ONEDNN_FPMATH_MODE=bf16", "tensorflow", False),
        ("ONEDNN_MAX_CPU_ISA=SSE2", "tensorflow", False),
        ("TORCH_BLAS_PREFER_CUBLASLT=true", "torch", False),
        ("TF_NUM_INTRAOP_THREADS=0x1", "tensorflow", False),
        ("TF_NUM_INTRAOP_THREADS=99999999999", "tensorflow", False),
        ("OMP_NUM_THREADS=0", "torch", False),
        ("MKL_NUM_THREADS=two", "torch", False),
        ("ATEN_CPU_CAPABILITY=AVX2", "torch", False),
        ("XLA_FLAGS=/nowhere/flags", "jax", True),
        ("TF_XLA_FLAGS=tf_xla_auto_jit=2", "tensorflow", True),
        ("TF_ONEDNN_ASSUME_FROZEN_WEIGHTS=", "tensorflow", True),
        ("TF_ONEDNN_ASSUME_FROZEN_WEIGHTS=off", "tensorflow", True),
        ("JAX_ENABLE_X64=2", "jax", True),
    ],
)
def test_what_is_not_understood(setting, backend, fatal):
    """What its reader doesn't understand parts no digests, and may end the process."""
    name, _, text = setting.partition("=")
    (found,) = doubts({name: text}, backend, DEFAULTS)
    assert (found.meaning, found.setting.fatal) == (None, fatal)
    assert recorded_settings({name: text}, backend, DEFAULTS) == {}


PRINTED = {
    "XLA_FLAGS": "xla_cpu_enable_fast_math=false xla_cpu_multi_thread_eigen=true xla_backend_optimization_level=3 "
    "xla_force_host_platform_device_count=1",
    "TF_XLA_FLAGS": "tf_xla_auto_jit=0 tf_xla_cpu_global_jit=false tf_xla_min_cluster_size=4",
}


@pytest.mark.slow
@pytest.mark.parametrize("variable", PRINTED)
def test_defaults_of_flags(variable):
    """The installed TensorFlow prints the same defaults of XLA's flags as those that are taken for no setting."""
    program = "import tensorflow as tf; tf.function(lambda x: x + 1, jit_compile=True)(1.0)"
    environ = {**os.environ, variable: "--help"}
    done = subprocess.run([sys.executable, "-c", program], check=False, env=environ, capture_output=True, text=True)
    printed = {f"{name}={value}" for name, value in re.findall(r'^\t--(\w+)="?([^"\s]*)', done.stderr, re.MULTILINE)}
    assert {*PRINTED[variable].split()} <= printed
    assert SETTINGS[variable].parse(" ".join(f"--{flag}" for flag in PRINTED[variable].split())) == ""
