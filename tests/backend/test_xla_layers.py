"""The layers in operations for XLA compute what Keras's own do, forward and backward."""

import functools
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


def both_ways(layer, x, *, compiled=False):
    """Return a layer's output, and the gradients by its input and by its variables, of its own dtype."""

    def run(x, dy):
        y, pullback = with_pullback(layer, x)
        by_input, by_variables = pullback(dy)
        return [y, by_input, *by_variables]

    dy = whole_numbers(layer.compute_output_shape(x.shape), seed=0)
    run = jit(run) if compiled else run
    return [
        ops.convert_to_numpy(ops.cast(each, "float32"))
        for each in run(ops.cast(x, layer.dtype), ops.cast(dy, layer.dtype))
    ]


def jit(function):
    """Return a function compiled by XLA."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    import jax

    return jax.jit(function)


def convolutions(channels, *arguments, **options):
    """Return Keras's convolution and the one for XLA, of the same weights."""
    own, other = (keras.layers.Conv2D(*arguments, data_format="channels_last", **options) for _ in range(2))
    pair = [own, xla_layers.relu_by_result(xla_layers.strides_as_channels(other))]
    for layer in pair:
        layer.build((None, 67, 67, channels))
        layer.set_weights([whole_numbers(variable.shape, seed=1) for variable in layer.variables])
    return pair


@pytest.mark.parametrize("channels", [1, 3], ids=lambda n: f"channels={n}")
@pytest.mark.parametrize("sides", SIDES, ids=lambda sides: "side={}x{}".format(*sides))
def test_convolution(sides, channels):
    """The strided convolution with ReLU and its three gradients are Keras's, for every remainder of the stride."""
    x = whole_numbers((2, *sides, channels), seed=2)
    own, ours = (both_ways(layer, x) for layer in convolutions(channels, 96, 11, strides=4, activation="relu"))
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


XLA = pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch has no XLA: its layers stay as they are")
COMPILED = pytest.mark.parametrize("compiled", [False, True], ids=lambda yes: f"compiled={yes}")
DTYPE = pytest.mark.parametrize("dtype", ["float32", "bfloat16"], ids=lambda dtype: f"dtype={dtype}")


@XLA
@COMPILED
@DTYPE
def test_relu(dtype, compiled):
    """ReLU, and its gradients by its input and by the bias, are Keras's for NaN, infinities and both zeros."""
    options = {"activation": "relu", "data_format": "channels_last", "dtype": dtype}
    own, other = (keras.layers.Conv2D(1, 1, **options) for _ in range(2))
    for layer in (own, other):
        layer.build((None, 3, 3, 1))
        layer.set_weights([np.ones((1, 1, 1, 1)), np.full(1, -0.0)])  # -0.0 + -0.0 stays -0.0
    x = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1, -1, 3e-38, 3e38], np.float32).reshape(1, 3, 3, 1)
    expected, found = (both_ways(layer, x, compiled=compiled) for layer in (own, xla_layers.relu_by_result(other)))
    for each in (0, 1, 3):  # not the kernel's: it is NaN
        np.testing.assert_array_equal(found[each], expected[each])


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="activation=none"),
        pytest.param({"activation": "tanh"}, id="activation=tanh"),
        pytest.param({"activation": "relu", "use_bias": False}, id="bias=none"),
        pytest.param({"activation": "relu", "data_format": "channels_first"}, id="data_format=channels-first"),
    ],
)
def test_other_convolutions_stay(options):
    """Convolutions without ReLU or bias, and with channels first, stay Keras's own."""
    options = {"data_format": "channels_last"} | options
    assert "call" not in vars(xla_layers.relu_by_result(keras.layers.Conv2D(4, 3, **options)))


def pooling(**options):
    """Return the model's max pooling as Keras has it."""
    return keras.layers.MaxPooling2D(**({"pool_size": 3, "strides": 2, "data_format": "channels_last"} | options))


