"""Locks among processes, which end with the process that holds them."""

import contextlib
import errno
import fcntl
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}  # NFS and CIFS have their own
PAUSE = 0.05  # seconds between two tries


class HeldError(OSError):
    """Another process holds the lock; the message says which, and what it holds."""


@contextlib.contextmanager
def locked(
    path: Path, *, timeout: float = 0.0, quiet: float = 0.0, doing: str = "", advice: str = ""
) -> Iterator[None]:
    """Hold the lock that the file `path` stands for; it is made, and removed afterwards.

    It is the system's own lock (flock), not the file: one that a killed process left, here or on another host, is no
    lock. Where the file system has no locks, this is logged, and work goes on without.

    `timeout` seconds are waited at most; after `quiet` of them a line on stderr says for whom.

    Raises:
        HeldError: another process still holds it; the message says what it is `doing`, and has the advice.
        OSError: the file can't be made.
    """
    begin, said = time.monotonic(), timeout <= 0
    while (descriptor := _try(path)) is None:
        waited = time.monotonic() - begin
        if waited >= timeout:
            held = f"{_holder(path)} holds {path}"
            raise HeldError(f"{doing} ({held}); {advice}" if doing else held)
        if waited >= quiet and not said:
            said = True
            line = f"waiting for {_holder(path)}, which holds {path}, {timeout:g} s at most"
            print(line, file=sys.stderr, flush=True)
        time.sleep(PAUSE)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # while it is held: see `_try`
        os.close(descriptor)


def _try(path: Path) -> int | None:
    """Return the descriptor of the file, now locked; None if another process has it."""
    for _ in range(100):
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                break
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in HELD:
                os.close(descriptor)
                return None
            text = "%s: no locks there (%s); see to it that no other process writes there"
            logger.warning(text, path, error.strerror)
            return descriptor
        os.close(descriptor)  # its holder has removed it meanwhile: there may be a new one
    else:
        return _open(path)
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode())
    return descriptor


def _open(path: Path) -> int:
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY | flags)  # another user's, in a shared folder


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        if found := re.fullmatch(r"(\d{1,9}) ([\w.-]{1,253})\n", text):
            return f"process {found[1]} on {found[2]}"
    return "another process"
