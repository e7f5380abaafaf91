"""Checkpoints: what a bit-exact resume needs, in one file, written atomically and verified when read.

A checkpoint is a NumPy archive, `update-00001876.npz`: every variable (weights, optimizer state, the states of
dropout's generators), losses and accuracies so far, a description in JSON, and the SHA-256 of all of them. A kill or a
full disk leaves earlier checkpoints as they were. Nothing in it is ever unpickled.
"""

import contextlib
import io
import json
import logging
import os
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from filelock import FileLock, Timeout
from keras import ops

from alexnet_repro.data.loader import DataLoader
from alexnet_repro.files import atomic_path, nested_differences
from alexnet_repro.training.history import History
from alexnet_repro.training.recipe import Recipe
from alexnet_repro.training.weights_file import DAMAGE, arrays_digest

logger = logging.getLogger(__name__)

PATTERN = "update-*.npz"
DESCRIPTION_KEY, DIGEST_KEY = "description", "sha256"
FORMAT = 4


READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class _UnusableError(Exception):
    """A checkpoint is corrupt, or belongs to a different run."""


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often checkpoints are saved, and how many are kept."""

    folder: Path
    every: int = 500  # updates between checkpoints; also saved at each epoch's end, and when training is stopped
    keep: int = 3  # latest checkpoints kept

    @contextlib.contextmanager
    def opened(self, variables: Sequence[Any], identity: Mapping[str, Any]) -> Iterator["Store"]:
        """Lock the folder for one training, until it ends.

        The Keras `variables` are saved and restored, always in the same order; checkpoints of a different `identity`,
        as the function of that name returns it, are skipped.

        Raises:
            OSError: another training has the lock, or the folder can't be written to.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock").acquire(timeout=0)
            for left in self.folder.glob(f".{PATTERN}"):  # of a training that was killed while saving
                left.unlink()
        except Timeout as error:
            raise OSError(f"another training saves its checkpoints in {self.folder}; name another folder") from error
        except OSError as error:
            raise OSError(f"{self.folder} can't be written to: {error.strerror or error}") from error
        with lock:
            yield Store(self, variables, identity)


