"""SIGINT and SIGTERM as a wish to stop, granted when the work at hand is done."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Wish:
    """Whether, and by which signal, an end was asked for."""

    by: signal.Signals | None = None

    def __call__(self) -> bool:
        """Return whether it was."""
        return self.by is not None


@contextmanager
def deferred_signals() -> Iterator[Wish]:
    """Remember the first SIGINT or SIGTERM, and say that it was heard; a second one acts as it always does.

    To be used in the main thread.
    """
    wish = Wish()

    def heard(number: int, _: FrameType | None) -> None:
        wish.by = signal.Signals(number)
        restore()
        print(f"\n{wish.by.name}: stopping after the updates at hand; once more, and it stops at once", file=sys.stderr)

    def restore() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {each: signal.signal(each, heard) for each in SIGNALS}
    try:
        yield wish
    finally:
        restore()
