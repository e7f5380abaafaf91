"""How the text of a setting is read, as its reader reads it: from the text to its meaning.

Found in the sources: `docs/method/settings.md`. Imports neither Keras nor a backend.
"""

import re
from collections.abc import Callable, Mapping
from itertools import groupby

from alexnet_repro.backend.variables import read_int32, xla_flags

Meaning = Callable[[str], str | None]  # from the text to its meaning, as recorded; None: not understood


def yes_or_no(true: str, false: str, *, fold: bool = True) -> Meaning:
    """Return a parser of words that mean `1` or `0`; `fold`: in any case."""
    meanings = dict.fromkeys(true.split(), "1") | dict.fromkeys(false.split(), "0")
    return lambda text: meanings.get(text.lower() if fold else text)


def one_of(*choices: str, aliases: Mapping[str, str] | None = None) -> Meaning:
    """Return a parser of words in any case, some of which mean another."""
    return lambda text: (aliases or {}).get(text.lower(), text.lower() if text.lower() in choices else None)


def exactly_one_of(*choices: str) -> Meaning:
    """Return a parser of words in this case alone."""
    return lambda text: text if text in choices else None


def int32_number(text: str) -> str | None:
    """Return a number of 32 bits, as TensorFlow and XLA read it."""
    return None if (number := read_int32(text)) is None else str(number)


def openmp_threads(text: str) -> str | None:
    """Return the threads of the outermost level, of a number above 0 for each."""
    found = re.fullmatch(r"\s*0*([1-9]\d*)\s*(,\s*\d+\s*)*", text, re.ASCII)
    return found[1] if found else None


def leading_number(text: str) -> str | None:
    """Return the number above 0 that the text begins with, as MKL does."""
    found = re.match(r"\s*\+?0*([1-9]\d*)", text, re.ASCII)
    return found[1] if found else None


def real_number(text: str) -> str | None:
    """Return a number that Python reads."""
    try:
        return str(float(text))
    except ValueError:
        return None


def any_text(text: str) -> str | None:
    """Return the text: whatever it is, it counts."""
    return text


def flags_by_meaning(harmless: tuple[str, ...], defaults: str) -> Meaning:
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
                value = int32_number(value) or value
            found[name] = [value] if default else [*found.get(name, []), value]
        return " ".join(
            f"--{name}={value}"
            for name, values in sorted(found.items())
            for value, _ in groupby(values)
            if not name.startswith(harmless) and not (name in own and value in own[name].split("|"))
        )

    return parse


# TensorFlow's ReadBoolFromEnvVar; JAX's bool_env; PyTorch's check_env; Keras's config.py.
TF_BOOL = yes_or_no("1 true", "0 false")
JAX_BOOL = yes_or_no("y yes t true on 1", "n no f false off 0")
TORCH_BOOL = yes_or_no("1", "0", fold=False)
KERAS_BOOL = yes_or_no("1 true", "0 false")

ISA = one_of(
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
MATH_MODE = one_of("strict", "bf16", "f16", "tf32", "any")

XLA = flags_by_meaning(
    (
        *("xla_dump", "xla_gpu_dump", "xla_gpu_experimental_dump", "xla_hlo_profile"),  # what is written
        *("xla_gpu_cuda_data_dir", "xla_gpu_force_compilation_parallelism"),
    ),
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
    xla_gpu_exclude_nondeterministic_ops=false xla_gpu_force_conv_nchw=false xla_gpu_force_conv_nhwc=false
    xla_gpu_ftz=false xla_llvm_disable_expensive_passes=false
    """,
)
TF_XLA = flags_by_meaning(
    ("tf_xla_clustering_debug", "tf_xla_print_cluster_outputs", "tf_dump_graphs", "tf_xla_persistent_cache"),
    """
    tf_mlir_enable_mlir_bridge=false tf_xla_async_compilation=false tf_xla_auto_jit=0|-1 tf_xla_compile_on_demand=false
    tf_xla_cpu_global_jit=false tf_xla_disable_constant_folding=false tf_xla_enable_lazy_compilation=true
    tf_xla_enable_xla_devices=false tf_xla_max_cluster_size=2147483647 tf_xla_min_cluster_size=4
    tf_xla_ops_to_cluster=
    """,
)
