"""The watcher's own process: it waits for the run's end, and finishes the record of one that can't; see `watcher.py`.

Until it must act it imports little but the standard library, and looks once a second whether the run lives, since a
fork of the run may keep open what would tell.
"""

import contextlib
import itertools
import json
import math
import os
import re
import select
import shlex
import signal
import socket
import stat
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet_repro.backend.limits import oom_kills
from alexnet_repro.layout import VERIFY

if TYPE_CHECKING:
    from alexnet_repro.verify.report.run_record import RunRecord

# Where they are, real-time signals are nobody's: SIGUSR1 and SIGUSR2 may be a batch system's.
DUMP_STACKS = getattr(signal, "SIGRTMAX", signal.SIGUSR2)
MARK = "ALEXNET_REPRO_RUN"  # an environment variable by which a run's processes are found when it is gone
# What others send to end a process: batch systems (--signal), limits of processor time, Ctrl-\\.
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGXCPU)
FINISHING = 6  # how many times as long a run has that was interrupted, once Python is known to run
DUMPS, DIES, ACTS = 2.0, 5.0, 60  # seconds: the time limits of a dump, of a killed process, of all that is done then
DRIVER = "python -m alexnet_repro doctor; sudo dmesg | grep -i xid # for the driver's error messages"
MEMORY = "sudo dmesg | grep -i -E 'oom|killed'; free -m"


@dataclass
class End:
    """How a run ended that couldn't finish itself."""

    message: str
    running: str = ""  # the test's name in the plan; empty between tests
    evidence: str = ""
    fix: str = ""
    interrupted: bool = False  # by a signal, which is no failure
    died: bool = False  # by itself: what it wrote last may say why
    output: str = ""  # to be printed: fatal error, stacks


