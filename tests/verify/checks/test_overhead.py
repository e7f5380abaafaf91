"""The overhead of determinism, precision and XLA is that of the device's work, not of launching or reading it."""

from types import SimpleNamespace

import pytest

from alexnet_repro.verify.checks import config
from alexnet_repro.verify.checks import overhead as module
from alexnet_repro.verify.checks.config import CheckConfig


@pytest.mark.parametrize(
    ("updates_per_call", "calls", "seconds"),
    [pytest.param(1, 2, 2.0, id="updates_per_call=1"), pytest.param(32, 1, 0.125, id="updates_per_call=32")],
)
def test_updates_are_timed_in_rounds(monkeypatch, updates_per_call, calls, seconds):
    """After two warm-up calls, each of three rounds makes two updates or a call's, and waits once; none is read."""
    done = []

    def step(indices):
        assert indices.shape == (updates_per_call, 8)
        done.append("step")
        return None, None

    step.updates_per_call, step.classifier = updates_per_call, SimpleNamespace(jit_compile=False)
    monkeypatch.setattr(module, "best_train_step", lambda *_, **__: step)
    monkeypatch.setattr(module, "synchronize", lambda _: done.append("wait"))
    clock = iter(range(0, 100, 4))
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: done.append("clock") or next(clock)))
    found = module.step_time(CheckConfig(side=67), xla=False)
    assert done == ["step", "wait"] * 2 + ["clock", *["step"] * calls, "wait", "clock"] * 3
    assert (found.status, found.number, found.data) == ("PASS", seconds, {"batch": 8})  # each round takes 4 s


@pytest.mark.parametrize("xla", [False, True])
def test_model_suits_xla(monkeypatch, xla):
    """The step with XLA has a model built for XLA, the one without hasn't."""
    for_xlas = []

    def build(*_, for_xla, **__):
        for_xlas.append(for_xla)
        raise InterruptedError

    monkeypatch.setattr(config, "build_alexnet", build)
    with pytest.raises(InterruptedError):
        module.step_time(CheckConfig(side=67), xla=xla)
    assert for_xlas == [xla]
