"""Files that don't hold the model's weights: refused in one line, the model as it was, and nothing in them run."""

import gzip
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from alexnet_repro import WeightsError, load_weights, save_weights
from tests.helpers.weight_files import (
    CHECKPOINT_2_0_0,
    LAYOUTS,
    MODEL_2_0_0,
    SHAPES,
    WEIGHTS_2_0_0,
    assert_weights,
    edited,
    named_by_a_second_model,
    shortened,
    trained,
)


@pytest.fixture
def model():
    """The shortened AlexNet, of zeros, which it must stay."""
    return shortened()


def refusal(model, path):
    """Return why a file isn't loaded, without what every refusal begins with; the model must be as it was."""
    with pytest.raises(WeightsError) as caught:
        load_weights(model, path)
    assert_weights(model, [np.zeros(shape, np.float32) for shape in SHAPES])
    begins = f"{path} doesn't hold this model's weights: "
    assert str(caught.value).startswith(begins)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(begins)


def _replaced(name, **dataset):
    def change(file):
        del file[name]
        file.create_dataset(name, **dataset)

    return change


def _linked(name, link):
    def change(file):
        del file[name]
        file[name] = link

    return change


def _names(layer, *names):
    return lambda file: file[layer].attrs.create("weight_names", np.array(names))


def _renamed_and_reshaped(file):
    named_by_a_second_model(file)
    _replaced("dense_4/dense_1/bias:0", shape=(7,), dtype="f4")(file)


def _changed(name, at, value):
    def change(file):
        file[name][at] = value

    return change


def _saved_then(change):
    """Return a change of what `save_weights` saved, as the disk or a copy makes one."""

    def make(path):
        with h5py.File(save_weights(trained(), path), "r+") as file:
            change(file)

    return make


MISMATCHES = {
    "shape": (
        _replaced("dense/dense/kernel:0", shape=(5, 8), dtype="f4"),
        "layer dense, variable kernel: shape (5, 8) in the file, (8, 5) in the model",
    ),
    "huge": (  # 4 EB, declared and not read
        _replaced("dense/dense/bias:0", shape=(2**60,), dtype="f4", chunks=(1024,)),
        "layer dense, variable bias: shape (1152921504606846976,) in the file, (5,) in the model",
    ),
    "shape_under_another_name": (
        _renamed_and_reshaped,
        "layer dense_1 (dense_4 in the file), variable bias: shape (7,) in the file, (3,) in the model",
    ),
    "dtype": (
        _replaced("conv2d/conv2d/bias:0", shape=(2,), dtype="f8"),
        "layer conv2d, variable bias: float64 in the file, float32 in the model",
    ),
    "variables": (
        _names("conv2d", b"conv2d/kernel:0"),
        "layer conv2d has 1 variables in the file and 2 in the model (kernel, bias)",
    ),
    "missing_layer": (
        lambda file: file.attrs.create("layer_names", np.array([b"conv2d", b"dense_1"])),
        "it has 2 layers with weights, the model has 3; missing in the file: dense; only in the file: none",
    ),
    "missing_dataset": (
        lambda file: file["dense/dense"].pop("bias:0"),
        "it is truncated or corrupt ('no bias:0 in /dense/dense')",
    ),
    "group_for_dataset": (
        _names("dense", b"dense/kernel:0", b"dense"),
        "it is truncated or corrupt (/dense/dense is no array)",
    ),
    "dataset_for_group": (
        _replaced("dense/dense", shape=(5,), dtype="f4"),
        "it is truncated or corrupt ('no kernel:0 in /dense/dense')",
    ),
    "soft_link": (
        _linked("dense/dense/bias:0", h5py.SoftLink("/dense_1/dense_1/bias:0")),
        "bias:0 in /dense/dense is a link to elsewhere",
    ),
    "external_link": (_linked("dense", h5py.ExternalLink(MODEL_2_0_0, "/")), "dense in / is a link to elsewhere"),
    "external_data": (
        _replaced("dense/dense/bias:0", shape=(5,), dtype="f4", external=[(str(WEIGHTS_2_0_0), 0, 20)]),
        "/dense/dense/bias:0 lies in another file",
    ),
    "nan": (
        _changed("dense/dense/kernel:0", (2, 1), np.nan),
        "layer dense, variable kernel isn't finite: 1 of its 40 values are NaN or infinite",
    ),
    "infinity": (
        _changed("conv2d/conv2d/bias:0", slice(None), -np.inf),
        "layer conv2d, variable bias isn't finite: 2 of its 2 values are NaN or infinite",
    ),
    "never_written": (
        _replaced("dense/dense/kernel:0", shape=(8, 5), dtype="f4"),
        "/dense/dense/kernel:0 was never written; it would be read as zeros",
    ),
    "written_in_part": (
        lambda file: (
            _replaced("dense/dense/kernel:0", shape=(8, 5), dtype="f4", chunks=(3, 5))(file)
            or _changed("dense/dense/kernel:0", slice(6), 1)(file)
        ),
        "/dense/dense/kernel:0 was never written; it would be read as zeros",
    ),
    "names_without_end": (
        lambda file: file.move("dense", "x" * 999) or file.attrs.create("layer_names", ["x" * 999]),
        (
            "it has 1 layer with weights, the model has 3; missing in the file: conv2d, dense, dense_1; "
            f"only in the file: {'x' * 491} …"
        ),
    ),
    "characters_that_terminals_obey": (
        lambda file: file.move("dense", "\x1b[31mRED\nPASS") or file.attrs.create("layer_names", ["\x1b[31mRED\nPASS"]),
        (
            "it has 1 layer with weights, the model has 3; missing in the file: conv2d, dense, dense_1; "
            "only in the file: \N{REPLACEMENT CHARACTER}[31mRED\N{REPLACEMENT CHARACTER}PASS"
        ),
    ),
    "other_layout": (
        lambda file: [file.attrs.pop("layer_names"), *map(file.pop, ("max_pooling2d", "flatten", "dropout", "dense"))],
        "it is HDF5, but of another layout than Keras 3's or TensorFlow 2.0.0's: it has ['conv2d', 'dense_1']",
    ),
}


