"""Memory of GPUs and of this process: how it is reserved, freed and measured on each backend."""

import gc
import os
import sys

import keras

from alexnet_repro.backend.devices import usable_devices


def enable_memory_growth() -> list[str]:
    """Let each GPU's memory be allocated as it is needed; call it before anything else. Return these GPUs, as `gpu:0`.

    JAX reads an environment variable when it initialises; PyTorch grows by itself.

    Raises:
        RuntimeError: TensorFlow has initialised its GPUs already, without memory growth.

    Source: "Dive into Deep Learning", TensorFlow 2 edition, section 5.6, for TensorFlow.
    """
    if keras.backend.backend() == "jax":
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        try:
            for gpu in tf.config.list_physical_devices("GPU"):
                if not tf.config.experimental.get_memory_growth(gpu):
                    tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError as error:
            raise RuntimeError(
                "enable_memory_growth() came too late: TensorFlow has initialised its GPUs and holds all "
                "their memory. Call it before the first tensor, model or device list is made"
            ) from error
    return list(usable_devices()[1:])


def free_memory() -> None:
    """Free what deleted models have left behind.

    TensorFlow 2.21 registers the gradient of every traced train step for ever, and with it the step's graph
    and variables: 0.4 GB per model (github.com/tensorflow/tensorflow/issues/97697). PyTorch keeps allocated
    GPU memory from its own libraries and from other processes.
    """
    keras.utils.clear_session()
    if keras.backend.backend() == "tensorflow":
        from tensorflow.python.framework import ops as framework

        registered = getattr(getattr(framework, "gradient_registry", None), "_registry", {})
        for name in [name for name in registered if name.startswith("CustomGradient-")]:
            del registered[name]
    gc.collect()
    if keras.backend.backend() == "torch":
        import torch

        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def reset_peak_memory(device: str) -> None:
    """Start a new measurement for `peak_memory`, where the backend can: TensorFlow and PyTorch on a GPU."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.reset_memory_stats(device.upper())
    if keras.backend.backend() == "torch":
        import torch

        torch.cuda.reset_peak_memory_stats(int(number))


def peak_memory(device: str) -> int:
    """Return the most bytes in use: of a GPU's memory by the backend, or on a CPU by this whole process."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return int(tf.config.experimental.get_memory_info(device.upper())["peak"])
    if keras.backend.backend() == "jax":
        import jax

        return int(jax.devices("gpu")[int(number)].memory_stats()["peak_bytes_in_use"])
    import torch

    return int(torch.cuda.max_memory_allocated(int(number)))
