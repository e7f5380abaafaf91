"""Bitwise deterministic results on a device, for the backends and kernels that need a switch for it."""

import os
from collections.abc import Mapping

import keras

from alexnet_repro.backend.devices import usable_devices
from alexnet_repro.backend.memory import enable_memory_growth
from alexnet_repro.backend.variables import with_xla_flag


def enable_determinism() -> None:
    """Make every operation deterministic from now on; call it before models are built.

    JAX's switch is a flag that XLA reads when it starts: see `determinism_variables`.
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
        return {"XLA_FLAGS": with_xla_flag(environ.get("XLA_FLAGS", ""), "--xla_gpu_deterministic_ops=true")}
    return {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if keras.backend.backend() == "torch" else {}


def make_gpus_deterministic() -> None:
    """Make GPUs deterministic, as CPUs are; call it before models are built, and on JAX before anything else.

    `pytest benchmarks -k overhead` measures what that costs.
    """
    os.environ.update(determinism_variables())
    enable_memory_growth()  # listing GPUs starts JAX, which allocates all of their memory otherwise
    if len(usable_devices()) > 1:
        enable_determinism()
