"""Signals such as SIGTERM and SIGHUP end a run as Ctrl-C does: with a verdict, and its files."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from benchmarks.watcher_process import ENDING

_replaced: dict[signal.Signals, Any] = {}  # while a run goes on: the handlers that it has put its own in place of


def _before_fork() -> None:
    if _replaced:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # one may come for the child before it is one


def _in_parent() -> None:
    if _replaced:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def _in_child() -> None:
    """Give a fork of the run its signals back: one that ends the fork, as of a pool's process, isn't the run's."""
    if _replaced:
        signal.set_wakeup_fd(-1)
        while _replaced:
            signal.signal(*_replaced.popitem())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)


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
    _replaced.update(before)
    old = -1 if wakeup is None else signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    try:
        yield
    finally:
        if wakeup is not None:
            signal.set_wakeup_fd(old)
        for each, handler in before.items():
            _replaced.pop(each, None)
            signal.signal(each, handler)
