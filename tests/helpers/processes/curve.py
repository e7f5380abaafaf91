"""Learning curves over seeds: `python curve.py FILE REPLICAS`, or `curve.py FILE ADDRESSES TASK`.

Of one device and of replicas on parts of the CPU, which must be set up before TensorFlow starts; or of one of the
workers at these addresses, separated by commas. It saves the losses of every update by seed: of `one` device, of the
`replicas` on the same batches, and of one device that trains like replicas whose gradients are summed, not averaged
(`summed`).
"""

import dataclasses
import sys

import keras
import numpy as np
import tensorflow as tf

from alexnet_repro import DataLoader, Recipe, synthetic_fashion
from alexnet_repro.backend.devices import split_cpu
from alexnet_repro.training.distributed.cluster import Cluster
from alexnet_repro.training.distributed.strategy import multi_worker_strategy
from alexnet_repro.training.tensorflow_step import TensorFlowTrainStep

SEEDS, UPDATES, BATCH, RATE = 30, 120, 12, 0.05
RECIPE = dataclasses.replace(
    Recipe.quick(), optimizer="sgd", optimizer_arguments={}, warmup_updates=0, cosine_decay=False, draw_size=BATCH,
    batch_size=BATCH, dropout=True,
)  # fmt: skip


def build():
    """Return a small network of the same kinds of layers as AlexNet has, dropout included."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(8, 5, strides=2, activation="relu"),
            keras.layers.MaxPooling2D(3, 2),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(10, activation="sigmoid", dtype="float32"),
        ]
    )


def curves(strategy, rate=RATE):
    """Return each seed's losses, with first weights, images and masks of its own."""
    loader = DataLoader.from_arrays(*synthetic_fashion(2000, 40, seed=0), seed=0)
    with strategy.scope():
        model = build()
        step = TensorFlowTrainStep(model, loader, dataclasses.replace(RECIPE, learning_rate=rate))
    (dropout,) = (layer for layer in model.layers if isinstance(layer, keras.layers.Dropout))
    losses = []
    for seed in range(SEEDS):
        random = np.random.default_rng(seed)
        model.set_weights([random.normal(0, (2 / max(1, np.prod(each.shape[:-1]))) ** 0.5, each.shape) * (each.ndim > 1)
                           for each in model.trainable_weights])  # fmt: skip
        dropout.seed_generator.state.assign([seed, 0])
        losses.append(np.asarray(step(random.integers(0, loader.num_train, (UPDATES, BATCH)))[0]))
    return np.stack(losses)


def main(path, whom, task=None):
    """Keep all curves, or those that the workers have together."""
    if task is not None:
        np.savez(path, replicas=curves(multi_worker_strategy(Cluster(tuple(whom.split(",")), int(task)))))
        return
    split_cpu(int(whom))
    one, every = (tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(count)]) for count in (1, int(whom)))
    np.savez(path, one=curves(one), replicas=curves(every), summed=curves(one, RATE * int(whom)))


if __name__ == "__main__":
    main(*sys.argv[1:])
