"""Determinism is asked for where there is a GPU, and only there."""

import pytest

from alexnet_repro.hardware import determinism


@pytest.mark.parametrize(
    ("found", "asked"), [(("cpu:0",), 0), (("cpu:0", "gpu:0"), 1)], ids=["devices=cpu", "devices=cpu+gpu"]
)
def test_determinism_is_for_gpus(monkeypatch: pytest.MonkeyPatch, found: tuple[str, ...], asked: int) -> None:
    """GPUs are told to be deterministic, with the variables that takes; a CPU is so anyway."""
    called: list[bool] = []
    monkeypatch.setattr(determinism, "usable_devices", lambda: found)
    monkeypatch.setattr(determinism, "enable_determinism", lambda: called.append(True))
    monkeypatch.setattr(determinism, "determinism_variables", lambda: {"ALEXNET_REPRO_TEST": "1"})
    monkeypatch.setenv("ALEXNET_REPRO_TEST", "0")
    determinism.make_gpus_deterministic()
    assert len(called) == asked
    assert determinism.os.environ["ALEXNET_REPRO_TEST"] == "1"
