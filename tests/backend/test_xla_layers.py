"""The layers in operations for XLA compute what Keras's own do, forward and backward."""

import re
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from keras import ops

from alexnet_repro import build_alexnet, documented, layer_rows, load_weights
from alexnet_repro.backend import xla_layers
from alexnet_repro.backend.gradients import with_pullback
from tests.helpers.models import narrow_layers

# 67: a row and a column are wanting; 68, 224: none; 69, 70: one or two are left over.
SIDES = [(67, 67), (68, 69), (70, 67), (71, 70), (224, 224)]


def whole_numbers(shape, seed):
    """Return float32 whole numbers from -4 to 4: products and sums of them are exact in any order."""
    return np.random.default_rng(seed).integers(-4, 4, shape, endpoint=True).astype(np.float32)


def both_ways(layer, x):
    """Return a layer's output, and the gradients by its input and by its variables."""
    y, pullback = with_pullback(layer, ops.convert_to_tensor(x))
    by_input, by_variables = pullback(ops.convert_to_tensor(whole_numbers(y.shape, seed=0)))
    return [ops.convert_to_numpy(each) for each in (y, by_input, *by_variables)]


def convolutions(channels, *arguments, **options):
    """Return Keras's convolution and the one for XLA, of the same weights."""
    own, other = (keras.layers.Conv2D(*arguments, data_format="channels_last", **options) for _ in range(2))
    pair = [own, xla_layers.strides_as_channels(other)]
    for layer in pair:
        layer.build((None, 67, 67, channels))
        layer.set_weights([whole_numbers(variable.shape, seed=1) for variable in layer.variables])
    return pair


@pytest.mark.parametrize("channels", [1, 3], ids=lambda n: f"channels={n}")
@pytest.mark.parametrize("sides", SIDES, ids=lambda sides: "side={}x{}".format(*sides))
def test_convolution(sides, channels):
    """The strided convolution and its three gradients are Keras's, for every remainder of the stride."""
    x = whole_numbers((2, *sides, channels), seed=2)
    own, ours = (both_ways(layer, x) for layer in convolutions(channels, 96, 11, strides=4))
    for expected, found in zip(own, ours, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"kernel_size": 5, "padding": "same"}, id="case=no-strides"),
        pytest.param({"kernel_size": 5, "strides": 2, "padding": "same"}, id="case=same"),
        pytest.param({"kernel_size": (2, 5), "strides": (3, 2)}, id="case=uneven"),
    ],
)
def test_other_convolutions(options):
    """So are convolutions of other sizes, strides and paddings."""
    x = whole_numbers((2, 13, 12, 3), seed=2)
    own, ours = (both_ways(layer, x) for layer in convolutions(3, 4, **options))
    for expected, found in zip(own, ours, strict=True):
        np.testing.assert_array_equal(found, expected)


def poolings(x, size, **options):
    """Return the outputs of Keras's pooling and the one for XLA for `x`, and the gradients."""
    own, other = (keras.layers.MaxPooling2D(size, data_format="channels_last", **options) for _ in range(2))
    return [both_ways(layer, x) for layer in (own, xla_layers.larger_of_two(other))]


def pooling():
    """Return the model's max pooling, for XLA."""
    return xla_layers.larger_of_two(keras.layers.MaxPooling2D(3, strides=2, data_format="channels_last"))


@pytest.mark.parametrize("sides", [(54, 54), (26, 15), (7, 4)], ids=lambda sides: "side={}x{}".format(*sides))
def test_pooling(sides):
    """Max pooling and its gradient are Keras's, to the bit, where no values are equal."""
    x = np.random.default_rng(2).permutation(2 * sides[0] * sides[1] * 5).reshape(2, *sides, 5).astype(np.float32)
    for expected, found in zip(*poolings(x, 3, strides=2), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"size": 2}, id="case=apart"),
        pytest.param({"size": (2, 3), "strides": (3, 1)}, id="case=uneven"),
        pytest.param({"size": 3, "strides": 2, "padding": "same"}, id="case=same"),
    ],
)
def test_other_poolings(options):
    """So are poolings of other sizes, strides and paddings."""
    x = np.random.default_rng(2).permutation(2 * 13 * 12 * 3).reshape(2, 13, 12, 3).astype(np.float32)
    for expected, found in zip(*poolings(x, **options), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("window", "where"),
    [
        pytest.param([[1, 1, 1], [1, 1, 1], [1, 1, 1]], (0, 0), id="equal=all"),
        pytest.param([[0, 0, 0], [0, 0, 2], [2, 2, 2]], (1, 2), id="equal=two-rows"),
        pytest.param([[0, 2, 0], [2, 0, 0], [0, 0, 2]], (0, 1), id="equal=three"),
    ],
)
def test_first_of_equal_places_gets_the_gradient(window, where):
    """The first of a window's equal largest, row by row, gets all of the gradient."""
    _, pullback = with_pullback(pooling(), ops.reshape(ops.convert_to_tensor(window, "float32"), (1, 3, 3, 1)))
    gradient, _ = pullback(ops.full((1, 1, 1, 1), 5.0))
    expected = np.zeros((3, 3))
    expected[where] = 5
    np.testing.assert_array_equal(ops.convert_to_numpy(gradient)[0, ..., 0], expected)


