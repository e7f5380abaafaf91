"""Updates of weights by one TensorFlow kernel per array, where it computes the bits of Keras's separate operations.

Keras's Adam passes some thirty times over an array of the weights' size, TensorFlow's kernel seven times; of SGD it is
five and three. On a CPU an update is bound by that.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf


def has_fused_updates(*, xla: bool) -> bool:
    """Return whether training updates by `fuse_updates`: on a CPU alone, without XLA and without a strategy."""
    return not (xla or tf.distribute.has_strategy() or tf.config.list_logical_devices("GPU"))


def fuse_updates(optimizer: keras.optimizers.Optimizer) -> bool:
    """Let an optimizer update by TensorFlow's kernels on a CPU; return whether there is one that has the same bits.

    There is for SGD without momentum, and for Adam where 1 - beta is the same in float32, which the kernel computes
    in, as in float64, which Keras does: it is for 0.875, not for 0.9.
    """
    if type(optimizer) is keras.optimizers.SGD and not optimizer.momentum:
        optimizer.update_step = _sgd
        return True
    if type(optimizer) is keras.optimizers.Adam and not optimizer.amsgrad and all(map(_exact, _betas(optimizer))):
        optimizer.update_step = lambda *update: _adam(optimizer, *update)
        return True
    return False


def _betas(optimizer: Any) -> tuple[float, float]:
    return optimizer.beta_1, optimizer.beta_2


def _exact(beta: float) -> bool:
    return bool(np.float32(1 - beta) == 1 - np.float32(beta))


def _sgd(gradient: Any, variable: Any, learning_rate: Any) -> None:
    alpha = tf.cast(learning_rate, variable.dtype)
    tf.raw_ops.ResourceApplyGradientDescent(var=_handle(variable), alpha=alpha, delta=tf.cast(gradient, variable.dtype))


def _adam(optimizer: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
    number, dtype = optimizer._get_variable_index(variable), variable.dtype  # noqa: SLF001 as Keras's own does
    scalars = (optimizer.iterations + 1, *_betas(optimizer), optimizer.epsilon, learning_rate)
    update, beta_1, beta_2, epsilon, rate = (tf.cast(each, dtype) for each in scalars)
    tf.raw_ops.ResourceApplyAdam(
        var=_handle(variable),
        m=_handle(optimizer._momentums[number]),  # noqa: SLF001
        v=_handle(optimizer._velocities[number]),  # noqa: SLF001
        beta1_power=tf.pow(beta_1, update),
        beta2_power=tf.pow(beta_2, update),
        lr=rate,
        beta1=beta_1,
        beta2=beta_2,
        epsilon=epsilon,
        grad=tf.cast(gradient, dtype),
    )


def _handle(variable: Any) -> Any:
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle
