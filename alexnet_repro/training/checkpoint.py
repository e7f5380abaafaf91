"""Checkpoints: all that a training needs to go on bit for bit, in one file, whole or not there, and checked.

A checkpoint is a NumPy archive, `update-00001876.npz`: every variable (weights, the optimizer's, the states of
dropout's generators), losses and accuracies so far, and a description in JSON with the SHA-256 of all of them. It is
written beside its place, flushed to the disk and then renamed, so that a kill or a full disk leaves those before it as
they were. Nothing in it is ever unpickled.
"""

import contextlib
import json
import os
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
from filelock import FileLock, Timeout
from keras import ops

from alexnet_repro.data.loader import DataLoader
from alexnet_repro.files import atomic_path, nested_differences
from alexnet_repro.training.evaluate import Evaluation
from alexnet_repro.training.recipe import Recipe
from alexnet_repro.training.weights import arrays_digest

PATTERN = "update-*.npz"
DESCRIPTION = "description"
FORMAT = 2
FIELDS = ("begun", "draws", "seconds", "first_update_seconds", "saved")
DAMAGE = (OSError, ValueError, KeyError, EOFError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error)


class UnusableCheckpointError(Exception):
    """A checkpoint is corrupt, or of another run."""


@dataclass(frozen=True)
class Progress:
    """How far a training is."""

    draws: int
    seconds: float
    first_update_seconds: float
    losses: np.ndarray
    """float64 `(updates,)`, as are the accuracies."""
    accuracies: np.ndarray
    evaluations: tuple[tuple[int, Evaluation], ...] = ()
    """After how many updates the model was measured on test images, and how it was."""
    begun: int = 0
    """After how many draws of the loader's the training began."""
    saved: str = ""
    """The SHA-256 of the weights that the recipe saves last; empty before that."""

    @classmethod
    def none(cls, begun: int = 0) -> Self:
        """Return that of a training which hasn't begun."""
        return cls(0, 0.0, 0.0, np.zeros(0), np.zeros(0), begun=begun)


def to_stderr(line: str) -> None:
    """Say a line on stderr, at once."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Checkpoints:
    """Where checkpoints go, and how many are kept."""

    folder: Path
    every: int = 500
    """Updates; also at each epoch's end, and where training is stopped."""
    keep: int = 3
    """The newest so many."""
    say: Callable[[str], None] = field(default=to_stderr, compare=False)
    """Told what is restored, left out, or couldn't be saved."""

    @contextlib.contextmanager
    def opened(self, variables: Sequence[Any], identity: Mapping[str, Any]) -> Iterator["Store"]:
        """Take the folder for one training, until it ends.

        Args:
            variables: Keras variables that are saved and restored, always in the same order.
            identity: what a checkpoint has to agree in to be of this run, as `identity` returns it.

        Raises:
            OSError: another training has it, or it can't be written to.
        """
        lock = FileLock(self.folder / ".lock", timeout=0)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            for left in self.folder.glob(f".{PATTERN}"):  # by a training that was killed while it saved
                left.unlink()
        except Timeout as error:
            raise OSError(f"another training saves its checkpoints in {self.folder}; name another folder") from error
        except OSError as error:
            raise OSError(f"{self.folder} can't be written to: {error.strerror or error}") from error
        try:
            yield Store(self, variables, identity)
        finally:
            lock.release()


