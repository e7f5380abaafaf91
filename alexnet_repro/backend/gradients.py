"""Vector-Jacobian products (pullbacks) of a function, on each backend."""

from collections.abc import Callable
from typing import Any

import keras

Pullback = Callable[[Any], tuple[Any, list[Any]]]


def with_pullback(function: Callable[[Any], Any], x: Any) -> tuple[Any, Pullback]:
    """Return `function(x)`, and its pullback: from dy to dx and the gradients of its trainable variables.

    Args:
        function: a Keras layer, or a function of one tensor that has no variables.
        x: a tensor.
    """
    return {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.backend.backend()](function, x)


def _variables(function: Callable[[Any], Any]) -> list[Any]:
    return list(getattr(function, "trainable_variables", []))


def _tensorflow(function: Callable[[Any], Any], x: Any) -> tuple[Any, Pullback]:
    import tensorflow as tf

    variables = [variable.value for variable in _variables(function)]
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)

    def pullback(dy: Any) -> tuple[Any, list[Any]]:
        dx, *gradients = tape.gradient(y, [x, *variables], output_gradients=dy)
        return dx, gradients

    return y, pullback


def _jax(function: Callable[[Any], Any], x: Any) -> tuple[Any, Pullback]:
    import jax

    variables = _variables(function)

    def stateless(values: list[Any], x: Any) -> Any:
        # Not `stateless_call`, which leaves out the casts of the dtype policy.
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(x)

    y, vjp = jax.vjp(stateless, [variable.value for variable in variables], x)

    def pullback(dy: Any) -> tuple[Any, list[Any]]:
        gradients, dx = vjp(dy)
        return dx, gradients

    return y, pullback


def _torch(function: Callable[[Any], Any], x: Any) -> tuple[Any, Pullback]:
    import torch

    x = x.detach().requires_grad_()
    y = function(x)

    def pullback(dy: Any) -> tuple[Any, list[Any]]:
        dx, *gradients = torch.autograd.grad(y, [x, *(variable.value for variable in _variables(function))], dy)
        return dx, gradients

    return y.detach(), pullback
