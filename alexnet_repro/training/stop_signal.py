"""What mustn't end a training before its checkpoint is saved: signals, output without a reader, warnings."""

import errno
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from signal import Signals
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # the second one acts as before
# Of a terminal that is gone, which may send it twice; of a scheduler, before it ends a job (Slurm's --signal=USR1); of
# `ulimit -t`, each second.
REPEATED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)


@dataclass
class StopRequest:
    """Whether a stop was requested, and by which signal."""

    signal: Signals | None = None

    def __call__(self) -> bool:
        """Return whether it was."""
        return self.signal is not None


@contextmanager
def deferred_signals() -> Iterator[StopRequest]:
    """Yield a request that the first signal sets, with a line on stderr.

    After SIGINT or SIGTERM, another of these acts as before; the others may come again. A signal that this
    process was started to ignore, as a shell's background process does, stays ignored. Use it in the main thread.
    """
    stop_request = StopRequest()

    def handle(number: int, _: FrameType | None) -> None:
        if stop_request.signal is not None and number in REPEATED:
            return
        stop_request.signal = stop_request.signal or Signals(number)
        if number in SIGNALS:
            restore(SIGNALS)
        # Not logged: where its output fails, within a handler of signals logging raises what it suppresses elsewhere.
        with suppress(OSError, RuntimeError):  # the reader is gone, or the signal interrupted another print
            name = stop_request.signal.name
            again = "once more" if number in SIGNALS else "after SIGTERM twice"
            print(f"\n{name}: stopping after the updates at hand; {again}, and it stops at once", file=sys.stderr)

    def restore(signals: Iterable[Signals]) -> None:
        for each in before.keys() & signals:
            signal.signal(each, before[each])

    ours = [each for each in (*SIGNALS, *REPEATED) if signal.getsignal(each) is not signal.SIG_IGN]
    before = {each: signal.signal(each, handle) for each in ours}
    try:
        yield stop_request
    finally:
        restore(before)


@contextmanager
def warnings_end_nothing() -> Iterator[None]:
    """Have warnings be shown where Python is to raise them (-W error): Keras's own come when it saves."""
    with warnings.catch_warnings():
        if any(each[0] == "error" for each in warnings.filters):
            warnings.simplefilter("default")
        yield


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
