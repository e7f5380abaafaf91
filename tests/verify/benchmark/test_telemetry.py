"""Telemetry: conditions and samples of a device, whose throttling it is, and processor time that others take."""

import threading
import time
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import pytest

from alexnet_repro.verify.benchmark import telemetry
from alexnet_repro.verify.benchmark.telemetry import (
    CpuTime,
    Sampler,
    conditions_of,
    cpu_time,
    heat_during,
    share_of_others,
)
from alexnet_repro.verify.doctor.nvidia import Nvidia
from tests.helpers.machines import A100, TWO, box
from tests.helpers.nvml import nvml_of, refusing, show

HOT = replace(A100, index=1, uuid="GPU-b", throttle_reasons=0x20, temperature=91)
OF_GPU = {"gpu_mhz", "temperature", "throttle_reasons", "watts", "pcie_generation", "pcie_width"}
HELD = "its clocks are throttled by heat (software slowdown), 91 °C"


@pytest.fixture
def machine(monkeypatch):
    """Return a function that gives this machine other GPUs, and a CUDA_VISIBLE_DEVICES if it isn't None."""

    def become(*gpus, visible=None, nvidia=None):
        settings = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
        here = box(*gpus, settings=settings, nvidia=nvidia or Nvidia(gpus=gpus))
        monkeypatch.setattr(telemetry, "read_gpus", lambda: here)

    return become


@pytest.mark.parametrize(
    ("limits", "by"),
    [
        (0x20, "heat (software slowdown)"),
        (0x40, "heat (hardware slowdown)"),
        (0x20 | 0x40, "heat (software slowdown) and heat (hardware slowdown)"),
        (0x20 | 0x4, "heat (software slowdown)"),
    ],
)
def test_heat_is_reported(machine, limits, by):
    """Thermal throttling is reported, with the temperature."""
    machine(replace(HOT, index=0, throttle_reasons=limits))
    assert conditions_of("gpu:0").heat == f"its clocks are throttled by {by}, 91 °C"


@pytest.mark.parametrize(
    "limits",
    [
        0x0,
        0x1,  # idle
        0x4,  # its power limit: so it should be, at work
        0x8 | 0x80 | 0x100,
    ],
)
def test_other_limits_are_no_heat(machine, limits):
    """Idleness, the power limit and the supply's brake aren't taken for it."""
    machine(replace(HOT, index=0, throttle_reasons=limits))
    assert conditions_of("gpu:0").heat == ""


@pytest.mark.parametrize(
    ("visible", "hot"),
    [
        (None, "gpu:1"),
        ("0,1", "gpu:1"),
        ("1,0", "gpu:0"),
        ("1", "gpu:0"),
        ("0", ""),
        ("GPU-b", "gpu:0"),
        ("GPU-a,GPU-b", "gpu:1"),
        ("MIG-5a6b", ""),  # the name of a slice doesn't name its GPU
    ],
)
def test_heat_is_that_of_the_gpu_in_question(machine, visible, hot):
    """GPUs are numbered among those that CUDA_VISIBLE_DEVICES names, by number or by UUID."""
    machine(A100, HOT, visible=visible)
    devices = [f"gpu:{i}" for i in range(2 if visible is None else visible.count(",") + 1)]
    assert {device: conditions_of(device).heat for device in devices} == {
        device: HELD if device == hot else "" for device in devices
    }


@pytest.mark.parametrize(
    "nvidia",
    [
        pytest.param(Nvidia(error="no answer within 30 s, after 0 GPUs"), id="driver=hangs"),
        pytest.param(Nvidia(gpus=(A100,)), id="driver=lost it"),
        pytest.param(Nvidia(gpus=(A100, replace(HOT, throttle_reasons=None))), id="driver=silent"),
    ],
)
def test_silent_driver_is_no_heat(machine, nvidia):
    """A driver that hangs, lost the GPU, or has no throttle reasons reports no heat."""
    machine(A100, HOT, nvidia=nvidia)
    assert conditions_of("gpu:1").heat == ""


