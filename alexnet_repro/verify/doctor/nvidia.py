"""NVIDIA's GPUs as the driver reports them: device files and NVML, queried in a child process with a deadline."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from alexnet_repro.verify.subprocesses import NoAnswerError, answers


class NvmlUnavailableError(Exception):
    """NVML can't be queried; the message is the reason, in NVML's words."""


@dataclass(frozen=True)
class Gpu:
    """One GPU; None is what the driver doesn't report. `index` is nvidia-smi's, not TensorFlow's."""

    index: int
    name: str = ""
    uuid: str = ""
    capability: tuple[int, ...] | None = None
    memory_total: int | None = None
    memory_used: int | None = None  # without what the driver reserves for itself
    processes: tuple[str, ...] = ()  # that compute on it
    persistence: bool | None = None
    mig: bool | None = None
    mig_slices: int = 0
    ecc: bool | None = None
    ecc_uncorrected: int | None = None  # since the driver was loaded
    ecc_corrected: int | None = None
    retired_pages: int | None = None
    retirement_pending: bool | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    throttle_reasons: int | None = None  # NVML's bits
    temperature: int | None = None
    cores: int | None = None  # CUDA's, of all multiprocessors
    clock: int | None = None  # MHz of the multiprocessors now
    max_clock: int | None = None  # MHz
    max_memory_clock: int | None = None  # MHz
    memory_bus: int | None = None  # bits
    pcie_generation: int | None = None  # as negotiated now; it falls when idle
    pcie_width: int | None = None
    max_pcie_generation: int | None = None  # that card and slot support
    max_pcie_width: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Nvidia:
    """The driver; `error` is why NVML can't be queried."""

    driver: str | None = None
    cuda: tuple[int, ...] | None = None  # the newest version it supports
    error: str | None = None
    closed: dict[str, str] = field(default_factory=dict)  # device files, and why they can't be opened
    gpus: tuple[Gpu, ...] = ()


def read_nvidia(device_files: Sequence[str], deadline: float) -> Nvidia:
    """Open the device files and query NVML; a driver that doesn't answer in time is an error too."""
    driver: dict[str, Any] = {}
    closed: dict[str, str] = {}
    gpus: list[Gpu] = []
    try:
        for answer in answers(__name__, device_files, deadline):
            closed |= answer.get("closed", {})
            driver |= answer.get("driver", {})
            if "gpu" in answer:
                gpus.append(Gpu(**_tuples(answer["gpu"])))
    except NoAnswerError as error:
        driver["error"] = f"{error}, after {len(gpus)} GPUs"
    return Nvidia(closed=closed, gpus=tuple(gpus), **_tuples(driver))


def _tuples(record: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}


def open_nvml() -> Any:
    """Return NVML's Python module, initialised in this process until it ends.

    Raises:
        NvmlUnavailableError: nvidia-ml-py isn't installed, or the driver doesn't answer.
    """
    try:
        import pynvml
    except ImportError as error:
        raise NvmlUnavailableError("nvidia-ml-py isn't installed") from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NvmlUnavailableError(str(error)) from error
    return pynvml


