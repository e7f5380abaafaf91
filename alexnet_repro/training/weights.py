"""A model's weights on disk, saved and loaded atomically."""

import contextlib
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import keras
from keras import ops

from alexnet_repro.files import atomic_path, check_room
from alexnet_repro.locks import locked
from alexnet_repro.training.history import TrainingDivergedError
from alexnet_repro.training.weights_file import DIGEST_ATTRIBUTE, LOSS_ATTRIBUTE, arrays_digest, read_weights

SUFFIX = ".weights.h5"
OTHER_FILE = "name another file: --weights=FILE"


def check_weights_path(path: str | os.PathLike[str]) -> Path:
    """Return where `path` leads, checked before a training that weights can be saved there after it.

    A link stays one, and points to the new file. Its folder is made.

    Raises:
        ValueError: `path` doesn't end in `.weights.h5`, which Keras requires.
        OSError: it is a folder, or can't be replaced, or HDF5 can't write beside it; the message has the reason and
            the fix.
    """
    path = Path(path)
    if not path.name.endswith(SUFFIX):
        raise ValueError(f"weights are saved under a name that ends in {SUFFIX}; got {path}")
    if os.path.isdir(path):  # noqa: PTH112 - of a name too long, Path.is_dir raises
        raise IsADirectoryError(f"{path} is a folder; name a file in it")
    path = Path(os.path.realpath(path))  # not Path.resolve, which raises a RuntimeError where a link leads to itself
    with atomic_path(path, suffix=SUFFIX, advice=OTHER_FILE, trial=True) as tmp_path:
        h5py.File(tmp_path, "w").close()
    return path


def only_writer(path: Path) -> contextlib.AbstractContextManager[None]:
    """Return a context that keeps other trainings from saving their weights under the same name.

    Entering it raises a HeldError, which is an OSError, where one does already.
    """
    lock = path.with_name(f".{path.name.removesuffix(SUFFIX)}.lock")
    return locked(lock, doing=f"another training saves its weights in {path}", advice=OTHER_FILE)


def save_weights(model: keras.Model, path: str | os.PathLike[str], loss: str | None = None) -> Path:
    """Save a built model's weights as `alexnet_repro.files.atomic_path` writes files, and return the path.

    Beside them are their SHA-256 and the name of the loss that they were trained by, in attributes of the HDF5 file.

    Raises:
        ValueError, OSError: as `check_weights_path`; or the disk is full. The file that was there before still is.
        TrainingDivergedError: the weights aren't finite; likewise.
    """
    path = check_weights_path(path)
    check_room([(path.parent, weights_size(model))])  # if a disk fills up while HDF5 writes, HDF5 crashes the process
    for layer in model.layers:
        for variable in layer.weights:
            if not ops.convert_to_numpy(ops.all(ops.isfinite(variable))):
                where = f"layer {layer.name}, variable {variable.name}"
                raise TrainingDivergedError(f"the weights aren't finite any more: {where}; {path} wasn't written")
    with atomic_path(path, suffix=SUFFIX, advice=OTHER_FILE) as tmp_path:
        model.save_weights(tmp_path, overwrite=True)
        with h5py.File(tmp_path, "r+") as file:
            file.attrs[DIGEST_ATTRIBUTE] = weights_digest(model)
            if loss is not None:
                file.attrs[LOSS_ATTRIBUTE] = loss
    return path


def weights_size(model: keras.Model) -> int:
    """Return how many bytes the weights take on disk, and the optimizer's state where there is one."""
    optimizer = getattr(model, "optimizer", None)
    return values_size([*model.variables, *(optimizer.variables if optimizer else [])])


def values_size(variables: Iterable[Any]) -> int:
    """Return how many bytes Keras's variables take on disk: they are float32 under every precision."""
    return sum(4 * math.prod(map(int, each.shape)) for each in variables)


def weights_digest(model: keras.Model) -> str:
    """Return the SHA-256 of a model's weights, whatever file they are in: of layers' names and their arrays."""
    return arrays_digest((layer.name, array) for layer in model.layers for array in layer.get_weights())


def load_weights(model: keras.Model, path: str | os.PathLike[str]) -> str | None:
    """Load the weights in a file into a built model, all of them or none.

    The file, whatever its name, is what Keras 3 saves (`.weights.h5`, `.keras`), or HDF5 as TensorFlow 2.0.0 wrote it:
    weights alone, as the document's `5.6_alexnet_weights.h5`, or a full model. Under TensorFlow it may also be a
    checkpoint (`NAME.index`, or NAME) or the folder of a SavedModel. Nothing in it is run or unpickled.
    The model is from `build_alexnet`, or any whose layers have Keras's default names.

    Returns the loss that the weights were trained by, a name in `alexnet_repro.model.LOSSES`, where the file says so.

    Raises:
        WeightsError: the file can't be read, is none of these, is another model's or isn't finite: one line names the
            first difference. The model is unchanged.
        ValueError: the model isn't built.
    """
    layers = {layer.name: layer.weights for layer in model.layers if layer.weights}
    if not layers:
        raise ValueError("the model has no weights to load yet; build it first")
    arrays, loss = read_weights(path, layers)
    for name, own in layers.items():
        for variable, array in zip(own, arrays[name], strict=True):
            variable.assign(array)
    return loss
