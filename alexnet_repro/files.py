"""Atomic writes, differences of nested data, and Keras's folder; imports nothing of this package, nor Keras."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def atomic_write(path: Path, text: str, advice: str = "free its disk, or name another folder") -> None:
    """Write a text file as `atomic_path` does; the error's message ends with the advice."""
    with atomic_path(path, advice=advice) as tmp_path:
        tmp_path.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def atomic_path(path: Path, *, suffix: str = "", advice: str = "") -> Iterator[Path]:
    """Yield a temporary path beside `path`, whose file replaces `path` in one step once the block has written it.

    `path` is the old file or the new one, whole, when the machine loses power too: after the block the new one is on
    the disk. If the block fails, the old one stays and nothing else does. The folder is made.

    The temporary path ends in `suffix`, as `path` does.

    Raises:
        OSError: it can't be written; the message names it, and has the reason and the advice.
    """
    tmp_path = path.with_name(f".{path.name.removesuffix(suffix)}.{os.getpid()}{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_devices(path)
        yield tmp_path
        _fsync(tmp_path)  # before the rename: a name may reach the disk sooner than the content
        tmp_path.replace(path)
        with contextlib.suppress(OSError):  # a few file systems can't do this for folders; the file is whole anyway
            _fsync(path.parent)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error  # HDF5's own reasons have several lines
        raise OSError("; ".join(filter(None, (f"{path} can't be written: {reason}", advice)))) from error
    finally:
        with contextlib.suppress(OSError):
            tmp_path.unlink(missing_ok=True)


def _refuse_devices(path: Path) -> None:
    """Raise an OSError where root would make a file of a device."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError("it is a device, a pipe or a socket")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def nested_differences(there: Any, here: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield each value that differs between nested dictionaries: its keys as `recipe loss`, then both values.

    A key that one of them lacks has None there.
    """
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in sorted({*there, *here}):
            yield from nested_differences(there.get(key), here.get(key), f"{name} {key}".strip())
    elif there != here:
        yield name, there, here


def keras_home(environ: Mapping[str, str] = os.environ) -> Path:
    """Return KERAS_HOME, or else `.keras` in the home folder; where there is none, a path that doesn't exist."""
    # Not Path.home, which raises where there is no home.
    return Path(environ.get("KERAS_HOME") or os.path.expanduser(os.path.join("~", ".keras")))  # noqa: PTH111, PTH118


def keras_json(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the path of Keras's configuration, as Keras has it: it reads none in a home that can't be written to."""
    home = os.path.expanduser("~")  # noqa: PTH111 - as above
    own = os.path.join(home if os.access(home, os.W_OK) else "/tmp", ".keras")  # noqa: PTH118, S108
    return Path(os.path.expanduser(os.path.join(environ.get("KERAS_HOME", own), "keras.json")))  # noqa: PTH111, PTH118
