"""Atomic writes, folders and their room, what fixes a failed write; nested data; Keras's folder.

Imports nothing of this package, nor Keras.
"""

import contextlib
import ctypes
import errno
import os
import resource
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

# The fix of what a system's reason is, by its number; for other reasons there is no better fix than another place.
FIXES = {
    errno.ENOSPC: "free that disk",
    errno.EDQUOT: "free some of your quota there (quota -s)",
    errno.EFBIG: "allow larger files: ulimit -f unlimited",
    errno.EROFS: "mount it writable",
    errno.EBUSY: "mount the folder, not the file",
    errno.EIO: "look whether that disk fails: sudo dmesg | tail",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EILSEQ: "choose a name in UTF-8",
    errno.ELOOP: "remove the link, which leads to itself",
    **dict.fromkeys((errno.ENOLCK, errno.EAGAIN), "switch off HDF5's locks: export HDF5_USE_FILE_LOCKING=FALSE"),
}
# What says that content is lost; by any other error of fsync, the file system just doesn't have it: CIFS, FUSE.
LOST = {errno.EIO, errno.ENOSPC, errno.EDQUOT}


def why(error: OSError, advice: str = "") -> str:
    """Return an error's reason and what to do about it: the fix that fits it, or else the advice, or both."""
    reason = os.strerror(error.errno) if error.errno else str(error)  # HDF5's own reasons have several lines
    if isinstance(error, NotADirectoryError):  # `make_folder` says what is in the way
        reason = error.strerror or reason
    return "; ".join(filter(None, (reason, ", or ".join(filter(None, (FIXES.get(error.errno or 0), advice))))))


def atomic_write(path: Path, text: str, advice: str = "name another folder") -> None:
    """Write a text file as `atomic_path` does; the error's message ends with the advice."""
    with atomic_path(path, advice=advice) as tmp_path:
        tmp_path.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def atomic_path(path: Path, *, suffix: str = "", advice: str = "", trial: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`, whose file replaces `path` in one step once the block has written it.

    `path` is the old file or the new one, whole, when the machine loses power too: after the block the new one is on
    the disk. If the block fails, the old one stays and nothing else does. The folder is made.

    The temporary path ends in `suffix`, as `path` does. A `trial` replaces nothing, but tries whether files can be
    renamed there.

    Raises:
        OSError: it can't be written; the message names it, and has the reason, and the fix or the advice.
    """
    stem = path.name.removesuffix(suffix).encode(errors="ignore")[:100]  # a name may be as long as the disk takes
    tmp_path = path.with_name(f".{stem.decode(errors='ignore')}.{os.getpid()}{suffix}")
    try:
        make_folder(path.parent)
        _refuse_irreplaceable(path)
        yield tmp_path
        if trial:
            tmp_path.replace(other := tmp_path.with_name(f"{tmp_path.name}-"))
            other.unlink()
            return
        _fsync(tmp_path)  # before the rename: a name may reach the disk sooner than the content
        tmp_path.replace(path)
        with contextlib.suppress(OSError):  # the file is whole anyway
            _fsync(path.parent)
    except OSError as error:
        raise OSError(f"{_shown(path)} can't be written: {why(error, advice)}") from error
    finally:
        with contextlib.suppress(OSError):
            tmp_path.unlink(missing_ok=True)


def _refuse_irreplaceable(path: Path) -> None:
    """Raise an OSError where a file can't replace what is there, or where root would make a file of a device."""
    if _shown(path) != str(path):
        raise OSError(errno.EILSEQ, "not UTF-8")
    try:
        kind, own, folder = path.stat().st_mode, path.lstat(), path.parent.stat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        raise OSError("it is a device, a pipe or a socket")
    if _is_mounted(path):
        raise OSError(errno.EBUSY, "mounted")
    if folder.st_mode & stat.S_ISVTX and os.geteuid() not in {0, own.st_uid, folder.st_uid}:
        raise OSError(errno.EPERM, "another user's, in a folder such as /tmp")
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
    except OSError as error:
        # By chattr +i, which holds for root too. A file without permission to write to it is replaced.
        if error.errno == errno.EPERM:
            raise


def _is_mounted(path: Path) -> bool:
    """Return whether a file is a mount point, as `docker run --volume=FILE:FILE` makes it."""
    with contextlib.suppress(OSError):
        mounts = {each.mountpoint for each in psutil.disk_partitions(all=True)}
        return str(path.parent.resolve() / path.name) in mounts
    return False  # unknown without /proc


def _fsync(path: Path) -> None:
    with contextlib.suppress(PermissionError):  # of a file that its owner mayn't read
        descriptor = os.open(path, os.O_RDONLY)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)


def sync(descriptor: int) -> None:
    """Have a file's content on the disk, where the file system can.

    Raises:
        OSError: content is lost.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in LOST:
            raise


def make_folder(path: Path) -> None:
    """Make a folder, and those that it is in, unless it is there.

    Raises:
        OSError: it can't be made; if something else is in its place, the message says what and where.
    """
    if _shown(path) != str(path):
        raise OSError(errno.EILSEQ, "not UTF-8")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        for each in (path, *path.parents):
            if os.path.lexists(each) and not each.is_dir():
                what = "a file" if each.is_file() else "a link that leads nowhere" if each.is_symlink() else "a device"
                raise NotADirectoryError(errno.ENOTDIR, f"{each} is {what}, not a folder") from error
        raise


def check_folder(path: Path, advice: str) -> None:
    """Make a folder, unless it is there, and check that it can be written to.

    Raises:
        OSError: it can't; the message names it, and has the reason, and the fix or the advice.
    """
    try:
        make_folder(path)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise OSError(f"{_shown(path)} can't be written to: {why(error, advice)}") from error


def _shown(path: Path) -> str:
    return str(path).encode(errors="backslashreplace").decode()


def check_room(files: Sequence[tuple[Path, int]]) -> None:
    """Check that files of these sizes in bytes can be written into these folders, all at once.

    Where a file system can, their room is taken and given back, which finds what quotas don't admit.

    Raises:
        OSError: they can't; the message names the first such folder, what it needs, and the fix.
    """
    needed = Counter[int]()
    for folder, size in files:
        needed[folder.stat().st_dev] += size
    with contextlib.ExitStack() as taken:
        for folder, size in files[:99]:  # `ulimit -n` may be small
            all_of_disk, free = needed.pop(folder.stat().st_dev, 0), shutil.disk_usage(folder).free
            if free < all_of_disk:
                text = f"{all_of_disk:,} bytes are needed there, {free:,} are free; {FIXES[errno.ENOSPC]}"
                raise OSError(f"{folder} can't be written to: {text}")
            try:
                descriptor = taken.enter_context(tempfile.TemporaryFile(dir=folder)).fileno()
                _take(descriptor, size, resource.getrlimit(resource.RLIMIT_FSIZE)[0])
            except OSError as error:
                raise OSError(f"{folder} can't be written to: {size:,} bytes are needed there; {why(error)}") from error


def _take(descriptor: int, size: int, limit: int) -> None:
    """Take room for a file, on Linux and where the file system can; Python's own function may write it all."""
    libc, number = ctypes.CDLL(None, use_errno=True), 0
    if 0 <= limit < size:
        number = errno.EFBIG
    elif hasattr(libc, "fallocate64") and libc.fallocate64(descriptor, 0, ctypes.c_int64(0), ctypes.c_int64(size)):
        number = ctypes.get_errno()
    if number in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        raise OSError(number, os.strerror(number))


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
