"""Files of weights for tests, by TensorFlow 2.0.0 and by Keras 3, and the model that they are of."""

import shutil
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np

from tests.helpers.paths import RECORDED

# Written by TensorFlow 2.0.0 itself: tests/recorded/make_weights_reference.py. Files of other content are made from
# these.
WEIGHTS_2_0_0, MODEL_2_0_0 = (RECORDED / f"{name}_tf_2.0.0.h5" for name in ("weights", "model"))
CHECKPOINT_2_0_0, SAVED_MODEL_2_0_0 = (RECORDED / f"{name}_tf_2.0.0" for name in ("checkpoint", "saved_model"))
SHAPES = [(3, 3, 1, 2), (2,), (8, 5), (5,), (5, 3), (3,)]


def expected():
    """Return the recorded files' weights, as make_weights_reference.py says: entry n of variable k is k + n / 64."""
    return [k + np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 64 for k, shape in enumerate(SHAPES)]


def shortened(extra=()):
    """Return a shortened AlexNet of zeros, with the names that the documented layers have too."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(2, 3, activation="relu", kernel_initializer="zeros", name="conv2d"),
            layers.MaxPooling2D(2, name="max_pooling2d"),
            layers.Flatten(name="flatten"),
            layers.Dense(5, activation="relu", kernel_initializer="zeros", name="dense"),
            layers.Dropout(0.5, name="dropout"),
            layers.Dense(3, activation="sigmoid", kernel_initializer="zeros", name="dense_1"),
            *extra,
        ],
        name="shortened",
    )


def assert_weights(model, arrays):
    """Compare a model's weights with arrays, bit for bit."""
    for found, array in zip(model.get_weights(), arrays, strict=True):
        np.testing.assert_array_equal(found, array, strict=True)


def trained():
    """Return a model that Keras 3 saves: with the recorded weights, compiled, its optimizer built."""
    model = shortened()
    model.set_weights(expected())
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def keras_2_13(path):
    """Write HDF5 as Keras 2.12 and 2.13 do, which count each layer with weights twice; layers without are empty."""
    with h5py.File(path, "w") as file:
        file.create_group("vars")
        layers = file.create_group("_layer_checkpoint_dependencies")
        for n, name in enumerate(("conv2d", "dense", "dense_2")):
            for k in range(2):
                layers.create_dataset(f"{name}/vars/{k}", data=expected()[2 * n + k])
        for name in ("dropout", "flatten", "max_pooling2d"):
            layers.create_group(f"{name}/vars")


def keras_2_13_archive(path):
    """Write a `.keras` archive of that."""
    keras_2_13(path.with_name("inside"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", '{"class_name": "Sequential", "config": {"layers": []}}')
        archive.write(path.with_name("inside"), "model.weights.h5")
    path.with_name("inside").unlink()


LAYOUTS = {
    "tensorflow_2.0.0-weights": lambda path: shutil.copy(WEIGHTS_2_0_0, path / "a.h5"),
    "tensorflow_2.0.0-model": lambda path: shutil.copy(MODEL_2_0_0, path / "a.h5"),
    "keras_2.13-weights": lambda path: keras_2_13(path / "a.weights.h5"),
    "keras_2.13-archive": lambda path: keras_2_13_archive(path / "a.keras"),
    "keras_3-weights": lambda path: trained().save_weights(path / "a.weights.h5"),
    "keras_3-archive": lambda path: trained().save(path / "a.keras"),
    "keras_3-model": lambda path: trained().save(path / "a.h5"),
}


def edited(folder, change, source=WEIGHTS_2_0_0):
    """Return a copy of a recorded file, as `change` left the open HDF5 file."""
    path = Path(shutil.copy(source, folder / "edited.h5"))
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def named_by_a_second_model(file):
    """Rename the layers as TensorFlow 2.0.0 names them of a second model in the same process."""
    for old, new in (("conv2d", "conv2d_5"), ("dense_1", "dense_4"), ("dense", "dense_3")):
        file.move(old, new)
    file.attrs["layer_names"] = np.array(
        [b"conv2d_5", b"max_pooling2d_3", b"flatten_1", b"dense_3", b"dropout_2", b"dense_4"]
    )
    for empty in ("max_pooling2d_3", "flatten_1", "dropout_2"):
        file.create_group(empty).attrs["weight_names"] = np.array([])
