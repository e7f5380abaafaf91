"""Which devices this machine has, and which of them the active Keras backend can use."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    """Return the devices that the active Keras backend can use, by the names `keras.device` takes."""
    count = {"tensorflow": _tensorflow_gpus, "jax": _jax_gpus, "torch": _torch_gpus}[keras.backend.backend()]
    return ("cpu:0", *(f"gpu:{i}" for i in range(count())))


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


def gpus_in_machine(root: Path = Path("/")) -> int:
    """Return how many NVIDIA GPUs the machine has, whatever any framework sees.

    Counted from the driver's device files, the driver's list and the PCI bus; the largest count
    holds, since a broken installation can lack the others.
    """
    display = 0
    for device in (root / "sys/bus/pci/devices").glob("*"):
        try:
            vendor, pci_class = (device / "vendor").read_text(), (device / "class").read_text()
        except OSError:
            continue
        display += vendor.startswith(NVIDIA_PCI_VENDOR) and pci_class.startswith(DISPLAY_CLASSES)
    device_files = len(list((root / "dev").glob("nvidia[0-9]*")))
    return max(device_files, len(list((root / "proc/driver/nvidia/gpus").glob("*"))), display)


def unusable_gpus(in_machine: int, usable: int, visible: str | None, backend: str) -> str | None:
    """Return why a GPU that is in the machine can't be used, and what to do; None if all can.

    Args:
        in_machine: from `gpus_in_machine`.
        usable: GPUs among `usable_devices`.
        visible: the environment variable `CUDA_VISIBLE_DEVICES`. Where it names devices, only
            those are expected; where it hides all, that is the reason.
        backend: the active Keras backend.
    """
    named = [name for name in (visible or "").split(",") if name.strip() not in ("", "-1")]
    expected = min(in_machine, len(named)) if named else in_machine
    if usable >= expected:
        return None
    found = f"{in_machine} NVIDIA GPU{'s' if in_machine > 1 else ''} in this machine, {usable} usable by {backend}"
    if visible is not None and not named:
        cause = f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU: unset CUDA_VISIBLE_DEVICES"
    elif backend == "tensorflow":
        cause = (
            "install TensorFlow with its CUDA libraries: pip install 'tensorflow[and-cuda]', and check that nvidia-smi "
            "lists the GPU"
        )
    else:
        cause = f"install {backend} with its CUDA libraries, and check that nvidia-smi lists the GPU"
    return f"{found}. {cause}; or measure the CPU on purpose: --device=cpu:0"


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

    if torch.cuda.is_available():
        torch.cuda.synchronize()
