"""Telemetry during a benchmark: load, clocks, temperature, throttle reasons, and processor time that others take."""

import contextlib
import os
import resource
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import psutil

from alexnet_repro.backend.limits import cpu_quota
from alexnet_repro.verify.doctor.environment import read_gpus
from alexnet_repro.verify.doctor.handles import gpu_handle
from alexnet_repro.verify.doctor.health import HEAT, POWER_CAP, THROTTLE_REASONS, describe_throttling

MAX_SAMPLES = 200  # then every other one is dropped, and the interval doubles
MAX_CPU_SHARE = 0.01  # of a processor, for sampling the host: the clocks of hundreds of processors are slow to read
PATIENCE = 1.0  # seconds that a sample under way is waited for

Samples = Mapping[str, Sequence[float | None]]
"""Columns of equal length, sampled while something ran; what was never available has no column.

`seconds` since the start; `load`, `cpu_mhz`, `gpu_mhz` and `temperature` as in `Conditions`; `throttle_reasons`: NVML's
throttle reasons, bits that are the keys of `alexnet_repro.verify.doctor.health.THROTTLE_REASONS`; `watts` that a GPU
draws; `pcie_generation` and `pcie_width` of its link, as negotiated by then.
"""


@dataclass(frozen=True)
class Conditions:
    """The conditions of a timing; None: not available here."""

    load: float | None = None  # processes that ran or waited, on average over the last minute
    cpu_mhz: float | None = None  # mean clock of the processors
    gpu_mhz: int | None = None  # clock of the GPU's multiprocessors
    temperature: int | None = None  # degrees Celsius, of the GPU
    heat: str = ""  # thermal throttling as the driver reports it; empty: none
    cpu_quota: float | None = None  # how many processors' time a cgroup's quota leaves; None: there is none
    gpu: str = ""  # its model


def conditions_of(device: str) -> Conditions:
    """Return a device's conditions now."""
    gpu = None if device.startswith("cpu") else read_gpus().gpu_of(device)
    if gpu is None:
        return Conditions(_load(), _cpu_mhz(), cpu_quota=cpu_quota())
    reasons = describe_throttling((gpu.throttle_reasons or 0) & HEAT)
    heat = f"its clocks are throttled by {reasons}, {gpu.temperature} °C" if reasons else ""
    return Conditions(_load(), _cpu_mhz(), gpu.clock, gpu.temperature, heat, cpu_quota(), gpu.name)


def heat_during(samples: Samples) -> str:
    """Return the thermal throttling in any of the samples; empty if there was none."""
    return throttling_during(samples, HEAT)


def throttling_during(samples: Samples, bits: int) -> str:
    """Return the throttling for these of NVML's reasons in any of the samples; empty if there was none."""
    limits = [each & bits for each in throttle_reasons(samples)]
    if not any(limits):
        return ""
    reasons = describe_throttling(sum(bit for bit in THROTTLE_REASONS if any(each & bit for each in limits)))
    warmest = max((each for each in samples.get("temperature", ()) if each is not None), default=None)
    degrees = "" if warmest is None else f", up to {warmest:g} °C"
    return f"its clocks were throttled by {reasons} in {sum(map(bool, limits))} of {len(limits)} samples{degrees}"


def throttle_reasons(samples: Samples) -> list[int]:
    """Return NVML's throttle reasons of each sample; 0 where they weren't available, none where they never were."""
    return [int(each or 0) for each in samples.get("throttle_reasons", ())]


def held_clock(samples: Samples) -> float | None:
    """Return the median clock in MHz of the samples in which its power limit held a GPU; None where it never did."""
    rows = zip(samples.get("gpu_mhz", ()), throttle_reasons(samples), strict=False)
    clocks = [mhz for mhz, reasons in rows if mhz and reasons & POWER_CAP]
    return statistics.median(clocks) if clocks else None


