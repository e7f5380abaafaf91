"""Functions run in a child process with a deadline, so that a hang or a crash is a result too."""

import contextlib
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

PACKAGE_FOLDER = str(Path(__file__).resolve().parents[2])


class NoAnswerError(Exception):
    """The child gave no answer in time, or ended by a signal or with an error; `log` is its stderr."""

    def __init__(self, reason: str, log: str) -> None:
        """Keep the reason and the child's stderr."""
        super().__init__(reason)
        self.log = log


def answers(
    module: str, arguments: Sequence[str], deadline: float, environ: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """Run a module's `main(*arguments)` in a new Python, with these environment variables changed.

    What it yields, as JSON has it, is yielded as it comes, with the child's stderr so far as `log`.

    Raises:
        NoAnswerError: no answer within `deadline` seconds, or the child's exit status is not 0.
    """
    changed = {"PYTHONPATH": os.pathsep.join(filter(None, (PACKAGE_FOLDER, os.environ.get("PYTHONPATH"))))}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603 - our own modules; never fork, TensorFlow doesn't survive it
            [sys.executable, "-u", "-m", __name__, module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **changed, **(environ or {})},
            start_new_session=True,
        )
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=_read_lines, args=(process.stdout, lines.put), daemon=True).start()
        try:
            while (line := lines.get(timeout=deadline)) is not None:
                with contextlib.suppress(ValueError):  # a library's output
                    yield {**json.loads(line), "log": _tail(log)}
            status = process.wait(deadline)
        except (queue.Empty, subprocess.TimeoutExpired):
            raise NoAnswerError(f"no answer within {deadline:g} s", _tail(log)) from None
        finally:
            _end(process)
        if status:
            how = f"ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
            raise NoAnswerError(how, _tail(log))


def answer_each(
    module: str,
    arguments: Sequence[str],
    names: Sequence[str],
    deadline: float,
    environ: Mapping[str, str] | None = None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the child's answer for each name, in their order; a name that kills the child has an `error`.

    The child gives one answer per name, and may stop early: another one continues with the names left.
    """
    left = list(names)
    while left:
        before, failed, log = len(left), "", ""
        try:
            for answer in answers(module, [*arguments, *left], deadline, environ):
                yield left.pop(0), answer
                if not left:
                    return
            failed = "it ended without an answer" if len(left) == before else ""
        except NoAnswerError as error:
            failed, log = str(error), error.log
        if failed:
            yield left.pop(0), {"error": failed, "log": log}


def _read_lines(stream: IO[str], put: Callable[[str | None], None]) -> None:
    with stream:
        for line in stream:
            put(line)
    put(None)


def _tail(log: IO[bytes]) -> str:
    size = os.fstat(log.fileno()).st_size
    return os.pread(log.fileno(), 65_536, max(0, size - 65_536)).decode(errors="replace")


def _end(process: "subprocess.Popen[str]") -> None:
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the driver, where no signal reaches it
        process.wait(5)


if __name__ == "__main__":  # in the child
    for answer in importlib.import_module(sys.argv[1]).main(*sys.argv[2:]):
        print(json.dumps(answer), flush=True)
