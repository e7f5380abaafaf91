"""How long do devices take to sum up what each has, and is the sum right? By `tf.distribute`'s own all_reduce."""

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

ROUNDS = 5  # as many on each worker: they wait for each other
IN_A_ROW = {"CPU": 1, "GPU": 10}  # all-reduces a round: launching a round takes as long as a GPU's whole all-reduce


def all_reduce(strategy: Any, shapes: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """Return the seconds that each of a few all-reduces of float32 takes, and whether it sums."""
    replicas, kind = strategy.num_replicas_in_sync, "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    with strategy.scope():
        own = [_own_variable(shape) for shape in shapes]

    def number() -> Any:
        return tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group + 1, tf.float32)

    def fill() -> None:
        for variable in own:
            variable.assign(tf.fill(variable.shape, number()))

    def summed() -> Any:
        return tf.distribute.get_replica_context().all_reduce("SUM", [variable.read_value() for variable in own])

    def first() -> Any:
        return tf.stack([tf.reshape(each, [-1])[0] for each in summed()])  # reading all of them would take its time

    def extremes() -> Any:
        return tf.stack([f(each) for each in summed() for f in (tf.reduce_min, tf.reduce_max)])

    def row(times: Any) -> Any:
        def once(_: Any) -> Any:
            return tf.stack(strategy.experimental_local_results(strategy.run(first)))

        return tf.map_fn(once, tf.range(times), parallel_iterations=1, fn_output_signature=tf.float32)

    tf.function(lambda: strategy.run(fill))()
    compiled, seconds, times = tf.function(row), [], tf.constant(IN_A_ROW[kind])
    np.asarray(compiled(times))
    for _ in range(ROUNDS):
        start = time.perf_counter()
        np.asarray(compiled(times))  # read, as TensorFlow can't wait for all devices where there are other workers
        seconds.append((time.perf_counter() - start) / IN_A_ROW[kind])
    found = strategy.experimental_local_results(tf.function(lambda: strategy.run(extremes))())
    values, right = np.concatenate([np.asarray(each) for each in found]), replicas * (replicas + 1) / 2
    wrong = None if (values == right).all() else f"the sum of 1 to {replicas} came out as {values[values != right][0]}"
    size = 4 * sum(math.prod(shape) for shape in shapes)
    return {"bytes": size, "tensors": len(shapes), "devices": replicas, "seconds": seconds, "fault": wrong}


def _own_variable(shape: tuple[int, ...]) -> Any:
    """Return a variable of which each replica has its own."""
    return tf.Variable(
        tf.zeros(shape),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )
