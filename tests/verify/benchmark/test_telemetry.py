"""Conditions of a device: load, clocks, throttling by heat and of which GPU, and processor time that others take."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from alexnet_repro.verify.benchmark import telemetry
from alexnet_repro.verify.benchmark.telemetry import CpuTime, conditions_of, cpu_time, share_of_others
from alexnet_repro.verify.doctor.nvidia import Nvidia
from tests.helpers.machines import A100, box

HOT = replace(A100, index=1, uuid="GPU-b", throttle_reasons=0x20, temperature=91)
HELD = "its clocks are throttled by heat (software slowdown), 91 °C"


@pytest.fixture
def machine(monkeypatch):
    """Return a function that gives this machine other GPUs, and a CUDA_VISIBLE_DEVICES if it isn't None."""

    def become(*gpus, visible=None, nvidia=None):
        settings = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
        monkeypatch.setattr(telemetry, "read_machine", lambda: box(*gpus, settings=settings))
        monkeypatch.setattr(telemetry, "read_nvidia", lambda _files, _deadline: nvidia or Nvidia(gpus=gpus))

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
    monkeypatch.setattr(telemetry, "read_nvidia", lambda *_: pytest.fail("the driver was called"))
    assert conditions_of("cpu:0").heat == ""


def test_conditions(machine, monkeypatch):
    """Load, the processors' mean clock, and the GPU's clock and temperature are kept; what is unknown is None."""
    machine(replace(HOT, index=0, clock=1410))
    monkeypatch.setattr(telemetry.psutil, "cpu_freq", lambda: SimpleNamespace(current=2500.04))
    found = conditions_of("gpu:0")
    assert (found.cpu_mhz, found.gpu_mhz, found.temperature, found.heat) == (2500.0, 1410, 91, HELD)
    assert found.load >= 0
    for silent in (lambda: None, lambda: 1 / 0):
        monkeypatch.setattr(telemetry.psutil, "cpu_freq", silent)
        assert conditions_of("cpu:0").cpu_mhz is None


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