def test_cpu_calls_no_driver(monkeypatch):
    """A CPU has no heat, and the driver isn't called."""
    monkeypatch.setattr(telemetry, "read_gpus", lambda: pytest.fail("the driver was called"))
    assert conditions_of("cpu:0").heat == ""


def test_conditions(machine, monkeypatch):
    """Load, the processors' mean clock, and the GPU's clock and temperature are kept; what is unknown is None."""
    machine(replace(HOT, index=0, clock=1410))
    monkeypatch.setattr(telemetry.psutil, "cpu_freq", lambda: SimpleNamespace(current=2500.04))
    found = conditions_of("gpu:0")
    assert (found.cpu_mhz, found.gpu_mhz, found.temperature, found.heat) == (2500.0, 1410, 91, HELD)
    assert found.gpu == "NVIDIA A100-SXM4-80GB"
    assert found.load >= 0
    for silent in (lambda: None, lambda: 1 / 0):
        monkeypatch.setattr(telemetry.psutil, "cpu_freq", silent)
        assert conditions_of("cpu:0").cpu_mhz is None


def nvml(**functions):
    """Return an NVML of two GPUs, whose temperature is 60 and 61 degrees, but for the functions named."""
    answers = {
        "nvmlDeviceGetClockInfo": lambda _, kind: {"sm": 1410}[kind],
        "nvmlDeviceGetTemperature": lambda handle, kind: {"gpu": 60 + handle}[kind],
        "nvmlDeviceGetCurrentClocksThrottleReasons": lambda _: 0x4,
        "nvmlDeviceGetPowerUsage": lambda _: 612_345,  # mW
        "nvmlDeviceGetCurrPcieLinkGeneration": lambda _: 4,
        "nvmlDeviceGetCurrPcieLinkWidth": lambda handle: 16 - 8 * handle,
    }
    return nvml_of(*TWO, **{**answers, **functions})


@pytest.fixture
def sampled(monkeypatch):
    """A function that returns the columns of a few samples of a device with such an NVML."""

    def sampled(device, nvml, *, visible=None, cpu_mhz=2500.0, least=3):
        monkeypatch.setattr(telemetry, "_cpu_mhz", lambda: cpu_mhz)
        show(monkeypatch, nvml, *TWO, visible=visible)
        start = time.perf_counter()
        sampler = Sampler(device, interval=0.001)
        while time.perf_counter() < start + 10 and len(sampler.between(start, start + 10).get("seconds", ())) < least:
            time.sleep(0.001)
        sampler.close()
        return sampler.between(start, start + 10)

    return sampled


def test_samples_of_a_gpu(sampled):
    """Seconds, load, the processors' mean clock, and the GPU's clock, heat, clock limits and watts, equally long."""
    found = sampled("gpu:1", nvml())
    assert set(found) == {"seconds", "load", "cpu_mhz", *OF_GPU}
    assert len({len(column) for column in found.values()}) == 1
    assert list(found["seconds"]) == sorted(found["seconds"])
    constant = {name: set(found[name]) - {None} for name in ("cpu_mhz", *OF_GPU)}
    assert constant == {
        "cpu_mhz": {2500.0},
        "gpu_mhz": {1410},
        "temperature": {61},
        "throttle_reasons": {4},
        "watts": {612.345},
        "pcie_generation": {4},
        "pcie_width": {8},
    }


@pytest.mark.parametrize(("visible", "degrees"), [(None, 60), ("1,0", 61), ("GPU-b", 61), ("0", 60)])
def test_gpu_is_the_one_in_question(sampled, visible, degrees):
    """It is the first that CUDA_VISIBLE_DEVICES names, by number or by UUID."""
    assert set(sampled("gpu:0", nvml(), visible=visible)["temperature"]) == {degrees}


