"""Atomic writes, and where Keras keeps its files; imports nothing of this package, nor Keras."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path


def atomic_write(path: Path, text: str) -> None:
    """Write a file in one step, making its folder: what was there before stays until all of the new one is.

    Raises:
        OSError: it can't be written; the message names it.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"{path} can't be written: {reason}; free its disk, or name another folder") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def keras_home(environ: Mapping[str, str] = os.environ) -> Path:
    """Return KERAS_HOME, or else `.keras` in the home folder; where there is none, a path that isn't there."""
    # Not Path.home, which raises where there is no home.
    return Path(environ.get("KERAS_HOME") or os.path.expanduser(os.path.join("~", ".keras")))  # noqa: PTH111, PTH118
