"""Functions run in a child process with a deadline, so that a hang or a crash is a result too.

A child answers on a pipe of its own, and each answer says what it answers: what prints, closes or redirects the child's
stdout, as a library or a `sitecustomize` may, can neither move an answer nor pass for one. It imports the very files
that this process imports.
"""

import contextlib
import fcntl
import importlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import IO, Any

from alexnet_repro.backend.limits import oom_kills

# The first code in a child. It imports nothing that a file could shadow before the folders are the parent's, and leaves
# import hooks before them.
START = """\
import sys
from _frozen_importlib_external import PathFinder
folder_of = {{name: folder for folder, names in {folders!a}.items() for name in names}}
class ParentsFiles:
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, [folder_of[name]]) if name in folder_of else None
sys.path[:] = {path!a}
sys.meta_path.insert(sys.meta_path.index(PathFinder), ParentsFiles)
from {module} import give_answers
give_answers(*{arguments!a})
"""


class NoAnswerError(Exception):
    """The child gave no answer in time, or a wrong one, or ended by a signal or with an error; `log` is its output."""

    def __init__(self, reason: str, log: str) -> None:
        """Keep the reason and what the child wrote to stdout and stderr."""
        super().__init__(reason)
        self.log = log


def answers(
    module: str,
    arguments: Sequence[str],
    deadline: float,
    environ: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
    *,
    paced: bool = False,
) -> Generator[tuple[str, dict[str, Any]], None, None]:
    """Run a module's `main(*arguments)` in a new Python, with these environment variables changed.

    `main` yields pairs of what is answered and the answer, a dictionary. They are yielded as they come, as JSON has
    them, each answer with the end of the child's stdout and stderr so far as `log`. A `paced` child works on an answer
    only while it is waited for here.

    Raises:
        NoAnswerError: no answer within `deadline` seconds, it can't be read, the child's exit status is not 0, it ended
            before `main` did, or another thread has set `stop`; then the child is ended.
    """
    sender, (killed, _) = secrets.token_hex(8), oom_kills()
    channel, childs_end = Pipe(duplex=False)
    with channel, tempfile.TemporaryFile() as log:
        # Not a number that is to be stdin's, stdout's or stderr's: those may be closed here.
        with childs_end, Connection(fcntl.fcntl(childs_end, fcntl.F_DUPFD_CLOEXEC, 3), readable=False) as passed:
            process = subprocess.Popen(  # noqa: S603 - our own modules; never fork, TensorFlow doesn't survive it
                [*_python(), "-c", _start([passed.fileno(), sender, paced, module, *arguments])],
                stdin=subprocess.PIPE if paced else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[passed.fileno()],
                env={**os.environ, **(environ or {})},
                start_new_session=True,
            )
        try:
            ended = False
            _ask(process)
            for line in _lines(channel, process, deadline, stop):
                if ended := (found := _read(line, sender)) is None:
                    continue
                name, answer = found
                yield name, {**answer, "log": _tail(log)}
                _ask(process)
            status = process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise NoAnswerError(f"no answer within {deadline:g} s", _tail(log)) from None
        except ValueError as error:
            raise NoAnswerError(str(error), _tail(log)) from None
        finally:
            _end(process)
        if status:
            how = f"ended by {_signal_name(-status)}" if status < 0 else f"exit status {status}"
            more, path = oom_kills()
            if status == -signal.SIGKILL and more > killed:
                how += f"; meanwhile the kernel killed {more - killed} for want of memory: oom_kill in {path}"
            raise NoAnswerError(how, _tail(log))
        if not ended:  # whatever left, be it a library's exit(0), it wasn't `main`
            raise NoAnswerError("it ended without an answer", _tail(log))


def answer_each(
    module: str,
    arguments: Sequence[str],
    names: Sequence[str],
    deadline: float,
    environ: Mapping[str, str] | None = None,
) -> Generator[tuple[str, dict[str, Any]], None, None]:
    """Yield the child's answer for each name, in their order; a name that kills the child has an `error`.

    The child gives one answer per name, in their order, and may stop early: another one continues with the names left.
    It has ended after the last one, or when this is closed. An answer to anything else is the error of the name whose
    turn it was.
    """
    left = list(names)
    while left:
        before, failed, log = len(left), "", ""
        try:
            # Closed here: what comes while a dropped generator waits for the child's end, such as Ctrl-C, is lost.
            with contextlib.closing(answers(module, [*arguments, *left], deadline, environ)) as child:
                for name, answer in child:
                    if name != left[0]:
                        failed, log = f"it answered {name!r} where {left[0]!r} was due", answer["log"]
                        break
                    yield left.pop(0), answer
                    if not left:
                        return
                else:
                    failed = "it ended without an answer" if len(left) == before else ""
        except NoAnswerError as error:
            failed, log = str(error), error.log
        if failed:
            yield left.pop(0), {"error": failed, "log": log}