def first_largest(x):
    """Return 3x3 pooling with stride 2 of `x`, and its gradient of whole numbers: NumPy, window by window."""
    n, height, width, channels = x.shape
    y = np.zeros((n, (height - 1) // 2, (width - 1) // 2, channels), np.float32)
    dy, dx = whole_numbers(y.shape, seed=0), np.zeros_like(x)
    for image, row, column, channel in np.ndindex(y.shape):
        here = image, slice(2 * row, 2 * row + 3), slice(2 * column, 2 * column + 3), channel
        winner = np.unravel_index(np.argmax(x[here]), (3, 3))  # the first, and NaN is largest
        y[image, row, column, channel] = x[here][winner]
        dx[here][winner] += dy[image, row, column, channel]
    return [y, dx]


def drawn(values, shape):
    """Return float32 values that bfloat16 has too: all different, with equal ones, infinities or NaN."""
    random = np.random.default_rng(2)
    if values == "different":
        normal = random.permutation(np.arange(0x0080, 0x7F80, dtype=np.uint32))[: np.prod(shape)] << 16
        return (normal.view(np.float32) * random.choice([-1, 1], normal.shape)).astype(np.float32).reshape(shape)
    x = random.integers(-2, 2, shape, endpoint=True).astype(np.float32)
    for each in {"equal": [], "infinite": [np.inf, -np.inf], "nan": [np.nan, np.inf, -np.inf]}[values]:
        x[random.random(shape) < 0.2] = each
    return x


@XLA
@COMPILED
@DTYPE
@pytest.mark.parametrize("sides", [(54, 54), (26, 15), (7, 4), (3, 3)], ids=lambda sides: "sides={}x{}".format(*sides))
@pytest.mark.parametrize("values", ["different", "equal", "infinite", "nan"], ids=lambda values: f"values={values}")
def test_pooling(values, sides, dtype, compiled):
    """Max pooling and its gradient are NumPy's and, but for NaN, Keras's, to the bit: whole numbers' sums are exact."""
    x = drawn(values, (2, *sides, 2))
    found = both_ways(xla_layers.kept_winners(pooling(dtype=dtype)), x, compiled=compiled)
    others = [first_largest(x)]
    if values != "nan":  # each backend has its own way with it
        others.append(both_ways(pooling(dtype=dtype), x, compiled=compiled))
    for expected in others:
        for each in zip(found, expected, strict=True):
            np.testing.assert_array_equal(*each)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"pool_size": 2}, id="case=two"),
        pytest.param({"strides": (2, 1)}, id="case=uneven"),
        pytest.param({"padding": "same"}, id="case=same"),
        pytest.param({"data_format": "channels_first"}, id="case=channels-first"),
    ],
)
def test_other_poolings_stay(options):
    """Poolings of other sizes, strides, paddings and data formats stay Keras's own."""
    assert "call" not in vars(xla_layers.kept_winners(pooling(**options)))


@XLA
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="dropout on other backends is Keras's own")
@pytest.mark.parametrize("rate", [0.25, 0.3, 0.5])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dropout(dtype, rate):
    """Call by call the same units are dropped as by Keras's own, compiled or not, and where nothing trains none."""
    own, eager, compiled = (keras.layers.Dropout(rate, seed=3, dtype=dtype) for _ in range(3))
    eager, compiled = (
        xla_layers.same_masks(eager),
        jit(functools.partial(xla_layers.same_masks(compiled), training=True)),
    )
    x = ops.cast(whole_numbers((8, 512), seed=0) + 9, dtype)
    for _ in range(2):
        right, *found = (
            ops.cast(y, "float32").numpy() for y in (own(x, training=True), eager(x, training=True), compiled(x))
        )
        assert 0 < (right == 0).mean() < 1
        for each in found:
            np.testing.assert_array_equal(each, right)
    assert eager(x) is x


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch has no XLA")
@pytest.mark.parametrize(
    ("layer", "barriers"),
    [
        pytest.param(lambda: xla_layers.kept_winners(pooling()), 1, id="layer=pooling"),
        pytest.param(lambda: convolutions(1, 2, 3, activation="relu")[1], 1, id="layer=convolution"),
    ],
)
def test_kept_apart(layer, barriers):
    """What XLA compiles has a barrier around the winners, and one around ReLU's gradient: they make it fast."""
    layer = layer()

    def run(x):
        y, pullback = with_pullback(layer, x)
        return pullback(y)[0]

    x = ops.ones((1, 7, 7, 1))
    if keras.backend.backend() == "jax":
        text = jit(run).lower(x).as_text()
    else:
        text = jit(run).experimental_get_compiler_ir(x)(stage="hlo")
    assert len(re.findall(r"opt-barrier\(|optimization_barrier ", text)) == barriers


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
        *layers, _, _, dropped, _, dropped_1, _ = build_alexnet().layers
        assert ["convolution_op" in vars(layer) for layer in layers] == [compiles] + [False] * 7
        ours = compiles and keras.backend.backend() != "torch"
        assert ["call" in vars(layer) for layer in layers] == [ours] * 8
        ours = compiles and keras.backend.backend() == "tensorflow"
        assert ["call" in vars(layer) for layer in (dropped, dropped_1)] == [ours] * 2
