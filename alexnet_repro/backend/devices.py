"""The devices that the active Keras backend can use: names, placement, copies, predictions and synchronization."""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import keras

from alexnet_repro.backend.limits import usable_processors
from alexnet_repro.backend.variables import read_int32


def usable_devices() -> tuple[str, ...]:
    """Return the devices that the active Keras backend can use, by the names `on_device` takes."""
    return ("cpu:0", *(f"gpu:{i}" for i in range(len(_gpus()))))


def _gpus() -> Sequence[Any]:
    """Return the backend's own objects or numbers of its GPUs."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return cast("list[Any]", tf.config.list_physical_devices("GPU"))
    if keras.backend.backend() == "jax":
        import jax

        try:
            return list(jax.devices("gpu"))
        except RuntimeError:  # JAX has no such platform
            return ()
    import torch

    return range(torch.cuda.device_count())


def gpu_names() -> list[str]:
    """Return the product names of the GPUs among `usable_devices`, in their order."""
    if keras.backend.backend() == "jax":
        return [str(gpu.device_kind) for gpu in _gpus()]
    if keras.backend.backend() == "torch":
        import torch

        return [torch.cuda.get_device_name(gpu) for gpu in _gpus()]
    import tensorflow as tf

    return [str(tf.config.experimental.get_device_details(gpu).get("device_name")) for gpu in _gpus()]


def thread_counts() -> dict[str, int]:
    """Return the number of processors this process may use, and the backend's threads; 0: a thread per processor."""
    processors = usable_processors()
    if keras.backend.backend() == "tensorflow":
        from tensorflow.python.eager.context import context  # `tf.config.threading` would look for GPUs, and log errors

        # As TensorFlow's local_device.cc and process_util.cc have it: set by the program, by a variable, or by neither.
        intra_op = context()._intra_op_parallelism_threads or _number("TF_NUM_INTRAOP_THREADS")  # noqa: SLF001
        inter_op = context()._inter_op_parallelism_threads or _number("TF_NUM_INTEROP_THREADS")  # noqa: SLF001
        own = {"intra_op": intra_op, "inter_op": inter_op}
        return {"processors": processors, **{name: count * (count != processors) for name, count in own.items()}}
    if keras.backend.backend() == "torch":
        import torch

        own = {"intra_op": torch.get_num_threads(), "inter_op": torch.get_num_interop_threads()}
        return {"processors": processors, **own}
    return {"processors": processors}


def _number(variable: str) -> int:
    return read_int32(os.environ.get(variable, "")) or 0


def split_cpu(parts: int) -> None:
    """Make `cpu:0`, `cpu:1` … of the CPU for TensorFlow, and GPUs unseen; before any other call of TensorFlow's."""
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # or what asks whether there is one takes the parts for it

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * parts)


def on_device(name: str) -> AbstractContextManager[Any]:
    """Build and run models on the named device, as `keras.device` does.

    On PyTorch the CPU has no number: Keras 3.15 takes `cpu:0` for another device than the `cpu`
    that a new variable is on, and the copy it makes is no parameter, so building a model fails.

    Raises:
        ValueError: there is no such GPU. Others raise errors of their own; TensorFlow would take the CPU.
    """
    gpu = keras.backend.backend() == "tensorflow" and name.startswith("gpu")  # a CPU may be in parts, by `split_cpu`
    if gpu and name not in (devices := usable_devices()):
        raise ValueError(f"there is no {name} for this process: it sees {', '.join(devices)}")
    torch_cpu = keras.backend.backend() == "torch" and name == "cpu:0"
    return cast("AbstractContextManager[Any]", keras.device("cpu" if torch_cpu else name))


def device_of(tensor: Any) -> str:
    """Return the device in whose memory a backend's tensor or variable lies, by the names `on_device` takes."""
    if keras.backend.backend() == "tensorflow":
        place = getattr(tensor, "backing_device", None) or tensor.device  # /job:localhost/replica:0/task:0/device:GPU:0
        kind, number = place.rsplit(":", 2)[1:]
        return f"{kind.lower()}:{number}"
    if keras.backend.backend() == "jax":
        (device,) = tensor.devices()
        return f"{device.platform}:{device.id}"
    return f"gpu:{tensor.device.index}" if tensor.device.type == "cuda" else "cpu:0"


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


def predictor(model: keras.Model) -> Callable[[Any], Any]:
    """Return `model.predict_on_batch`, on TensorFlow without its conversion to NumPy, which waits for the device."""
    if keras.backend.backend() != "tensorflow":
        return model.predict_on_batch  # type: ignore[no-any-return]  # Keras isn't typed
    model.make_predict_function()
    return lambda images: model.predict_function([(images,)])


def synchronize(*values: Any) -> None:
    """Wait until `values`, and all earlier work of their devices, are computed; without values, for every device.

    On JAX it waits for `values` alone, on PyTorch always for every device.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        places = {value.device for value in keras.tree.flatten(values) if isinstance(value, tf.Tensor)}
        if not places:  # only then: other GPUs take time as well
            tf.test.experimental.sync_devices()
        for place in places:
            with tf.device(place):
                tf.raw_ops.SyncDevice()
    elif keras.backend.backend() == "jax":
        import jax

        jax.block_until_ready(values)
    else:
        import torch

        if torch.cuda.is_initialized():  # otherwise nothing was started on a GPU
            for i in range(torch.cuda.device_count()):
                torch.cuda.synchronize(i)