@pytest.mark.parametrize(
    ("broken", "columns"),
    [
        pytest.param({"nvmlDeviceGetClockInfo": refusing}, OF_GPU - {"gpu_mhz"}, id="clock=refused"),
        pytest.param({"nvmlDeviceGetTemperature": refusing}, OF_GPU - {"temperature"}, id="temperature=refused"),
        pytest.param({"nvmlDeviceGetPowerUsage": refusing}, OF_GPU - {"watts"}, id="power=refused"),
        pytest.param({"nvmlDeviceGetCount": refusing}, set(), id="gpus=refused"),
        pytest.param({"nvmlDeviceGetUUID": lambda _: "other"}, OF_GPU, id="uuid=another"),
        pytest.param(None, set(), id="driver=absent"),
    ],
)
def test_what_is_not_available_has_no_column(sampled, broken, columns):
    """Whatever NVML refuses is left out, and the rest is there: nothing of it is an error."""
    found = sampled("gpu:0", refusing if broken is None else nvml(**broken))
    assert set(found) - {"seconds", "load", "cpu_mhz"} == columns


def test_sampler_of_a_cpu_calls_no_driver(sampled, monkeypatch):
    """For a CPU, NVML isn't called; without its clocks there is the load alone."""
    driver = SimpleNamespace(nvmlDeviceGetCount=lambda: pytest.fail("the driver was called"))
    assert set(sampled("cpu:0", driver, cpu_mhz=None)) == {"seconds", "load"}
    monkeypatch.setattr(telemetry, "_load", lambda: None)
    assert sampled("cpu:0", driver, cpu_mhz=None, least=0) == {}


@pytest.fixture
def idle(monkeypatch):
    """Return a function that makes an idle sampler, and what takes samples until it has waited `waits` times."""
    take = Sampler._take
    monkeypatch.setattr(Sampler, "_take", lambda _: None)

    def idle(waits=0, interval=0.001):
        sampler, waited = Sampler("cpu:0", interval=interval), []
        sampler._stop = SimpleNamespace(wait=lambda seconds: waited.append(seconds) or len(waited) == waits)
        return sampler, waited, lambda: take(sampler)

    return idle


def test_only_what_lies_between(idle):
    """Samples before the start and after the end are left out; seconds count from the start."""
    sampler, *_ = idle()
    sampler._rows += [(at, {"cpu_mhz": 100 * at}) for at in (1.0, 2.0, 3.5, 4.0)]
    assert sampler.between(2.0, 3.75) == {"seconds": [0.0, 1.5], "cpu_mhz": [200.0, 350.0]}


def test_samples_are_thinned(idle, monkeypatch):
    """There are never as many as the most: every other one goes, the first stays, the rest come half as often."""
    monkeypatch.setattr(telemetry, "MAX_SAMPLES", 8)
    sampler, waited, take = idle(waits=20, interval=1.0)
    start = time.perf_counter()
    take()
    # The 8th, 12th, 16th and 20th make eight, of which four stay.
    assert waited == [1.0] * 7 + [2.0] * 4 + [4.0] * 4 + [8.0] * 4 + [16.0]
    assert len(sampler.between(start, start + 10)["seconds"]) == 4
    assert sampler.between(start, start + 10)["seconds"][0] < 0.1


def test_slow_samples_are_rare(idle, monkeypatch):
    """A sample that takes 5 ms of a processor is followed by half a second without one; waiting doesn't count."""

    def busy():
        time.sleep(0.02)
        end = time.thread_time() + 0.005
        while time.thread_time() < end:
            pass

    monkeypatch.setattr(telemetry, "_load", busy)
    _, waited, take = idle(waits=1)
    take()
    assert 0.5 <= waited[0] < 2


def test_slow_host_delays_no_gpu(idle, monkeypatch):
    """While a host whose clocks are slow to read rests, a GPU is sampled at each interval all the same."""
    monkeypatch.setattr(telemetry, "MAX_CPU_SHARE", 1e-9)
    monkeypatch.setattr(telemetry, "_gpu_reader", lambda _: lambda: {"throttle_reasons": 0x80})
    sampler, waited, take = idle(waits=4, interval=0.25)
    sampler._device = "gpu:0"
    start = time.perf_counter()
    take()
    assert waited == [0.25] * 4
    found = sampler.between(start, start + 10)
    assert found["throttle_reasons"] == [0x80] * 4
    assert [each is None for each in found["load"]] == [False, True, True, True]


