"""The two losses follow their formulas, eager and compiled, on every backend."""

import json

import keras
import numpy as np
import pytest

from alexnet_repro import LOSSES, logits_model, normalised_sigmoid, softmax
from tests.helpers.paths import RECORDED

CASES = json.loads((RECORDED / "loss_tf_2.0.0.json").read_text())["cases"]
LOSS_ROWS = [pytest.param(loss, id=f"loss={name}") for name, loss in LOSSES.items()]
LOGITS = np.random.RandomState(1).standard_normal((6, 10)).astype(np.float32) * 5
LABELS = np.array([0, 3, 9, 9, 1, 5], np.int32)


def in_float64(name, labels, logits):
    """Return the losses by their formulas, clip aside."""
    z = logits.astype(np.float64)
    p = 1 / (1 + np.exp(-z)) if name == "normalised_sigmoid" else np.exp(z)
    return -np.log(p[np.arange(len(z)), labels] / p.sum(axis=1))


def as_numpy(tensor):
    """Return a tensor of any backend as an array."""
    return keras.ops.convert_to_numpy(tensor)


@pytest.mark.parametrize("name", list(LOSSES))
def test_formula(name):
    """Each loss follows its formula: one float32 number per image."""
    losses = as_numpy(LOSSES[name](LABELS, LOGITS))
    assert losses.shape == (6,)
    assert losses.dtype == np.float32
    np.testing.assert_allclose(losses, in_float64(name, LABELS, LOGITS), rtol=1e-5)


def test_normalised_sigmoid_is_tensorflow_2_0_0(value_and_gradients):
    """Losses and gradients are those TensorFlow 2.0.0 gave its sigmoid head, at and beyond its clip too."""
    for case in CASES:
        loss, (gradient,) = value_and_gradients(
            lambda logits, case=case: keras.ops.sum(normalised_sigmoid(np.array([case["label"]]), logits)),
            [np.array([case["logits"]], np.float32)],
        )
        assert loss == pytest.approx(case["loss"], rel=1e-6, abs=1e-6), case
        np.testing.assert_allclose(gradient[0], case["gradient"], rtol=1e-5, atol=1e-6, err_msg=str(case))


@pytest.mark.parametrize("loss", LOSS_ROWS)
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_finite_at_large_logits(loss, size, value_and_gradients):
    """Loss and gradient stay finite for logits of ±1e4, whichever class is right."""
    logits = np.zeros((3, 10), np.float32)
    logits[:, 0] = size
    value, (gradient,) = value_and_gradients(lambda z: keras.ops.sum(loss(np.array([0, 1, 9]), z)), [logits])
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_no_gradient_beyond_the_clip(value_and_gradients):
    """Where a sigmoid is within 1e-7 of 0 or 1 the normalised sigmoid has no gradient; the softmax has."""
    logits = np.array([[-20.0, 20.0, 0.0]], np.float32)
    _, (clipped,) = value_and_gradients(lambda z: keras.ops.sum(normalised_sigmoid(np.array([0]), z)), [logits])
    _, (unclipped,) = value_and_gradients(lambda z: keras.ops.sum(softmax(np.array([0]), z)), [logits])
    assert clipped[0, :2].tolist() == [0, 0]
    assert clipped[0, 2] != 0
    assert (np.abs(unclipped[0, :2]) > 0.9).all()


@pytest.mark.parametrize("loss", LOSS_ROWS)
def test_hidden_logits_are_not_used(loss):
    """The logits that Keras attaches to an activation's output make no difference."""
    plain, marked = (keras.ops.convert_to_tensor(LOGITS) for _ in range(2))
    marked._keras_logits = keras.ops.zeros_like(marked)
    np.testing.assert_array_equal(as_numpy(loss(LABELS, plain)), as_numpy(loss(LABELS, marked)))


@pytest.mark.parametrize("loss", LOSS_ROWS)
def test_label_dtypes(loss):
    """Labels may be of any integer dtype, or float, as Keras passes them."""
    expected = as_numpy(loss(LABELS, LOGITS))
    for dtype in ("uint8", "int64", "float32"):
        np.testing.assert_array_equal(as_numpy(loss(LABELS.astype(dtype), LOGITS)), expected)


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_same_loss_however_it_is_run(name, compiled, policy):
    """A model compiled with the loss reports it alike eager and compiled, and under a mixed policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = keras.Sequential([keras.Input((10,)), keras.layers.Identity(dtype="float32")])
        model.compile(loss=LOSSES[name], run_eagerly=not compiled)
        reported = model.test_on_batch(LOGITS, LABELS)
    finally:
        keras.config.set_dtype_policy(before)
    assert reported == pytest.approx(in_float64(name, LABELS, LOGITS).mean(), rel=1e-5)


def test_logits_share_the_layers(alexnet):
    """The logits model has the public model's own variables, and their sigmoid is the public output."""
    logits = logits_model(alexnet)
    assert {id(v) for v in logits.trainable_variables} == {id(v) for v in alexnet.trainable_variables}
    images = np.random.RandomState(0).rand(2, 224, 224, 1).astype(np.float32)
    np.testing.assert_allclose(
        1 / (1 + np.exp(-as_numpy(logits(images)).astype(np.float64))), as_numpy(alexnet(images)), rtol=1e-6
    )


@pytest.mark.parametrize("loss", LOSS_ROWS)
@pytest.mark.parametrize("labels", [LABELS[:, None], LABELS[0]], ids=["labels=column", "labels=scalar"])
def test_wrong_shapes(loss, labels):
    """Labels that would be broadcast against the logits are refused."""
    with pytest.raises(ValueError, match=r"labels must be \(n,\) and logits \(n, classes\)"):
        loss(labels, LOGITS)
