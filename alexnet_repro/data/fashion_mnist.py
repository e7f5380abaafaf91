"""The four official Fashion-MNIST files: find, download, verify, read."""

import gzip
import hashlib
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alexnet_repro.data.download import DownloadError, downloads_into, fetch
from alexnet_repro.files import keras_home

DATA_VARIABLE = "ALEXNET_REPRO_DATA"
URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"

Arrays = tuple[np.ndarray, np.ndarray]


class DataFile(NamedTuple):
    """One published file: its name, size in bytes, SHA-256, and the shape of one item."""

    name: str
    size: int
    sha256: str
    item_shape: tuple[int, ...]


FILES = tuple(
    DataFile(f"{name}-ubyte.gz", size, sha256, (28, 28) if "images" in name else ())
    for name, size, sha256 in (
        ("train-images-idx3", 26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        ("train-labels-idx1", 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        ("t10k-images-idx3", 4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        ("t10k-labels-idx1", 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    )
)


class CorruptDataError(OSError):
    """A data file isn't the published one. It was neither used nor changed."""


class MissingDataError(FileNotFoundError):
    """A data file isn't on this machine and couldn't be downloaded."""


def load_fashion_mnist(data_dir: str | os.PathLike[str] | None = None) -> tuple[Arrays, Arrays]:
    """Return Fashion-MNIST as `(train_images, train_labels), (test_images, test_labels)`.

    Images are uint8 `(60000, 28, 28)` and `(10000, 28, 28)`, labels uint8 `(60000,)` and `(10000,)`. Each file is
    searched for in `data_dir`, then in the folder named by the environment variable `ALEXNET_REPRO_DATA`, then in
    Keras's cache (`datasets/fashion-mnist` in `$KERAS_HOME` or `~/.keras`), and is downloaded into that cache if it is
    in none of them. It is used only if its SHA-256 is the published one.

    Raises:
        CorruptDataError: a file that was found isn't the published one. It is left as it is.
        MissingDataError: a file wasn't found and couldn't be downloaded.

    Source: https://github.com/zalandoresearch/fashion-mnist (MIT licence).
    """
    places = _places(data_dir)
    if missing := [file for file in FILES if _find(file, places) is None]:
        _download(missing, places)
    train_images, train_labels, test_images, test_labels = (_read(file, places) for file in FILES)
    return (train_images, train_labels), (test_images, test_labels)


def _places(data_dir: str | os.PathLike[str] | None) -> list[Path]:
    """Return the folders to search, in order; the last is Keras's cache, where downloads go."""
    named = [place for place in (data_dir, os.environ.get(DATA_VARIABLE)) if place]
    # Not Path.expanduser, which raises where there is no home.
    return [*(Path(os.path.expanduser(place)) for place in named), keras_home() / "datasets" / "fashion-mnist"]  # noqa: PTH111


def _find(file: DataFile, places: Sequence[Path]) -> Path | None:
    # A dangling link is found too: a download would replace it.
    return next((place / file.name for place in places if os.path.lexists(place / file.name)), None)


def _read(file: DataFile, places: Sequence[Path]) -> np.ndarray:
    """Verify a file and return its array; the bytes that were hashed are the bytes that are read."""
    path = _find(file, places)
    if path is None:
        raise MissingDataError(f"{file.name} was removed while it was being loaded; run the command again")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CorruptDataError(f"{path} can't be read: {error.strerror}. {_remedy(path)}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise CorruptDataError(
            f"{path} is not the published file: expected {file.size:,} bytes with SHA-256 {file.sha256}, "
            f"found {len(content):,} bytes with SHA-256 {found}. {_remedy(path)}"
        )
    # An IDX header: four bytes of type and rank, then four for each axis.
    header = 4 + 4 * (1 + len(file.item_shape))
    return np.frombuffer(bytearray(gzip.decompress(content)), np.uint8, offset=header).reshape(-1, *file.item_shape)


def _remedy(path: Path) -> str:
    remove = "rm -r" if path.is_dir() else "rm"
    return (
        f"It was left as it is. To have it downloaded again, remove it ({remove} {shlex.quote(str(path))}); "
        f"or name a folder with good copies: export {DATA_VARIABLE}=FOLDER"
    )


def _download(files: Sequence[DataFile], places: Sequence[Path]) -> None:
    """Download `files` into the cache, one process at a time; each gets its name only once it is verified."""
    cache = places[-1]
    try:
        with downloads_into(cache) as incoming:
            for file in files:
                if _find(file, places) is None:  # another process may have downloaded it meanwhile
                    fetched = fetch(URL + file.name, incoming, size=file.size, sha256=file.sha256)
                    if _find(file, places) is None:  # another program's file isn't replaced either
                        fetched.rename(cache / file.name)
    except OSError as error:
        reason = str(error)
        if error.strerror and not isinstance(error, DownloadError):  # of the disk: another cache can be chosen
            reason = f"{error.strerror}. To have it elsewhere: export KERAS_HOME=FOLDER"
        missing = " (not there, or not accessible)"
        looked = "\n".join(f"  {place}{missing * (not os.access(place, os.X_OK))}" for place in places)
        names = "\n".join(f"  {file.name}" for file in FILES)
        raise MissingDataError(
            f"Fashion-MNIST is not here and couldn't be downloaded into {cache}: {reason}\n"
            f"Looked in:\n{looked}\nOn a machine with network, fetch these four files from {URL}\n{names}\n"
            f"put them into one folder, and name it: export {DATA_VARIABLE}=FOLDER"
        ) from error
