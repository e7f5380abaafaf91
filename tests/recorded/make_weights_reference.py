"""Save a shortened AlexNet's weights and the whole model, as TensorFlow 2.0.0 does: weights_ and model_tf_2.0.0.h5.

And in its own format, in folders: checkpoint_ and saved_model_tf_2.0.0; of the latter, what the model computes is left
out, which nothing reads.

Run under Python 3.7 with tensorflow==2.0.0, protobuf<3.21, numpy<1.19, h5py<3:

    python make_weights_reference.py

Its weights are no result of training: entry n of variable k is k + n / 64, which float32 holds exactly.
"""

import os

import numpy as np
import tensorflow as tf

FOLDER = os.path.dirname(os.path.abspath(__file__))

layers = tf.keras.layers
model = tf.keras.models.Sequential(
    [
        layers.Conv2D(2, 3, activation="relu", input_shape=(6, 6, 1)),
        layers.MaxPool2D(pool_size=2),
        layers.Flatten(),
        layers.Dense(5, activation="relu"),
        layers.Dropout(0.5),
        layers.Dense(3, activation="sigmoid"),
    ]
)
model.compile(optimizer=tf.keras.optimizers.Adam(), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.train_on_batch(np.zeros((1, 6, 6, 1), np.float32), np.zeros(1, np.int32))  # so that the optimizer has a state
model.set_weights(
    [k + np.arange(w.size, dtype=np.float32).reshape(w.shape) / 64 for k, w in enumerate(model.get_weights())]
)
model.save_weights(os.path.join(FOLDER, "weights_tf_2.0.0.h5"))
model.save(os.path.join(FOLDER, "model_tf_2.0.0.h5"))
model.save_weights(os.path.join(FOLDER, "checkpoint_tf_2.0.0", "weights"), save_format="tf")
saved_model = os.path.join(FOLDER, "saved_model_tf_2.0.0")
model.save(saved_model, save_format="tf")
os.remove(os.path.join(saved_model, "saved_model.pb"))
os.rmdir(os.path.join(saved_model, "assets"))
