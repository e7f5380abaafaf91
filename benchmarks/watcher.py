"""A process beside `pytest benchmarks` that finishes the record of a run that can't do so itself.

It acts where the run dies (a crash, the kernel's out-of-memory killer, a library that calls `_exit`), where a test
doesn't return within its time limit, and where a signal such as SIGTERM comes while the main thread is stuck in C. What
Python can handle itself is left to it. The exit status is the run's own: a library's `_exit(0)` is 0, whatever the
record says. Here is the run's side; the watcher's own is in `watcher_process.py`.

The watcher ends with the machine, and with what ends every process: where pytest is a container's first process, or
where a service's or a job's whole control group is killed, results.json stays as the run last wrote it: incomplete.
"""

import contextlib
import faulthandler
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.watcher_process import DUMP_STACKS, MARK

CHILD = "benchmarks.watcher_process"
STARTS, LEAVES = 10.0, 2.0  # seconds that the watcher has to start, and to leave


class Watcher:
    """The run's side: it starts the watcher, and says what runs.

    A `begin` without `end`, or an end of the process without `close`, is a failure of the run. None of the methods
    raises or waits because the watcher is gone. From the start to `close`, Python writes fatal errors to the watcher,
    which prints them; `close` gives them back to stderr.
    """

    def __init__(self, results: Path, junit: Path, *, grace: float = 10.0) -> None:
        """Start the watcher; OSError: it can't be. It writes the files and the page, and prints on the stderr of now.

        `grace` is how long, in seconds, a process may live on after a signal such as SIGTERM without saying anything.
        """
        self._pid, on = os.getpid(), faulthandler.is_enabled()
        with contextlib.ExitStack() as opened:
            stacks = self._stacks = opened.enter_context(tempfile.TemporaryFile())
            self._socket, theirs = map(opened.enter_context, socket.socketpair())
            heard, self.signal_fd = os.pipe()  # heard stays open here: what writes never finds the pipe broken
            os.set_blocking(self.signal_fd, False)
            for descriptor in (heard, self.signal_fd):
                opened.callback(os.close, descriptor)
            passed = {"messages": theirs.fileno(), "signals": heard, "stacks": stacks.fileno()}
            mark = f"{self._pid}.{time.time_ns()}"
            given = {"results": str(results.absolute()), "junit": str(junit.absolute())}
            given |= {"pid": self._pid, "mark": mark, "grace": grace, **passed}
            self._process = subprocess.Popen(  # noqa: S603 - ours
                [sys.executable, "-P", "-m", CHILD, json.dumps(given)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=_environ(),
                pass_fds=tuple(passed.values()),
                start_new_session=True,
            )
            opened.callback(self._end)
            theirs.close()
            self._socket.settimeout(STARTS)
            if not self._socket.recv(1):
                raise OSError(f"the watcher ended at its start: {sys.executable}")
            self._socket.setblocking(False)
            opened.callback(lambda: faulthandler.enable(2) if on else faulthandler.disable())
            faulthandler.enable(stacks)
            opened.callback(faulthandler.unregister, DUMP_STACKS)
            faulthandler.register(DUMP_STACKS, stacks)
            os.environ[MARK] = mark
            self._opened = opened.pop_all()

    def begin(self, name: str, limit: float | None) -> None:
        """Say that a test begins: its name in the plan, and its time limit in seconds, if it has one.

        Where SIGCONT comes by `signal_fd`, the limit begins anew: time in which the process is stopped (^Z) is no hang.
        """
        self._say({"begin": name, "limit": limit})

    def end(self) -> None:
        """Say that the test ended."""
        self._say({"end": True})

    def close(self) -> None:
        """Let the watcher go, once the record is finished, also of a run that never began."""
        self._say({"close": True})
        if os.getpid() != self._pid or not self._opened:
            return
        opened, self._opened = self._opened, None
        opened.close()

    def _say(self, message: dict[str, Any]) -> None:
        if os.getpid() != self._pid or not self._opened:  # a fork of the run; it was closed
            return
        try:
            message["stacks"] = os.fstat(self._stacks.fileno()).st_size  # what is there by now is a fork's
            self._socket.send(json.dumps(message).encode() + b"\n", getattr(socket, "MSG_NOSIGNAL", 0))
        except OSError:  # it is gone, or stopped: one that missed something must not act
            self._process.kill()

    def _end(self) -> None:
        try:
            self._process.wait(LEAVES)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _environ() -> dict[str, str]:
    """Return the watcher's environment: our package before an installed one, no GPU, no mark."""
    path = os.pathsep.join(filter(None, (str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH"))))
    return {**{k: v for k, v in os.environ.items() if k != MARK}, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1"}
