"""Updates on TensorFlow, on one device, all GPUs of a machine or many machines; the data set stays on the devices.

Every replica takes its part of each batch, of the same images that one device would take; gradients are summed by
`tf.distribute`'s collectives (NCCL between GPUs, rings of gRPC between CPUs).
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from alexnet_repro.data.loader import DataLoader
from alexnet_repro.losses import LOSSES
from alexnet_repro.network import compiled_network
from alexnet_repro.recipe import Recipe

UPDATES_AT_ONCE = 32  # on a GPU: some 0.1 s, of which launching is a few thousandths
GOLDEN = 0x9E3779B9  # 2**32 over the golden ratio: its multiples are far apart from each other, modulo 2**32


class TensorFlowStep:
    """Keras's update as a TensorFlow graph that gathers its batches on the device and loops by itself.

    On one device it computes bit for bit what `alexnet_repro.steps.KerasStep` does. To be made in the scope
    of the strategy that `model` was built in (`tf.distribute.Strategy.scope`), if there is one.
    """

    def __init__(self, model: keras.Sequential, loader: DataLoader, recipe: Recipe) -> None:
        """Put `loader`'s training images on each replica's device, and compile `recipe`'s update of `model`.

        Raises:
            ValueError: a batch can't be shared equally among the replicas.
        """
        strategy = tf.distribute.get_strategy()
        replicas = strategy.num_replicas_in_sync
        if recipe.batch_size % replicas:
            raise ValueError(f"a batch of {recipe.batch_size} can't be shared equally among {replicas} replicas")
        network = compiled_network(model, recipe)
        network.optimizer.build(network.trainable_variables)
        self.variables = (*network.variables, *network.optimizer.variables)
        self.updates_at_once = UPDATES_AT_ONCE if tf.config.list_logical_devices("GPU") else 1
        images, labels = (tf.Variable(array, trainable=False) for array in _stored(loader, replicas))
        loss_of, part = LOSSES[recipe.loss], recipe.batch_size // replicas
        if replicas > 1:
            own_masks(model)

        def pixels(numbers: Any) -> Any:
            return network.pixels(_bytes(tf.gather(images, numbers)))

        # XLA makes one pass of it, on a CPU as well. A graph within a graph can't wait for other replicas; Keras
        # compiles none with XLA then, either.
        self.pixels = pixels if replicas > 1 else tf.function(pixels, jit_compile=True)

        def update(indices: Any) -> tuple[Any, Any]:
            first = tf.distribute.get_replica_context().replica_id_in_sync_group * part
            own = indices[first : first + part]
            seen, answers = self.pixels(own), tf.gather(labels, own)
            with tf.GradientTape() as tape:
                logits = network.logits(seen, training=recipe.dropout)
                loss = tf.reduce_sum(loss_of(answers, logits)) / recipe.batch_size
                scaled = network.optimizer.scale_loss(loss)
            weights = network.trainable_weights
            network.optimizer.apply(tape.gradient(scaled, weights), weights)
            right = tf.equal(tf.argmax(logits, axis=-1, output_type=answers.dtype), answers)
            return loss, tf.reduce_sum(tf.cast(right, tf.float32)) / recipe.batch_size

        one = update if replicas > 1 else tf.function(update, jit_compile=network.jit_compile)

        def updates(indices: Any) -> Any:
            def shared(batch: Any) -> tuple[Any, ...]:
                return tuple(strategy.reduce("SUM", each, axis=None) for each in strategy.run(one, (batch,)))

            return tf.map_fn(shared, indices, parallel_iterations=1, fn_output_signature=(tf.float32, tf.float32))

        numbers = tf.TensorSpec((None, recipe.batch_size), tf.int64)
        self._updates = tf.function(updates, input_signature=[numbers])

    def __call__(self, indices: np.ndarray) -> tuple[Any, Any]:
        """Make the updates; float32 tensors, which a GPU may still be working on."""
        losses, accuracies = self._updates(indices)
        return losses, accuracies


def _stored(loader: DataLoader, replicas: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels as they are kept on the device: eight pixels a number where there are many replicas.

    A variable's first value is sent from worker to worker, and TensorFlow's collectives don't take bytes.
    """
    images, labels = loader.all_train()
    return images if replicas == 1 else images.reshape(len(images), -1).view(np.int64), labels


def _bytes(stored: Any) -> Any:
    if stored.dtype == tf.uint8:
        return stored
    return tf.reshape(tf.bitcast(stored, tf.uint8), (-1, 28, 28, 1))


def own_masks(model: keras.Sequential) -> None:
    """Have each replica draw dropout masks of its own; Keras's generators give all of them the same.

    The first replica's stay what they were on one device.
    """
    for layer in model.layers:
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            generator.next = _apart(generator.next)


def _apart(following: Any) -> Any:
    def own(*args: Any, **kwargs: Any) -> Any:
        seed = following(*args, **kwargs)
        replica = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int64)
        return seed + tf.cast(tf.stack([replica * GOLDEN % 2**32, tf.zeros((), tf.int64)]), seed.dtype)

    return own
