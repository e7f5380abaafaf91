"""The price of determinism, precision and XLA is that of the device's work, not of launching or reading it."""

from types import SimpleNamespace

import pytest

from alexnet_repro.verify.checks import config
from alexnet_repro.verify.checks import overhead as price
from alexnet_repro.verify.checks.config import CheckConfig


def test_steps_are_timed_in_rows(monkeypatch):
    """Two steps to warm up, then three rows of two, each waited for once; nothing is read back in between."""
    done = []
    monkeypatch.setattr(price, "updater", lambda _: lambda *_: done.append("step"))
    monkeypatch.setattr(price, "synchronize", lambda _: done.append("wait"))
    clock = iter(range(0, 100, 4))
    monkeypatch.setattr(price, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    found = price.step_time_without_xla(CheckConfig(side=67))
    assert done == ["step", "wait"] * 2 + ["step", "step", "wait"] * 3
    assert (found.status, found.number, found.data) == ("PASS", 2.0, {"batch": 8})  # 4 s for two steps


@pytest.mark.parametrize(
    ("step_time", "built_for"),
    [
        pytest.param(price.step_time_without_xla, False, id="xla=off"),
        pytest.param(price.step_time_with_xla, True, id="xla=on"),
    ],
)
def test_the_model_suits_xla(step_time, built_for, monkeypatch):
    """What is timed with XLA is a model for XLA, what is timed without isn't."""
    asked = []

    def build(*_, for_xla, **__):
        asked.append(for_xla)
        raise InterruptedError

    monkeypatch.setattr(config, "build_alexnet", build)
    with pytest.raises(InterruptedError):
        step_time(CheckConfig(side=67))
    assert asked == [built_for]
