"""Updates on TensorFlow: the data set stays on the device, and many updates are made at one call."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from alexnet_repro.data.loader import DataLoader
from alexnet_repro.losses import LOSSES
from alexnet_repro.network import compiled_network
from alexnet_repro.recipe import Recipe

UPDATES_AT_ONCE = 32  # on a GPU: some 0.1 s, of which launching is a few thousandths


class TensorFlowStep:
    """Keras's update as a TensorFlow graph that gathers its batches on the device and loops by itself.

    Bit for bit what `alexnet_repro.steps.KerasStep` computes; what is sent are the images' numbers.
    """

    def __init__(self, model: keras.Sequential, loader: DataLoader, recipe: Recipe) -> None:
        """Put `loader`'s training images where tensors go by default, and compile `recipe`'s update of `model`."""
        network = compiled_network(model, recipe)
        network.optimizer.build(network.trainable_variables)
        self.variables = (*network.variables, *network.optimizer.variables)
        self.updates_at_once = UPDATES_AT_ONCE if tf.config.list_logical_devices("GPU") else 1
        images, labels = (tf.constant(array) for array in loader.all_train())
        loss_of = LOSSES[recipe.loss]

        def update(batch: Any, answers: Any) -> tuple[Any, Any]:
            with tf.GradientTape() as tape:
                logits = network(batch, training=True)
                loss = tf.reduce_sum(loss_of(answers, logits)) / recipe.batch_size
                scaled = network.optimizer.scale_loss(loss)
            weights = network.trainable_weights
            network.optimizer.apply(tape.gradient(scaled, weights), weights)
            right = tf.equal(tf.argmax(logits, axis=-1, output_type=answers.dtype), answers)
            return loss, tf.reduce_mean(tf.cast(right, tf.float32))

        compiled = tf.function(update, jit_compile=network.jit_compile)

        def updates(indices: Any) -> Any:
            return tf.map_fn(
                lambda batch: compiled(tf.gather(images, batch), tf.gather(labels, batch)),
                indices,
                parallel_iterations=1,
                fn_output_signature=(tf.float32, tf.float32),
            )

        numbers = tf.TensorSpec((None, recipe.batch_size), tf.int64)
        self._updates = tf.function(updates, input_signature=[numbers])

    def __call__(self, indices: np.ndarray) -> tuple[Any, Any]:
        """Make the updates; float32 tensors, which a GPU may still be working on."""
        losses, accuracies = self._updates(indices)
        return losses, accuracies