@pytest.mark.parametrize("place", range(9), ids=lambda n: f"place={n}")
def test_not_a_number_is_kept(place):
    """The maximum of a window that holds NaN, anywhere, is NaN; infinities are numbers."""
    window = np.array([np.inf, -np.inf, 1, 2, 3, -4, 5, np.inf, 0], np.float32)
    window[place] = np.nan
    assert np.isnan(ops.convert_to_numpy(pooling()(window.reshape(1, 3, 3, 1)))).all()


@pytest.fixture(scope="module")
def model():
    """A small, narrow model for XLA, of drawn weights."""
    with narrow_layers():
        return build_alexnet((67, 67, 1), for_xla=True)


def test_model_is_the_documented_one(model):
    """A model for XLA has the documented layers, names and parameters, of Keras's own kinds."""
    rows = layer_rows(build_alexnet(for_xla=True))
    found = [(row.name, row.output_shape, row.parameters, row.macs) for row in rows]
    assert found == [(row.name, row.output_shape, row.parameters, row.macs) for row in documented.LAYERS]
    kinds = [type(layer) for layer in model.layers[:8]]
    conv, pool = keras.layers.Conv2D, keras.layers.MaxPooling2D
    assert kinds == [conv, pool, conv, pool, conv, conv, conv, pool]


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("name", ["a.weights.h5", "a.keras"], ids=lambda name: f"file={name}")
def test_weights_fit_either_way(model, tmp_path, name):
    """Weights that a model for XLA has saved are read by Keras's own layers, which then compute the same."""
    save = model.save_weights if name.endswith(".h5") else model.save
    save(tmp_path / name)
    own = build_alexnet((67, 67, 1), kernel_initializer="zeros", for_xla=False)
    load_weights(own, tmp_path / name)
    images = np.random.default_rng(1).random((2, 67, 67, 1), np.float32)
    found, expected = (ops.convert_to_numpy(each(images)) for each in (model, own))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_saved_model_names_keras_alone(model, tmp_path):
    """A whole model that was saved is made of Keras's own classes, and computes the same when it is read."""
    model.save(tmp_path / "a.keras")
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        config = archive.read("config.json").decode()
    assert {each.split(".")[0] for each in re.findall(r'"module": "([^"]*)"', config)} == {"keras"}
    assert set(re.findall(r'"registered_name": ([^,}]*)', config)) == {"null"}
    images = np.random.default_rng(1).random((2, 67, 67, 1), np.float32)
    found, expected = (
        ops.convert_to_numpy(each(images)) for each in (keras.models.load_model(tmp_path / "a.keras"), model)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_saved_model_is_read_without_this_package(model, tmp_path):
    """A whole model that was saved is Keras's own, to be read where this package isn't, and computes the same."""
    model.save(tmp_path / "a.keras")
    images = np.random.default_rng(1).random((2, 67, 67, 1), np.float32)
    np.save(tmp_path / "images.npy", images)
    script = (
        "import sys, keras, numpy as np; model = keras.models.load_model('a.keras'); "
        "np.save('found.npy', model.predict(np.load('images.npy'), verbose=0)); "
        "assert 'alexnet_repro' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    expected = ops.convert_to_numpy(model(images))
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("narrow")
def test_as_keras_decides(monkeypatch):
    """Unasked, a model is for XLA where Keras would compile it with XLA, and Keras's own elsewhere."""
    for compiles in (True, False):
        monkeypatch.setattr(keras.Sequential, "jit_compile", property(lambda _, compiles=compiles: compiles))
        changed = ["convolution_op" in vars(layer) or "call" in vars(layer) for layer in build_alexnet().layers[:4]]
        assert changed == ([True, True, False, True] if compiles else [False] * 4)
