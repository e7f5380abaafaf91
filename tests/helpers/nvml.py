"""NVML as its Python module answers on a machine with other GPUs, for the tests of what asks it in this process."""

from types import SimpleNamespace

from alexnet_repro.verify.doctor import handles
from tests.helpers.machines import box


class NVMLError(Exception):
    """As NVML's."""


def refusing(*_):
    """Answer as NVML does where a GPU has no sensor, or is lost."""
    raise NVMLError


def nvml_of(*gpus, slices=None, **functions):
    """Return an NVML of these GPUs, whose handles are their numbers, but for the functions named.

    A GPU's `slices` are the UUIDs of those, by its number; a slice's handle is its UUID.
    """
    of_gpu, numbers = slices or {}, {gpu.uuid: number for number, gpu in enumerate(gpus)}
    return SimpleNamespace(
        **{
            "NVMLError": NVMLError,
            "NVMLError_NotFound": type("NotFoundError", (NVMLError,), {}),
            "NVML_CLOCK_SM": "sm",
            "NVML_TEMPERATURE_GPU": "gpu",
            "nvmlDeviceGetCount": lambda: len(gpus),
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetHandleByPciBusId": lambda bus: int(bus.split(b":")[1], 16),
            "nvmlDeviceGetHandleByUUID": lambda uuid: numbers[uuid] if uuid in numbers else refusing(),
            "nvmlDeviceGetName": lambda handle: gpus[handle].name,
            "nvmlDeviceGetUUID": lambda handle: handle if isinstance(handle, str) else gpus[handle].uuid,
            "nvmlDeviceGetMaxMigDeviceCount": lambda handle: len(of_gpu.get(handle, ())),
            "nvmlDeviceGetMigDeviceHandleByIndex": lambda handle, number: of_gpu[handle][number],
            **functions,
        }
    )


def show(monkeypatch, nvml, *gpus, visible=None, order=None):
    """Have what asks NVML in this process find `nvml`, and these GPUs as CUDA's variables show them."""
    settings = {"CUDA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": order}
    here = box(*gpus, settings={name: value for name, value in settings.items() if value is not None})
    monkeypatch.setattr(handles, "read_machine", lambda: here)
    monkeypatch.setattr(handles, "open_nvml", nvml if callable(nvml) else lambda: nvml)
