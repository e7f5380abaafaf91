"""Which devices this machine has, and which of them the active Keras backend can use."""

import gc
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

import keras


def enable_memory_growth() -> list[str]:
    """Let every GPU's memory be taken as it is needed, not all at once; call it before anything else.

    Returns:
        The devices it holds for, as `gpu:0`; none on a machine without GPUs.

    Raises:
        RuntimeError: TensorFlow has initialised its GPUs already, without memory growth.

    Source: "Dive into Deep Learning", TensorFlow 2 edition, section 5.6, for TensorFlow. JAX is told
    through its environment variable, which it reads when it initialises; PyTorch grows by itself.
    """
    if keras.backend.backend() == "jax":
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        for gpu in tf.config.list_physical_devices("GPU"):
            if not tf.config.experimental.get_memory_growth(gpu):
                try:
                    tf.config.experimental.set_memory_growth(gpu, True)
                except RuntimeError as error:
                    raise RuntimeError(
                        "enable_memory_growth() came too late: TensorFlow has initialised its GPUs and holds all "
                        "their memory. Call it before the first tensor, model or device list is made"
                    ) from error
    return [device for device in usable_devices() if device.startswith("gpu")]


def usable_devices() -> tuple[str, ...]:
    """Return the devices that the active Keras backend can use, by the names `on_device` takes."""
    count = {"tensorflow": _tensorflow_gpus, "jax": _jax_gpus, "torch": _torch_gpus}[keras.backend.backend()]
    return ("cpu:0", *(f"gpu:{i}" for i in range(count())))


def split_cpu(parts: int) -> None:
    """Make `cpu:0`, `cpu:1` … of the CPU for TensorFlow; before anything else of TensorFlow's."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * parts)


def on_device(name: str) -> AbstractContextManager[Any]:
    """Build and run models on the named device, as `keras.device` does.

    On PyTorch the CPU has no number: Keras 3.15 takes `cpu:0` for another device than the `cpu`
    that a new variable is on, and the copy it makes is no parameter, so building a model fails.
    """
    torch_cpu = keras.backend.backend() == "torch" and name == "cpu:0"
    return cast("AbstractContextManager[Any]", keras.device("cpu" if torch_cpu else name))


def _tensorflow_gpus() -> int:
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))


def _jax_gpus() -> int:
    import jax

    try:
        return len(jax.devices("gpu"))
    except RuntimeError:  # JAX's way of saying that it has no such platform
        return 0


def _torch_gpus() -> int:
    import torch

    return int(torch.cuda.device_count())


def gpu_models() -> dict[str, str]:
    """Return the GPUs' product names, by device."""
    return {f"gpu:{number}": name for number, name in enumerate(gpu_names())}


def gpu_names() -> list[str]:
    """Return the product names of the GPUs among `usable_devices`, in their order."""
    gpus = range(len(usable_devices()) - 1)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        physical = tf.config.list_physical_devices("GPU")
        return [str(tf.config.experimental.get_device_details(gpu).get("device_name")) for gpu in physical]
    if keras.backend.backend() == "jax":
        import jax

        return [str(jax.devices("gpu")[i].device_kind) for i in gpus]
    import torch

    return [torch.cuda.get_device_name(i) for i in gpus]


def thread_counts() -> dict[str, int]:
    """Return the processors this process may use, and the threads the backend was told to; 0: it decides."""
    counts = {"processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1}
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        counts["intra_op"] = tf.config.threading.get_intra_op_parallelism_threads()
        counts["inter_op"] = tf.config.threading.get_inter_op_parallelism_threads()
    if keras.backend.backend() == "torch":
        import torch

        counts["intra_op"], counts["inter_op"] = torch.get_num_threads(), torch.get_num_interop_threads()
    return counts


def free_memory() -> None:
    """Free what models that are gone have left behind.

    TensorFlow 2.21 registers the gradient of every traced train step for ever, and with it the step's graph
    and variables: 0.4 GB a model (github.com/tensorflow/tensorflow/issues/97697). PyTorch keeps what it took
    of a GPU's memory, from its own libraries and from other processes, until it is told not to.
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
    """Have `peak_memory` begin anew, where the backend can: TensorFlow and PyTorch on a GPU."""
    if device.startswith("cpu"):
        return
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.reset_memory_stats(device.upper())
    if keras.backend.backend() == "torch":
        import torch

        torch.cuda.reset_peak_memory_stats(int(device.partition(":")[2]))


def peak_memory(device: str) -> int:
    """Return the most bytes that were in use: of a GPU's memory by the backend, or on a CPU by this whole process."""
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


def moved(tensor: Any, device: str) -> Any:
    """Return a copy of `tensor` on the named device."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with on_device(device):
            return tf.identity(tensor)
    kind, _, number = device.partition(":")
    if keras.backend.backend() == "jax":
        import jax

        return jax.device_put(tensor, jax.devices(kind)[int(number)])
    return tensor.to("cpu" if kind == "cpu" else f"cuda:{number}", copy=True)


def synchronize(*values: Any) -> None:
    """Wait until `values` are computed, and all that their devices were given before; without any, every device.

    On JAX that is until `values` are computed, and nothing else; on PyTorch always every device.
    """
    waits: dict[str, Callable[[], object]] = {
        "tensorflow": lambda: _tensorflow_wait(values),
        "jax": lambda: _jax_wait(values),
        "torch": _torch_wait,
    }
    waits[keras.backend.backend()]()


def _tensorflow_wait(values: tuple[Any, ...]) -> None:
    import tensorflow as tf

    places = {value.device for value in keras.tree.flatten(values) if isinstance(value, tf.Tensor)}
    if not places:  # of others' GPUs, too: each takes its time
        tf.test.experimental.sync_devices()
    for place in places:
        with tf.device(place):
            tf.raw_ops.SyncDevice()


def _jax_wait(values: tuple[Any, ...]) -> None:
    import jax

    jax.block_until_ready(values)


def _torch_wait() -> None:
    import torch

    if torch.cuda.is_initialized():  # if not, nothing was started on a GPU
        for i in range(torch.cuda.device_count()):
            torch.cuda.synchronize(i)
