"""Samples of what a device says while something is timed: in columns, few, cheap, and never in the way."""

import threading
import time
from types import SimpleNamespace

import pytest

from alexnet_repro.verify.benchmark import telemetry
from alexnet_repro.verify.benchmark.telemetry import Sampler, heat_during, sampling
from tests.helpers.machines import TWO, box


class NotSupportedError(Exception):
    """As NVML's."""


def refusing(*_):
    """Answer as NVML does where a GPU has no sensor, or is lost."""
    raise NotSupportedError


def nvml(**functions):
    """Return an NVML of two GPUs, whose temperature is 60 and 61 degrees, but for the functions named."""
    return SimpleNamespace(
        **{
            "NVML_CLOCK_SM": "sm",
            "NVML_TEMPERATURE_GPU": "gpu",
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetUUID": lambda handle: TWO[handle].uuid,
            "nvmlDeviceGetClockInfo": lambda _, kind: {"sm": 1410}[kind],
            "nvmlDeviceGetTemperature": lambda handle, kind: {"gpu": 60 + handle}[kind],
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda _: 0x4,
            **functions,
        }
    )


@pytest.fixture
def sampled(monkeypatch):
    """A function that returns the columns of a few samples of a device with such an NVML."""

    def sampled(device, nvml, *, visible=None, cpu_mhz=2500.0, least=3):
        monkeypatch.setattr(telemetry, "_cpu_mhz", lambda: cpu_mhz)
        settings = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
        monkeypatch.setattr(telemetry, "read_machine", lambda: box(*TWO, settings=settings))
        monkeypatch.setattr(telemetry, "_nvml", lambda: nvml)
        start = time.perf_counter()
        sampler = Sampler(device, interval=0.001)
        while time.perf_counter() < start + 10 and len(sampler.between(start, start + 10).get("seconds", ())) < least:
            time.sleep(0.001)
        sampler.stop()
        return sampler.between(start, start + 10)

    return sampled


def test_samples_of_a_gpu(sampled):
    """Seconds, load, the processors' mean clock, and the GPU's clock, temperature and clock limits, equally long."""
    found = sampled("gpu:1", nvml())
    assert set(found) == {"seconds", "load", "cpu_mhz", "gpu_mhz", "temperature", "clock_limits"}
    assert len({len(column) for column in found.values()}) == 1
    assert list(found["seconds"]) == sorted(found["seconds"])
    constant = {name: set(found[name]) for name in ("cpu_mhz", "gpu_mhz", "temperature", "clock_limits")}
    assert constant == {"cpu_mhz": {2500.0}, "gpu_mhz": {1410}, "temperature": {61}, "clock_limits": {4}}


@pytest.mark.parametrize(("visible", "degrees"), [(None, 60), ("1,0", 61), ("GPU-b", 61), ("0", 60)])
def test_gpu_is_the_one_in_question(sampled, visible, degrees):
    """It is the first that CUDA_VISIBLE_DEVICES names, by number or by UUID."""
    assert set(sampled("gpu:0", nvml(), visible=visible)["temperature"]) == {degrees}


@pytest.mark.parametrize(
    ("broken", "columns"),
    [
        pytest.param({"nvmlDeviceGetClockInfo": refusing}, {"temperature", "clock_limits"}, id="clock=refused"),
        pytest.param({"nvmlDeviceGetTemperature": refusing}, {"gpu_mhz", "clock_limits"}, id="temperature=refused"),
        pytest.param({"nvmlDeviceGetCount": refusing}, set(), id="gpus=refused"),
        pytest.param(
            {"nvmlDeviceGetUUID": lambda _: "other"}, {"gpu_mhz", "temperature", "clock_limits"}, id="uuid=another"
        ),
        pytest.param(None, set(), id="driver=absent"),
    ],
)
def test_what_is_not_available_has_no_column(sampled, broken, columns):
    """Whatever NVML refuses is left out, and the rest is there: nothing of it is an error."""
    found = sampled("gpu:0", None if broken is None else nvml(**broken))
    assert set(found) - {"seconds", "load", "cpu_mhz"} == columns


def test_cpu_calls_no_driver(sampled, monkeypatch):
    """For a CPU, NVML isn't called; without its clocks there is the load alone."""
    asked = SimpleNamespace(nvmlDeviceGetCount=lambda: pytest.fail("the driver was called"))
    assert set(sampled("cpu:0", asked, cpu_mhz=None)) == {"seconds", "load"}
    monkeypatch.setattr(telemetry, "_load", lambda: None)
    assert sampled("cpu:0", asked, cpu_mhz=None, least=0) == {}


@pytest.fixture
def idle(monkeypatch):
    """A function that returns a sampler that takes nothing, and what takes samples until it has waited so often."""
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


def test_driver_that_hangs_holds_nothing_up(monkeypatch):
    """What is timed ends when it ends, whether the driver answers or not."""
    answer = threading.Event()
    monkeypatch.setattr(telemetry, "PATIENCE", 0.01)
    monkeypatch.setattr(telemetry, "_nvml", lambda: answer.wait(10) and None)
    start = time.perf_counter()
    with sampling("gpu:0") as sampler:
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
        pytest.param({"clock_limits": [0, 0x4, None, 0x1]}, "", id="limits=power and idleness"),
        pytest.param(
            {"clock_limits": [0, 0x24, 0x20], "temperature": [80, 91, None]},
            "its clocks were throttled by heat (software slowdown) in 2 of 3 samples, up to 91 °C",
            id="limits=heat",
        ),
        pytest.param(
            {"clock_limits": [0x20, 0x40]},
            "its clocks were throttled by heat (software slowdown) and heat (hardware slowdown) in 2 of 2 samples",
            id="limits=both heats",
        ),
    ],
)
def test_heat_during(samples, message):
    """Heat in any sample is reported, with how many there were; other limits are no heat."""
    assert heat_during(samples) == message


def test_no_driver_here_is_no_error(monkeypatch):
    """Where NVML can't be initialised, it is None."""
    import pynvml

    telemetry._nvml.cache_clear()
    monkeypatch.setattr(pynvml, "nvmlInit", refusing)
    assert telemetry._nvml() is None
    telemetry._nvml.cache_clear()
