"""Updates on TensorFlow: on one device, on all GPUs of a machine or on many machines.

A GPU holds the data set; what is sent to it are the numbers of images. Every replica takes its part of each batch, of
the same images that one device would take; gradients are summed by `tf.distribute`'s collectives (NCCL between GPUs,
rings of gRPC between CPUs).
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from alexnet_repro.data.loader import DataLoader
from alexnet_repro.model import LOSSES
from alexnet_repro.training.classifier import build_classifier
from alexnet_repro.training.recipe import Recipe

UPDATES_PER_CALL = 32  # on a GPU: some 0.1 s, of which launching is a few thousandths
GOLDEN = 0x9E3779B9  # 2**32 over the golden ratio: its multiples are far apart from each other, modulo 2**32


class TensorFlowTrainStep:
    """Keras's update as a TensorFlow graph that loops over batches by itself.

    On one device it computes bit for bit what `train_step.KerasTrainStep` does. To be made in the scope of the strategy
    that `model` was built in (`tf.distribute.Strategy.scope`), if there is one.
    """

    def __init__(
        self, model: keras.Sequential, loader: DataLoader, recipe: Recipe, *, resident: bool | None = None
    ) -> None:
        """Compile `recipe`'s update of `model`.

        Args:
            model: from `build_alexnet`.
            loader: of the training images.
            recipe: the loss, optimizer, dropout and batch size are taken from it.
            resident: whether the training images are put on each replica's device, or taken from the host's
                memory batch by batch; by default, whether there is a GPU.

        Raises:
            ValueError: a batch can't be shared equally among the replicas.
        """
        strategy = tf.distribute.get_strategy()
        replicas = strategy.num_replicas_in_sync
        if recipe.batch_size % replicas:
            raise ValueError(f"a batch of {recipe.batch_size} can't be shared equally among {replicas} replicas")
        network = build_classifier(model, recipe)
        network.optimizer.build(network.trainable_variables)
        self.variables = (*network.variables, *network.optimizer.variables)
        gpu = bool(tf.config.list_logical_devices("GPU"))
        self.updates_per_call = UPDATES_PER_CALL if gpu else 1
        self._resident, self._loader = gpu if resident is None else resident, loader
        taken = _resident(loader, replicas) if self._resident else lambda images, labels: (images, labels)
        loss_of, part = LOSSES[recipe.loss], recipe.batch_size // replicas
        if replicas > 1:
            per_replica_dropout(model)

        def batch(*sent: Any) -> tuple[Any, Any]:
            images, labels = taken(*sent)
            return network.pixels(images), labels

        # XLA makes one pass of it, on a CPU as well. A graph within a graph can't wait for other replicas; Keras
        # compiles none with XLA then, either.
        self._batch = batch if replicas > 1 else tf.function(batch, jit_compile=True)

        def update(*sent: Any) -> tuple[Any, Any]:
            first = tf.distribute.get_replica_context().replica_id_in_sync_group * part
            pixels, labels = self._batch(*(each[first : first + part] for each in sent))
            with tf.GradientTape() as tape:
                logits = network.logits(pixels, training=recipe.dropout)
                loss = tf.reduce_sum(loss_of(labels, logits)) / recipe.batch_size
                scaled = network.optimizer.scale_loss(loss)
            weights = network.trainable_weights
            gradients = tape.gradient(scaled, weights)
            if replicas > 1 and isinstance(network.optimizer, keras.optimizers.LossScaleOptimizer):
                gradients = sync_overflow(gradients)
            network.optimizer.apply(gradients, weights)
            right = tf.equal(tf.argmax(logits, axis=-1, output_type=labels.dtype), labels)
            return loss, tf.reduce_sum(tf.cast(right, tf.float32)) / recipe.batch_size

        one = update if replicas > 1 else tf.function(update, jit_compile=network.jit_compile)

        def updates(*sent: Any) -> Any:
            def shared(each: tuple[Any, ...]) -> tuple[Any, ...]:
                return tuple(strategy.reduce("SUM", result, axis=None) for result in strategy.run(one, each))

            return tf.map_fn(shared, sent, parallel_iterations=1, fn_output_signature=(tf.float32, tf.float32))

        # Of any number of batches.
        shapes = [tf.TensorSpec((None, recipe.batch_size), tf.int64)]
        if not self._resident:
            shapes = [
                tf.TensorSpec((None, recipe.batch_size, 28, 28, 1), tf.uint8),
                tf.TensorSpec((None, recipe.batch_size), tf.int32),
            ]
        self._updates = tf.function(updates, input_signature=shapes)

    def __call__(self, indices: np.ndarray) -> tuple[Any, Any]:
        """Make the updates; float32 tensors, which a GPU may still be working on."""
        losses, accuracies = self._updates(*self._sent(indices))
        return losses, accuracies

    def batch(self, numbers: np.ndarray) -> tuple[Any, Any]:
        """Return what an update sees of images by their numbers: pixels float32 `(n, h, w, 1)`, labels `(n,)`."""
        pixels, labels = self._batch(*map(tf.convert_to_tensor, self._sent(numbers)))
        return pixels, labels

    def _sent(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        return (indices,) if self._resident else self._loader.train_batch(indices)


def _resident(loader: DataLoader, replicas: int) -> Callable[[Any], tuple[Any, Any]]:
    """Put the training images on each replica's device; return what takes some of them by their numbers.

    Where there are many replicas, eight pixels are kept as one number: a variable's first value is sent from worker to
    worker, and TensorFlow's collectives don't take bytes.
    """
    images, labels = loader.all_train()
    packed = images if replicas == 1 else images.reshape(len(images), -1).view(np.int64)
    # TensorFlow keeps variables of int32 on the host, where what XLA compiles for a GPU can't read them.
    kept, answers = (tf.Variable(array, trainable=False) for array in (packed, labels.astype(np.int64)))

    def taken(numbers: Any) -> tuple[Any, Any]:
        rows = tf.gather(kept, numbers)
        if replicas > 1:
            rows = tf.reshape(tf.bitcast(rows, tf.uint8), (-1, *images.shape[1:]))
        return rows, tf.cast(tf.gather(answers, numbers), tf.int32)

    return taken


def per_replica_dropout(model: keras.Sequential) -> None:
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


def sync_overflow(gradients: Sequence[Any]) -> list[Any]:
    """Return a replica's gradients, or NaN if any replica's aren't finite: then all of them leave this update out.

    Keras 3.15 scales losses by what a single replica finds, and sums gradients up only after that
    (`LossScaleOptimizer._tf_apply`): another's infinity would be in all weights, or one worker in a collective that the
    others don't come to.
    """
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(each)) for each in gradients])
    replica = tf.distribute.get_replica_context()
    broken = replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(finite, 0.0, 1.0))
    return [tf.where(broken > 0, tf.constant(np.nan, each.dtype), each) for each in gradients]
