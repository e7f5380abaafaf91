"""Have devices give the same bits each time, where that has to be asked for."""

import os
from collections.abc import Mapping

import keras

from alexnet_repro.backend.devices import enable_memory_growth, usable_devices


def enable_determinism() -> None:
    """Have every operation give the same bits each time, from now on; call it before models are built.

    JAX's is a flag that XLA reads when it starts: see `determinism_variables`.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    if keras.backend.backend() == "torch":
        import torch

        torch.use_deterministic_algorithms(True)


def determinism_variables(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment variables that a process needs beside `enable_determinism`."""
    if keras.backend.backend() == "jax":
        flags = environ.get("XLA_FLAGS", "").split()
        return {"XLA_FLAGS": " ".join(dict.fromkeys((*flags, "--xla_gpu_deterministic_ops=true")))}
    if keras.backend.backend() == "torch":
        return {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    return {}


def make_gpus_deterministic() -> None:
    """Have GPUs give the same bits each time, as a CPU does; before models are built, and on JAX before all else.

    What it costs is in `pytest benchmarks -k price`.
    """
    os.environ.update(determinism_variables())
    enable_memory_growth()  # to look for GPUs starts JAX, which takes all of their memory otherwise
    if len(usable_devices()) > 1:
        enable_determinism()