class Watched:
    """The watcher's side: what it knows of the run."""

    def __init__(self, pid: int, mark: str, grace: float, messages: int, signals: int, stacks: int) -> None:
        """Take over the descriptors; say that the watcher is ready."""
        self._pid, self._mark, self._grace, self._stacks = pid, mark, grace, stacks
        self._messages, self._signals = socket.socket(fileno=messages), signals
        self._messages.setblocking(False)
        os.set_blocking(signals, False)
        self._running, self._limit, self._unread, self._closed = "", math.inf, b"", False
        self._deadline = self._kill_at = self._look_at = math.inf
        self._signal, self._signal_at = signal.SIGTERM, -math.inf
        self._captured: int | None = None  # the run's stderr, where pytest captures it
        self._stacks_from, (self._oom_kills, _) = 0, oom_kills()
        self._poll, self._longest = select.poll(), 1.0  # seconds until it is looked whether the run lives
        for descriptor in (messages, signals):
            self._poll.register(descriptor, select.POLLIN)
        self._messages.send(b"\n")

    def end(self) -> End | None:
        """Wait until the run finishes its record itself, None, or can't; then it is dead, or stopped."""
        while True:
            until = min(self._deadline, self._kill_at, self._look_at) - time.monotonic()
            self._poll.poll(math.ceil(1000 * min(max(until, 0), self._longest)))
            died = not self._alive()  # first: what it said before is heard next
            self._hear()
            now = time.monotonic()
            if self._closed:
                return None
            if died:
                signal.alarm(ACTS)
                return self._dead()
            if now >= self._kill_at:
                return self._killed(self._interrupted())
            if now >= self._look_at:
                self._look_at = math.inf
                self._find_captured()
            if now >= self._deadline:
                if not self._stopped():
                    fix = f"{VERIFY} -s {shlex.quote(f'benchmarks/{self._running}')}; {DRIVER}"
                    return self._killed(End(f"it didn't return within {self._limit:g} s", self._running, fix=fix))
                self._deadline = now + self._limit

    def _alive(self) -> bool:
        return os.getppid() == self._pid

    def _hear(self) -> None:
        """Read what came from signal handlers, and then from the run, whose words show that Python runs."""
        with contextlib.suppress(BlockingIOError):
            while numbers := os.read(self._signals, 4096):
                for number in numbers:
                    self._take_signal(number)
            self._forget(self._signals)
        with contextlib.suppress(BlockingIOError):
            with contextlib.suppress(ConnectionError):
                while received := self._messages.recv(65_536):
                    *lines, self._unread = (self._unread + received).split(b"\n")
                    for line in lines:
                        self._take(json.loads(line))
            self._forget(self._messages.fileno())
            self._longest = 0.05  # it is about to end
            self._deadline = math.inf  # if it lives, it can't say any more that the test ended

    def _forget(self, descriptor: int) -> None:
        with contextlib.suppress(KeyError):
            self._poll.unregister(descriptor)

    def _take(self, message: dict[str, Any]) -> None:
        now = time.monotonic()
        if "end" in message and self._kill_at < math.inf:  # Python runs, and finishes the record
            self._kill_at = now + FINISHING * self._grace
        self._closed = self._closed or "close" in message
        self._running, limit = message.get("begin", ""), message.get("limit")
        self._limit = math.inf if limit is None else limit
        self._deadline = now + self._limit
        self._stacks_from = message["stacks"]
        if self._running and self._captured is None:
            self._look_at = now + 0.2

    def _take_signal(self, number: int) -> None:
        now = time.monotonic()
        if number == signal.SIGCONT:
            self._deadline = now + self._limit
        if number in ENDING:
            self._kill_at = min(self._kill_at, now + self._grace)
        if number in {*ENDING, signal.SIGINT}:
            self._signal, self._signal_at = signal.Signals(number), now

    def _find_captured(self) -> None:
        """Keep hold of pytest's file of captured stderr: a library's last words, which end with the run otherwise."""
        path = f"/proc/{self._pid}/fd/2"
        with contextlib.suppress(OSError):
            found = os.stat(path)  # noqa: PTH116
            if stat.S_ISREG(found.st_mode) and not found.st_nlink:
                self._captured = os.open(path, os.O_RDONLY)

    def _stopped(self) -> bool:
        import psutil

        with contextlib.suppress(psutil.Error):
            return psutil.Process(self._pid).status() in {psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP}
        return False

    def _interrupted(self) -> End:
        return End(f"ended by {self._signal.name}", self._running, interrupted=True)

    def _dead(self) -> End:
        """Return why the run died."""
        stacks, captured = _tail(self._stacks, self._stacks_from), _tail(self._captured)
        said = {"evidence": _evidence(captured, stacks), "output": captured + stacks}
        if fatal := re.search("^Fatal Python error: (.+)$", stacks, re.MULTILINE):
            return End(f"the process died: {fatal[1]}", self._running, fix=DRIVER, died=True, **said)
        if time.monotonic() - self._signal_at < FINISHING * self._grace:
            return self._interrupted()
        kills, path = oom_kills()
        if killed := kills - self._oom_kills:
            said["evidence"] = f"meanwhile the kernel killed {killed} for want of memory: oom_kill in {path}"
        how = "killed, perhaps by the kernel for want of memory, or ended by a library"
        return End(f"the process died without a trace: {how}", self._running, fix=MEMORY, died=True, **said)

    def _killed(self, end: End) -> End:
        """Return the end with the stacks of all threads, once the run is stopped: it must write nothing more."""
        signal.alarm(ACTS)
        self._find_captured()
        before = size = os.fstat(self._stacks).st_size
        self._send(DUMP_STACKS)
        until = time.monotonic() + DUMPS
        while time.monotonic() < until and (size == before or size != os.fstat(self._stacks).st_size):
            size = os.fstat(self._stacks).st_size
            time.sleep(0.05)
        stacks, captured = _tail(self._stacks, before), _tail(self._captured)
        end.evidence, end.output = _evidence(captured, stacks), captured + stacks
        self._send(signal.SIGSTOP)
        return end

    def kill(self) -> None:
        """Kill the run, if it lives, and what it started: last, so that who waits for its end finds the files."""
        import psutil

        started: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            started = psutil.Process(self._pid).children(recursive=True)
        self._send(signal.SIGKILL)
        until = time.monotonic() + DIES  # in a driver's call, no signal ends it
        while self._alive() and time.monotonic() < until:
            time.sleep(0.02)
        self._end_processes(started)

    def _send(self, number: int) -> None:
        with contextlib.suppress(OSError):
            if self._alive():
                os.kill(self._pid, number)

    def _end_processes(self, started: list[Any]) -> None:
        """Kill the processes that the run started, and those that have its mark in their environment."""
        import psutil

        for each in [*started, *psutil.process_iter()]:
            with contextlib.suppress(psutil.Error, OSError):
                if each.pid != os.getpid() and (each in started or each.environ().get(MARK) == self._mark):
                    each.kill()


def _tail(descriptor: int | None, start: int = 0) -> str:
    """Return the end of a file, at most 64 KiB, nothing from before `start`."""
    if descriptor is None:
        return ""
    start = max(start, os.fstat(descriptor).st_size - 65_536)
    return os.pread(descriptor, 65_536, start).decode(errors="replace")


