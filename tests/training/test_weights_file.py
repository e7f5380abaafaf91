"""Files that don't hold the model's weights: refused in one line, the model as it was, and nothing in them run."""

import pickle
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from alexnet_repro import WeightsError, load_weights
from tests.helpers.weight_files import (
    LAYOUTS,
    MODEL_2_0_0,
    SHAPES,
    WEIGHTS_2_0_0,
    assert_weights,
    edited,
    named_by_a_second_model,
    shortened,
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


def _archive(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
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
    "signature_alone": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "it is truncated or corrupt ("),
    "numpy_archive": (
        lambda path: np.savez(path.open("wb"), a=np.ones(1)),
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
