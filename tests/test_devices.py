"""Which devices there are, and what is said about a GPU that can't be used."""

import gc
import sys
from types import SimpleNamespace

import keras
import pytest

from alexnet_repro.checks.subject import Subject
from alexnet_repro.hardware import devices
from alexnet_repro.hardware.devices import (
    enable_memory_growth,
    gpu_names,
    synchronise,
    unusable_gpus,
    usable_devices,
)
from alexnet_repro.hardware.environment import Environment
from alexnet_repro.network import compiled_network


def machine(gpus: int, visible: str | None) -> Environment:
    """Return the record of a machine with so many GPUs, some of them named by CUDA_VISIBLE_DEVICES."""
    settings = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return Environment(device_files=tuple(f"/dev/nvidia{i}" for i in range(gpus)), settings=settings)


@pytest.mark.parametrize(
    ("in_machine", "usable", "visible"),
    [
        (0, 0, None),
        (0, 0, ""),
        (1, 1, None),
        (8, 8, None),
        (0, 1, None),  # seen by the backend alone
        (8, 2, "0,3"),
        (8, 1, "MIG-5a6b"),
        (8, 1, "2,-1,3"),  # CUDA stops at the -1
        (2, 2, "0,1,2,3"),
    ],
)
def test_usable_gpus_are_no_complaint(in_machine: int, usable: int, visible: str | None) -> None:
    """Nothing is said where every GPU that should be usable is."""
    assert unusable_gpus(machine(in_machine, visible), usable, "tensorflow") is None


@pytest.mark.parametrize(
    ("in_machine", "usable", "visible", "backend", "said"),
    [
        (1, 0, None, "tensorflow", ("1 NVIDIA GPU in this machine, 0 usable by tensorflow", "'tensorflow[and-cuda]'")),
        (8, 7, None, "tensorflow", ("8 NVIDIA GPUs in this machine, 7 usable", "nvidia-smi", "--gpus all")),
        (2, 0, None, "jax", ("0 usable by jax", "install jax with its CUDA libraries")),
        (2, 0, None, "torch", ("0 usable by torch", "install torch with its CUDA libraries")),
        (1, 0, "", "tensorflow", ("CUDA_VISIBLE_DEVICES='' hides every GPU", "unset CUDA_VISIBLE_DEVICES")),
        (1, 0, "-1", "torch", ("CUDA_VISIBLE_DEVICES='-1' hides every GPU",)),
        (8, 1, "0, 3", "tensorflow", ("2 named by CUDA_VISIBLE_DEVICES=0, 3, 1 usable",)),
    ],
)
def test_unusable_gpu_is_named_with_its_remedy(
    in_machine: int, usable: int, visible: str | None, backend: str, said: tuple[str, ...]
) -> None:
    """The message says how many there are, how many work, what to do, and how to measure the CPU on purpose."""
    message = unusable_gpus(machine(in_machine, visible), usable, backend)
    assert message is not None
    assert [text for text in (*said, "--device=cpu:0") if text not in message] == []


def test_usable_devices_are_named_as_keras_names_them() -> None:
    """The CPU first, then each GPU by its number, and a product name for each GPU."""
    cpu, *gpus = usable_devices()
    assert cpu == "cpu:0"
    assert gpus == [f"gpu:{i}" for i in range(len(gpus))]
    assert len(gpu_names()) == len(gpus)


def test_waiting_for_the_devices_passes_nothing_on() -> None:
    """`synchronise` can stand before and after any work, with or without results."""
    assert synchronise() is None
    assert synchronise(keras.ops.ones(3)) is None


def test_memory_growth_can_be_enabled_again() -> None:
    """A second call changes nothing and says the same."""
    assert enable_memory_growth() == enable_memory_growth() == list(usable_devices()[1:])


class _TensorFlowWithGpu:
    """A GPU's memory growth, as `tf.config.experimental` keeps it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, initialised: bool) -> None:
        tf = pytest.importorskip("tensorflow", reason="memory growth is TensorFlow's")
        monkeypatch.setattr(devices.keras.backend, "backend", lambda: "tensorflow")
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda _kind=None: ["the GPU"])
        monkeypatch.setattr(tf.config.experimental, "get_memory_growth", lambda _gpu: self.grows)
        monkeypatch.setattr(tf.config.experimental, "set_memory_growth", self.set)
        self.initialised, self.grows = initialised, False

    def set(self, _gpu: str, enable: bool) -> None:
        if self.initialised:
            raise RuntimeError("Physical devices cannot be modified after being initialized")
        self.grows = enable


def test_memory_growth_is_enabled_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """In time, it is turned on and the GPU is returned; once on, it may be asked for after initialisation."""
    machine = _TensorFlowWithGpu(monkeypatch, initialised=False)
    assert enable_memory_growth() == ["gpu:0"]
    assert machine.grows
    machine.initialised = True
    assert enable_memory_growth() == ["gpu:0"]


def test_memory_growth_too_late_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """After TensorFlow has initialised its GPUs, the error says that the call came too late."""
    _TensorFlowWithGpu(monkeypatch, initialised=True)
    with pytest.raises(RuntimeError, match="came too late"):
        enable_memory_growth()


def test_memory_is_freed():
    """A model that was trained and is gone leaves no graph behind, and with it no variables."""
    pytest.importorskip("tensorflow")

    def graphs():
        return sum(type(each).__name__ == "FuncGraph" for each in gc.get_objects())

    def train():
        subject = Subject(side=67)
        with subject.running():
            network = compiled_network(subject.model()[0], subject.recipe())
            network.train_on_batch(*subject.draw())

    devices.free_memory()
    before = graphs()
    train()
    devices.free_memory()
    assert graphs() == before


@pytest.mark.parametrize("initialised", [False, True])
def test_pytorch_gives_back_what_it_keeps(monkeypatch, initialised):
    """What PyTorch keeps of a GPU's memory is given back; where it has used none, none is taken hold of."""
    given_back = []
    cuda = SimpleNamespace(is_initialized=lambda: initialised, empty_cache=lambda: given_back.append("all"))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(devices.keras.backend, "backend", lambda: "torch")
    monkeypatch.setattr(devices.keras.utils, "clear_session", lambda: None)
    devices.free_memory()
    assert given_back == (["all"] if initialised else [])


def test_peak_memory_of_a_process():
    """On a CPU it is the most that this process ever held, in bytes: hundreds of MB with a backend loaded."""
    devices.reset_peak_memory("cpu:0")
    assert 1e8 < devices.peak_memory("cpu:0") < 1e12