def main(device_files: Sequence[str]) -> None:
    """Run in the child: print the device files, the driver, then one GPU a line."""
    for path in device_files:
        try:
            os.close(os.open(path, os.O_RDWR))
        except OSError as error:
            print(json.dumps({"closed": {path: error.strerror}}))
    try:
        nvml = open_nvml()
    except NvmlUnavailableError as error:
        print(json.dumps({"driver": {"error": str(error)}}))
        return
    cuda = nvml.nvmlSystemGetCudaDriverVersion()
    driver = {"driver": nvml.nvmlSystemGetDriverVersion(), "cuda": (cuda // 1000, cuda % 1000 // 10)}
    print(json.dumps({"driver": driver}))
    for gpu in _gpus(nvml):
        print(json.dumps({"gpu": asdict(gpu)}))


def _gpus(nvml: Any) -> Iterator[Gpu]:
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            yield _gpu(nvml, index, nvml.nvmlDeviceGetHandleByIndex(index))
        except nvml.NVMLError as error:  # as "GPU is lost"
            yield Gpu(index=index, error=str(error))


def _gpu(nvml: Any, index: int, handle: Any) -> Gpu:
    # Errors that mean "unknown"; any other one is the GPU's.
    kinds = ("NotSupported", "FunctionNotFound", "NoPermission", "InvalidArgument")
    unknown = tuple(getattr(nvml, f"NVMLError_{kind}") for kind in kinds)

    def ask(function: Callable[..., Any], *arguments: Any) -> Any:
        with contextlib.suppress(*unknown):
            return function(handle, *arguments)
        return None

    def flag(value: Any) -> bool | None:
        return None if value is None else bool(value)

    memory = ask(nvml.nvmlDeviceGetMemoryInfo, nvml.nvmlMemory_v2) or ask(nvml.nvmlDeviceGetMemoryInfo)
    causes = ("MULTIPLE_SINGLE_BIT_ECC_ERRORS", "DOUBLE_BIT_ECC_ERROR")
    retired = [
        ask(nvml.nvmlDeviceGetRetiredPages, getattr(nvml, f"NVML_PAGE_RETIREMENT_CAUSE_{cause}")) for cause in causes
    ]
    uncorrected, corrected = (
        ask(nvml.nvmlDeviceGetTotalEccErrors, getattr(nvml, f"NVML_MEMORY_ERROR_TYPE_{kind}"), nvml.NVML_VOLATILE_ECC)
        for kind in ("UNCORRECTED", "CORRECTED")
    )
    remapped = ask(nvml.nvmlDeviceGetRemappedRows) or (None, None, None, None)
    return Gpu(
        index=index,
        name=ask(nvml.nvmlDeviceGetName) or "",
        uuid=ask(nvml.nvmlDeviceGetUUID) or "",
        capability=ask(nvml.nvmlDeviceGetCudaComputeCapability),
        memory_total=memory and memory.total,
        memory_used=memory and memory.used,
        processes=tuple(_process(nvml, each) for each in ask(nvml.nvmlDeviceGetComputeRunningProcesses) or ()),
        persistence=flag(ask(nvml.nvmlDeviceGetPersistenceMode)),
        mig=flag((ask(nvml.nvmlDeviceGetMigMode) or [None])[0]),
        mig_slices=_slices(nvml, handle),
        ecc=flag((ask(nvml.nvmlDeviceGetEccMode) or [None])[0]),
        ecc_uncorrected=uncorrected,
        ecc_corrected=corrected,
        retired_pages=None if None in retired else sum(map(len, retired)),
        retirement_pending=flag(ask(nvml.nvmlDeviceGetRetiredPagesPendingStatus)),
        remap_pending=flag(remapped[2]),
        remap_failed=flag(remapped[3]),
        throttle_reasons=ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons),  # a name that old drivers have too
        temperature=ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
        cores=ask(nvml.nvmlDeviceGetNumGpuCores),
        clock=ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
        max_clock=ask(nvml.nvmlDeviceGetMaxClockInfo, nvml.NVML_CLOCK_SM),
        max_memory_clock=ask(nvml.nvmlDeviceGetMaxClockInfo, nvml.NVML_CLOCK_MEM),
        memory_bus=ask(nvml.nvmlDeviceGetMemoryBusWidth),
        pcie_generation=ask(nvml.nvmlDeviceGetCurrPcieLinkGeneration),
        pcie_width=ask(nvml.nvmlDeviceGetCurrPcieLinkWidth),
        max_pcie_generation=ask(nvml.nvmlDeviceGetMaxPcieLinkGeneration),
        max_pcie_width=ask(nvml.nvmlDeviceGetMaxPcieLinkWidth),
    )


def _slices(nvml: Any, handle: Any) -> int:
    count = 0
    with contextlib.suppress(nvml.NVMLError):
        for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            with contextlib.suppress(nvml.NVMLError_NotFound):
                nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
                count += 1
    return count


def _process(nvml: Any, process: Any) -> str:
    try:
        name = nvml.nvmlSystemGetProcessName(process.pid)
    except nvml.NVMLError:  # in another container
        name = "name not visible from here"
    size = "" if process.usedGpuMemory is None else f", {process.usedGpuMemory >> 20} MiB"
    return f"pid {process.pid} ({name}{size})"


if __name__ == "__main__":
    main(sys.argv[1:])
