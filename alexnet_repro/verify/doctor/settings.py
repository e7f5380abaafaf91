"""Environment variables and Keras's settings that change numbers: who reads them, and what their text means.

Found in the sources and by recording what the libraries ask for: `docs/method/settings.md`. Imports neither Keras nor a
backend.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from alexnet_repro.backend.variables import read_int32, xla_flags

Meaning = Callable[[str], str | None]  # from the text to its meaning, as recorded; None: not understood

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
    records: str = "settings"  # where environments have it: "settings", "threads", or "speed" where bits don't change
    instead_of: str = ""  # the variable that comes before this one, by whose name this one is recorded
    fatal: bool = False  # whether the backend ends the process where it doesn't understand the text
    gpu: bool = False  # whether only a GPU's numbers change


@dataclass(frozen=True)
class Doubt:
    """A variable that is set, and not to its default."""

    name: str
    text: str
    meaning: str | None  # None: not understood
    setting: Setting


def _words(true: str, false: str, *, fold: bool = True) -> Meaning:
    meanings = dict.fromkeys(true.split(), "1") | dict.fromkeys(false.split(), "0")
    return lambda text: meanings.get(text.lower() if fold else text)


def _one_of(*choices: str, aliases: Mapping[str, str] | None = None) -> Meaning:
    return lambda text: (aliases or {}).get(text.lower(), text.lower() if text.lower() in choices else None)


def _exactly(*choices: str) -> Meaning:
    return lambda text: text if text in choices else None


def _whole(text: str) -> str | None:
    return None if (number := read_int32(text)) is None else str(number)


def _openmp(text: str) -> str | None:
    """Return the threads of the outermost level, of a number above 0 for each."""
    found = re.fullmatch(r"\s*0*([1-9]\d*)\s*(,\s*\d+\s*)*", text, re.ASCII)
    return found[1] if found else None


def _leading(text: str) -> str | None:
    """Return the number above 0 that the text begins with, as MKL does."""
    found = re.match(r"\s*\+?0*([1-9]\d*)", text, re.ASCII)
    return found[1] if found else None


def _real(text: str) -> str | None:
    try:
        return str(float(text))
    except ValueError:
        return None


def _any(text: str) -> str | None:
    return text


def _flags(harmless: tuple[str, ...], defaults: str) -> Meaning:
    """Return a parser of XLA's flags.

    Of a flag given twice the last counts; of lists, whose default is none, and of flags that aren't known, all do.
    `defaults` are those that are the same in TensorFlow 2.21 and JAX 0.10, as `XLA_FLAGS=--help` and the source have
    them.
    """
    own = dict(flag.split("=", 1) for flag in defaults.split())

    def parse(text: str) -> str | None:
        if (flags := xla_flags(text)) is None:
            return None
        found: dict[str, list[str]] = {}
        for flag in flags:
            name, valued, value = flag.lstrip("-").partition("=")
            default = own.get(name, "")
            value = value if valued else "true"
            if default in ("true", "false"):
                value = {"1": "true", "0": "false"}.get(value, value.lower())
            elif default:
                value = _whole(value) or value
            found[name] = [value] if default else [*found.get(name, []), value]
        return " ".join(
            f"--{name}={value}"
            for name, values in sorted(found.items())
            for value, _ in groupby(values)
            if not name.startswith(harmless) and not (name in own and value in own[name].split("|"))
        )

    return parse


# TensorFlow's ReadBoolFromEnvVar; JAX's bool_env; PyTorch's check_env; Keras's config.py.
TF_BOOL = _words("1 true", "0 false")
JAX_BOOL = _words("y yes t true on 1", "n no f false off 0")
TORCH_BOOL = _words("1", "0", fold=False)
KERAS_BOOL = _words("1 true", "0 false")

ISA = _one_of(
    *("default", "sse41", "avx", "avx2", "avx2_vnni", "avx2_vnni_2", "avx512_core", "avx512_core_vnni"),
    *("avx512_core_bf16", "avx10_1_512", "avx10_1_512_amx", "avx10_1_512_amx_fp16", "avx10_2", "avx10_2_amx_2"),
    *("advanced_simd", "sve_128", "sve_256", "sve_512"),
    aliases={
        "all": "default",
        "avx512_core_fp16": "avx10_1_512",
        "avx512_core_amx": "avx10_1_512_amx",
        "avx512_core_amx_fp16": "avx10_1_512_amx_fp16",
        "avx10_2_512": "avx10_2",
        "avx10_2_512_amx_2": "avx10_2_amx_2",
    },
)
MATH_MODE = _one_of("strict", "bf16", "f16", "tf32", "any")

XLA = _flags(
    ("xla_dump", "xla_gpu_dump", "xla_gpu_cuda_data_dir", "xla_hlo_profile"),
    """
    xla_allow_excess_precision=true xla_backend_extra_options= xla_backend_optimization_level=3
    xla_cpu_enable_fast_math=false xla_cpu_enable_fast_min_max=true xla_cpu_enable_platform_dependent_math=true
    xla_cpu_fast_math_honor_division=true xla_cpu_fast_math_honor_functions=true xla_cpu_fast_math_honor_infs=true
    xla_cpu_fast_math_honor_nans=true xla_cpu_multi_thread_eigen=true xla_cpu_prefer_vector_width=256
    xla_cpu_use_onednn=false xla_cpu_use_xnnpack=true xla_disable_all_hlo_passes=false xla_disable_hlo_passes=
    xla_enable_fast_math=false xla_force_host_platform_device_count=1 xla_gpu_autotune_level=4
    xla_gpu_autotune_max_solutions=0
    xla_gpu_deterministic_ops=false xla_gpu_enable_cublaslt=false xla_gpu_enable_fast_min_max=false
    xla_gpu_enable_latency_hiding_scheduler=false xla_gpu_enable_triton_gemm=true
    xla_gpu_exclude_nondeterministic_ops=false xla_gpu_ftz=false xla_llvm_disable_expensive_passes=false
    """,
)
TF_XLA = _flags(
    ("tf_xla_clustering_debug", "tf_xla_print_cluster_outputs", "tf_dump_graphs", "tf_xla_persistent_cache"),
    """
    tf_mlir_enable_mlir_bridge=false tf_xla_async_compilation=false tf_xla_auto_jit=0|-1 tf_xla_compile_on_demand=false
    tf_xla_cpu_global_jit=false tf_xla_disable_constant_folding=false tf_xla_enable_lazy_compilation=true
    tf_xla_enable_xla_devices=false tf_xla_max_cluster_size=2147483647 tf_xla_min_cluster_size=4
    tf_xla_ops_to_cluster=
    """,
)

LAST_BITS = "float32 results differ in the last bits"
CONVOLUTIONS = "changes which convolution kernels are chosen"
OTHER_PRODUCTS = "changes which matrix product kernels are chosen"
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
        *(_one_of("prefer_ymm", "no_hints"), "no_hints", ("torch",)),
    ),
)

SETTINGS = {
    # Threads
    "TF_NUM_INTRAOP_THREADS": Setting(THREADS, _whole, "0", records="threads"),
    "PJRT_NPROC": Setting(THREADS, _whole, readers=("jax",)),
    "NPROC": Setting(THREADS, _whole, readers=("jax",), instead_of="PJRT_NPROC"),
    "JAX_NUM_CPU_DEVICES": Setting(THREADS, _whole, readers=("jax",)),
    "OMP_NUM_THREADS": Setting(THREADS, _openmp, readers=("torch",), records="threads"),
    "OMP_THREAD_LIMIT": Setting(THREADS, _openmp, readers=("torch",)),
    "OMP_DYNAMIC": Setting(
        f"lets the number of threads depend on the machine's load: {LAST_BITS} from run to run",
        *(_words("true", "false"), "0", ("torch",)),
    ),
    "OMP_MAX_ACTIVE_LEVELS": Setting(
        *(f"may leave one thread to compute: {LAST_BITS}", lambda text: {"0": "0", None: None}.get(_whole(text), "")),
        readers=("torch",),
    ),
    **dict.fromkeys(
        ("GOMP_CPU_AFFINITY", "OMP_PLACES"), Setting("binds threads to processors: fewer may run", _any, "", ("torch",))
    ),
    "OMP_PROC_BIND": Setting("binds threads to processors: fewer may run", str.lower, "false", ("torch",)),
    "MKL_NUM_THREADS": Setting(THREADS, _leading, readers=("torch",), records="threads"),
    "MKL_DOMAIN_NUM_THREADS": Setting(THREADS, _any, readers=("torch",)),
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
        _words("1 true", "0 false", fold=False),
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
        "forces TensorFloat-32 on or off, whatever precision is requested", _any, readers=EVERY, gpu=True
    ),
    "CUBLAS_WORKSPACE_CONFIG": Setting("changes which cuBLAS kernels are chosen", _any, readers=XLA_READERS, gpu=True),
    "TF_DETERMINISTIC_OPS": Setting(DETERMINISM, TF_BOOL, "0", records="speed", fatal=True, gpu=True),
    "TF_CUDNN_DETERMINISTIC": Setting(DETERMINISM, TF_BOOL, "0", records="speed", fatal=True, gpu=True),
    "CUDA_LAUNCH_BLOCKING": Setting(
        *("lets the host wait for each kernel: every timing is longer", _whole, "0", EVERY),
        records="speed",
        gpu=True,
    ),
    "TF_GPU_THREAD_MODE": Setting(
        *("changes which threads start kernels", _one_of("global", "gpu_private", "gpu_shared"), "global"),
        records="speed",
        fatal=True,
        gpu=True,
    ),
    "TF_CUDNN_USE_AUTOTUNE": Setting(CONVOLUTIONS, TF_BOOL, "1", gpu=True),
    "TF_CUDNN_USE_RUNTIME_FUSION": Setting(CONVOLUTIONS, TF_BOOL, "0", gpu=True),
    "TF_CUDNN_WORKSPACE_LIMIT_IN_MB": Setting(CONVOLUTIONS, _whole, gpu=True),
    "TF_ENABLE_WINOGRAD_NONFUSED": Setting(CONVOLUTIONS, TF_BOOL, "1", readers=XLA_READERS, gpu=True),
    "TF_USE_DEFAULT_CONV_ALGO": Setting(CONVOLUTIONS, TF_BOOL, "0", readers=XLA_READERS, fatal=True, gpu=True),
    "TF_ENABLE_CUBLAS_TENSOR_OP_MATH_FP32": Setting("lets float32 products lose bits", TF_BOOL, "0", gpu=True),
    "TF_USE_CUBLASLT": Setting(OTHER_PRODUCTS, TF_BOOL, "0", fatal=True, gpu=True),
    "TF_MATMUL_AUTOTUNE_ENABLE": Setting(OTHER_PRODUCTS, TF_BOOL, "0", gpu=True),
    "TF_FP16_CONV_USE_FP32_COMPUTE": Setting("lets float16 convolutions lose bits", TF_BOOL, "1", gpu=True),
    "TF_FP16_MATMUL_USE_FP32_COMPUTE": Setting("lets float16 products lose bits", TF_BOOL, "1", gpu=True),
    "TF_CONV2D_USE_FP16_ACCUMULATE": Setting("lets float16 convolutions lose bits", _words("1", "0 false true"), "0"),
    "TF_ENABLE_MAXPOOL_NANPROP": Setting("lets max pooling keep NaN", TF_BOOL, "0"),
    # JAX
    "JAX_ENABLE_X64": Setting("makes float64 of what is float32", JAX_BOOL, "0", ("jax",), fatal=True),
    "JAX_DEFAULT_PRNG_IMPL": Setting(RANDOM, _any, "threefry2x32", ("jax",)),
    "JAX_THREEFRY_PARTITIONABLE": Setting(RANDOM, JAX_BOOL, "1", ("jax",), fatal=True),
    "JAX_RANDOM_SEED_OFFSET": Setting(RANDOM, _whole, "0", ("jax",)),
    "JAX_NUMPY_DTYPE_PROMOTION": Setting(
        "changes the precision of mixed operations", _exactly("standard", "strict"), "standard", ("jax",)
    ),
    "JAX_DISABLE_JIT": Setting(f"compiles nothing: {LAST_BITS}", JAX_BOOL, "0", ("jax",), fatal=True),
    "JAX_DISABLE_MOST_OPTIMIZATIONS": Setting(
        f"turns most of XLA's optimizations off: {LAST_BITS}", JAX_BOOL, "0", ("jax",), fatal=True
    ),
    "JAX_OPTIMIZATION_LEVEL": Setting(f"changes XLA's optimizations: {LAST_BITS}", _any, "UNKNOWN", ("jax",)),
    "JAX_EXEC_TIME_OPTIMIZATION_EFFORT": Setting(f"changes XLA's optimizations: {LAST_BITS}", _real, "0.0", ("jax",)),
    # PyTorch
    "ATEN_CPU_CAPABILITY": Setting(
        *(f"limits the instructions of PyTorch's kernels: {LAST_BITS}", _exactly("default", "avx2", "avx512")),
        readers=("torch",),
    ),
    "MKL_CBWR": Setting(f"changes which of MKL's kernels are chosen: {LAST_BITS}", _any, readers=("torch",)),
    "MKL_ENABLE_INSTRUCTIONS": Setting(
        f"limits the instructions of MKL's kernels: {LAST_BITS}", _any, readers=("torch",)
    ),
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
    f"{KERAS}floatx": Setting("changes the precision of what names none", _any, "float32", EVERY),
    f"{KERAS}epsilon": Setting("changes what denominators are kept from 0 by", _any, "1e-07", EVERY),
}


def doubts(
    settings: Mapping[str, str], backend: str, defaults: Mapping[str, str] | None = None, *, gpu: bool = True
) -> Iterator[Doubt]:
    """Yield what is set for a backend of Keras's, not to its default: what changes numbers, and what isn't understood.

    `defaults`: those that depend on the machine, by name, several as `a|b`. `gpu`: also what changes a GPU's numbers
    alone. What is empty counts as not set, but where it is fatal.
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
    return bool(other) and (setting.parse is not _whole or _whole(other) is not None)


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
