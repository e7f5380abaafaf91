"""Checkpoints: what a bit-exact resume needs, in one file, written atomically and verified when read.

A checkpoint is a NumPy archive, `update-00001876.npz`: every variable (weights, optimizer state, the states of
dropout's generators), losses and accuracies so far, a description in JSON, and the SHA-256 of all of them. A kill or a
full disk leaves earlier checkpoints as they were. Nothing in it is ever unpickled.
"""

import contextlib
import io
import json
import logging
import operator
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
from keras import ops

from alexnet_repro.data.loader import DataLoader
from alexnet_repro.files import atomic_path, check_folder, nested_differences, why
from alexnet_repro.locks import HeldError, locked
from alexnet_repro.training.history import History
from alexnet_repro.training.recipe import Recipe
from alexnet_repro.training.weights import values_size
from alexnet_repro.training.weights_file import DAMAGE, arrays_digest

logger = logging.getLogger(__name__)

NAME, PATTERN = "update-{:08}.npz", "update-*.npz"
OTHER_FOLDER = "name another folder: --checkpoints=DIR"
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
        check_folder(self.folder, OTHER_FOLDER)
        doing = f"another training saves its checkpoints in {self.folder}"
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(locked(self.folder / ".lock", doing=doing, advice=OTHER_FOLDER))
                for left in self.folder.glob(f".{PATTERN}"):  # of a training that was killed while saving
                    left.unlink()
            except HeldError:
                raise
            except OSError as error:
                raise OSError(f"{self.folder} can't be written to: {why(error, OTHER_FOLDER)}") from error
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
        path = self.settings.folder / NAME.format(len(history.losses))
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
                with contextlib.suppress(OSError):  # some file systems set no times
                    os.utime(tmp_path, ns=2 * (max(time.time_ns(), latest + 1),))  # a clock may have gone back
        except OSError as error:
            last = next(iter(self.files()), None)
            text = f"{error}; the latest checkpoint is {last}" if last else f"{error}; there is no checkpoint yet"
            if needed:
                raise OSError(text) from error
            logger.warning("%s; training continues", text)
            return None
        for old in [each for each in self.files() if each != path][self.settings.keep - 1 :]:
            old.unlink(missing_ok=True)
        return path

    def files(self) -> list[Path]:
        """Return the checkpoints' files, the latest first; some may be of an earlier run."""
        found = (path for path in self.settings.folder.glob(PATTERN) if not path.is_dir())
        return sorted(found, key=_saved, reverse=True)

    def room(self, saves: int, *, again: bool) -> list[tuple[Path, int]]:
        """Return what `saves` checkpoints to come take at most beside those that are there, as `check_room` wants it.

        `again`: the last may be saved again, while it is there.
        """
        size, there = values_size(self.variables), len(self.files())
        most = min(there + saves, self.settings.keep)
        replaced = again or there + saves > self.settings.keep  # the oldest goes once the new one is there
        return [(self.settings.folder, size)] * max(0, most + replaced - there)

    def protect(self, *, resume: bool) -> None:
        """Check that no unfinished training loses its checkpoints to this one, which would replace them.

        Raises:
            OSError: there are such; the message says how far it is, and what to do.
        """
        own, found = json.loads(json.dumps(self.identity)), self.files()
        runs: dict[str, tuple[int, int, Path, list[str]]] = {}  # by identity: the furthest checkpoint
        for path in found:
            try:
                description = json.loads(_arrays(path, DESCRIPTION_KEY)[DESCRIPTION_KEY].tobytes())
                theirs = description["identity"]
                recipe = Recipe(**{**self.identity["recipe"], **theirs["recipe"]})
                progress = (operator.index(description["draws"]) * recipe.updates_per_draw, recipe.num_updates)
                run = (*progress, path, _differences(theirs, own))
            except (*DAMAGE, MemoryError, ZeroDivisionError):  # it is of no use to anyone
                continue
            runs[str(theirs)] = max(run, runs.get(str(theirs), run))
        for done, due, path, other in runs.values():
            if done < due and (other or not resume):
                whose = f"another training ({'; '.join(other[:3])})" if other else "this training"
                fix = "move it away" if other else "add --resume"
                text = f"{path} is of update {done:,} of {due:,} of {whose}, which isn't finished: {fix}"
                raise OSError(f"{text}, or {OTHER_FOLDER}")
        if found and not resume:
            logger.info("the checkpoints of a finished training in %s will be replaced", self.settings.folder)

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


def _arrays(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Return a NumPy archive's arrays by name, or those named, in no more memory than the file's size on the disk.

    Raises:
        OSError, ValueError, or what else is in `DAMAGE`: it is no such archive, or declares more than it holds.
    """
    if not path.is_file():  # a pipe would be waited for
        raise OSError("it isn't a regular file")
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        if sum(each.file_size for each in archive.infolist()) > path.stat().st_size:
            raise ValueError("it declares more bytes than it has")
        for each in map(archive.getinfo, (f"{name}.npy" for name in names)) if names else archive.infolist():
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
