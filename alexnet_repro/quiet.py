"""What libraries write to stderr: kept while a program is well, and shown where it isn't.

TensorFlow and XLA write to descriptor 2 from C++, some of it before a variable could stop them: that oneDNN is on, that
there is no CUDA driver. Beside the program runs this file as a script: it prints what was kept if the program dies.
"""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

SHOWN = ("0", "1")  # values of TF_CPP_MIN_LOG_LEVEL with which a person asks for what libraries say
KEPT = 64_000  # bytes, the last ones
# Lines of a sound machine: abseil's start, information and warnings in either of TensorFlow's formats, and errors that
# every machine without a driver, or every start of TensorFlow 2.17 to 2.19 on a GPU, has.
HARMLESS = re.compile(
    r"\s*$|WARNING: All log messages before absl::|[IW]\d{4} |\d{4}-\d\d-\d\d [\d:.]+: [IW] |To enable the following"
    r"|.*(?:failed call to cuInit|Unable to register cu\w+ factory|computation placer already registered)"
)


@dataclass
class KeptOutput:
    """The output of libraries so far."""

    file: IO[bytes] | None = None  # None: it isn't kept, but on stderr
    explains_an_error: bool = False
    """It is to be printed when the block ends, if a sound machine wouldn't have it."""

    def text(self) -> str:
        """Return the end of it, within the block."""
        return _end(self.file.fileno()) if self.file else ""

    def end(self) -> None:
        """Print it if it explains an error."""
        if self.explains_an_error and (telling := _telling(self.text())):
            print(telling, file=sys.stderr, flush=True)


@contextlib.contextmanager
def kept_output(*, pythons_too: bool = False) -> Iterator[KeptOutput]:
    """Keep what is written to descriptor 2 within the block.

    Python's own `sys.stderr` stays what it was, unless what it writes is to be kept, too. Where the program dies in the
    block, what was kept is printed if a sound machine wouldn't have it. TF_CPP_MIN_LOG_LEVEL=0 or 1: nothing is kept.
    """
    kept = KeptOutput()
    with contextlib.ExitStack() as opened:
        if os.environ.get("TF_CPP_MIN_LOG_LEVEL") not in SHOWN:
            with contextlib.suppress(OSError):  # no room for a file, or no more processes
                kept.file = _begin(opened, kept, pythons_too=pythons_too)
        yield kept


def _begin(opened: contextlib.ExitStack, kept: KeptOutput, *, pythons_too: bool) -> IO[bytes]:
    with contextlib.ExitStack() as now:
        file = now.enter_context(tempfile.TemporaryFile())
        stderr = os.dup(2)
        now.callback(os.close, stderr)
        heard, alive = os.pipe()
        now.callback(os.close, alive)
        command = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
        try:
            beside = subprocess.Popen(  # noqa: S603 - this file
                command, stdin=heard, stdout=file, stderr=stderr, start_new_session=True
            )
        finally:
            os.close(heard)
        now.callback(_let_go, beside, alive)
        now.callback(kept.end)
        if not pythons_too and _is_stderr(sys.stderr):
            # It stays when the block is over: loggers have it by then.
            encoding, errors = sys.stderr.encoding, sys.stderr.errors
            sys.stderr = open(os.dup(stderr), "w", 1, encoding, errors)  # noqa: PTH123, SIM115 - a descriptor
        os.dup2(file.fileno(), 2)
        now.callback(os.dup2, stderr, 2)
        opened.push(now.pop_all())
    return file


def _is_stderr(stream: object) -> bool:
    try:
        return stream.fileno() == 2  # type: ignore[attr-defined, no-any-return]  # noqa: PLR2004
    except (AttributeError, OSError, ValueError):
        return False


def _let_go(beside: "subprocess.Popen[bytes]", alive: int) -> None:
    with contextlib.suppress(OSError):  # it is gone
        os.write(alive, b".")
    with contextlib.suppress(subprocess.TimeoutExpired):
        beside.wait(5)


def _end(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, KEPT, max(0, size - KEPT)).decode(errors="replace")


def _telling(text: str) -> str:
    """Return the text; empty where a sound machine has every line of it."""
    return "" if all(map(HARMLESS.match, text.splitlines())) else text.rstrip()


def _watch(program: int) -> None:
    """Wait until the program lets go, which is all, or dies: then print what it had kept, which is on descriptor 1."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while not select.select([0], [], [], 1.0)[0]:
        if os.getppid() != program:  # a fork of it may hold the pipe
            break
    else:
        if os.read(0, 1):
            return
    if telling := _telling(_end(1)):
        with contextlib.suppress(OSError):
            os.write(2, f"{telling}\n".encode())


if __name__ == "__main__":
    _watch(int(sys.argv[1]))
