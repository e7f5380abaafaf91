"""SIGTERM and SIGHUP end a run as Ctrl-C does: with a verdict, and its files."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ended_by_signals(heard: Callable[[str, int], None], wakeup: int | None = None) -> Iterator[None]:
    """Let a signal that ends the process end pytest instead, with 128 + its number as the exit status.

    One that is ignored, as under nohup, stays so. `heard` is called first, with the reason and the exit status.
    `wakeup` is a file descriptor that each number is written to at once, even where the main thread hangs in C.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        for each in ENDING:
            if each in before:
                signal.signal(each, signal.SIG_IGN)  # the run is about to end: a second one changes nothing
        reason = f"interrupted by {signal.Signals(number).name}"
        heard(reason, 128 + number)
        pytest.exit(reason, returncode=128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.getsignal(each) for each in ENDING if signal.getsignal(each) == signal.SIG_DFL}
    for each in before:
        signal.signal(each, end)
    if wakeup is not None:  # a handler of Python's, or it isn't written there
        before[signal.SIGCONT] = signal.signal(signal.SIGCONT, lambda _number, _frame: None)
    old = -1 if wakeup is None else signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    try:
        yield
    finally:
        if wakeup is not None:
            signal.set_wakeup_fd(old)
        for each, handler in before.items():
            signal.signal(each, handler)
