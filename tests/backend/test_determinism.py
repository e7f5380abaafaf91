"""Determinism is enabled where there is a GPU, and only there."""

from pathlib import Path

import pytest

from alexnet_repro.backend import determinism


@pytest.mark.parametrize(
    ("found", "times"), [(("cpu:0",), 0), (("cpu:0", "gpu:0"), 1)], ids=["devices=cpu", "devices=cpu+gpu"]
)
def test_determinism_is_for_gpus(monkeypatch: pytest.MonkeyPatch, found: tuple[str, ...], times: int) -> None:
    """GPUs are made deterministic, with the environment variables for it; a CPU is so anyway."""
    called: list[str] = []
    monkeypatch.setattr(determinism, "enable_memory_growth", lambda: called.append("growth"))
    monkeypatch.setattr(determinism, "usable_devices", lambda: called.append("devices") or found)
    monkeypatch.setattr(determinism, "enable_determinism", lambda: called.append("determinism"))
    monkeypatch.setattr(determinism, "determinism_variables", lambda: {"ALEXNET_REPRO_TEST": "1"})
    monkeypatch.setenv("ALEXNET_REPRO_TEST", "0")
    determinism.make_gpus_deterministic()
    assert called == ["growth", "devices", *["determinism"] * times]
    assert determinism.os.environ["ALEXNET_REPRO_TEST"] == "1"


def test_flag_of_determinism_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On JAX the flag is beside the user's, whether they are words or in a file, and counts over them."""
    (tmp_path / "flags").write_text("--xla_gpu_ftz=true\n--xla_gpu_deterministic_ops=false\n")
    monkeypatch.setattr(determinism.keras.backend, "backend", lambda: "jax")
    assert determinism.determinism_variables({"XLA_FLAGS": str(tmp_path / "flags")}) == {
        "XLA_FLAGS": "--xla_gpu_ftz=true --xla_gpu_deterministic_ops=false --xla_gpu_deterministic_ops=true"
    }
