"""Distributions: what many devices and many workers need around a training."""

import math
import signal

import keras
import numpy as np
import pytest

from alexnet_repro import Checkpoints, DataLoader, Evaluation, History, Recipe, synthetic_fashion
from alexnet_repro.training.distributed.cluster import ClusterError
from alexnet_repro.training.stop_signal import StopRequest

if keras.backend.backend() != "tensorflow":
    pytest.skip("KERAS_BACKEND isn't tensorflow", allow_module_level=True)

import tensorflow as tf

from alexnet_repro.training.distributed import strategy as strategies
from alexnet_repro.training.distributed.checkpoint_sync import Collectives, SharedCheckpoints
from alexnet_repro.training.tensorflow_step import TensorFlowTrainStep
from tests.helpers.machines import distribution, write

LOSSES, ACCURACIES = np.array([2.3, -0.0, 1e-320]), np.array([0.1, 1 / 3, 0.5])
HISTORY = History(LOSSES, ACCURACIES, 24, 1.5, 0.1, ((2, Evaluation(1 / 3, 0.25, 40)),), draws=3)
IDENTITY = {"recipe": {**Recipe.quick().as_data(), "draw_size": 8, "batch_size": 8}}


def test_no_gpu(monkeypatch):
    """All GPUs of a machine that has none are refused, with the command that finds out why, and a way to use a CPU."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: [])
    with pytest.raises(ClusterError, match=r"TensorFlow can use none here[^$]*doctor\n[^$]*--replicas=2$"):
        strategies.Mirrored(Recipe.quick())


def test_batch_that_cannot_be_shared():
    """A batch that isn't a multiple of the replicas is refused, with the sizes that are, if any divides a draw."""
    strategies.check_shared(Recipe.quick(), 8)
    strategies.check_shared(Recipe.documented(), 32)
    with pytest.raises(ClusterError, match=r"batch of 32 can't .* among 64 replicas: add --batch-size=64 or 128$"):
        strategies.check_shared(Recipe.documented(), 64)
    with pytest.raises(
        ClusterError, match=r"among 3 replicas, nor any other part .* 32: use a number that divides 32$"
    ):
        strategies.check_shared(Recipe.quick(), 3)


def test_plan():
    """Workers compare versions, recipe, seed, images, precision, devices and the options that decide what they do."""
    loader = DataLoader.from_arrays(*synthetic_fashion(4, 1, seed=0), seed=7)
    plan = strategies.plan(loader, Recipe.quick(), "float32", {"resume": True})
    assert {*plan["versions"]} == {"python", "tensorflow", "keras", "alexnet-repro", "alexnet-repro's source"}
    assert plan["recipe"]["optimizer_arguments"] == {"beta_1": 0.875, "beta_2": 0.984375}
    assert {**plan, "versions": {}, "recipe": {}} == {
        "versions": {}, "recipe": {}, "seed": 7, "data": {"sha256": loader.train_digest()}, "precision": "float32",
        "devices": {"GPUs": len(tf.config.list_physical_devices("GPU"))}, "options": {"resume": True},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("files", "same"),
    [
        ({"a.py": "x = 1\n", "sub/b.py": ""}, True),
        ({"a.py": "x = 1\n", "sub/b.py": "", "a.txt": "notes"}, True),
        ({"a.py": "x = 2\n", "sub/b.py": ""}, False),
        ({"a.py": "x = 1\n", "b.py": ""}, False),
        ({"a.py": "x = 1\n"}, False),
    ],
    ids=["files=same", "files=and_notes", "files=changed", "files=moved", "files=fewer"],
)
def test_source_digest(tmp_path, files, same):
    """The same Python files have one digest, wherever they are; changed, moved or fewer ones another."""
    digests = []
    for folder, content in {"one": {"a.py": "x = 1\n", "sub/b.py": ""}, "other": files}.items():
        for name, text in content.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        digests.append(strategies.source_digest(tmp_path / folder))
    assert (digests[0] == digests[1]) is same


def test_single_device_is_left_alone():
    """On a single device, training gets the backend's own train step, and everything else as it is given."""
    stop_request, checkpoints = StopRequest(), object()
    device = strategies.Distribution()
    assert device.stopping(stop_request) is stop_request
    assert device.checkpoints(checkpoints) is checkpoints
    assert (device.chief, device.stopped_by) == (True, 0)
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    loader = DataLoader.from_arrays(*synthetic_fashion(4, 1, seed=0), seed=0)
    assert type(device.step(model, loader, Recipe.quick())) is TensorFlowTrainStep


