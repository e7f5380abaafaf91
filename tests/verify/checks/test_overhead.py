"""The overhead of determinism, precision and XLA is that of the device's work, not of launching or reading it."""

import contextlib
from types import SimpleNamespace

import pytest

from alexnet_repro.verify.checks import config
from alexnet_repro.verify.checks import overhead as module
from alexnet_repro.verify.checks.config import CheckConfig


@pytest.mark.parametrize(
    ("device", "updates_per_call", "calls", "seconds"),
    [("cpu:0", 1, 2, 2.0), ("cpu:0", 32, 1, 0.125), ("gpu:0", 1, 10, 0.4), ("gpu:0", 32, 1, 0.125)],
)
def test_updates_are_timed_in_rounds(monkeypatch, device, updates_per_call, calls, seconds):
    """After two warm-up calls, each of three rounds makes two updates or a call's, and waits once; none is read.

    A GPU makes ten, of batches so large that its work, not the launching of it, is what takes the time.
    """
    done, batch = [], {"cpu:0": 8, "gpu:0": 512}[device]

    def step(indices):
        assert indices.shape == (updates_per_call, batch)
        done.append("step")
        return None, None

    step.updates_per_call, step.classifier = updates_per_call, SimpleNamespace(jit_compile=False)
    monkeypatch.setattr(config, "on_device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(module, "best_train_step", lambda *_, **__: step)
    monkeypatch.setattr(module, "synchronize", lambda _: done.append("wait"))
    clock = iter(range(0, 100, 4))
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: done.append("clock") or next(clock)))
    found = module.step_time(CheckConfig(device, side=67), xla=False)
    assert done == ["step", "wait"] * 2 + ["clock", *["step"] * calls, "wait", "clock"] * 3
    assert (found.status, found.number, found.data) == ("PASS", seconds, {"batch": batch})  # each round takes 4 s


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
