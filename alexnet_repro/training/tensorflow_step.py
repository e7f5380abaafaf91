"""The train step on TensorFlow: on one device, on all GPUs of a machine or on several machines.

On a GPU the data set stays on the device, and only training-image indices are sent. Each replica takes its part of each
batch, of the same images that a single device would take; `tf.distribute`'s collectives sum the gradients (NCCL between
GPUs, rings of gRPC between CPUs).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Unpack

import keras
import numpy as np
import tensorflow as tf

from alexnet_repro.backend.tensorflow_loop import mapped
from alexnet_repro.backend.tensorflow_updates import fuse_updates, has_fused_updates
from alexnet_repro.data.loader import DataLoader
from alexnet_repro.model import LOSSES
from alexnet_repro.training.classifier import CompileOptions, build_classifier
from alexnet_repro.training.recipe import Recipe

UPDATES_PER_CALL = 32  # on a GPU: about 0.1 s, of which launching takes a few milliseconds
SEED_STRIDE = 0x9E3779B9  # 2**32 over the golden ratio: its multiples are far apart from each other, modulo 2**32


class TensorFlowTrainStep:
    """Keras's update as a TensorFlow graph that loops over batches by itself; a `train_step.TrainStep`.

    On one device it computes bit for bit what `train_step.KerasTrainStep` does. Make it in the scope of the strategy
    that `model` was built in (`tf.distribute.Strategy.scope`), if there is one.
    """

    def __init__(
        self,
        model: keras.Sequential,
        loader: DataLoader,
        recipe: Recipe,
        *,
        resident: bool | None = None,
        **options: Unpack[CompileOptions],
    ) -> None:
        """Compile `recipe`'s update of `model`; the arguments are `train_step.best_train_step`'s.

        `resident` is whether each replica's device holds all training images and only indices are sent, or images and
        labels are sent batch by batch; by default, whether there is a GPU.

        Raises:
            ValueError: the batch can't be shared equally among the replicas.
        """
        self._strategy = tf.distribute.get_strategy()
        self._replicas = self._strategy.num_replicas_in_sync
        if recipe.batch_size % self._replicas:
            raise ValueError(f"a batch of {recipe.batch_size} can't be shared equally among {self._replicas} replicas")
        self.classifier = build_classifier(model, recipe, **options)
        self.variables = (*self.classifier.variables, *self.classifier.optimizer.variables)
        gpu = bool(tf.config.list_logical_devices("GPU"))
        if has_fused_updates(xla=self.classifier.jit_compile):
            fuse_updates(self.classifier.optimizer)
        self.updates_per_call = UPDATES_PER_CALL if gpu else 1
        self._recipe, self._loader, self._loss = recipe, loader, LOSSES[recipe.loss]
        self._resident = gpu if resident is None else resident
        batches = (None, recipe.batch_size)  # of any number of updates
        if self._resident:
            self._images, self._labels = self._on_each_device()
            signature = [tf.TensorSpec(batches, tf.int64)]
        else:
            signature = [tf.TensorSpec((*batches, 28, 28, 1), tf.uint8), tf.TensorSpec(batches, tf.int32)]
        self._compiled_preprocess, self._compiled_update = self._preprocess, self._update_replica
        if self._replicas == 1:
            # A graph within a graph can't wait for other replicas; Keras compiles none with XLA then, either.
            graph = partial(tf.function, autograph=False)  # no Python control flow to convert, which takes its time
            self._compiled_preprocess = graph(self._preprocess, jit_compile=True)  # one pass, on a CPU as well
            self._compiled_update = graph(self._update_replica, jit_compile=self.classifier.jit_compile)
        else:
            per_replica_dropout(model)
        self._compiled_updates = tf.function(self._run_updates, input_signature=signature, autograph=False)

    def __call__(self, indices: np.ndarray) -> tuple[Any, Any]:
        """Make the updates; float32 tensors, which a GPU may still be computing."""
        results: tuple[Any, Any] = self._compiled_updates(*self._sent(indices))
        return results

    def batch(self, indices: np.ndarray) -> tuple[Any, Any]:
        """Return an update's input, of training-image indices: pixels float32 `(n, h, w, 1)`, labels `(n,)`."""
        pixels, labels = self._compiled_preprocess(*map(tf.convert_to_tensor, self._sent(indices)))
        return pixels, labels

    def _sent(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        return (indices,) if self._resident else self._loader.train_batch(indices)

    def _on_each_device(self) -> tuple[Any, Any]:
        """Return variables with all training images and labels, on each replica's device.

        With several replicas, eight pixels are packed into one integer: a variable's first value is sent from worker to
        worker, and TensorFlow's collectives don't take bytes. Labels are int64: TensorFlow keeps variables of int32 on
        the host, where what XLA compiles for a GPU can't read them.
        """
        images, labels = self._loader.all_train()
        packed = images if self._replicas == 1 else images.reshape(len(images), -1).view(np.int64)
        return tf.Variable(packed, trainable=False), tf.Variable(labels.astype(np.int64), trainable=False)

    def _gather(self, indices: Any) -> tuple[Any, Any]:
        """Return resident images uint8 `(n, 28, 28, 1)` and labels int32 `(n,)` by their indices."""
        images = tf.gather(self._images, indices)
        if self._replicas > 1:
            images = tf.reshape(tf.bitcast(images, tf.uint8), (-1, 28, 28, 1))
        return images, tf.cast(tf.gather(self._labels, indices), tf.int32)

    def _preprocess(self, *sent: Any) -> tuple[Any, Any]:
        images, labels = self._gather(*sent) if self._resident else sent
        return self.classifier.pixels(images), labels

    def _update_replica(self, *sent: Any) -> tuple[Any, Any]:
        """Update by this replica's part of a batch, and return its shares of the batch's loss and accuracy."""
        batch_size, classifier, optimizer = self._recipe.batch_size, self.classifier, self.classifier.optimizer
        part = batch_size // self._replicas
        first = tf.distribute.get_replica_context().replica_id_in_sync_group * part
        pixels, labels = self._compiled_preprocess(*(each[first : first + part] for each in sent))
        with tf.GradientTape() as tape:
            logits = classifier.logits(pixels, training=self._recipe.dropout)
            loss = tf.reduce_sum(self._loss(labels, logits)) / batch_size
            scaled = optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, classifier.trainable_weights)
        if self._replicas > 1 and isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            gradients = sync_overflow(gradients)
        optimizer.apply(gradients, classifier.trainable_weights)
        right = tf.equal(tf.argmax(logits, axis=-1, output_type=labels.dtype), labels)
        return loss, tf.reduce_sum(tf.cast(right, tf.float32)) / batch_size

    def _run_updates(self, *sent: Any) -> Any:
        """Make an update of each batch, and return losses and accuracies summed over replicas, `(updates,)` each."""

        def one(number: Any) -> list[Any]:
            found = self._strategy.run(self._compiled_update, [each[number] for each in sent])
            return [self._strategy.reduce("SUM", each, axis=None) for each in found]

        return mapped(one, tf.shape(sent[0])[0], results=2)


def per_replica_dropout(model: keras.Sequential) -> None:
    """Give each replica dropout masks of its own; Keras's generators give all of them the same.

    The first replica's masks are those of a single device.
    """

    def own_seed(shared_seed: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        seed = shared_seed(*args, **kwargs)
        replica = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int64)
        return seed + tf.cast(tf.stack([replica * SEED_STRIDE % 2**32, tf.zeros((), tf.int64)]), seed.dtype)

    for layer in model.layers:
        if generator := getattr(layer, "seed_generator", None):
            generator.next = partial(own_seed, generator.next)


def sync_overflow(gradients: Sequence[Any]) -> list[Any]:
    """Return a replica's gradients, or NaN if any replica's aren't finite: then all replicas skip this update.

    Keras 3.15 decides on a loss scale from a single replica's gradients, before it sums them over replicas
    (`LossScaleOptimizer._tf_apply`): another replica's infinity would get into all weights, or one worker would enter a
    collective that the others don't.
    """
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(each)) for each in gradients])
    replica = tf.distribute.get_replica_context()
    broken = replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(finite, 0.0, 1.0))
    return [tf.where(broken > 0, tf.constant(np.nan, each.dtype), each) for each in gradients]
