"""Weights on disk, never half-written."""

import os
from pathlib import Path

import keras

SUFFIX = ".weights.h5"


def save_weights(model: keras.Model, path: str | os.PathLike[str]) -> Path:
    """Save a built model's weights under `path` in one step: the file there is the old one or the new one, whole.

    Returns:
        The path.

    Raises:
        ValueError: `path` doesn't end in `.weights.h5`, which Keras requires.
        OSError: the folder can't be made, or the disk is full. What was there before is still there.
    """
    path = Path(path)
    if not path.name.endswith(SUFFIX):
        raise ValueError(f"weights are saved under a name that ends in {SUFFIX}; got {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name.removesuffix(SUFFIX)}.{os.getpid()}{SUFFIX}")
    try:
        model.save_weights(beside, overwrite=True)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path
