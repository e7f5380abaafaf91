"""Vector-Jacobian products (pullbacks) of a function, on each backend, and as XLA compiles them for training."""

from collections.abc import Callable
from typing import Any

import keras

Pullback = Callable[[Any], tuple[Any, list[Any]]]


def with_pullback(function: Callable[[Any], Any], x: Any, *, compiled: bool = False) -> tuple[Any, Pullback]:
    """Return `function(x)`, and its pullback: from dy to dx and the gradients of its trainable variables.

    `function` is a Keras layer, or a function of one tensor that has no variables; `x` is a tensor. `compiled` has XLA
    compile both directions as one program, as it does in training: its forward pass is computed again for the pullback.
    """
    backends = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    if compiled:
        backends = {"tensorflow": _tensorflow_compiled, "jax": _jax_compiled}  # PyTorch has no XLA
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


def _tensorflow_compiled(function: Callable[[Any], Any], variables: list[Any], x: Any) -> tuple[Any, Pullback]:
    import tensorflow as tf

    def both(x: Any, dy: Any) -> tuple[Any, Any]:
        y, pullback = _tensorflow(function, variables, x)
        return y, pullback(dy)

    program = tf.function(both, jit_compile=True, autograph=False)
    output = tf.function(function, autograph=False).get_concrete_function(x).structured_outputs
    return program(x, tf.zeros(output.shape, output.dtype))[0], lambda dy: program(x, dy)[1]


def _jax(function: Callable[[Any], Any], variables: list[Any], x: Any) -> tuple[Any, Pullback]:
    import jax

    # Compiled, too, but as two programs: compiling each operation by itself takes a GPU most of a minute.
    y, vjp = jax.vjp(jax.jit(stateless(function, variables)), [variable.value for variable in variables], x)
    return y, lambda dy: vjp(dy)[::-1]


def _jax_compiled(function: Callable[[Any], Any], variables: list[Any], x: Any) -> tuple[Any, Pullback]:
    import jax

    forward, values = stateless(function, variables), [variable.value for variable in variables]

    def both(values: list[Any], x: Any, dy: Any) -> tuple[Any, Any]:
        y, vjp = jax.vjp(forward, values, x)
        return y, vjp(dy)[::-1]

    output = jax.eval_shape(forward, values, x)
    program = jax.jit(both)

    def run(dy: Any) -> tuple[Any, Any]:
        with jax.disable_jit(False):  # whatever JAX_DISABLE_JIT is
            found: tuple[Any, Any] = program(values, x, dy)
        return found

    return run(jax.numpy.zeros(output.shape, output.dtype))[0], lambda dy: run(dy)[1]


def stateless(function: Callable[[Any], Any], variables: list[Any]) -> Callable[[list[Any], Any], Any]:
    """Return `function` as one of its variables' values and a tensor, without state; on JAX."""

    def of_values(values: list[Any], x: Any) -> Any:
        # Not `stateless_call`, which leaves out the casts of the dtype policy.
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(x)

    return of_values


def _torch(function: Callable[[Any], Any], variables: list[Any], x: Any) -> tuple[Any, Pullback]:
    import torch

    x = x.detach().requires_grad_()
    y = function(x)

    def pullback(dy: Any) -> tuple[Any, list[Any]]:
        dx, *gradients = torch.autograd.grad(y, [x, *(variable.value for variable in variables)], dy)
        return dx, gradients

    return y.detach(), pullback
