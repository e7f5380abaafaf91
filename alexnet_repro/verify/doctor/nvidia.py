"""NVIDIA's GPUs as the driver reports them: device files and NVML, queried in a child process with a deadline."""

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from alexnet_repro.packages import installed_packages
from alexnet_repro.verify.subprocesses import NoAnswerError, answers

# NVML_NVLINK_DEVICE_TYPE: what an NVLink leads to.
NVLINK_TO_GPU, NVLINK_TO_OTHERS = 0, {1: "cpu", 2: "switch"}


def _query(*query: str | Sequence[int], **options: Any) -> Any:
    """Return a field that NVML reports: `_gpu` has its arguments for `ask`."""
    return field(default=None, metadata={"query": query, "options": options})


def _ecc_errors(kind: str, counter: str = "VOLATILE") -> Any:
    names = f"NVML_MEMORY_ERROR_TYPE_{kind}", f"NVML_{counter}_ECC"
    return _query("GetTotalEccErrors", *names, optional=counter != "VOLATILE")


def _remapping(column: int) -> Any:
    return _query("GetRemappedRows", convert=lambda row: bool(row[column]))


def _number(values: Any) -> int | None:
    """Return the number in the one field of an answer; None where the driver doesn't know it."""
    return None if values[0].nvmlReturn else int(values[0].value.uiVal)


EXCLUSIVE = (1, 3)  # compute modes in which one process at a time may use a GPU: by a thread of it, and by all


@dataclass(frozen=True)
class Gpu:
    """One GPU; None is what the driver doesn't report. `index` is nvidia-smi's, not TensorFlow's."""

    index: int
    name: str = ""
    uuid: str = ""
    serial: str | None = _query("GetSerial", optional=True)  # the board's; consumer cards have none
    vbios: str | None = _query("GetVbiosVersion", optional=True)
    board: str | None = _query("GetBoardPartNumber", optional=True)
    capability: tuple[int, ...] | None = _query("GetCudaComputeCapability")
    memory_total: int | None = None
    memory_used: int | None = None  # without what the driver reserves for itself
    processes: tuple[str, ...] = ()  # that compute on it
    desktop_memory: int = 0  # bytes, of those that draw on it
    persistence: bool | None = _query("GetPersistenceMode", convert=bool)
    mig: bool | None = _query("GetMigMode", convert=lambda modes: bool(modes[0]))  # now, and after a reset
    mig_slices: int = 0
    mig_uuids: tuple[str, ...] = ()  # of its slices, as far as the driver tells them
    ecc: bool | None = _query("GetEccMode", convert=lambda modes: bool(modes[0]))
    default_ecc: bool | None = _query("GetDefaultEccMode", convert=lambda modes: bool(modes[0]), optional=True)
    ecc_uncorrected: int | None = _ecc_errors("UNCORRECTED")  # since the driver was loaded
    ecc_corrected: int | None = _ecc_errors("CORRECTED")
    all_uncorrected: int | None = _ecc_errors("UNCORRECTED", "AGGREGATE")  # in its life
    all_corrected: int | None = _ecc_errors("CORRECTED", "AGGREGATE")
    retired_pages: int | None = None
    retirement_pending: bool | None = _query("GetRetiredPagesPendingStatus", convert=bool)
    remap_pending: bool | None = _remapping(2)
    remap_failed: bool | None = _remapping(3)
    remapped_rows: int | None = _query("GetRemappedRows", convert=lambda row: row[0] + row[1])
    full_banks: int | None = _query(  # of its memory: without spare rows
        "GetRowRemapperHistogram", convert=lambda banks: banks.none, optional=True
    )
    recovery: int | None = _query(  # NVML_FI_DEV_GET_GPU_RECOVERY_ACTION: what the driver asks for after an error
        "GetFieldValues", (230,), convert=_number, optional=True
    )
    throttle_reasons: int | None = _query("GetCurrentClocksThrottleReasons")  # bits; a name that old drivers have too
    temperature: int | None = _query("GetTemperature", "NVML_TEMPERATURE_GPU")
    throttled_by_heat: int | None = _query(  # nanoseconds since the driver was loaded
        "GetViolationStatus", "NVML_PERF_POLICY_THERMAL", convert=lambda time: time.violationTime, optional=True
    )
    power_limit: int | None = _query("GetEnforcedPowerLimit", optional=True)  # mW
    default_power_limit: int | None = _query("GetPowerManagementDefaultLimit", optional=True)
    compute_mode: int | None = _query("GetComputeMode")  # 0: any process may compute on it
    cores: int | None = _query("GetNumGpuCores")  # CUDA's, of all multiprocessors
    clock: int | None = _query("GetClockInfo", "NVML_CLOCK_SM")  # MHz of the multiprocessors now
    max_clock: int | None = _query("GetMaxClockInfo", "NVML_CLOCK_SM")  # MHz
    max_memory_clock: int | None = _query("GetMaxClockInfo", "NVML_CLOCK_MEM")  # MHz
    memory_bus: int | None = _query("GetMemoryBusWidth")  # bits
    pcie_generation: int | None = _query("GetCurrPcieLinkGeneration")  # as negotiated now; it falls when idle
    pcie_width: int | None = _query("GetCurrPcieLinkWidth")
    max_pcie_generation: int | None = _query("GetMaxPcieLinkGeneration")  # that card and slot support
    max_pcie_width: int | None = _query("GetMaxPcieLinkWidth")
    pcie_replays: int | None = _query("GetPcieReplayCounter", optional=True)  # packets sent again since a reset
    error: str | None = None
    pci_bus_id: str | None = _query("GetPciInfo", convert=lambda info: _text(info.busId))
    # Of each NVLink, where it leads: "switch", "cpu", "unknown", or another GPU's PCI bus; "down" if it is inactive.
    nvlinks: tuple[str, ...] = ()
    nvlink_replays: int | None = None  # of all links, since the driver was loaded
    nvlink_recoveries: int | None = None
    nvlink_crc_errors: int | None = None
    fabric_state: int | None = None  # NVML_GPU_FABRIC_STATE; 0: the GPU has none, as all before Hopper
    fabric_status: int | None = None  # NVML's return code; it counts where the state is completed
    fabric_health: int | None = None  # NVML_GPU_FABRIC_HEALTH_MASK


