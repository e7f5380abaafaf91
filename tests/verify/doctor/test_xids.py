"""Xids that come while somebody waits are counted by GPU; a driver that can't tell of them tells of none."""

import threading
import time
from types import SimpleNamespace

import pytest

from alexnet_repro.verify.doctor import xids
from alexnet_repro.verify.doctor.xids import XidWatch
from tests.helpers.machines import TWO
from tests.helpers.nvml import NVMLError, nvml_of, refusing


@pytest.fixture
def driver(monkeypatch):
    """Return a function that gives a driver which has these events to deliver, by its GPUs' numbers."""

    def become(*events, **functions):
        waiting, registered = list(events), []

        def wait(_events, _milliseconds):
            time.sleep(0.001)
            for event in waiting:
                if event[0] in registered:
                    waiting.remove(event)
                    return SimpleNamespace(device=event[0], eventData=event[1])
            raise nvml.NVMLError_Timeout

        def register(handle, kind, _events):
            assert kind == 8
            registered.append(handle)

        answers = {
            "nvmlEventTypeXidCriticalError": 8,
            "NVMLError_Timeout": type("TimeoutError", (NVMLError,), {}),
            "nvmlEventSetCreate": lambda: "events",
            "nvmlDeviceRegisterEvents": register,
            "nvmlEventSetWait": wait,
        }
        nvml = nvml_of(*TWO, **{**answers, **functions})
        monkeypatch.setattr(xids, "open_nvml", lambda: nvml)

    return become


@pytest.mark.parametrize(
    ("uuids", "found"),
    [
        (["GPU-a", "GPU-b"], {"GPU-a": {31: 2}, "GPU-b": {79: 1}}),
        (["GPU-b"], {"GPU-b": {79: 1}}),
        (["GPU-c", "GPU-b"], {"GPU-b": {79: 1}}),  # the first is lost
    ],
)
def test_each_is_counted(driver, uuids, found):
    """Each of a GPU that is watched, until the end: what came before somebody stopped waiting counts."""
    driver((0, 31), (1, 79), (0, 31))
    watch = XidWatch(uuids)
    assert watch.ready.wait(10)
    assert watch.stop() == found


@pytest.mark.parametrize(
    "broken",
    [
        {"nvmlEventSetCreate": refusing},
        {"nvmlDeviceRegisterEvents": refusing},
        {"nvmlEventSetWait": refusing},
        {"nvmlDeviceGetHandleByUUID": refusing},
    ],
    ids=["refused=set", "refused=events", "refused=waiting", "refused=handle"],
)
def test_no_events(driver, broken):
    """Where NVML refuses, as an old driver does, there are no Xids, and no error."""
    driver((0, 31), **broken)
    assert XidWatch(["GPU-a"]).stop() == {}


def test_driver_that_hangs_holds_nothing_up(driver, monkeypatch):
    """A driver that doesn't answer isn't waited for; what it had delivered counts."""
    answer = threading.Event()
    monkeypatch.setattr(xids, "HANG", 0.05)
    events = iter([SimpleNamespace(device=0, eventData=48)])
    driver(nvmlEventSetWait=lambda *_: next(events, None) or answer.wait(10))
    start = time.perf_counter()
    watch = XidWatch(["GPU-a"])
    while not watch._found and time.perf_counter() < start + 5:
        time.sleep(0.001)
    assert watch.stop() == {"GPU-a": {48: 1}}
    assert time.perf_counter() - start < 5
    answer.set()
