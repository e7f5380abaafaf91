"""What replicas do within an update: `python replicas.py REPLICAS FILE`, on logical devices of the CPU.

They must be set up before TensorFlow starts, so this is a process of its own. It saves a NumPy archive: each replica's
labels and logits, with dropout off and on, and the weights after the update.
"""

import dataclasses
import sys
from collections import defaultdict

import keras
import numpy as np
import tensorflow as tf

from alexnet_repro import DataLoader, Recipe
from alexnet_repro.model import softmax
from alexnet_repro.training import tensorflow_step as module
from alexnet_repro.training.tensorflow_step import TensorFlowTrainStep

BATCH, RATE = 8, 0.5
RECIPE = dataclasses.replace(
    Recipe.quick(), optimizer="sgd", optimizer_arguments={}, learning_rate=RATE, warmup_updates=0, cosine_decay=False,
    draw_size=BATCH, batch_size=BATCH, loss="softmax",
)  # fmt: skip


def data():
    """Return eight images for each of ten labels: noise, so that no two are alike."""
    images = np.random.default_rng(0).integers(0, 256, (80, 28, 28), np.uint8)
    return images, np.arange(80) % 10


def weights():
    """Return a kernel and a bias."""
    random = np.random.default_rng(1)
    return [random.normal(0, 0.05, (784, 10)).astype(np.float32), random.normal(0, 0.05, 10).astype(np.float32)]


def model():
    """Return a network of one layer behind dropout, which a few lines of NumPy can follow."""
    keras.utils.set_random_seed(0)
    built = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(10, activation="sigmoid", dtype="float32"),
        ]
    )
    built.set_weights(weights())
    return built


def seen(strategy, rows, *, dropout=False, resident=False):
    """Make an update of each row; returns what each replica saw, losses, accuracies and weights."""
    spied = defaultdict(list)

    def spy(replica, labels, logits):
        spied[int(replica)].append((labels, logits))
        return np.float32(0)

    def spying(labels, logits):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        nothing = tf.stop_gradient(tf.numpy_function(spy, [replica, labels, logits], tf.float32))
        nothing.set_shape(())
        return softmax(labels, logits) + nothing

    module.LOSSES = {"softmax": spying}
    with strategy.scope():
        network = model()
        loader = DataLoader.from_arrays(data(), data(), seed=0)
        size = rows.shape[1]
        recipe = dataclasses.replace(RECIPE, draw_size=size, batch_size=size, dropout=dropout)
        step = TensorFlowTrainStep(network, loader, recipe, resident=resident)
    losses, accuracies = step(rows)
    labels = [np.stack([labels for labels, _ in spied[replica]]) for replica in sorted(spied)]
    logits = [np.stack([logits for _, logits in spied[replica]]) for replica in sorted(spied)]
    kernel, bias = network.get_weights()
    return {"labels": np.stack(labels), "logits": np.stack(logits), "kernel": kernel, "bias": bias,
            "losses": losses, "accuracies": accuracies}  # fmt: skip


def overflowed(strategy, rows):
    """Make updates of float16 in which the last replica's loss is infinite; returns weights and the losses' scale."""

    def overflowing(labels, logits):
        last = tf.distribute.get_replica_context().replica_id_in_sync_group == strategy.num_replicas_in_sync - 1
        return softmax(labels, logits) * tf.where(last, np.float32(np.inf), np.float32(1))

    module.LOSSES = {"softmax": overflowing}
    keras.config.set_dtype_policy("mixed_float16")
    with strategy.scope():
        network = model()
        step = TensorFlowTrainStep(network, DataLoader.from_arrays(data(), data(), seed=0), RECIPE)
    step(rows)
    keras.config.set_dtype_policy("float32")
    (scale,) = (each for each in step.variables if each.name == "dynamic_scale")
    kernel, bias = network.get_weights()
    return {"overflowed_kernel": kernel, "overflowed_bias": bias, "overflowed_scale": np.asarray(scale)}


def main(replicas, path):
    """Keep one update of a batch, its images sent or on the devices, dropout's answers to one image eight times, and an
    update in which a replica overflows.
    """
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(replicas)])
    rows = np.random.default_rng(2).choice(80, (1, BATCH), replace=False)
    kept = {"rows": rows}
    for place in ("sent", "resident"):
        found = seen(strategy, rows, resident=place == "resident")
        kept |= {f"{place}_{name}": each for name, each in found.items()}
    kept["masked"] = seen(strategy, np.zeros((1, BATCH), np.int64), dropout=True)["logits"]
    kept |= overflowed(strategy, rows)
    try:
        seen(strategy, np.zeros((1, BATCH + 1), np.int64))
    except ValueError as error:
        kept["refused"] = str(error)
    np.savez(path, **kept)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
