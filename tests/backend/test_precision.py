"""The named precision is the one that is computed in, and the previous setting comes back."""

import keras
import pytest

from alexnet_repro import Recipe, build_alexnet
from alexnet_repro.backend.precision import PRECISIONS, precision
from alexnet_repro.training.classifier import build_classifier


def test_unknown_precision():
    """A precision that doesn't exist is refused by a list of those that do."""
    with pytest.raises(ValueError, match=", ".join(PRECISIONS)), precision("float8"):
        pass


@pytest.mark.parametrize("name", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_loss_scaling(name):
    """Under mixed_float16, and only there, the loss is scaled, so that small gradients survive."""
    with precision(name):
        network = build_classifier(build_alexnet((67, 67, 1), kernel_initializer="zeros"), Recipe.documented())
    assert isinstance(network.optimizer, keras.optimizers.LossScaleOptimizer) == (name == "mixed_float16")


def tf32_allowed():
    """Return whether the active backend may use TensorFloat-32 for float32 products."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.config.experimental.tensor_float_32_execution_enabled()
    if keras.backend.backend() == "jax":
        import jax

        return jax.config.jax_default_matmul_precision != "highest"
    import torch

    return torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32


def test_tf32_is_used_only_where_named():
    """float32 means all 24 bits; `tf32` allows 11; what was set before comes back."""
    with precision("tf32"):
        assert tf32_allowed()
        with precision("float32"):
            assert not tf32_allowed()
        assert tf32_allowed()