@dataclass(frozen=True)
class Nvidia:
    """The driver; `error` is why NVML can't be queried."""

    driver: str | None = None
    cuda: tuple[int, ...] | None = None  # the newest version it supports
    error: str | None = None
    helper: str | None = None  # what went wrong in the Python module that asks, which says nothing of the driver
    intruder: str = ""  # the package, or the file, that is imported in place of nvidia-ml-py's module
    closed: dict[str, str] = field(default_factory=dict)  # device files, and why they can't be opened
    gpus: tuple[Gpu, ...] = ()


def read_nvidia(device_files: Sequence[str], deadline: float) -> Nvidia:
    """Open the device files and query NVML; a driver that doesn't answer in time is an error too."""
    driver: dict[str, Any] = {}
    closed: dict[str, str] = {}
    gpus: list[Gpu] = []
    try:
        for name, answer in answers(__name__, device_files, deadline):
            del answer["log"]
            if name == "driver":
                driver |= answer
            elif name == "gpu":
                gpus.append(Gpu(**_tuples(answer)))
            else:
                closed[name] = answer["error"]
    except NoAnswerError as error:
        driver["error"] = f"{error}, after {len(gpus)} GPUs"
    return Nvidia(closed=closed, gpus=tuple(gpus), **_tuples(driver))


def _tuples(record: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}


def open_nvml() -> Any:
    """Return NVML's Python module, initialised in this process until it ends.

    Raises:
        ImportError: nvidia-ml-py isn't installed.
        pynvml.NVMLError: the driver doesn't answer.
    """
    import pynvml

    pynvml.nvmlInit()
    return pynvml


