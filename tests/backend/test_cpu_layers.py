"""The dense layers for a CPU compute what Keras's own do, forward and backward."""

import keras
import numpy as np
import pytest
from keras import ops

from alexnet_repro import build_alexnet
from alexnet_repro.backend.cpu_layers import kernel_first
from alexnet_repro.backend.gradients import with_pullback

# Whole numbers: sums of their products are exact in any order. `x` is (2, 3), `kernel` (3, 2).
X = [[1, -2, 3], [0, 4, -1]]
KERNEL, BIAS = [[1, 2], [-1, 0], [2, -3]], [-8, 1]
DY = [[1, 2], [3, -1]]
# By hand: x @ kernel + bias is [[1, -6], [-14, 4]]; ReLU lets the gradient of two of the four pass.
Y = [[1, 0], [0, 4]]
BY_X, BY_KERNEL, BY_BIAS = [[1, -1, 2], [-2, 0, 3]], [[1, 0], [-2, -4], [3, 1]], [1, -1]


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"], ids="precision={}".format)
@pytest.mark.parametrize("ours", [True, False], ids=["layer=ours", "layer=Keras's"])
@pytest.mark.parametrize("graph", [True, False], ids="graph={}".format)
def test_both_ways(graph, ours, dtype):
    """Output and gradients are those worked out by hand, of Keras's layer and of the one that it is made."""
    layer = keras.layers.Dense(2, "relu", dtype=dtype)
    layer = kernel_first(layer) if ours else layer
    layer.build((None, 3))
    layer.set_weights([np.array(KERNEL), np.array(BIAS)])

    def run(x, dy):
        y, pullback = with_pullback(layer, x)
        by_x, (by_kernel, by_bias) = pullback(dy)
        return y, by_x, by_kernel, by_bias

    if graph and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        run = tf.function(run)
    found = run(*(ops.cast(each, layer.compute_dtype) for each in (X, DY)))
    assert [ops.convert_to_numpy(ops.cast(each, "float32")).tolist() for each in found] == [Y, BY_X, BY_KERNEL, BY_BIAS]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow's kernels: another backend")
@pytest.mark.parametrize(
    ("dtype", "gpus", "for_xla", "ours"),
    [
        pytest.param("float32", [], False, True, id="place=CPU"),
        pytest.param("float32", ["a GPU"], False, False, id="place=GPU"),
        pytest.param("float32", [], True, False, id="place=XLA"),
        pytest.param("mixed_bfloat16", [], False, False, id="precision=mixed_bfloat16"),
    ],
)
def test_where_it_is_faster(monkeypatch, dtype, gpus, for_xla, ours):
    """Hidden layers are computed so in float32 on a CPU; not the head, which training computes by `Logits`."""
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "get_visible_devices", lambda _: gpus)
    keras.config.set_dtype_policy(dtype)
    try:
        model = build_alexnet((67, 67, 1), for_xla=for_xla)
    finally:
        keras.config.set_dtype_policy("float32")
    layers = [model.get_layer(name) for name in ("dense", "dense_1", "dense_2")]
    assert ["call" in vars(layer) for layer in layers] == [ours, ours, False]
    assert {type(layer) for layer in layers} == {keras.layers.Dense}