class Sampler:
    """Samples telemetry in a thread of its own, until it is closed (`contextlib.closing`)."""

    def __init__(self, device: str, interval: float = 0.25) -> None:
        """Start sampling a device every `interval` seconds."""
        self._rows: list[tuple[float, dict[str, float | None]]] = []
        self._device, self._interval = device, interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._take, name="telemetry", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop sampling, without waiting for a driver that doesn't answer."""
        self._stop.set()
        self._thread.join(PATIENCE)

    def between(self, start: float, end: float) -> Samples:
        """Return the samples from `start` to `end`, both of `time.perf_counter`."""
        rows = [(at, row) for at, row in list(self._rows) if start <= at <= end]
        columns = {name: [row[name] for _, row in rows] for name in (rows[0][1] if rows else ())}
        found = {name: column for name, column in columns.items() if any(each is not None for each in column)}
        return {"seconds": [round(at - start, 3) for at, _ in rows], **found} if found else {}

    def _take(self) -> None:
        interval, gpu, due = self._interval, _gpu_reader(self._device), 0.0
        while True:
            start, busy = time.perf_counter(), time.thread_time()
            host = (_load(), _cpu_mhz()) if start >= due else (None, None)
            due = max(due, start + (time.thread_time() - busy) / MAX_CPU_SHARE)
            self._rows.append((start, {"load": host[0], "cpu_mhz": host[1], **gpu()}))
            if len(self._rows) >= MAX_SAMPLES:
                del self._rows[1::2]
                interval *= 2
            # A GPU's own part is quick: it is read at each interval, however slow the host's.
            if self._stop.wait(interval if self._device.startswith("gpu") else max(interval, due - start)):
                return


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _cpu_mhz() -> float | None:
    with contextlib.suppress(Exception):  # psutil raises where the system has no clocks
        return round(psutil.cpu_freq().current, 1) or None
    return None


def _gpu_reader(device: str) -> Callable[[], dict[str, float | None]]:
    """Return a function that reads a GPU's clock, temperature, throttle reasons, power and link; nothing on a CPU.

    It calls NVML in this process, where a driver that hangs blocks the caller: a thread that nobody waits for.
    """
    if device.startswith("cpu"):
        return dict
    handle = None
    with contextlib.suppress(Exception):  # a lost GPU, an old driver, none at all, another's name: no telemetry
        nvml, handle = gpu_handle(device)

    def query(function: str, *arguments: str) -> int | None:
        with contextlib.suppress(Exception):
            return int(getattr(nvml, function)(handle, *(getattr(nvml, each) for each in arguments)))
        return None

    def read() -> dict[str, float | None]:
        if handle is None:
            return {}
        milliwatts = query("nvmlDeviceGetPowerUsage")
        return {
            "gpu_mhz": query("nvmlDeviceGetClockInfo", "NVML_CLOCK_SM"),
            "temperature": query("nvmlDeviceGetTemperature", "NVML_TEMPERATURE_GPU"),
            "throttle_reasons": query("nvmlDeviceGetCurrentClocksThrottleReasons"),  # a name that old drivers have too
            "watts": None if milliwatts is None else milliwatts / 1000,
            "pcie_generation": query("nvmlDeviceGetCurrPcieLinkGeneration"),
            "pcie_width": query("nvmlDeviceGetCurrPcieLinkWidth"),
        }

    return read


class CpuTime(NamedTuple):
    """Seconds up to now."""

    wall: float
    busy: float  # of all processors, since the machine booted
    own: float  # of this process, and of its children that have ended


def cpu_time() -> CpuTime:
    """Return the processor seconds up to now; guests are in the users' time."""
    times = psutil.cpu_times()
    busy = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return CpuTime(time.monotonic(), busy, sum(use.ru_utime + use.ru_stime for use in uses))


def share_of_others(before: CpuTime, after: CpuTime, processors: int) -> float:
    """Return the share of the processors that other processes took in between."""
    wall, busy, own = (late - early for early, late in zip(before, after, strict=True))
    return max(0.0, (busy - own) / wall / processors) if wall > 0 else 0.0