@dataclass(frozen=True)
class Store:
    """The checkpoints of one training."""

    settings: Checkpoints
    variables: Sequence[Any]
    identity: Mapping[str, Any]

    def save(self, progress: Progress, *, needed: bool = True) -> Path | None:
        """Save how far training is, and remove the oldest beyond those that are kept.

        Returns:
            The file; None if it can't be written and isn't `needed`: then that is said.

        Raises:
            OSError: it can't be written but is needed; the message says which checkpoint is the newest.
        """
        path = self.settings.folder / f"update-{len(progress.losses):08}.npz"
        arrays = {f"{i:03}": np.asarray(ops.convert_to_numpy(each)) for i, each in enumerate(self.variables)}
        arrays |= {"losses": progress.losses, "accuracies": progress.accuracies}
        description = {
            "format": FORMAT,
            "identity": dict(self.identity),
            "versions": versions(),
            **{name: getattr(progress, name) for name in FIELDS},
            "evaluations": [[updates, asdict(each)] for updates, each in progress.evaluations],
            "sha256": arrays_digest(sorted(arrays.items())),
        }
        members: dict[str, Any] = {**arrays, DESCRIPTION: np.frombuffer(json.dumps(description).encode(), np.uint8)}
        try:
            with atomic_path(path, suffix=path.suffix) as tmp_path:
                with tmp_path.open("wb") as file:
                    np.savez(file, allow_pickle=False, **members)
                newest = max([_saved(each)[0] for each in self.files()], default=0)
                os.utime(tmp_path, ns=2 * (max(time.time_ns(), newest + 1),))  # a clock may have gone back
        except OSError as error:
            last = next(iter(self.files()), "there is none yet")
            text = f"{error}; the newest checkpoint is {last}"
            if needed:
                raise OSError(text) from error
            self.settings.say(f"{text}; training goes on, free the disk")
            return None
        for old in [each for each in self.files() if each != path][self.settings.keep - 1 :]:
            old.unlink(missing_ok=True)
        return path

    def files(self) -> list[Path]:
        """Return the checkpoints' files, the last one saved first: there may be others of a run before."""
        return sorted(self.settings.folder.glob(PATTERN), key=_saved, reverse=True)

    def restore(self) -> Progress:
        """Put the newest usable checkpoint's values into the variables, say which, and return how far it was.

        One that is corrupt, or of another run, is named, and the one before is taken. Where there is none
        at all, training is at its beginning.

        Raises:
            OSError: there are checkpoints, but none is usable.
        """
        files = self.files()
        for path in files:
            try:
                progress, values = self._read(path)
            except UnusableCheckpointError as error:
                self.settings.say(f"{path} isn't used: {error}")
                continue
            for variable, value in zip(self.variables, values, strict=True):
                variable.assign(value)
            self.settings.say(f"going on from {path}, after update {len(progress.losses)}")
            return progress
        if files:
            raise OSError(f"no checkpoint in {self.settings.folder} can be used; to start anew, move them away")
        self.settings.say(f"no checkpoint in {self.settings.folder}: starting at the beginning")
        return Progress.none()

    def _read(self, path: Path) -> tuple[Progress, list[np.ndarray]]:
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            description = json.loads(arrays.pop(DESCRIPTION).tobytes())
            whole = description["sha256"] == arrays_digest(sorted(arrays.items()))
        except DAMAGE as error:
            raise UnusableCheckpointError(f"it is corrupt ({' '.join(str(error).split())[:100]})") from error
        if not whole:
            raise UnusableCheckpointError("it is corrupt (its SHA-256 isn't that of its content)")
        if description["format"] != FORMAT:
            raise UnusableCheckpointError(f"its format is {description['format']}, this version reads {FORMAT}")
        other = list(identity_differences(description["identity"], json.loads(json.dumps(self.identity))))
        if other:
            raise UnusableCheckpointError(f"it is of another run: {'; '.join(other[:3])}")
        changed = list(identity_differences(description["versions"], versions()))
        if changed:
            self.settings.say(f"{path.name} was saved elsewhere, so bits may differ from here on: {'; '.join(changed)}")
        losses, accuracies = arrays.pop("losses"), arrays.pop("accuracies")
        evaluations = tuple((updates, Evaluation(**each)) for updates, each in description["evaluations"])
        fields = {name: description[name] for name in FIELDS}
        progress = Progress(**fields, losses=losses, accuracies=accuracies, evaluations=evaluations)
        return progress, [arrays[name] for name in sorted(arrays)]


def identity(model: keras.Sequential, loader: DataLoader, recipe: Recipe, variables: Sequence[Any]) -> dict[str, Any]:
    """Return what makes a training the one it is: recipe, seed, data, precision and the variables' shapes."""
    return {
        "recipe": recipe.as_data(),
        "seed": loader.seed,
        "data": {"source": loader.source, "sha256": loader.train_digest()},
        "precision": model.dtype_policy.name,
        "variables": [f"{each.name} {tuple(each.shape)} {each.dtype}" for each in variables],
    }


def versions() -> dict[str, str]:
    """Return what bits depend on beside the run's identity."""
    backend = keras.backend.backend()
    return {"backend": backend, backend: sys.modules[backend].__version__, "keras": keras.__version__}


def identity_differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """Yield what differs, innermost first, as `recipe loss is 'a' there, 'b' here`; of lists, their first such item."""
    for path, *values in nested_differences(there, here, name):
        pairs = zip(*values, strict=False) if all(isinstance(each, list) for each in values) else ()
        first, second = next((pair for pair in pairs if pair[0] != pair[1]), values)
        yield f"{path} is {str(first)[:60]!r} there, {str(second)[:60]!r} here"


def _saved(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, path.name
