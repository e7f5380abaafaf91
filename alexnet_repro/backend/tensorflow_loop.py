"""A loop of TensorFlow's in which no iteration waits for a GPU."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def mapped(function: Callable[[Any], Sequence[Any]], count: Any, results: int) -> tuple[Any, ...]:
    """Return what `function` returns for 0 to `count - 1`, int32, in turn: `results` tensors, each stacked.

    The tensors are float32; each has one shape throughout. `tf.map_fn`, as any loop with a maximum of iterations,
    combines two conditions on the GPU, and waits for it at each iteration.
    """

    def one(number: Any, *arrays: Any) -> tuple[Any, ...]:
        found = function(number)
        return number + 1, *(array.write(number, each) for array, each in zip(arrays, found, strict=True))

    arrays = [tf.TensorArray(tf.float32, count) for _ in range(results)]
    _, *arrays = tf.while_loop(lambda number, *_: number < count, one, (0, *arrays), parallel_iterations=1)
    return tuple(array.stack() for array in arrays)
