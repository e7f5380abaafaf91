"""SIGINT and SIGTERM as a wish to stop, granted when the work at hand is done; and what is said with nobody left."""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class StopRequest:
    """Whether, and by which signal, an end was asked for."""

    by: signal.Signals | None = None

    def __call__(self) -> bool:
        """Return whether it was."""
        return self.by is not None


@contextmanager
def deferred_signals() -> Iterator[StopRequest]:
    """Remember the first SIGINT or SIGTERM, and say that it was heard; a second one acts as it always does.

    A signal that this process was started to ignore, as a shell has it for work in the background, stays ignored.
    To be used in the main thread.
    """
    stop_request = StopRequest()

    def heard(number: int, _: FrameType | None) -> None:
        stop_request.by = signal.Signals(number)
        restore()
        with suppress(OSError, RuntimeError):  # nobody reads it any more, or it broke into another line
            print(
                f"\n{stop_request.by.name}: stopping after the updates at hand; once more, and it stops at once",
                file=sys.stderr,
            )

    def restore() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)

    heeded = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    before = {each: signal.signal(each, heard) for each in heeded}
    try:
        yield stop_request
    finally:
        restore()


@contextmanager
def outliving_readers() -> Iterator[None]:
    """Go on where what reads this process's output is gone: Ctrl-C ends the `tee` of `… 2>&1 | tee log` as well.

    Raises:
        OSError: at the end, if output was lost in another way, on a full disk for one.
    """
    out, err = _Outliving(sys.stdout), _Outliving(sys.stderr)
    with redirect_stdout(out), redirect_stderr(err):
        try:
            yield
        finally:
            out.flush()  # what is left would fail when Python ends
    if lost := out.lost or err.lost:
        raise OSError(f"what was to be printed couldn't be written: {lost.strerror or lost}") from lost


class _Outliving:
    """A stream that goes nowhere from when it can't be written to."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.lost: OSError | None = None
        """Why, unless nobody reads it any more."""

    def write(self, text: str) -> int:
        with self._nowhere_if_lost():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._nowhere_if_lost():
            self._stream.flush()

    @contextmanager
    def _nowhere_if_lost(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # EIO: a terminal that is gone
                self.lost = self.lost or error
            with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - no path of ours
                os.dup2(nowhere.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
