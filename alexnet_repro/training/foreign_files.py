"""What files and folders are that hold no weights which can be read here, by their first bytes, and what helps."""

from collections.abc import Sequence
from pathlib import Path

PICKLE = "a pickle, as PyTorch's and Python's own are, which can run code and is never opened"
BEGINNINGS = {
    b"version https://git-lfs": "a Git LFS pointer to the file, not the file: git lfs pull",
    b"model_checkpoint_path:": "TensorFlow's list of checkpoints; name one of those beside it, as NAME.index",
    b"\x80": PICKLE,
    b"c__builtin__": PICKLE,
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "compressed by gzip: gunzip it",
    b"\x00\x00\x00\x00\x00\x00\x00\x00": "of zeros, as an unfinished download or copy is",
}


def what_file(start: bytes) -> str:
    """Return what a file is that is neither HDF5 nor a ZIP archive, by its first 64 bytes."""
    if start[8:10] == b'{"':
        return "it is a safetensors file, which Keras doesn't read"
    known = next((what for beginning, what in BEGINNINGS.items() if start.startswith(beginning)), None)
    other = f"neither HDF5 nor .keras; it starts with {start[:24]!r}" if start else "empty"
    return f"it is {known or other}"


def what_archive(names: Sequence[str], missing: str) -> str:
    """Return what a ZIP archive is that lacks a member of a `.keras` archive."""
    if "description.npy" in names:
        return "it is a checkpoint of a training, which train --resume --checkpoints=FOLDER continues"
    if any(name.endswith("/data.pkl") for name in names):
        return f"it is {PICKLE}"
    if names and all(name.endswith(".npy") for name in names):
        return "it is a NumPy archive, which Keras doesn't read"
    return f"it is a ZIP archive, but not a .keras one: it has no {missing}"


def what_folder(folder: Path) -> str:
    """Return what a folder is, with the file to name in it."""
    inside = [*sorted(folder.glob("*.index")), *sorted(folder.glob("*.weights.h5"))]
    if inside:
        return f"it is a folder; name a file in it, as {inside[0]}"
    if any(folder.glob("update-*.npz")):
        return "it is a folder of a training's checkpoints, which train --resume --checkpoints=FOLDER continues"
    return "it is a folder; name a file in it"