def main(*device_files: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield, in the child, the device files that can't be opened, the driver, then each GPU."""
    for path in device_files:
        try:
            os.close(os.open(path, os.O_RDWR))
        except OSError as error:
            yield path, {"error": error.strerror}
    try:
        import pynvml
    except ModuleNotFoundError as error:
        if error.name == "pynvml":
            yield "driver", {"error": "nvidia-ml-py isn't installed"}
        else:
            yield "driver", _helper_fault(error)
        return
    except BaseException as error:  # noqa: BLE001 - another module of that name may do anything
        yield "driver", _helper_fault(error)
        return
    drivers_own = getattr(pynvml, "NVMLError", ())
    try:
        open_nvml()
        cuda, version = pynvml.nvmlSystemGetCudaDriverVersion(), pynvml.nvmlSystemGetDriverVersion()
        yield "driver", {"driver": _text(version), "cuda": (cuda // 1000, cuda % 1000 // 10)}
        count = pynvml.nvmlDeviceGetCount()
    except Exception as error:  # noqa: BLE001 - of the driver, or of another module
        yield "driver", {"error": str(error)} if isinstance(error, drivers_own) else _helper_fault(error)
        return
    faults: list[Exception] = [TypeError("it answers in bytes")] if isinstance(version, bytes) else []
    for index in range(count):
        try:
            gpu = _gpu(pynvml, index, pynvml.nvmlDeviceGetHandleByIndex(index), faults)
        except Exception as error:  # noqa: BLE001 - as "GPU is lost"
            faults += [] if isinstance(error, drivers_own) else [error]
            gpu = Gpu(index=index, error=str(error) if isinstance(error, drivers_own) else None)
        yield "gpu", asdict(gpu)
    if faults:
        yield "driver", _helper_fault(faults[0])


def _helper_fault(error: BaseException) -> dict[str, str]:
    """Return what went wrong in the module `pynvml`, and what it is if it isn't nvidia-ml-py's."""
    spec = PathFinder.find_spec("pynvml")
    file = str(spec.origin or next(iter(spec.submodule_search_locations or ()), "")) if spec else ""
    found = f"{type(error).__name__}: {str(error)[:200]}"
    bringing = [each for each in installed_packages()[0] if each.brings("pynvml")]
    others = [each.name for each in bringing if each.name != "nvidia-ml-py"]
    ours = any(file in (str(each.locate("pynvml.py")), str(each.locate("pynvml/__init__.py"))) for each in bringing)
    folder = str(Path(file).parent) if file.endswith("__init__.py") else file
    return {"helper": f"{file or 'pynvml'}: {found}", "intruder": others[0] if others else "" if ours else folder}


def _text(answer: Any) -> Any:
    """Return an answer as it is, but text where it is bytes, as other modules of this name answer."""
    return answer.decode(errors="replace") if isinstance(answer, bytes) else answer


def _gpu(nvml: Any, index: int, handle: Any, faults: list[Exception]) -> Gpu:
    """Return a GPU's record; what the module can't ask is unknown, and added to `faults`."""
    # Errors that mean "unknown"; any other one is the GPU's.
    kinds = ("NotSupported", "FunctionNotFound", "NoPermission", "InvalidArgument")
    unknown = tuple(filter(None, (getattr(nvml, f"NVMLError_{kind}", None) for kind in kinds)))

    def ask(query: str, *constants: Any, convert: Callable[[Any], Any] | None = None, optional: bool = False) -> Any:
        """Return what `nvmlDevice{query}` reports, called with NVML's constants of these names, or with other values.

        That an optional one fails, or isn't there, is no fault: fewer drivers and modules answer it.
        """
        if optional and not hasattr(nvml, f"nvmlDevice{query}"):
            return None
        # Some of Windows' drivers have no text for a name.
        unasked = (UnicodeDecodeError, nvml.NVMLError) if optional else (UnicodeDecodeError,)
        try:
            with contextlib.suppress(*unknown, *unasked):
                given = (getattr(nvml, each) if isinstance(each, str) else each for each in constants)
                answer = getattr(nvml, f"nvmlDevice{query}")(handle, *given)
                return _text(convert(answer) if convert and answer is not None else answer)
        except (AttributeError, TypeError) as error:
            faults.append(error)
        return None

    answers_by_field = {
        each.name: ask(*each.metadata["query"], **each.metadata["options"]) for each in fields(Gpu) if each.metadata
    }
    memory = ask("GetMemoryInfo", "nvmlMemory_v2") or ask("GetMemoryInfo")
    causes = ("MULTIPLE_SINGLE_BIT_ECC_ERRORS", "DOUBLE_BIT_ECC_ERROR")
    retired = [ask("GetRetiredPages", f"NVML_PAGE_RETIREMENT_CAUSE_{cause}") for cause in causes]
    return Gpu(
        index=index,
        name=ask("GetName") or "",
        uuid=ask("GetUUID") or "",
        memory_total=memory and memory.total,
        memory_used=memory and memory.used,
        processes=tuple(_process(nvml, each) for each in ask("GetComputeRunningProcesses") or ()),
        desktop_memory=sum(each.usedGpuMemory or 0 for each in ask("GetGraphicsRunningProcesses", optional=True) or ()),
        mig_slices=len(mig_handles(nvml, handle)),
        mig_uuids=mig_uuids(nvml, handle),
        retired_pages=None if None in retired else sum(map(len, retired)),
        **answers_by_field,
        **_nvlinks(nvml, partial(ask, optional=True)),
        **_fabric(nvml, partial(ask, optional=True)),
    )


def _nvlinks(nvml: Any, ask: Callable[..., Any]) -> dict[str, Any]:
    """Return the fields of a GPU's NVLinks; none where it has no link, or the module knows none."""
    leads: dict[int, str] = {}
    for link in range(getattr(nvml, "NVML_NVLINK_MAX_LINKS", 0)):
        active = ask("GetNvLinkState", link)
        if active is None:  # this model has no such link
            continue
        leads[link] = "down"
        if active:
            kind = ask("GetNvLinkRemoteDeviceType", link)
            if kind == NVLINK_TO_GPU:
                leads[link] = ask("GetNvLinkRemotePciInfo", link, convert=lambda info: _text(info.busId)) or "unknown"
            else:
                leads[link] = NVLINK_TO_OTHERS.get(kind, "unknown")

    def errors(*names: str) -> int | None:
        counts = [
            ask("GetNvLinkErrorCounter", link, f"NVML_NVLINK_ERROR_DL_{name}")
            for link, lead in leads.items()
            if lead != "down"
            for name in names
        ]
        return None if not counts or None in counts else sum(counts)

    return {
        "nvlinks": tuple(leads.values()),
        "nvlink_replays": errors("REPLAY"),
        "nvlink_recoveries": errors("RECOVERY"),
        "nvlink_crc_errors": errors("CRC_FLIT", "CRC_DATA"),
    }


def _fabric(nvml: Any, ask: Callable[..., Any]) -> dict[str, Any]:
    """Return what Fabric Manager has made of the GPU; nothing where neither driver nor module can say."""
    for query, kind in (
        ("GetGpuFabricInfoV", "c_nvmlGpuFabricInfo_v2_t"),
        ("GetGpuFabricInfo", "c_nvmlGpuFabricInfo_t"),
    ):
        info: Any = getattr(nvml, kind, ctypes.c_int)()
        if ask(query, ctypes.byref(info)) is not None:
            health = getattr(info, "healthMask", None)
            return {"fabric_state": info.state, "fabric_status": info.status, "fabric_health": health}
    return {}


def mig_handles(nvml: Any, handle: Any) -> list[Any]:
    """Return NVML's handles of a GPU's slices."""
    found = []
    with contextlib.suppress(nvml.NVMLError, AttributeError):
        for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            with contextlib.suppress(nvml.NVMLError_NotFound):
                found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number))
    return found


def mig_uuids(nvml: Any, handle: Any) -> tuple[str, ...]:
    """Return the UUIDs of a GPU's slices, as far as the driver tells them."""
    return tuple(filter(None, (uuid_of(nvml, each) for each in mig_handles(nvml, handle))))


def uuid_of(nvml: Any, handle: Any) -> str:
    """Return a GPU's or a slice's UUID; empty where the driver doesn't tell it."""
    with contextlib.suppress(nvml.NVMLError, AttributeError):
        return str(_text(nvml.nvmlDeviceGetUUID(handle)))
    return ""


def _process(nvml: Any, process: Any) -> str:
    try:
        name = _text(nvml.nvmlSystemGetProcessName(process.pid))
    except (nvml.NVMLError, UnicodeDecodeError):  # in another container
        name = "name not visible from here"
    size = "" if process.usedGpuMemory is None else f", {process.usedGpuMemory >> 20} MiB"
    return f"pid {process.pid} ({name}{size})"