class KnownCollectives:
    """Collectives in which the other workers' part is known beforehand."""

    def __init__(self, *, task=0, others=(), sent=()):
        self.task, self.others, self.sent = task, others, list(sent)

    def all_gather_int(self, number):
        return [number, *self.others]

    def broadcast_from_chief(self, content):
        if self.task == 0:
            self.sent.append(content)
            return content
        return self.sent.pop(0)


class Moves(list):
    """A watchdog that only remembers phases."""

    def enter(self, phase, updates=0):
        self.append((phase, updates))


@pytest.mark.parametrize(
    ("own", "others", "stopped_by"),
    [
        (None, 0, 0),
        (signal.SIGTERM, 0, 15),
        (None, 2, 2),
        (signal.SIGINT, 15, 15),
    ],
    ids=["stopped=none", "stopped=here", "stopped=elsewhere", "stopped=both"],
)
def test_all_workers_stop_alike(own, others, stopped_by):
    """A worker stops when any of them should, by the largest signal that any received."""
    workers = object.__new__(strategies.MultiWorker)
    workers.watchdog, workers.collectives = Moves(), KnownCollectives(others=(others,))
    assert workers.stopping(StopRequest(own))() == (stopped_by > 0)
    assert workers.stopped_by == stopped_by
    assert workers.watchdog == [("host", 0)]


def test_others_get_the_checkpoint(tmp_path):
    """A worker gets what the chief restored, bit for bit, without the chief's disk."""

    def variables(value):
        return [keras.Variable(np.full((3, 5), value, "float32")), keras.Variable(np.int64(value), dtype="int64")]

    first, chief, other = variables(math.pi), variables(0), variables(0)
    first[0].assign(np.frombuffer(np.random.default_rng(0).bytes(60), "float32").reshape(3, 5))  # NaN, perhaps
    with Checkpoints(tmp_path).opened(first, IDENTITY) as store:
        store.save(HISTORY)
    shared = SharedCheckpoints(tmp_path, collectives=KnownCollectives())
    with shared.opened(chief, IDENTITY) as store:
        restored = store.restore()
    nowhere = SharedCheckpoints(
        tmp_path / "nowhere", collectives=KnownCollectives(task=1, sent=shared.collectives.sent)
    )
    with nowhere.opened(other, IDENTITY) as store:
        assert store.save(HISTORY) is None
        history = store.restore()
    assert not (tmp_path / "nowhere").exists()
    for got in (restored, history):
        assert (got.losses.tobytes(), got.accuracies.tobytes()) == (LOSSES.tobytes(), ACCURACIES.tobytes())
        assert got.as_data() == HISTORY.as_data()
    for one, same in zip((*chief, *other), (*first, *first), strict=True):
        assert keras.ops.convert_to_numpy(one).tobytes() == keras.ops.convert_to_numpy(same).tobytes()


def test_workers_say_by_which_package(tmp_path, monkeypatch):
    """TensorFlow under another package's name, and a checkout that isn't installed, have versions like any other."""
    files = distribution("tensorflow-cpu", tf.__version__) | {"tensorflow/__init__.py": ""}
    monkeypatch.setattr("sys.path", [str(write(tmp_path, files | {"x-1.dist-info/METADATA": b"\xff"}))])
    found = strategies.worker_versions()
    assert (found["tensorflow"], found["alexnet-repro"]) == (f"{tf.__version__} (tensorflow-cpu)", "none")


@pytest.mark.parametrize("size", [0, 1, 2, 7, 70_001])
def test_bytes_travel_unchanged(monkeypatch, size):
    """Bytes of any length arrive as the chief sent them."""
    monkeypatch.setattr("alexnet_repro.training.distributed.checkpoint_sync.CHUNKS", (1 << 4, 1 << 10))
    content = np.random.default_rng(size).bytes(size)
    assert Collectives(tf.distribute.get_strategy(), 0, 1).broadcast_from_chief(content) == content
    assert Collectives(tf.distribute.get_strategy(), 0, 1).all_gather_int(15) == [15]