def give_answers(channel: int, sender: str, paced: bool, module: str, *arguments: str) -> None:
    """Write, in the child, what a module's `main` yields to the descriptor `channel`, which no grandchild inherits.

    A `paced` one waits for a byte of stdin before it works on each answer.
    """
    os.set_inheritable(channel, False)
    with open(channel, "w", encoding="utf-8") as stream:
        if paced and not os.read(0, 1):
            return  # nobody waits any more
        for name, answer in importlib.import_module(module).main(*arguments):
            print(json.dumps({"sender": sender, "answers": name, "answer": answer}), file=stream, flush=True)
            if paced and not os.read(0, 1):
                return
        print(json.dumps({"sender": sender, "ended": True}), file=stream)


def _ask(process: "subprocess.Popen[bytes]") -> None:
    """Let a paced child work on its next answer."""
    if process.stdin:
        with contextlib.suppress(BrokenPipeError):  # it has ended
            os.write(process.stdin.fileno(), b".")


def _python() -> list[str]:
    """Return the command of a Python with this one's options, which prints without delay.

    By `-P` not even Python itself imports from the working folder before `START` has run.
    """
    options = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001 - as multiprocessing
    return [sys.executable, *options, "-P", "-u"]


def _start(arguments: Sequence[str | int]) -> str:
    """Return `START` with the arguments of `give_answers`, `sys.path`, and the folders of the modules of this process.

    Those aren't always what `sys.path` says now: pytest has imported a hundred modules before it adds `pythonpath`.
    """
    folders: dict[str, list[str]] = {}
    for name, module in list(sys.modules.items()):
        spec: Any = getattr(module, "__spec__", None)
        if "." not in name and getattr(spec, "has_location", False):
            file = Path(str(spec.origin))
            folder = file.parent if spec.submodule_search_locations is None else file.parent.parent
            folders.setdefault(str(folder), []).append(name)
    strings = [folder for folder in sys.path if isinstance(folder, str)]  # Python ignores what is none
    return START.format(path=strings, folders=folders, module=__name__, arguments=arguments)


def _lines(
    channel: "Connection[Any, Any]",
    process: "subprocess.Popen[bytes]",
    deadline: float,
    stop: threading.Event | None,
) -> Iterator[bytes]:
    """Yield each line that is written within `deadline` seconds, until the child ends or closes the channel."""
    end, rest = time.monotonic() + deadline, b""
    while True:
        ended = process.poll() is not None  # a grandchild may keep the channel open
        left = max(0.0, end - time.monotonic())
        if wait([channel], 0 if ended else min(0.5, left)):
            if not (read := os.read(channel.fileno(), 65_536)):
                break
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                yield line
                end = time.monotonic() + deadline
        elif ended:
            break
        if stop and stop.is_set():
            raise ValueError("it was stopped")
        if time.monotonic() >= end:  # also where a grandchild goes on writing
            raise subprocess.TimeoutExpired(process.args, deadline)
    if rest and process.wait(deadline) == 0:  # or how it died says more
        yield rest


def _read(line: bytes, sender: str) -> tuple[str, dict[str, Any]] | None:
    """Return an answer with its name; None: it was the last one."""
    with contextlib.suppress(ValueError):
        message = json.loads(line)
        if isinstance(message, dict) and message.get("sender") == sender:
            match message:
                case {"answers": str(name), "answer": dict(answer)}:
                    return name, answer
                case {"ended": True}:
                    return None
    raise ValueError(f"its answer can't be read: {line[:200].decode(errors='replace')}")


def _signal_name(number: int) -> str:
    return next((each.name for each in signal.Signals if each == number), f"signal {number}")  # real-time ones


def _tail(log: IO[bytes]) -> str:
    size = os.fstat(log.fileno()).st_size
    return os.pread(log.fileno(), 65_536, max(0, size - 65_536)).decode(errors="replace")


def _end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the driver, where no signal reaches it
        process.wait(5)
    if process.stdin:
        process.stdin.close()
