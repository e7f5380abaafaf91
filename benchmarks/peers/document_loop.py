"""The document's own loop, as it stands there, timed: under TensorFlow 2.0.0 (Python 3.7) and under today's.

    python -m benchmarks.peers.document_loop [ITERATIONS]

Prints the seconds of each iteration (128 images drawn, resized, and fitted in four updates of 32) as JSON.
Images are random: speed doesn't depend on them. It imports nothing of this package, which needs a newer Python.
"""

import argparse
import json
import platform
import time

PARSER = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
PARSER.add_argument("iterations", type=int, nargs="?", default=5)
ITERATIONS = PARSER.parse_args().iterations  # before TensorFlow is imported, which takes seconds

import numpy as np
import tensorflow as tf


class DataLoader:
    """As documented, but for where the images come from."""

    def __init__(self):
        random = np.random.RandomState(0)
        self.train_images = random.randint(0, 256, (60000, 28, 28, 1)).astype(np.float32) / 255.0
        self.train_labels = random.randint(0, 10, 60000).astype(np.int32)
        self.num_train = len(self.train_images)

    def get_batch_train(self, batch_size):
        index = np.random.randint(0, self.num_train, batch_size)
        resized_images = tf.image.resize_with_pad(self.train_images[index], 224, 224)
        return resized_images.numpy(), self.train_labels[index]


layers = tf.keras.layers
net = tf.keras.models.Sequential(
    [
        layers.Conv2D(filters=96, kernel_size=11, strides=4, activation="relu"),
        layers.MaxPool2D(pool_size=3, strides=2),
        layers.Conv2D(filters=256, kernel_size=5, padding="same", activation="relu"),
        layers.MaxPool2D(pool_size=3, strides=2),
        layers.Conv2D(filters=384, kernel_size=3, padding="same", activation="relu"),
        layers.Conv2D(filters=384, kernel_size=3, padding="same", activation="relu"),
        layers.Conv2D(filters=256, kernel_size=3, padding="same", activation="relu"),
        layers.MaxPool2D(pool_size=3, strides=2),
        layers.Flatten(),
        layers.Dense(4096, activation="relu"),
        layers.Dropout(0.5),
        layers.Dense(4096, activation="relu"),
        layers.Dropout(0.5),
        layers.Dense(10, activation="sigmoid"),
    ]
)
net.compile(optimizer=tf.keras.optimizers.SGD(0.01), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
loader = DataLoader()
seconds, draws = [], []
for _ in range(1 + ITERATIONS):  # the first traces
    start = time.perf_counter()
    x_batch, y_batch = loader.get_batch_train(128)
    draws.append(time.perf_counter() - start)
    net.fit(x_batch, y_batch, verbose=0)
    seconds.append(time.perf_counter() - start)
case = {"what": "the document's loop, an iteration of 128 images", "tensorflow": tf.__version__}
case["device"] = "GPU" if tf.config.experimental.list_physical_devices("GPU") else "CPU"
case.update({"python": platform.python_version(), "seconds": seconds[1:], "of which drawing and resizing": draws[1:]})
print(json.dumps(case))
