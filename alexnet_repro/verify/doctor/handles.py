"""NVML's handle of the GPU that a device of this process is, whichever way CUDA numbers GPUs."""

import contextlib
import ctypes
from dataclasses import replace
from typing import Any

from alexnet_repro.verify.doctor.environment import read_machine
from alexnet_repro.verify.doctor.nvidia import Gpu, Nvidia, mig_handles, mig_uuids, open_nvml, uuid_of


def gpu_handle(device: str) -> tuple[Any, Any]:
    """Return NVML, initialised in this process, and its handle of a device's GPU, of which that may be a slice.

    Among different models, one that has a number alone is found by its PCI bus, which CUDA knows.

    Raises:
        LookupError: there is none of that name, or several may be meant.
        Exception: NVML or CUDA doesn't answer.
    """
    nvml = open_nvml()
    handles, gpus = {}, []
    for index in range(nvml.nvmlDeviceGetCount()):
        with contextlib.suppress(nvml.NVMLError):  # another one is lost
            handles[index] = handle = nvml.nvmlDeviceGetHandleByIndex(index)
            name, uuids = "", mig_uuids(nvml, handle)
            with contextlib.suppress(UnicodeDecodeError):  # some of Windows' drivers have no text for a name
                name = str(nvml.nvmlDeviceGetName(handle))
            gpus.append(Gpu(index, name, uuid_of(nvml, handle), mig=bool(uuids), mig_uuids=uuids))
    here = replace(read_machine(), nvidia=Nvidia(gpus=tuple(gpus)))
    if gpu := here.gpu_of(device):
        return nvml, handles[gpu.index]
    if not here.cuda_name(device).isdecimal():
        raise LookupError(device)
    return nvml, nvml.nvmlDeviceGetHandleByPciBusId(_pci_bus(int(device.partition(":")[2])))


def slice_handle(device: str) -> tuple[Any, Any]:
    """Return NVML, and its handle of what a device can use: the slice that is named, or the GPU.

    Raises:
        LookupError: there is none of that name, or it is whichever slice of its GPU CUDA chooses.
        Exception: NVML or CUDA doesn't answer.
    """
    nvml, handle = gpu_handle(device)
    slices = mig_handles(nvml, handle)
    if not slices:
        return nvml, handle
    name = read_machine().cuda_name(device)
    named = [each for each in slices if name.startswith("MIG-") and uuid_of(nvml, each).startswith(name)]
    if len(named) != 1:
        raise LookupError(name)
    return nvml, named[0]


def _pci_bus(number: int) -> bytes:
    """Return the PCI bus of CUDA's device of a number, as `0000:65:00.0`; no context is made."""
    cuda, device, bus = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.create_string_buffer(32)
    if (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), number)
        or cuda.cuDeviceGetPCIBusId(bus, len(bus), device)
    ):
        raise LookupError(number)
    return bus.value
