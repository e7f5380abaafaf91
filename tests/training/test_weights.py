"""Weights on disk: every layout loads bit for bit, under any name, and what is saved is on the disk."""

import errno
import os
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import alexnet_repro
from alexnet_repro import TrainingDivergedError, load_weights, save_weights, synthetic_fashion
from alexnet_repro.cli import parser as command_line
from alexnet_repro.training.weights import check_weights_path
from tests.helpers.weight_files import (
    CHECKPOINT_2_0_0,
    LAYOUTS,
    SAVED_MODEL_2_0_0,
    SHAPES,
    WEIGHTS_2_0_0,
    assert_weights,
    edited,
    expected,
    named_by_a_second_model,
    shortened,
    trained,
)


@pytest.fixture
def model():
    """The shortened AlexNet, of zeros."""
    return shortened()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(model, tmp_path, layout):
    """Every layout loads bit for bit, whatever the file's name says."""
    LAYOUTS[layout](tmp_path)
    (path,) = tmp_path.iterdir()
    for name in ("5.6_alexnet_weights.h5", "x.weights.h5", "x.keras", "x.h5", "x"):
        path = path.rename(tmp_path / name)
        model.set_weights([np.zeros(shape) for shape in SHAPES])
        load_weights(model, path)
        assert_weights(model, expected())


def test_saved_weights(model, tmp_path):
    """What `save_weights` saves, `load_weights` loads."""
    path = save_weights(trained(), tmp_path / "new" / "a.weights.h5")
    load_weights(model, str(path))
    assert_weights(model, expected())


@pytest.mark.parametrize("loss", ["softmax", "normalised_sigmoid", None], ids=lambda value: f"loss={value}")
def test_loss_beside_the_weights(model, tmp_path, loss):
    """Weights say by which loss they were trained; those that don't are loaded as well."""
    assert load_weights(model, save_weights(trained(), tmp_path / "a.weights.h5", loss)) == loss
    assert load_weights(model, WEIGHTS_2_0_0) is None
    other = shortened()
    other.load_weights(tmp_path / "a.weights.h5")  # Keras's own reader
    assert_weights(other, expected())


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="KERAS_BACKEND isn't tensorflow")
@pytest.mark.parametrize(
    "path",
    [
        CHECKPOINT_2_0_0 / "weights",
        CHECKPOINT_2_0_0 / "weights.index",
        CHECKPOINT_2_0_0 / "weights.data-00000-of-00001",
        SAVED_MODEL_2_0_0,
        SAVED_MODEL_2_0_0 / "saved_model.pb",
        SAVED_MODEL_2_0_0 / "variables" / "variables.index",
    ],
    ids=lambda path: f"named={path.name}",
)
def test_what_tensorflow_saves_by_default(model, path):
    """A checkpoint, and a SavedModel, load bit for bit, whichever of their files is named."""
    assert load_weights(model, path) is None
    assert_weights(model, expected())


def _spread_over_attributes(file):
    """Write names as Keras does where HDF5 has no room for them in one attribute."""
    names = file.attrs["layer_names"]
    del file.attrs["layer_names"]
    file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:2], names[2:]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(named_by_a_second_model, id="change=second_model"),
        pytest.param(_spread_over_attributes, id="change=spread_over_attributes"),
    ],
)
def test_variants(model, tmp_path, change):
    """TensorFlow 2.0.0's files load when their layers have a later model's numbers, and when they are very many."""
    load_weights(model, edited(tmp_path, change))
    assert_weights(model, expected())


def test_unbuilt_model():
    """A model without weights yet is an error, not loaded."""
    with pytest.raises(ValueError, match="build it first"):
        load_weights(keras.Sequential([keras.layers.Dense(1)]), WEIGHTS_2_0_0)


def test_flushed_before_it_gets_its_name(model, tmp_path, monkeypatch):
    """A new file is on the disk before it takes the old one's place, and its place is when the call returns."""
    path = tmp_path / "a.weights.h5"
    flushed = []

    def fsync(descriptor):
        inode = os.fstat(descriptor).st_ino
        flushed.append((inode, path.exists()))

    monkeypatch.setattr("os.fsync", fsync)
    save_weights(model, path)
    assert flushed == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_no_room_on_the_disk(model, tmp_path, monkeypatch):
    """A file without room is an error before HDF5 begins to write, and the old one stays."""
    path = save_weights(trained(), tmp_path / "a.weights.h5")
    # 18 + 2 + 40 + 5 + 15 + 3 weights, and the two entries of the dropout's seed.
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=4 * 85 - 1))
    with pytest.raises(OSError, match=r"written to: 340 bytes are needed there, 339 are free; free that disk$"):
        save_weights(model, path)
    load_weights(model, path)
    assert_weights(model, expected())


@pytest.mark.parametrize("number", [np.nan, np.inf], ids=lambda value: f"weight={value}")
def test_weights_that_are_not_finite(tmp_path, number):
    """Weights that aren't finite aren't saved, and the old file stays."""
    model, path = trained(), tmp_path / "a.weights.h5"
    save_weights(model, path)
    before = path.read_bytes()
    model.layers[-1].bias.assign([0, number, 0])
    message = rf"^the weights aren't finite any more: layer dense_1, variable bias; {path} wasn't written$"
    with pytest.raises(TrainingDivergedError, match=message):
        save_weights(model, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EAGAIN])
def test_hdf5_without_locks(tmp_path, monkeypatch, number):
    """Where HDF5 can't lock a file, that is found before training, with the variable that switches locks off."""

    def unlockable(*_):
        raise OSError(number, "Unable to synchronously create file (unable to lock file,\n errno = 37)")

    monkeypatch.setattr("h5py.File", unlockable)
    words = "a.weights.h5 can't be written: .*; switch off HDF5's locks: export HDF5_USE_FILE_LOCKING=FALSE, or name"
    with pytest.raises(OSError, match=words):
        check_weights_path(tmp_path / "a.weights.h5")
    assert list(tmp_path.iterdir()) == []


def test_weights_behind_a_link(model, tmp_path):
    """A link stays one, and leads to the new file, in a folder that is made."""
    (tmp_path / "a.weights.h5").symlink_to("new/b.weights.h5")
    save_weights(trained(), tmp_path / "a.weights.h5")
    assert (tmp_path / "a.weights.h5").is_symlink()
    load_weights(model, tmp_path / "new" / "b.weights.h5")
    assert_weights(model, expected())


def test_evaluate_takes_the_documents_file(tmp_path, monkeypatch):
    """`evaluate` measures the weights that TensorFlow 2.0.0 saved, under any name."""
    path = shutil.copy(WEIGHTS_2_0_0, tmp_path / "5.6_alexnet_weights")
    measured = []

    def evaluate(model, *_, **__):
        measured.append(model)
        return alexnet_repro.Evaluation(1.0, 1.0, 1)

    monkeypatch.setattr(alexnet_repro, "synthetic_fashion", lambda: synthetic_fashion(1, 1))
    monkeypatch.setattr(alexnet_repro, "build_alexnet", lambda **_: shortened())
    monkeypatch.setattr(alexnet_repro, "evaluate", evaluate)
    assert command_line.main(["evaluate", "--synthetic", f"--weights={path}"]) == 0
    assert_weights(measured[0], expected())
