"""Graceful shutdown: SIGINT and SIGTERM as requests to stop, and output that survives its reader."""

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from signal import Signals
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class StopRequest:
    """Whether a stop was requested, and by which signal."""

    signal: Signals | None = None

    def __call__(self) -> bool:
        """Return whether it was."""
        return self.signal is not None


@contextmanager
def deferred_signals() -> Iterator[StopRequest]:
    """Yield a request that the first SIGINT or SIGTERM sets, with a line on stderr; a second one acts as before.

    A signal that this process was started to ignore, as a shell's background process does, stays ignored. Use it in
    the main thread.
    """
    stop_request = StopRequest()

    def handle(number: int, _: FrameType | None) -> None:
        stop_request.signal = Signals(number)
        restore()
        # Not logged: where its output fails, within a handler of signals logging raises what it suppresses elsewhere.
        with suppress(OSError, RuntimeError):  # the reader is gone, or the signal interrupted another print
            name = stop_request.signal.name
            print(f"\n{name}: stopping after the updates at hand; once more, and it stops at once", file=sys.stderr)

    def restore() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {each: signal.signal(each, handle) for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN}
    try:
        yield stop_request
    finally:
        restore()


@contextmanager
def outliving_readers() -> Iterator[None]:
    """Continue without output once its reader is gone: Ctrl-C ends the `tee` of `… 2>&1 | tee log` as well.

    Logging survives that by itself; the progress bar and prints would end a training before it saves its checkpoint.

    Raises:
        OSError: at the end, if output was lost in another way, for example on a full disk.
    """
    out, err = _Outliving(sys.stdout), _Outliving(sys.stderr)
    with redirect_stdout(out), redirect_stderr(err):
        try:
            yield
        finally:
            out.flush()  # what is left would fail when Python ends
    if lost := out.lost or err.lost:
        raise OSError(f"the output couldn't be written: {lost.strerror or lost}") from lost


class _Outliving:
    """A text stream that is redirected to /dev/null once writing fails; `lost` is why, unless its reader is gone."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def _attempt(self, call: Callable[[], object]) -> None:
        try:
            call()
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # EIO: a terminal that is gone
                self.lost = self.lost or error
            with suppress(OSError, ValueError), open(os.devnull, "wb") as null:  # noqa: PTH123 - no path of ours
                os.dup2(null.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
