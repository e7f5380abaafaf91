"""GPU memory: growth enabled in time, freed with the models, and its peak."""

import gc
import sys
from types import SimpleNamespace

import pytest

from alexnet_repro.backend import memory
from alexnet_repro.backend.devices import usable_devices
from alexnet_repro.backend.memory import enable_memory_growth, free_memory, peak_memory, reset_peak_memory
from alexnet_repro.training.classifier import build_classifier
from alexnet_repro.verify.checks.config import CheckConfig


def test_memory_growth_can_be_enabled_again() -> None:
    """A second call changes nothing and returns the same."""
    assert enable_memory_growth() == enable_memory_growth() == list(usable_devices()[1:])


class _TensorFlowWithGpu:
    """A GPU's memory growth, as `tf.config.experimental` keeps it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, initialised: bool) -> None:
        tf = pytest.importorskip("tensorflow", reason="memory growth is TensorFlow's")
        monkeypatch.setattr(memory.keras.backend, "backend", lambda: "tensorflow")
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda _kind=None: ["the GPU"])
        monkeypatch.setattr(tf.config.experimental, "get_memory_growth", lambda _gpu: self.grows)
        monkeypatch.setattr(tf.config.experimental, "set_memory_growth", self.set)
        self.initialised, self.grows = initialised, False

    def set(self, _gpu: str, enable: bool) -> None:
        if self.initialised:
            raise RuntimeError("Physical devices cannot be modified after being initialized")
        self.grows = enable


def test_memory_growth_is_enabled_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """In time, it is enabled and the GPU is returned; once enabled, the call works after initialisation too."""
    machine = _TensorFlowWithGpu(monkeypatch, initialised=False)
    assert enable_memory_growth() == ["gpu:0"]
    assert machine.grows
    machine.initialised = True
    assert enable_memory_growth() == ["gpu:0"]


def test_memory_growth_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """After TensorFlow has initialised its GPUs, the error says that the call came too late."""
    _TensorFlowWithGpu(monkeypatch, initialised=True)
    with pytest.raises(RuntimeError, match="came too late"):
        enable_memory_growth()


@pytest.mark.usefixtures("narrow")
def test_memory_is_freed():
    """A model that was trained and is gone leaves no graph behind, and with it no variables."""
    pytest.importorskip("tensorflow")

    def graphs():
        return sum(type(each).__name__ == "FuncGraph" for each in gc.get_objects())

    def train():
        config = CheckConfig(side=67)
        with config.running():
            network = build_classifier(config.model()[0], config.recipe())
            network.train_on_batch(*config.loader().draw_train(2))

    free_memory()
    before = graphs()
    train()
    free_memory()
    assert graphs() == before


@pytest.mark.parametrize("initialised", [False, True])
def test_pytorch_frees_what_it_keeps(monkeypatch, initialised):
    """The GPU memory that PyTorch keeps is freed; where it has used none, no GPU is initialised."""
    freed = []
    cuda = SimpleNamespace(is_initialized=lambda: initialised, empty_cache=lambda: freed.append("all"))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(memory.keras.backend, "backend", lambda: "torch")
    monkeypatch.setattr(memory.keras.utils, "clear_session", lambda: None)
    free_memory()
    assert freed == (["all"] if initialised else [])


def test_peak_memory_of_a_process():
    """On a CPU it is this process's peak, in bytes: hundreds of MB with a backend loaded."""
    reset_peak_memory("cpu:0")
    assert 1e8 < peak_memory("cpu:0") < 1e12
