"""Weights on disk: saved whole or not at all."""

import os
import tempfile
from pathlib import Path

import keras

SUFFIX = ".weights.h5"


def check_weights_path(path: str | os.PathLike[str]) -> Path:
    """Find out whether weights can be saved under `path`, before a training and not after it; make its folder.

    Raises:
        ValueError: `path` doesn't end in `.weights.h5`, which Keras requires.
        OSError: it is a folder, or nothing can be written beside it.
    """
    path = Path(path)
    if not path.name.endswith(SUFFIX):
        raise ValueError(f"weights are saved under a name that ends in {SUFFIX}; got {path}")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OSError(f"{path} can't be written: {error.strerror}") from error
    return path


def save_weights(model: keras.Model, path: str | os.PathLike[str]) -> Path:
    """Save a built model's weights under `path` in one step: the file there is the old one or the new one, whole.

    Returns:
        The path.

    Raises:
        ValueError, OSError: as `check_weights_path`; or the disk is full. What was there before is still there.
    """
    path = check_weights_path(path).resolve()  # a link stays, and points to the new file
    beside = path.with_name(f".{path.name.removesuffix(SUFFIX)}.{os.getpid()}{SUFFIX}")
    try:
        model.save_weights(beside, overwrite=True)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path
