"""Record what a sigmoid head under `sparse_categorical_crossentropy` is worth in TensorFlow 2.0.0.

Run with Python 3.7 and tensorflow==2.0.0 (protobuf<3.21, h5py<3, numpy<1.19):

    python make_loss_reference.py loss_tf_2.0.0.json

Each case is one row of logits, most of them within and beyond the clip at 1e-7 and 1 - 1e-7
(logits of about -16.1 and 16.1). Recorded: the loss for each label, and its gradient by the logits.
"""

import json
import os
import platform
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
import numpy as np
import tensorflow as tf

draw = np.random.RandomState(0)
ROWS = [
    [0.0, 0.0, 0.0, 0.0],
    [1.0, -2.0, 3.0, 0.5],
    [10.0, -10.0, 5.0, -5.0],
    [15.0, -15.0, 14.0, -14.0],
    [20.0, -20.0, 1.0, -1.0],
    [1e4, -1e4, 0.0, 2.0],
    [1e4, 1e4, 1e4, 1e4],
    [-1e4, -1e4, -1e4, -1e4],
] + (4 * draw.standard_normal((4, 4))).tolist()

cases = []
for row in ROWS:
    for label in range(4):
        logits = tf.constant([row], tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = tf.keras.losses.sparse_categorical_crossentropy([label], tf.sigmoid(logits))
        gradient = tape.gradient(loss, logits).numpy()[0]
        cases.append({"logits": row, "label": label, "loss": float(loss.numpy()[0]), "gradient": [float(g) for g in gradient]})
provenance = {"tensorflow": tf.__version__, "numpy": np.__version__, "python": platform.python_version(),
              "machine": platform.machine(), "device": "CPU"}  # fmt: skip
json.dump({"provenance": provenance, "cases": cases}, open(sys.argv[1], "w"), indent=1)
