"""The four official Fashion-MNIST files: find, download, verify, read."""

import contextlib
import gzip
import hashlib
import logging
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alexnet_repro.data.download import DownloadError, downloads_into, fetch
from alexnet_repro.files import keras_home

logger = logging.getLogger(__name__)

DATA_VARIABLE = "ALEXNET_REPRO_DATA"
URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"

Arrays = tuple[np.ndarray, np.ndarray]


class DataFile(NamedTuple):
    """One published file: its name, size in bytes, SHA-256, the shape of one item, and the SHA-256 when unpacked."""

    name: str
    size: int
    sha256: str
    item_shape: tuple[int, ...]
    unpacked_sha256: str


FILES = tuple(
    DataFile(f"{name}-ubyte.gz", size, sha256, (28, 28) if "images" in name else (), unpacked)
    for name, size, sha256, unpacked in (
        (
            *("train-images-idx3", 26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        (
            *("train-labels-idx1", 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        (
            *("t10k-images-idx3", 4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        (
            *("t10k-labels-idx1", 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    )
)
# In which of a folder's own folders others put the files: torchvision, the published repository, Keras.
SUBFOLDERS = ("", "raw", "FashionMNIST/raw", "data/fashion", "datasets/fashion-mnist")
# How the SHA-256 of MNIST's four files begins, as published and unpacked: they have the same names.
DIGITS = (
    *("440fcabf73cc546f", "3552534a0a558bbe", "8d422c7b0a1c1c79", "f7ae60f92e00ec6d"),
    *("ba891046e6505d7a", "65a50cbbf4e906d7", "0fa7898d509279e4", "ff7bcfd416de3373"),
)
LARGEST_DATA_FILE = 1 << 27  # bytes that are read of a file


class CorruptDataError(OSError):
    """A data file isn't the published one. It was neither used nor changed."""


class MissingDataError(FileNotFoundError):
    """A data file isn't on this machine and couldn't be downloaded."""


def load_fashion_mnist(data_dir: str | os.PathLike[str] | None = None) -> tuple[Arrays, Arrays]:
    """Return Fashion-MNIST as `(train_images, train_labels), (test_images, test_labels)`.

    Images are uint8 `(60000, 28, 28)` and `(10000, 28, 28)`, labels uint8 `(60000,)` and `(10000,)`. Each file is
    searched for in `data_dir`, then in the folder named by the environment variable `ALEXNET_REPRO_DATA`, then where
    TensorFlow Datasets downloads to and in Keras's cache (`datasets/fashion-mnist` in `$KERAS_HOME` or `~/.keras`), and
    is downloaded into that cache if it is in none of them. It may be unpacked, lie in torchvision's `FashionMNIST/raw`
    there, or have another name. It is used only if its SHA-256 is the published one, or that of its content.

    Raises:
        CorruptDataError: a file that was found isn't the published one. It is left as it is.
        MissingDataError: a file wasn't found and couldn't be downloaded.

    Source: https://github.com/zalandoresearch/fashion-mnist (MIT licence).
    """
    places = _places(data_dir)
    if missing := [file for file in FILES if _find(file, places) is None]:
        for place in places[:-1]:
            text = "not all of Fashion-MNIST is in %s%s; downloading %d files into %s"
            logger.warning(text, place, _inside(place), len(missing), places[-1])
        _download(missing, places)
    train_images, train_labels, test_images, test_labels = (_read(file, places) for file in FILES)
    return (train_images, train_labels), (test_images, test_labels)


def _places(data_dir: str | os.PathLike[str] | None) -> list[Path]:
    """Return the folders to search, in order; the last is Keras's cache, where downloads go."""
    named = [_expanded(place) for place in (data_dir, os.environ.get(DATA_VARIABLE)) if place]
    datasets = _expanded(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets") / "downloads"
    return [*named, *([datasets] if datasets.is_dir() else []), keras_home() / "datasets" / "fashion-mnist"]


def _expanded(place: str | os.PathLike[str]) -> Path:
    return Path(os.path.expanduser(place))  # noqa: PTH111 - not Path.expanduser, which raises where there is no home


def _inside(place: Path) -> str:
    """Return what is in a folder that doesn't hold the files, in brackets; nothing of one that is empty."""
    if not os.access(place, os.X_OK):
        return " (not there, or not accessible)"
    with contextlib.suppress(OSError):
        names = sorted(each.name for each in place.iterdir() if not each.name.startswith("."))
        return f" (it has {', '.join(names[:5])}{', …' * (len(names) > len(names[:5]))})" if names else ""
    return ""


def _find(file: DataFile, places: Sequence[Path]) -> Path | None:
    names = (file.name, file.name.removesuffix(".gz"))
    for place in places:
        candidates = [place / folder / name for folder in SUBFOLDERS for name in names]
        # A dangling link is found too: a download would replace it.
        if found := next(filter(os.path.lexists, candidates), None) or _renamed(file, place):
            return found
    return None


def _renamed(file: DataFile, place: Path) -> Path | None:
    """Return the published file that has another name, as browsers and TensorFlow Datasets give it."""
    with contextlib.suppress(OSError):
        for path in sorted(place.iterdir()):
            same_size = path.is_file() and path.stat().st_size == file.size
            if same_size and hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256:
                return path
    return None


def _read(file: DataFile, places: Sequence[Path]) -> np.ndarray:
    """Verify a file and return its array; the bytes that were hashed are the bytes that are read."""
    path = _find(file, places)
    if path is None:
        raise MissingDataError(f"{file.name} was removed while it was being loaded; run the command again")
    if path.exists() and not path.is_file() and not path.is_dir():  # a pipe would be waited for
        raise CorruptDataError(f"{path} can't be read: it isn't a regular file. {_remedy(path)}")
    try:
        with path.open("rb") as opened:
            content = opened.read(LARGEST_DATA_FILE)
    except OSError as error:
        raise CorruptDataError(f"{path} can't be read: {error.strerror}. {_remedy(path)}") from error
    found = hashlib.sha256(content).hexdigest()
    if found == file.sha256:
        content = gzip.decompress(content)
    elif found != file.unpacked_sha256:
        published = f"{file.size:,} bytes with SHA-256 {file.sha256}"
        expected = published if path.suffix == ".gz" else f"what that has unpacked, with SHA-256 {file.unpacked_sha256}"
        more = " or more" * (len(content) == LARGEST_DATA_FILE)
        raise CorruptDataError(
            f"{path} is not the published file{_what_else(content, found)}: expected {expected}, "
            f"found {len(content):,} bytes{more} with SHA-256 {found}. {_remedy(path)}"
        )
    # An IDX header: four bytes of type and rank, then four for each axis.
    header = 4 + 4 * (1 + len(file.item_shape))
    return np.frombuffer(bytearray(content), np.uint8, offset=header).reshape(-1, *file.item_shape)


def _what_else(content: bytes, sha256: str) -> str:
    """Return what a file is instead, where that is known."""
    if sha256.startswith(DIGITS):
        return ", but MNIST's handwritten digits, whose files have the same names"
    if content.startswith(b"version https://git-lfs"):
        return ", but a Git LFS pointer to it (git lfs pull)"
    return ", but a web page" if content[:15].lower().startswith((b"<!doctype html", b"<html")) else ""


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
        looked = "\n".join(f"  {place}{_inside(place)}" for place in places)
        names = "\n".join(f"  {file.name}" for file in FILES)
        raise MissingDataError(
            f"Fashion-MNIST is not here and couldn't be downloaded into {cache}: {reason}\n"
            f"Looked in:\n{looked}\nOn a machine with network, fetch these four files from {URL}\n{names}\n"
            f"put them into one folder, and name it: export {DATA_VARIABLE}=FOLDER"
        ) from error
