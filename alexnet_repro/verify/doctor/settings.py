"""Environment variables and Keras's settings that change numbers: who reads them, and what their text means.

Found in the sources and by recording what the libraries ask for: `docs/method/settings.md`. Imports neither Keras nor a
backend.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from alexnet_repro.verify.doctor.setting_texts import (
    ISA,
    JAX_BOOL,
    KERAS_BOOL,
    MATH_MODE,
    TF_BOOL,
    TF_XLA,
    TORCH_BOOL,
    XLA,
    Meaning,
    any_text,
    exactly_one_of,
    int32_number,
    leading_number,
    one_of,
    openmp_threads,
    real_number,
    yes_or_no,
)

EVERY = ("tensorflow", "jax", "torch")
KERAS = "keras."  # before the names of what keras.json holds
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"  # as replays are anyway


@dataclass(frozen=True)
class Setting:
    """One variable: what it changes, in words, and how its text is read."""

    effect: str
    parse: Meaning
    default: str = ""  # the meaning where it isn't set; what depends on the machine is in `Environment.defaults`
    readers: tuple[str, ...] = ("tensorflow",)  # backends of Keras
    # Where environments have it: "settings", "threads", "speed" where bits don't change, or "nothing".
    records: str = "settings"
    instead_of: str = ""  # the variable that comes before this one, by whose name this one is recorded
    fatal: bool = False  # whether the backend ends the process where it doesn't understand the text
    gpu: bool = False  # whether only a GPU's numbers change
    several: bool = False  # whether only those of several GPUs together


@dataclass(frozen=True)
class Doubt:
    """A variable that is set, and not to its default."""

    name: str
    text: str
    meaning: str | None  # None: not understood
    setting: Setting


LAST_BITS = "float32 results differ in the last bits"
CONVOLUTIONS = "changes which convolution kernels are chosen"
OTHER_PRODUCTS = "changes which matrix product kernels are chosen"
BETWEEN_GPUS = "changes how GPUs send each other gradients, and how they sum them"
DETERMINISM = "turns deterministic kernels on or off, whatever is requested"
RANDOM = "draws other random numbers"
XLA_READERS = ("tensorflow", "jax")
DEVICES = "--xla_force_host_platform_device_count"
# Numbers that may change the number of threads: the variables that set it, the first by its name in the defaults.
COUNTED_AGAINST = {
    "JAX_NUM_CPU_DEVICES": ("PJRT_NPROC", "NPROC"),
    "XLA_FLAGS": ("PJRT_NPROC", "NPROC"),
    "OMP_THREAD_LIMIT": ("OMP_NUM_THREADS",),
}
THREADS = f"sets the number of threads that a sum is shared among: {LAST_BITS}"

# oneDNN's own: name, effect, parser, default, readers.
ONEDNN = (
    ("MAX_CPU_ISA", f"limits the instructions of oneDNN's kernels: {LAST_BITS}", ISA, "default", EVERY),
    (
        *("DEFAULT_FPMATH_MODE", "lets oneDNN's float32 products have fewer bits", MATH_MODE, "strict"),
        ("tensorflow", "torch"),
    ),
    (
        *("CPU_ISA_HINTS", f"changes which of oneDNN's kernels are chosen: {LAST_BITS}"),
        *(one_of("prefer_ymm", "no_hints"), "no_hints", ("torch",)),
    ),
)

SETTINGS = {
    # Threads
    "TF_NUM_INTRAOP_THREADS": Setting(THREADS, int32_number, "0", records="threads"),
    "PJRT_NPROC": Setting(THREADS, int32_number, readers=("jax",)),
    "NPROC": Setting(THREADS, int32_number, readers=("jax",), instead_of="PJRT_NPROC"),
    "JAX_NUM_CPU_DEVICES": Setting(THREADS, int32_number, readers=("jax",)),
    "OMP_NUM_THREADS": Setting(THREADS, openmp_threads, readers=("torch",), records="threads"),
    "OMP_THREAD_LIMIT": Setting(THREADS, openmp_threads, readers=("torch",)),
    "OMP_DYNAMIC": Setting(
        f"lets the number of threads depend on the machine's load: {LAST_BITS} from run to run",
        *(yes_or_no("true", "false"), "0", ("torch",)),
    ),
    "OMP_MAX_ACTIVE_LEVELS": Setting(
        *(
            f"may leave one thread to compute: {LAST_BITS}",
            lambda text: {"0": "0", None: None}.get(int32_number(text), ""),
        ),
        readers=("torch",),
    ),
    **dict.fromkeys(
        ("GOMP_CPU_AFFINITY", "OMP_PLACES"),
        Setting("binds threads to processors: fewer may run", any_text, "", ("torch",)),
    ),
    "OMP_PROC_BIND": Setting("binds threads to processors: fewer may run", str.lower, "false", ("torch",)),
    "MKL_NUM_THREADS": Setting(THREADS, leading_number, readers=("torch",), records="threads"),
    "MKL_DOMAIN_NUM_THREADS": Setting(THREADS, any_text, readers=("torch",)),
    # oneDNN
    "TF_ENABLE_ONEDNN_OPTS": Setting(f"turns oneDNN's kernels on or off: {LAST_BITS}", TF_BOOL, "1"),
    "TF_DISABLE_MKL": Setting(f"turns oneDNN's kernels off: {LAST_BITS}", TF_BOOL, "0"),
    "TF_SET_ONEDNN_FPMATH_MODE": Setting(
        "lets float32 products have the precision of bfloat16", lambda text: text.lower() if text == "BF16" else None
    ),
    "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS": Setting(
        "makes oneDNN compute with the weights of the first step", TF_BOOL, "0", fatal=True
    ),
    **{
        f"{prefix}_{name}": Setting(
            effect, parse, default, read_by, instead_of="" if prefix == "ONEDNN" else f"ONEDNN_{name}"
        )
        for name, effect, parse, default, readers in ONEDNN
        for prefix, read_by in (("ONEDNN", readers), ("DNNL", readers), ("MKLDNN", ("torch",)))
    },
    # XLA and Eigen
    "TENSORFLOW_USE_CUSTOM_CONTRACTION_KERNEL": Setting(
        f"turns oneDNN off in Eigen's products: {LAST_BITS}",
        yes_or_no("1 true", "0 false", fold=False),
        *("1", XLA_READERS),
    ),
    "TF_XLA_FLAGS": Setting(
        "may compile with XLA what isn't meant to be: results differ in the last bits", TF_XLA, fatal=True
    ),
    "XLA_FLAGS": Setting(
        "changes what XLA compiles: results may differ in the last bits", XLA, readers=XLA_READERS, fatal=True
    ),
    "TF_FUNCTION_JIT_COMPILE_DEFAULT": Setting(
        "compiles every tf.function with XLA: results differ in the last bits", KERAS_BOOL, "0"
    ),
    # GPUs
    "NVIDIA_TF32_OVERRIDE": Setting(
        "forces TensorFloat-32 on or off, whatever precision is requested", any_text, readers=EVERY, gpu=True
    ),
    "CUBLAS_WORKSPACE_CONFIG": Setting(
        "changes which cuBLAS kernels are chosen", any_text, readers=XLA_READERS, gpu=True
    ),
    "CUBLAS_EMULATE_SINGLE_PRECISION": Setting(
        "lets float32 products be sums of bfloat16 ones", any_text, "0", EVERY, gpu=True
    ),
    **dict.fromkeys(
        ("CUBLAS_EMULATION_STRATEGY", "CUBLASLT_HEURISTICS_LUT_FILE"),
        Setting(OTHER_PRODUCTS, any_text, readers=EVERY, gpu=True),
    ),
    **dict.fromkeys(
        ("CUDNN_ERRATA_JSON_FILE", "CUDNN_UNFUSE_FMA"), Setting(CONVOLUTIONS, any_text, readers=EVERY, gpu=True)
    ),
    **dict.fromkeys(
        ("CUDA_FORCE_PTX_JIT", "CUDA_DISABLE_PTX_JIT"),
        Setting("decides which kernels the driver compiles: there may be none", any_text, "0", EVERY, gpu=True),
    ),
    **dict.fromkeys(
        (
            *("NCCL_ALGO", "NCCL_PROTO", "NCCL_NVLS_ENABLE", "NCCL_COLLNET_ENABLE", "NCCL_TUNER_PLUGIN"),
            *("NCCL_P2P_DISABLE", "NCCL_P2P_LEVEL", "NCCL_SHM_DISABLE", "NCCL_IB_DISABLE", "NCCL_NET_GDR_LEVEL"),
            *("NCCL_MAX_NCHANNELS", "NCCL_MIN_NCHANNELS", "NCCL_MAX_CTAS", "NCCL_MIN_CTAS"),
            *("NCCL_NTHREADS", "NCCL_BUFFSIZE", "NCCL_GRAPH_FILE"),
        ),
        Setting(BETWEEN_GPUS, any_text, records="nothing", gpu=True, several=True),
    ),
    "TF_DETERMINISTIC_OPS": Setting(DETERMINISM, TF_BOOL, "0", records="speed", fatal=True, gpu=True),
    "TF_CUDNN_DETERMINISTIC": Setting(DETERMINISM, TF_BOOL, "0", records="speed", fatal=True, gpu=True),
    "CUDA_LAUNCH_BLOCKING": Setting(
        "lets the host wait for each kernel: every timing is longer", int32_number, "0", EVERY, "speed", gpu=True
    ),
    "CUDA_INJECTION64_PATH": Setting(
        "loads a profiler: every timing is longer", any_text, "", EVERY, "speed", gpu=True
    ),
    "CUDA_DEVICE_MAX_CONNECTIONS": Setting(
        "gives a GPU other queues: with fewer, copies and kernels wait", int32_number, "8", EVERY, "speed", gpu=True
    ),
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": Setting(
        "gives each process a part of the GPU", real_number, "100.0", EVERY, "speed", gpu=True
    ),
    "TF_CUDA_PLATFORM_GPU_DEVICE_SCHEDULE": Setting(
        *("changes how the host waits for a GPU", exactly_one_of("spin", "yield", "blocking_sync"), "", XLA_READERS),
        records="speed",
        fatal=True,
        gpu=True,
    ),
    "TF_FORCE_GPU_ALLOW_GROWTH": Setting(
        "lets each process take all of a GPU's memory: the next one has none",
        *(yes_or_no("true", "false", fold=False), "1", ("tensorflow",), "speed"),
        gpu=True,
    ),
    "TF_FORCE_UNIFIED_MEMORY": Setting(
        "moves a GPU's memory to the host and back: timings, and checks of memory, aren't the GPU's",
        *(TF_BOOL, "0", XLA_READERS, "speed"),
        gpu=True,
    ),
    **{
        name: Setting("replaces the allocator of a GPU's memory", parse, default, (reader,), "speed", gpu=True)
        for name, parse, default, reader in (
            ("TF_GPU_ALLOCATOR", any_text, "", "tensorflow"),
            ("XLA_PYTHON_CLIENT_ALLOCATOR", one_of("default", "bfc", "platform", "cuda_async"), "default", "jax"),
            ("PYTORCH_NO_CUDA_MEMORY_CACHING", any_text, "", "torch"),
        )
    },
    "TF_GPU_THREAD_MODE": Setting(
        *("changes which threads start kernels", one_of("global", "gpu_private", "gpu_shared"), "global"),
        records="speed",
        fatal=True,
        gpu=True,
    ),
    "TF_CUDNN_USE_AUTOTUNE": Setting(CONVOLUTIONS, TF_BOOL, "1", gpu=True),
    "TF_CUDNN_USE_RUNTIME_FUSION": Setting(CONVOLUTIONS, TF_BOOL, "0", gpu=True),
    "TF_CUDNN_WORKSPACE_LIMIT_IN_MB": Setting(CONVOLUTIONS, int32_number, gpu=True),
    "TF_CUBLAS_WORKSPACE_LIMIT_IN_MB": Setting(OTHER_PRODUCTS, int32_number, gpu=True),
    "TF_ENABLE_FFT_TILING_FORWARD": Setting(CONVOLUTIONS, TF_BOOL, "1", readers=XLA_READERS, gpu=True),
    "TF_ENABLE_WINOGRAD_NONFUSED": Setting(CONVOLUTIONS, TF_BOOL, "1", readers=XLA_READERS, gpu=True),
    "TF_USE_DEFAULT_CONV_ALGO": Setting(CONVOLUTIONS, TF_BOOL, "0", readers=XLA_READERS, fatal=True, gpu=True),
    "TF_ENABLE_CUBLAS_TENSOR_OP_MATH_FP32": Setting("lets float32 products lose bits", TF_BOOL, "0", gpu=True),
    "TF_USE_CUBLASLT": Setting(OTHER_PRODUCTS, TF_BOOL, "0", fatal=True, gpu=True),
    "TF_MATMUL_AUTOTUNE_ENABLE": Setting(OTHER_PRODUCTS, TF_BOOL, "0", gpu=True),
    "TF_FP16_CONV_USE_FP32_COMPUTE": Setting("lets float16 convolutions lose bits", TF_BOOL, "1", gpu=True),
    "TF_FP16_MATMUL_USE_FP32_COMPUTE": Setting("lets float16 products lose bits", TF_BOOL, "1", gpu=True),
    "TF_CONV2D_USE_FP16_ACCUMULATE": Setting(
        "lets float16 convolutions lose bits", yes_or_no("1", "0 false true"), "0"
    ),
    "TF_ENABLE_MAXPOOL_NANPROP": Setting("lets max pooling keep NaN", TF_BOOL, "0"),
    # JAX
    "JAX_ENABLE_X64": Setting("makes float64 of what is float32", JAX_BOOL, "0", ("jax",), fatal=True),
    "JAX_DEFAULT_PRNG_IMPL": Setting(RANDOM, any_text, "threefry2x32", ("jax",)),
    "JAX_THREEFRY_PARTITIONABLE": Setting(RANDOM, JAX_BOOL, "1", ("jax",), fatal=True),
    "JAX_RANDOM_SEED_OFFSET": Setting(RANDOM, int32_number, "0", ("jax",)),
    "JAX_NUMPY_DTYPE_PROMOTION": Setting(
        "changes the precision of mixed operations", exactly_one_of("standard", "strict"), "standard", ("jax",)
    ),
    "JAX_DISABLE_JIT": Setting(f"compiles nothing: {LAST_BITS}", JAX_BOOL, "0", ("jax",), fatal=True),
    "JAX_DISABLE_MOST_OPTIMIZATIONS": Setting(
        f"turns most of XLA's optimizations off: {LAST_BITS}", JAX_BOOL, "0", ("jax",), fatal=True
    ),
    "JAX_OPTIMIZATION_LEVEL": Setting(f"changes XLA's optimizations: {LAST_BITS}", any_text, "UNKNOWN", ("jax",)),
    "JAX_EXEC_TIME_OPTIMIZATION_EFFORT": Setting(
        f"changes XLA's optimizations: {LAST_BITS}", real_number, "0.0", ("jax",)
    ),
    # PyTorch
    "ATEN_CPU_CAPABILITY": Setting(
        *(f"limits the instructions of PyTorch's kernels: {LAST_BITS}", exactly_one_of("default", "avx2", "avx512")),
        readers=("torch",),
    ),
    "MKL_CBWR": Setting(f"changes which of MKL's kernels are chosen: {LAST_BITS}", any_text, readers=("torch",)),
    "MKL_ENABLE_INSTRUCTIONS": Setting(
        f"limits the instructions of MKL's kernels: {LAST_BITS}", any_text, readers=("torch",)
    ),
    "CUBLASLT_WORKSPACE_SIZE": Setting(OTHER_PRODUCTS, int32_number, readers=("torch",), gpu=True),
    "TORCH_CUBLASLT_UNIFIED_WORKSPACE": Setting(OTHER_PRODUCTS, any_text, readers=("torch",), gpu=True),
    "TORCH_BLAS_PREFER_CUBLASLT": Setting(OTHER_PRODUCTS, TORCH_BOOL, "0", ("torch",), gpu=True),
    "DISABLE_ADDMM_CUDA_LT": Setting(OTHER_PRODUCTS, TORCH_BOOL, "0", ("torch",), gpu=True),
    "PYTORCH_TUNABLEOP_ENABLED": Setting(
        "chooses matrix product kernels by timing", TORCH_BOOL, "0", ("torch",), gpu=True
    ),
    "TORCH_CUDNN_V8_API_DISABLED": Setting(CONVOLUTIONS, TORCH_BOOL, "0", ("torch",), gpu=True),
    "TORCH_CUDNN_USE_HEURISTIC_MODE_B": Setting(CONVOLUTIONS, TORCH_BOOL, "0", ("torch",), gpu=True),
    # Keras
    "KERAS_USE_BACKEND_AGNOSTIC_OPS": Setting(
        f"replaces the backend's operations by Keras's own: {LAST_BITS}", KERAS_BOOL, "0", EVERY
    ),
    f"{KERAS}floatx": Setting("changes the precision of what names none", any_text, "float32", EVERY),
    f"{KERAS}epsilon": Setting("changes what denominators are kept from 0 by", any_text, "1e-07", EVERY),
}


def doubts(
    settings: Mapping[str, str],
    backend: str,
    defaults: Mapping[str, str] | None = None,
    *,
    gpu: bool = True,
    several: bool = True,
) -> Iterator[Doubt]:
    """Yield what is set for a backend of Keras's, not to its default: what changes numbers, and what isn't understood.

    `defaults`: those that depend on the machine, by name, several as `a|b`. `gpu`: also what changes a GPU's numbers
    alone; `several`: those of several GPUs together. What is empty counts as not set, but where it is fatal.
    """
    machine = defaults or {}
    for name, setting in SETTINGS.items():
        text = settings.get(name)
        if text is None or not (text or setting.fatal) or backend not in setting.readers:
            continue
        meaning = setting.parse(text)
        ends_all = meaning is None and setting.fatal
        if _overruled(setting, settings) or (setting.gpu and not gpu and not ends_all):
            continue
        if setting.several and not several:
            continue
        if meaning and name in COUNTED_AGAINST:
            meaning = _in_effect(name, meaning, settings, backend, machine)
        if meaning and name == "XLA_FLAGS" and not gpu:
            meaning = _without(meaning, "--xla_gpu")
        if meaning not in (setting.default, *machine.get(name, setting.default).split("|")):
            yield Doubt(name, text, meaning, setting)


def _without(flags: str, prefix: str) -> str:
    return " ".join(flag for flag in flags.split(" ") if not flag.startswith(prefix))


def _overruled(setting: Setting, settings: Mapping[str, str]) -> bool:
    """Return whether another variable counts: oneDNN's first that says anything, XLA's first that is a number."""
    other = settings.get(setting.instead_of, "")
    return bool(other) and (setting.parse is not int32_number or int32_number(other) is not None)


def _in_effect(name: str, meaning: str, settings: Mapping[str, str], backend: str, machine: Mapping[str, str]) -> str:
    """Return the meaning without a number that changes no number of threads.

    XLA takes as many threads as devices, if that is more; a limit of OpenMP's counts where it is less.
    """
    first, *others = COUNTED_AGAINST[name]
    counts = (SETTINGS[each].parse(settings.get(each, "")) for each in (first, *others))
    threads = int(next(filter(None, counts), machine.get(first, "1")))

    def counts_here(word: str) -> bool:
        flag, _, text = word.rpartition("=")
        if flag not in ("", DEVICES):
            return True
        count = int(text) if backend in ("jax", "torch") and text.isdecimal() else threads
        return count < threads if backend == "torch" else count > threads

    return " ".join(filter(counts_here, meaning.split(" ")))


def recorded_settings(
    settings: Mapping[str, str],
    backend: str,
    defaults: Mapping[str, str] | None = None,
    *,
    gpu: bool = True,
    speed: bool = False,
) -> dict[str, str]:
    """Return the meanings of the settings that change a backend's bits, or its speed, by name; defaults are left out.

    What turns determinism on changes no bits of a replay, which has it on anyway. `gpu`: those of GPUs as well.
    """
    found: dict[str, str] = {}
    for each in doubts(settings, backend, defaults, gpu=gpu):
        meaning, setting = each.meaning, each.setting
        if setting.records not in ("settings", "speed" if speed else ""):
            continue
        if meaning and each.name == "XLA_FLAGS" and not speed:
            meaning = _without(meaning, DETERMINISTIC)
        if meaning:
            found.setdefault(setting.instead_of or each.name, meaning)
    return found