@dataclass(frozen=True)
class Store:
    """The checkpoints of one training."""

    settings: Checkpoints
    variables: Sequence[Any]
    identity: Mapping[str, Any]

    def save(self, history: History, *, needed: bool = True) -> Path | None:
        """Save a checkpoint, and remove the oldest beyond those that are kept.

        Returns its file; None if it can't be written and isn't `needed`: then that is logged as a warning.

        Raises:
            OSError: it can't be written but is needed; the message names the latest checkpoint.
        """
        path = self.settings.folder / f"update-{len(history.losses):08}.npz"
        arrays: dict[str, Any] = {
            f"{i:03}": np.asarray(ops.convert_to_numpy(each)) for i, each in enumerate(self.variables)
        }
        arrays |= {"losses": history.losses, "accuracies": history.accuracies}
        description = {"format": FORMAT, "identity": dict(self.identity), "versions": _versions(), **history.as_data()}
        arrays[DESCRIPTION_KEY] = np.frombuffer(json.dumps(description).encode(), np.uint8)
        arrays[DIGEST_KEY] = np.frombuffer(bytes.fromhex(arrays_digest(sorted(arrays.items()))), np.uint8)
        try:
            with atomic_path(path, suffix=path.suffix) as tmp_path:
                with tmp_path.open("wb") as file:
                    np.savez(file, **arrays)  # all of numbers; `allow_pickle` is an array's name before NumPy 2.1
                latest = max([_saved(each)[0] for each in self.files()], default=0)
                os.utime(tmp_path, ns=2 * (max(time.time_ns(), latest + 1),))  # a clock may have gone back
        except OSError as error:
            last = next(iter(self.files()), "there is none yet")
            text = f"{error}; the latest checkpoint is {last}"
            if needed:
                raise OSError(text) from error
            logger.warning("%s; training continues, free that disk", text)
            return None
        for old in [each for each in self.files() if each != path][self.settings.keep - 1 :]:
            old.unlink(missing_ok=True)
        return path

    def files(self) -> list[Path]:
        """Return the checkpoints' files, the latest first; some may be of an earlier run."""
        found = (path for path in self.settings.folder.glob(PATTERN) if not path.is_dir())
        return sorted(found, key=_saved, reverse=True)

    def restore(self) -> History:
        """Assign the latest usable checkpoint's values to the variables, and return its history.

        One that is corrupt, or of a different run, is skipped with a warning; without any, the history is empty.

        Raises:
            OSError: there are checkpoints, but none is usable.
        """
        files = self.files()
        for path in files:
            try:
                history, values = self._read(path)
            except _UnusableError as error:
                logger.warning("%s skipped: %s", path, error)
                continue
            for variable, value in zip(self.variables, values, strict=True):
                variable.assign(value)
            logger.info("resuming from %s, after update %d", path, len(history.losses))
            return history
        if files:
            raise OSError(f"no checkpoint in {self.settings.folder} is usable; to start fresh, move them away")
        logger.info("no checkpoint in %s: starting fresh", self.settings.folder)
        return History()

    def _read(self, path: Path) -> tuple[History, list[np.ndarray]]:
        """Return a checkpoint's history, and the variables' values; everything is checked before any of it is used."""
        recipe = Recipe(**self.identity["recipe"])
        try:
            arrays = _arrays(path)
            description = json.loads(arrays[DESCRIPTION_KEY].tobytes())
            if description["format"] != FORMAT:
                raise _UnusableError(f"its format is {description['format']!r:.20}, this version reads {FORMAT}")
            if arrays.pop(DIGEST_KEY).tobytes().hex() != arrays_digest(sorted(arrays.items())):
                raise ValueError("its SHA-256 isn't that of its content")
            del arrays[DESCRIPTION_KEY]
            if other := _differences(dict(description["identity"]), json.loads(json.dumps(self.identity))):
                raise _UnusableError(f"belongs to a different run: {'; '.join(other[:3])}")
            history = History.from_data(description, arrays.pop("losses"), arrays.pop("accuracies"))
            history.check(recipe)
            values = [arrays[name] for name in sorted(arrays)]
            own = (ops.convert_to_numpy(each) for each in self.variables)  # on PyTorch, of wider types than they say
            if [(each.dtype, each.shape) for each in values] != [(each.dtype, each.shape) for each in own]:
                raise ValueError("its arrays aren't the model's")
            if not all(np.isfinite(each).all() for each in values):
                raise ValueError("its arrays aren't all finite")
            changed = _differences(dict(description["versions"]), _versions())
        except DAMAGE as error:
            raise _UnusableError(f"corrupt ({' '.join(str(error).split())[:100]})") from error
        if changed:
            logger.warning("%s has other versions, so bits may differ from here on: %s", path.name, "; ".join(changed))
        return history, values


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Return a NumPy archive's arrays by name, in no more memory than the file's size on the disk.

    Raises:
        OSError, ValueError, or what else is in `DAMAGE`: it is no such archive, or declares more than it holds.
    """
    if not path.is_file():  # a pipe would be waited for
        raise OSError("it isn't a regular file")
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        if sum(each.file_size for each in archive.infolist()) > path.stat().st_size:
            raise ValueError("it declares more bytes than it has")
        for each in archive.infolist():
            # Not `np.load`, which first takes the memory that an array's header declares.
            content = bytearray(archive.read(each))
            header = io.BytesIO(content)
            shape, fortran, dtype = READ_HEADER[np.lib.format.read_magic(header)](header)
            array = np.frombuffer(content, dtype, offset=header.tell()).reshape(shape, order="F" if fortran else "C")
            arrays[each.filename.removesuffix(".npy")] = array
    return arrays


def identity(model: keras.Sequential, loader: DataLoader, recipe: Recipe, variables: Sequence[Any]) -> dict[str, Any]:
    """Return a training's identity: recipe, seed, data, precision and the variables' shapes."""
    return {
        "recipe": recipe.as_data(),
        "seed": loader.seed,
        "data": {"source": loader.source, "sha256": loader.train_digest()},
        "precision": model.dtype_policy.name,
        "variables": [f"{each.name} {tuple(each.shape)} {each.dtype}" for each in variables],
    }


def _versions() -> dict[str, str]:
    """Return the versions that bits depend on, besides the training's identity."""
    backend = keras.backend.backend()
    return {"backend": backend, backend: sys.modules[backend].__version__, "keras": keras.__version__}


def _differences(there: Any, here: Any) -> list[str]:
    """Return what differs, innermost first, as `recipe loss is 'a' there, 'b' here`; of lists, the first such item."""
    found = []
    for path, *values in nested_differences(there, here):
        pairs = zip(*values, strict=False) if all(isinstance(each, list) for each in values) else ()
        first, second = next((pair for pair in pairs if pair[0] != pair[1]), values)
        name = path.encode("unicode_escape").decode()[:60]
        found.append(f"{name} is {str(first)[:60]!r} there, {str(second)[:60]!r} here")
    return found


def _saved(path: Path) -> tuple[int, str]:
    return path.lstat().st_mtime_ns, path.name