def test_held_clock():
    """The clock at which a power limit held a GPU is the middle one of the samples in which it did."""
    reasons, clocks = [0x0, 0x4, 0x5, 0x4, 0x4], [1980, 1400, 1500, None, 1425]
    assert telemetry.held_clock({"throttle_reasons": reasons, "gpu_mhz": clocks}) == 1425
    assert telemetry.held_clock({"throttle_reasons": [0x0], "gpu_mhz": [1980]}) is None
    assert telemetry.held_clock({"throttle_reasons": [0x4]}) is None


def test_driver_that_hangs_holds_nothing_up(monkeypatch):
    """What is timed ends when it ends, whether the driver answers or not."""
    answer = threading.Event()
    monkeypatch.setattr(telemetry, "PATIENCE", 0.01)
    show(monkeypatch, lambda: answer.wait(10) and refusing(), *TWO)
    start = time.perf_counter()
    with closing(Sampler("gpu:0")) as sampler:
        pass
    assert time.perf_counter() - start < 5
    assert sampler.between(start, start + 10) == {}
    answer.set()
    sampler._thread.join(10)
    assert not sampler._thread.is_alive()


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        pytest.param({}, "", id="limits=unknown"),
        pytest.param({"throttle_reasons": [0, 0x4, None, 0x1]}, "", id="limits=power and idleness"),
        pytest.param(
            {"throttle_reasons": [0, 0x24, 0x20], "temperature": [80, 91, None]},
            "its clocks were throttled by heat (software slowdown) in 2 of 3 samples, up to 91 °C",
            id="limits=heat",
        ),
        pytest.param(
            {"throttle_reasons": [0x20, 0x40]},
            "its clocks were throttled by heat (software slowdown) and heat (hardware slowdown) in 2 of 2 samples",
            id="limits=both heats",
        ),
    ],
)
def test_heat_during(samples, message):
    """Heat in any sample is reported, with how many there were; other limits are no heat."""
    assert heat_during(samples) == message


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        pytest.param(CpuTime(0, 0, 0), CpuTime(10, 10, 10), 0.0, id="busy=only this"),
        pytest.param(CpuTime(0, 0, 0), CpuTime(10, 15, 10), 0.25, id="busy=half a processor of two"),
        pytest.param(CpuTime(5, 100, 7), CpuTime(15, 120, 7), 1.0, id="busy=both processors"),
        pytest.param(CpuTime(0, 0, 0), CpuTime(10, 9, 10), 0.0, id="busy=less than this"),
        pytest.param(CpuTime(1, 0, 0), CpuTime(1, 9, 0), 0.0, id="time=none"),
    ],
)
def test_share_that_others_take(before, after, share):
    """Processor time less one's own, as a share of two processors; 0 over no time."""
    assert share_of_others(before, after, 2) == share


def test_idle_time_does_not_count(monkeypatch):
    """Nor waiting, nor guests, which are in the users' time; a system may have fewer kinds of time."""
    linux = {"user": 10, "nice": 2, "system": 3, "idle": 99, "iowait": 88, "irq": 0.4, "softirq": 0.5, "steal": 6}
    monkeypatch.setattr(telemetry.psutil, "cpu_times", lambda: SimpleNamespace(**linux, guest=7, guest_nice=6))
    assert cpu_time().busy == pytest.approx(21.9)
    monkeypatch.setattr(telemetry.psutil, "cpu_times", lambda: SimpleNamespace(user=10, system=3, idle=99))
    assert cpu_time().busy == 13


def test_own_time_is_counted():
    """What this process computes is its own, and none of others'."""
    before = cpu_time()
    start = time.process_time()
    while time.process_time() - start < 0.05:
        pass
    assert cpu_time().own - before.own >= 0.045