def _evidence(captured: str, stacks: str) -> str:
    """Return the last lines that were printed, and the innermost frames of the thread that hangs or crashed."""
    # Without what TensorFlow logs for information.
    printed = [
        line.strip()[:200] for line in captured.splitlines() if line.strip() and not re.match(r"[IW]\d{4} ", line)
    ]
    current = re.search(r"^Current thread .*\n((?:  .+\n?)*)", stacks, re.MULTILINE)
    frames = [line.strip() for line in (current[1] if current else stacks).splitlines()]
    of_test = itertools.takewhile(lambda frame: not re.search("/(_pytest|pluggy)/", frame), frames)
    return " | ".join([*printed[-3:], *list(of_test)[:8]])


def finish(end: End, results: Path, junit: Path, began: float) -> None:
    """Write results.json, junit.xml and the page of a run that ended so, and print the verdict.

    Nothing is written where the run's own results.json can't be read. `began` is by `time.monotonic`.
    """
    from alexnet_repro.verify.doctor.endings import error_lines, find_ending
    from alexnet_repro.verify.finding import Finding
    from alexnet_repro.verify.report.junit import write_junit
    from alexnet_repro.verify.report.page import report_line
    from alexnet_repro.verify.report.run_record import UnreadableError, read_results
    from alexnet_repro.verify.report.text import TERMINAL_WIDTH, summary, verdict_line, wrapped

    try:
        record = read_results(results)
    except UnreadableError as error:
        _print(f"\n{end.output.rstrip()}")
        _print(f"{end.running or 'the run'}: {end.message}; there is nothing to finish: {error}")
        return
    record.began = began
    end = _without_serials(end, record)
    _print(f"\n{end.output.rstrip()}")
    entry = next((each for each in record.plan if each.name == end.running), None)
    if end.died and (ending := find_ending((entry and entry.device) or "cpu:0", end.message, end.output)):
        end.message, end.fix = f"{end.message}: {ending.message}", ending.fix
        end.evidence = " | ".join(filter(None, (error_lines(end.output, "cpu:0"), ending.evidence, end.evidence)))
    test = entry.short if entry else end.running or "run"
    message = end.message if end.running or end.interrupted else f"between tests {end.message}"
    ended = record.run["ended"] = message if end.interrupted or not end.running else f"{test}: {message}"
    for each in record.plan:
        if not end.interrupted and (each is entry or each.state == "running"):
            each.state, each.why, each.status = "lost", message, "FAIL"
        elif each.state in {"waiting", "running"}:
            each.state, each.why = "not asked", ended
    if not end.interrupted:
        group, device = (entry.group, entry.device) if entry else ("correct", "")
        case = entry.name.partition("::test_")[2] if entry and group == "fast" else ""
        found = Finding(test, "FAIL", message, end.evidence, end.fix, device=device, case=case, kind="crash")
        record.findings[group].append(found)
    for write in (record.write, lambda: write_junit(record, junit)):
        try:
            write()
        except OSError as error:
            _print(str(error))
    width, verdict = TERMINAL_WIDTH, [verdict_line(record)]
    if sys.stderr.isatty():
        width = os.get_terminal_size(2).columns
        verdict = wrapped(verdict[0], width, 2)
    _print("\n".join([*summary(record, width), "", f"results: {results}", report_line(record), *verdict]))


def _without_serials(end: End, record: "RunRecord") -> End:
    """Return what may be written and printed of an end, and let the record hide the same."""
    if not record.run.get("hashed"):
        return end
    from alexnet_repro.verify.doctor.inventory import machine_serials
    from alexnet_repro.verify.doctor.serials import serial_hasher

    record.hide = hasher = serial_hasher()
    hasher.learn(*machine_serials())
    return replace(end, **{name: hasher(value) for name, value in vars(end).items()})


def _print(text: str) -> None:
    if text:
        with contextlib.suppress(OSError, ValueError):  # a terminal that was closed
            if sys.stderr.isatty():
                text = f"\r{text}"  # the run may have left a line there that says what runs
            print(text, file=sys.stderr, flush=True)


def _main(results: str, junit: str, **watched: Any) -> None:
    for number in (signal.SIGINT, *ENDING):
        signal.signal(number, signal.SIG_IGN)
    began = time.monotonic()
    try:
        run = Watched(**watched)

        def too_long(_number: int, _frame: Any) -> None:
            run.kill()
            os._exit(1)

        signal.signal(signal.SIGALRM, too_long)
        if end := run.end():
            try:
                finish(end, Path(results), Path(junit), began)
            finally:
                run.kill()
    except Exception as error:  # noqa: BLE001 - nobody else would say it
        _print(f"the watcher of the run failed: {type(error).__name__}: {error}")


if __name__ == "__main__":
    _main(**json.loads(sys.argv[1]))