@pytest.mark.parametrize("difference", MISMATCHES)
def test_mismatch(model, tmp_path, difference):
    """The first layer or variable that differs is named, with both sides, and no weight is changed."""
    change, message = MISMATCHES[difference]
    assert refusal(model, edited(tmp_path, change)) == message


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ".h5"])
def test_other_model_of_keras_3(model, tmp_path, suffix):
    """A model with another layer, saved by Keras 3, is refused by the layer's name."""
    other, path = shortened([keras.layers.Dense(2, name="dense_2")]), tmp_path / f"a{suffix}"
    (other.save_weights if suffix == ".weights.h5" else other.save)(path)
    assert refusal(model, path) == (
        "it has 4 layers with weights, the model has 3; missing in the file: none; only in the file: dense_2"
    )


class Trap:
    """What a pickle can hold: a call, made when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):  # noqa: D105
        return open, (self.path, "w")


def _archive(path, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)


NO_WEIGHTS = {
    "missing": (lambda _: None, "it can't be read: No such file or directory"),
    "folder": (Path.mkdir, "it is a folder; name a file in it"),
    "empty": (Path.touch, "it is empty"),
    "html": (
        lambda path: path.write_text("<!DOCTYPE html><title>Sign in</title>"),
        "it is neither HDF5 nor .keras; it starts with b'<!DOCTYPE html><title>Si'",
    ),
    "pickle": (
        lambda path: path.write_bytes(pickle.dumps(Trap(path.with_name("trapped")), protocol=0)),
        "it is neither HDF5 nor .keras; it starts with b'c",
    ),
    "pickle_of_today": (
        lambda path: path.write_bytes(pickle.dumps(Trap(path.with_name("trapped")))),
        "it is a pickle, as PyTorch's and Python's own are, which can run code and is never opened",
    ),
    "pytorch": (
        lambda path: _archive(path, **{"archive/data_pkl": pickle.dumps(Trap(path.with_name("trapped")))}),
        "it is a pickle, as PyTorch's and Python's own are, which can run code and is never opened",
    ),
    "safetensors": (
        lambda path: path.write_bytes(b"\x40" + bytes(7) + b'{"__metadata__":{"format":"pt"}}'),
        "it is a safetensors file, which Keras doesn't read",
    ),
    "git_lfs": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 187059000\n"),
        "it is a Git LFS pointer to the file, not the file: git lfs pull",
    ),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"")), "it is compressed by gzip: gunzip it"),
    "array": (lambda path: np.save(path.open("wb"), np.ones(1)), "it is a NumPy array"),
    "zeros": (lambda path: path.write_bytes(bytes(999)), "it is of zeros, as an unfinished download or copy is"),
    "training_checkpoint": (
        lambda path: np.savez(path.open("wb"), description=np.ones(1), losses=np.ones(1)),
        "it is a checkpoint of a training, which train --resume --checkpoints=FOLDER continues",
    ),
    "list_of_checkpoints": (
        lambda path: shutil.copy(CHECKPOINT_2_0_0 / "checkpoint", path),
        "it is TensorFlow's list of checkpoints; name one of those beside it, as NAME.index",
    ),
    "folder_of_checkpoints": (
        lambda path: shutil.copytree(CHECKPOINT_2_0_0, path),
        "it is a folder; name a file in it, as ",
    ),
    "pipe": (os.mkfifo, "it isn't a regular file"),
    "endless_device": (lambda path: path.symlink_to("/dev/zero"), "it isn't a regular file"),
    "loop": (lambda path: path.symlink_to(path.name), "it can't be read: Too many levels of symbolic links"),
    "large_configuration": (
        lambda path: _archive(path, zipfile.ZIP_DEFLATED, config_json=bytes(1 << 25), model_weights_h5=""),
        "its config.json has 33,554,432 bytes; a model's has a few thousand",
    ),
    "changed_on_the_disk": (
        _saved_then(_changed("layers/dense/vars/0", (2, 1), 0.5)),
        "its SHA-256 isn't that of the weights that were saved in it; the disk or a copy changed them",
    ),
    "signature_alone": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "it is truncated or corrupt ("),
    "numpy_archive": (
        lambda path: np.savez(path.open("wb"), a=np.ones(1)),
        "it is a NumPy archive, which Keras doesn't read",
    ),
    "document": (
        lambda path: _archive(path, **{"word/document_xml": "<x/>"}),
        "it is a ZIP archive, but not a .keras one: it has no config.json",
    ),
    "archive_of_other_weights": (
        lambda path: _archive(path, config_json="{}", model_weights_npz=b""),
        "it is a ZIP archive, but not a .keras one: it has no model.weights.h5",
    ),
    "archive_of_html": (
        lambda path: _archive(path, config_json="{}", model_weights_h5="<html>"),
        "it is truncated or corrupt (",
    ),
}


@pytest.mark.parametrize("content", NO_WEIGHTS)
def test_no_weights(model, tmp_path, content):
    """What is no file of weights is refused in one line that says what it is; a pickle isn't opened."""
    make, message = NO_WEIGHTS[content]
    make(tmp_path / "a.weights.h5")
    assert refusal(model, tmp_path / "a.weights.h5").startswith(message)
    assert not (tmp_path / "trapped").exists()


