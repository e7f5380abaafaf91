"""Which devices this machine has, and which of them the active Keras backend can use."""

import itertools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import keras

NVIDIA_PCI_VENDOR = "0x10de"
DISPLAY_CLASSES = ("0x0300", "0x0302")  # VGA and 3D controllers


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


def gpus_in_machine(root: Path = Path("/")) -> int:
    """Return how many NVIDIA GPUs this process should be able to use, whatever any framework sees.

    The driver's device files count: a container that is given two GPUs of eight has two of them,
    and a GPU that is handed to a virtual machine has none. Where there are none at all, the
    driver's list counts, then the PCI bus: the driver is missing, or it is a container that was
    given no GPU. It still sees the host's, and whoever starts it would otherwise measure the CPU
    unawares.
    """
    device_files = [path for path in (root / "dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdecimal()]
    driver_list = list((root / "proc/driver/nvidia/gpus").glob("*"))
    return len(device_files) or len(driver_list) or _on_pci_bus(root / "sys/bus/pci/devices")


def _on_pci_bus(devices: Path) -> int:
    count = 0
    for device in devices.glob("*"):
        try:
            vendor, pci_class = (device / "vendor").read_text(), (device / "class").read_text()
        except OSError:
            continue
        count += vendor.strip() == NVIDIA_PCI_VENDOR and pci_class.startswith(DISPLAY_CLASSES)
    return count


def unusable_gpus(in_machine: int, usable: int, visible: str | None, backend: str) -> str | None:
    """Return why a GPU that is in the machine can't be used, and what to do; None if all can.

    Args:
        in_machine: from `gpus_in_machine`.
        usable: GPUs among `usable_devices`.
        visible: the environment variable `CUDA_VISIBLE_DEVICES`. Where it names devices, only
            those are expected; where it hides all, that is the reason.
        backend: the active Keras backend.
    """
    # CUDA reads names up to the first that is none, as -1.
    named = list(itertools.takewhile(lambda name: name not in ("", "-1"), (visible or "").replace(" ", "").split(",")))
    expected = min(in_machine, len(named)) if named else in_machine
    if usable >= expected:
        return None
    if visible is not None and not named:
        cause = f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU: unset CUDA_VISIBLE_DEVICES"
    else:
        package = "'tensorflow[and-cuda]'" if backend == "tensorflow" else f"{backend} with its CUDA libraries"
        cause = (
            "Check that nvidia-smi lists every GPU: if not, install the NVIDIA driver, or start the container with its "
            f"GPUs (docker run --gpus all); then install {package}"
        )
    only = f", {expected} named by CUDA_VISIBLE_DEVICES={visible}" if named else ""
    return (
        f"{in_machine} NVIDIA GPU{'s' if in_machine > 1 else ''} in this machine{only}, {usable} usable by {backend}. "
        f"{cause}; or measure the CPU on purpose: --device=cpu:0"
    )


def synchronise(*values: Any) -> None:
    """Wait until every device of the active backend is done; on JAX, until `values` are computed."""
    waits: dict[str, Callable[[], object]] = {
        "tensorflow": _tensorflow_wait,
        "jax": lambda: _jax_wait(values),
        "torch": _torch_wait,
    }
    waits[keras.backend.backend()]()


def _tensorflow_wait() -> None:
    import tensorflow as tf

    tf.test.experimental.sync_devices()


def _jax_wait(values: tuple[Any, ...]) -> None:
    import jax

    jax.block_until_ready(values)


def _torch_wait() -> None:
    import torch

    if torch.cuda.is_initialized():  # if not, nothing was started on a GPU
        for i in range(torch.cuda.device_count()):
            torch.cuda.synchronize(i)
