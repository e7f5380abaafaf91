"""The model's layers are the documented ones, row by row."""

import keras
import numpy as np
import pytest

from alexnet_repro import build_alexnet, documented, layer_rows

ROWS = [pytest.param(index, row, id=f"layer={row.name}") for index, row in enumerate(documented.LAYERS)]


@pytest.fixture(scope="module", params=[1, 5], ids=lambda n: f"batch={n}")
def outputs(request, alexnet):
    """Each layer's output, one layer after the other, as the document prints their shapes."""
    out = keras.ops.convert_to_tensor(np.random.RandomState(0).rand(request.param, *documented.INPUT_SHAPE), "float32")
    batch = []
    for layer in alexnet.layers:
        out = layer(out)
        batch.append(keras.ops.convert_to_numpy(out))
    return batch


@pytest.mark.parametrize(("index", "row"), ROWS)
def test_output_shape(outputs, index, row):
    """Each layer's output has the documented shape, in float32, for one image and for several."""
    assert outputs[index].shape == (len(outputs[0]), *row.output_shape)
    assert outputs[index].dtype == np.float32


@pytest.mark.parametrize(("index", "row"), ROWS)
def test_layer(alexnet, index, row):
    """Each layer has the documented name, parameters and multiply-accumulates."""
    built = list(layer_rows(alexnet))[index]
    assert (built.name, built.output_shape, built.parameters, built.macs) == (
        row.name,
        row.output_shape,
        row.parameters,
        row.macs,
    )


def test_totals(alexnet):
    """The whole model has the documented parameters and multiply-accumulates, and as many layers as rows."""
    rows = list(layer_rows(alexnet))
    assert len(rows) == len(documented.LAYERS)
    assert alexnet.count_params() == documented.TOTAL_PARAMETERS == sum(row.parameters for row in rows)
    assert sum(row.macs for row in rows) == documented.TOTAL_MACS


def test_documented_table_adds_up():
    """The documented totals and FLOP counts follow from the documented rows."""
    macs = [row.macs for row in documented.LAYERS]
    assert sum(row.parameters for row in documented.LAYERS) == documented.TOTAL_PARAMETERS
    assert sum(macs) == documented.TOTAL_MACS
    assert 2 * sum(macs) == documented.FORWARD_FLOP
    assert 2 * (3 * sum(macs) - macs[0]) == documented.TRAIN_STEP_FLOP


def test_names_do_not_depend_on_history():
    """A second model in the same process carries the same printed names."""
    build_alexnet((67, 67, 1))
    assert [layer.name for layer in build_alexnet((67, 67, 1)).layers] == [row.name for row in documented.LAYERS]


def test_output_is_sigmoid(alexnet):
    """Each of the ten outputs is a probability of its own: they do not sum to one."""
    images = np.random.RandomState(0).rand(2, *documented.INPUT_SHAPE).astype(np.float32)
    probabilities = keras.ops.convert_to_numpy(alexnet(images))
    assert probabilities.shape == (2, 10)
    assert ((probabilities > 0) & (probabilities < 1)).all()
    assert (np.abs(probabilities.sum(axis=1) - 1) > 1).all()


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_output_is_float32(policy):
    """The output is float32 under every precision policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = build_alexnet((67, 67, 1))
        assert model.layers[0].compute_dtype == policy.removeprefix("mixed_")
        assert keras.backend.standardize_dtype(model(np.zeros((1, 67, 67, 1), np.float32)).dtype) == "float32"
    finally:
        keras.config.set_dtype_policy(before)


def test_default_initial_weights(alexnet):
    """Kernels start Glorot-uniform and biases at zero, as Keras's defaults did in the document."""
    fans = [
        (121, 11616),
        (2400, 6400),
        (2304, 3456),
        (3456, 3456),
        (3456, 2304),
        (6400, 4096),
        (4096, 4096),
        (4096, 10),
    ]
    for (kernel, bias), (fan_in, fan_out) in zip(
        [layer.get_weights() for layer in alexnet.layers if layer.weights and "drop" not in layer.name],
        fans,
        strict=True,
    ):
        limit = np.sqrt(6 / (fan_in + fan_out))
        assert np.abs(kernel).max() <= np.float32(limit) * (1 + 1e-6)
        assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.03)
        assert not bias.any()


def test_smallest_input():
    """Images of 67 by 67 are the smallest that leave something after the last pooling, and they work."""
    assert build_alexnet((67, 67, 3), num_classes=2).output_shape == (None, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"input_shape": (66, 224, 1)}, r"smallest that works is \(67, 67, 1\)", id="case=low"),
        pytest.param({"input_shape": (224, 28, 3)}, r"smallest that works is \(67, 67, 3\)", id="case=narrow"),
        pytest.param({"input_shape": (224, 224)}, "three positive integers", id="case=no-channels"),
        pytest.param({"input_shape": (224, None, 1)}, "three positive integers", id="case=unknown-width"),
        pytest.param({"input_shape": (224, 224, 0)}, "three positive integers", id="case=zero-channels"),
        pytest.param({"num_classes": 0}, "num_classes must be at least 1", id="case=no-classes"),
    ],
)
def test_wrong_arguments(arguments, message):
    """Arguments from which no model can be built raise an error that names valid ones."""
    with pytest.raises(ValueError, match=message):
        build_alexnet(**arguments)


def test_numpy_sizes():
    """Sizes may be NumPy's integers, and the shape a list."""
    assert build_alexnet([np.int64(67), np.int32(70), 1]).input_shape == (None, 67, 70, 1)