def test_name_too_long(model, tmp_path):
    """A name that no disk takes is refused with the system's words."""
    assert refusal(model, tmp_path / ("x" * 300)) == "it can't be read: File name too long"


@pytest.mark.parametrize("layout", ["tensorflow_2.0.0-weights", "keras_3-weights", "keras_3-archive"])
def test_cut_off(model, tmp_path, layout):
    """A file cut off anywhere is refused, and leaves the model as it was."""
    LAYOUTS[layout](tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    for size in (*range(8, len(content), len(content) // 50), len(content) - 1):
        path.write_bytes(content[:size])
        assert refusal(model, path).startswith("it is truncated or corrupt (")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_is_never_run(model, tmp_path, suffix):
    """A saved model with a Lambda layer is refused, and its code isn't run."""
    path, trapped = tmp_path / f"a{suffix}", str(tmp_path / "trapped")
    trap = keras.layers.Lambda(lambda x: (open(trapped, "w"), x)[1])  # noqa: PTH123, SIM115
    shortened([trap]).save(path)
    Path(trapped).unlink()  # making the model ran it
    message = "it has a Lambda layer, that is, code, which is never run; this model has none"
    assert refusal(model, path) == message
    assert not Path(trapped).exists()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="KERAS_BACKEND isn't tensorflow")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.with_suffix(".index").write_bytes(b"x" * 99), "it is truncated or corrupt ("),
        (lambda path: path.with_suffix(".data-00000-of-00001").unlink(), "it is truncated or corrupt ("),
        (
            lambda path: path.with_suffix(".data-00000-of-00001").write_bytes(b"x" * 3888),
            "it is truncated or corrupt (",
        ),
        (
            lambda path: os.mkfifo(path.with_suffix(".data-00001-of-00002")),
            "weights.data-00001-of-00002 isn't a regular",
        ),
    ],
    ids=["damage=index", "damage=missing", "damage=data", "damage=pipe"],
)
def test_corrupt_checkpoint(model, tmp_path, change, message):
    """A damaged checkpoint of TensorFlow's is refused in one line."""
    shutil.copytree(CHECKPOINT_2_0_0, tmp_path / "copy")
    change(tmp_path / "copy" / "weights")
    assert refusal(model, tmp_path / "copy" / "weights").startswith(message)


def test_checkpoint_under_another_backend(model, monkeypatch):
    """A checkpoint of TensorFlow's is named where Keras has another backend, with what reads it."""
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert refusal(model, CHECKPOINT_2_0_0 / "weights") == (
        "it is a TensorFlow checkpoint, which TensorFlow alone reads: export KERAS_BACKEND=tensorflow"
    )
