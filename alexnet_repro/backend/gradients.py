"""Vector-Jacobian products (pullbacks) of a function, on each backend."""

from collections.abc import Callable
from typing import Any

import keras

Pullback = Callable[[Any], tuple[Any, list[Any]]]


def with_pullback(function: Callable[[Any], Any], x: Any) -> tuple[Any, Pullback]:
    """Return `function(x)`, and its pullback: from dy to dx and the gradients of its trainable variables.

    `function` is a Keras layer, or a function of one tensor that has no variables; `x` is a tensor.
    """
    backends = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    return backends[keras.backend.backend()](function, list(getattr(function, "trainable_variables", [])), x)


def _tensorflow(function: Callable[[Any], Any], variables: list[Any], x: Any) -> tuple[Any, Pullback]:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)

    def pullback(dy: Any) -> tuple[Any, list[Any]]:
        dx, *gradients = tape.gradient(y, [x, *(variable.value for variable in variables)], output_gradients=dy)
        return dx, gradients

    return y, pullback


def _jax(function: Callable[[Any], Any], variables: list[Any], x: Any) -> tuple[Any, Pullback]:
    import jax

    def stateless(values: list[Any], x: Any) -> Any:
        # Not `stateless_call`, which leaves out the casts of the dtype policy.
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(x)

    # Compiled whole, as in training: compiling each operation by itself takes a GPU most of a minute.
    y, vjp = jax.vjp(jax.jit(stateless), [variable.value for variable in variables], x)
    return y, lambda dy: vjp(dy)[::-1]


def _torch(function: Callable[[Any], Any], variables: list[Any], x: Any) -> tuple[Any, Pullback]:
    import torch

    x = x.detach().requires_grad_()
    y = function(x)

    def pullback(dy: Any) -> tuple[Any, list[Any]]:
        dx, *gradients = torch.autograd.grad(y, [x, *(variable.value for variable in variables)], dy)
        return dx, gradients

    return y.detach(), pullback
