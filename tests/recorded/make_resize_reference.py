"""Record where TensorFlow 2.0.0's `resize_with_pad` puts an image, for many sizes and targets.

Run with Python 3.7 and tensorflow==2.0.0 (protobuf<3.21, h5py<3, numpy<1.19):

    python make_resize_reference.py resize_tf_2.0.0.json

`boxes` holds, for each target, rows of (height, width, top, left, content height, content width):
every square size from 1 to 400, and 400 others drawn by RandomState(0). `images` holds, for some
sizes, 32 values of the resized RandomState(0) image, at indices spread over the flattened result.
Sizes that TensorFlow 2.0.0 refuses (a side of the content would be 0) are left out.
"""

import json
import os
import platform
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
import numpy as np
import tensorflow as tf

TARGETS = [(224, 224), (227, 227), (100, 37), (32, 48)]
IMAGES = [(28, 28), (9, 9), (57, 57), (1, 1), (224, 224), (400, 400), (37, 91), (399, 40), (300, 301), (5, 7)]


def box(size, target):
    content = tf.image.resize_with_pad(np.ones((1,) + size + (1,), np.float32), *target).numpy()[0, :, :, 0] > 0
    rows, columns = np.flatnonzero(content.any(1)), np.flatnonzero(content.any(0))
    return [int(n) for n in size + (rows[0], columns[0], len(rows), len(columns))]


def picked(size, target):
    image = np.random.RandomState(0).random_sample((1,) + size + (2,)).astype(np.float32)
    flat = tf.image.resize_with_pad(image, *target).numpy().ravel()
    return [float(v) for v in flat[np.linspace(0, flat.size - 1, 32).astype(int)]]


draw = np.random.RandomState(0).randint(1, 401, (400, 2))
sizes = [(s, s) for s in range(1, 401)] + [(int(h), int(w)) for h, w in draw]
boxes, images = [], []
for target in TARGETS:
    rows = []
    for size in sizes:
        try:
            rows.append(box(size, target))
        except tf.errors.InvalidArgumentError:
            pass
    boxes.append({"target": target, "rows": rows})
    images += [{"target": target, "size": size, "values": picked(size, target)} for size in IMAGES]
provenance = {"tensorflow": tf.__version__, "numpy": np.__version__, "python": platform.python_version(),
              "machine": platform.machine(), "device": "CPU"}  # fmt: skip
json.dump({"provenance": provenance, "boxes": boxes, "images": images}, open(sys.argv[1], "w"))
