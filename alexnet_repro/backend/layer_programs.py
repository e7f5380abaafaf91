"""A layer's forward pass, its gradients and its update as programs of their own, compiled as training compiles them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from alexnet_repro.backend.gradients import stateless

Function = Callable[[Any], Any]
Program = Callable[[], Any]


def one_way(function: Function, variables: Sequence[Any], x: Any, *, xla: bool) -> tuple[Program, Any]:
    """Return what computes `function(x)`, of a layer with these Keras variables, and its output.

    On TensorFlow it is a graph, which XLA compiles if `xla`; on JAX it is compiled; on PyTorch it is Keras's call.
    """
    if keras.backend.backend() == "tensorflow":
        graph = _graph(function, xla=xla)
        return lambda: graph(x), graph(x)
    if keras.backend.backend() == "jax":
        import jax

        compiled, values = jax.jit(stateless(function, list(variables))), [each.value for each in variables]
        return lambda: compiled(values, x), compiled(values, x)
    return lambda: function(x), function(x).detach()


def both_ways(
    function: Function, variables: Sequence[Any], x: Any, output: Any, *, xla: bool, by_input: bool
) -> Program:
    """Return what computes `function(x)` and its gradients, by its variables and, if `by_input`, by `x`.

    The incoming gradient has the shape of `output`.
    """
    dy = ops.ones_like(output)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        def both(x: Any, dy: Any) -> tuple[Any, Any]:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = function(x)
            sources = [*([x] if by_input else []), *(each.value for each in variables)]
            return y, tape.gradient(y, sources, output_gradients=dy)

        graph = _graph(both, xla=xla)
        return lambda: graph(x, dy)
    if keras.backend.backend() == "jax":
        import jax

        pure, values = stateless(function, list(variables)), [each.value for each in variables]

        def pulled_back(values: list[Any], x: Any, dy: Any) -> tuple[Any, Any]:
            if by_input:
                y, pullback = jax.vjp(pure, values, x)
            else:
                y, pullback = jax.vjp(lambda values: pure(values, x), values)
            return y, pullback(dy)

        compiled = jax.jit(pulled_back)
        return lambda: compiled(values, x, dy)
    import torch

    x = x.detach().requires_grad_(by_input)

    def eager() -> Any:
        y = function(x)
        return y, torch.autograd.grad(y, [*([x] if by_input else []), *(each.value for each in variables)], dy)

    return eager


def update_program(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any], *, xla: bool) -> Program:
    """Return what updates these variables once by gradients of zero, as training does; on JAX copies, in place."""
    optimizer.build(list(variables))
    gradients = [ops.zeros(each.shape, each.dtype) for each in variables]
    if keras.backend.backend() == "tensorflow":
        from alexnet_repro.backend.tensorflow_updates import fuse_updates, has_fused_updates

        if has_fused_updates(xla=xla):
            fuse_updates(optimizer)
        return _graph(lambda: optimizer.apply(gradients, list(variables)), xla=xla)
    if keras.backend.backend() == "jax":
        import jax

        state = [[ops.copy(each.value) for each in given] for given in (variables, optimizer.variables)]
        compiled = jax.jit(
            lambda weights, own, gradients: optimizer.stateless_apply(own, gradients, weights), donate_argnums=(0, 1)
        )

        def update() -> Any:
            state[:] = compiled(*state, gradients)
            return state

        return update
    return lambda: optimizer.apply(gradients, list(variables))


def _graph(function: Callable[..., Any], *, xla: bool) -> Callable[..., Any]:
    import tensorflow as tf

    return functools.partial(tf.function, autograph=False, jit_compile=xla)(function)  # type: ignore[no-any-return]
