"""What a verification prints: a line per check while it runs, and at its end the verdict, what to do, and tables."""

import contextlib
import os
import re
import shlex
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from alexnet_repro.verify.report.tables import (
    LEGEND,
    TextTable,
    cost_table,
    device_table,
    scaling_table,
    throughput_table,
)
from alexnet_repro.verify.report.text import (
    TERMINAL_WIDTH,
    described,
    label,
    parameters,
    summary,
    verdict_line,
    wrapped,
)
from alexnet_repro.verify.verdict import Planned
from benchmarks.plan import FOLDER

if TYPE_CHECKING:
    from benchmarks.session import VerificationSession

COLOURS = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}
STATUS = re.compile(r"((?:\[\d+/\d+\] .*  |[a-z]+ +)?)\b(PASS|FAIL|INCONCLUSIVE)\b(?=[\s:(]|$)")
# Options of pytest-benchmark with which a person asks for its tables, or for what it prints beside them.
TABLES = ("columns", "compare", "cprofile", "csv", "group-by", "histogram", "json", "name", "sort", "time-unit")
TABLES += ("autosave", "save", "verbose")


class LiveLine:
    """A line of a terminal that says what runs and for how long, until something else is printed."""

    def __init__(self, *, on: bool) -> None:
        """Take hold of the terminal: while a test runs, pytest has put a file in the place of stdout."""
        self._stream: Any = None
        self._lock, self._width = threading.RLock(), 0
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if on and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
                number, encoding = os.dup(sys.stdout.fileno()), sys.stdout.encoding
                self._stream = open(number, "w", encoding=encoding, errors="replace")  # noqa: PTH123, SIM115 - no file

    def __bool__(self) -> bool:
        """Whether there is a terminal that has such a line."""
        return self._stream is not None

    @contextlib.contextmanager
    def showing(self, text: str) -> Iterator[None]:
        """Show what runs, within the block."""
        if not self:
            yield
            return
        ended, began = threading.Event(), time.monotonic()

        def draw() -> None:
            while not ended.is_set():
                self._draw(f"{text} {self._dots()} {time.monotonic() - began:.0f} s")
                ended.wait(1.0)

        thread = threading.Thread(target=draw, name="live line", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(5.0)  # a terminal may be stopped (^S), which must not stop the run
            self.erase()

    def _dots(self) -> str:
        try:
            "…".encode(self._stream.encoding)
        except UnicodeError:
            return "..."
        return "…"

    def _draw(self, text: str) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):  # a terminal that is gone
            room = os.get_terminal_size(self._stream.fileno()).columns - 1
            shown = text[: room or 79]
            self._stream.write(f"\r{shown.ljust(min(self._width, room or 79))}")
            self._stream.flush()
            self._width = len(shown)

    def erase(self) -> None:
        """Remove the line, if it is there."""
        with self.removed():
            pass

    @contextlib.contextmanager
    def removed(self) -> Iterator[None]:
        """Remove the line, if it is there, and let nothing be drawn within the block."""
        held = self._lock.acquire(timeout=1.0)  # a terminal may be stopped (^S) while it is drawn
        try:
            if self._width:
                with contextlib.suppress(OSError, ValueError):
                    self._stream.write(f"\r{'':<{self._width}}\r")
                    self._stream.flush()
                self._width = 0
            yield
        finally:
            if held:
                self._lock.release()


class Terminal:
    """Pytest's hooks that print in place of its dots, its list of skipped tests and pytest-benchmark's tables.

    With -v they are pytest's own, beside the verdict. Tests outside this folder have pytest's output in any case.
    """

    def __init__(self, session: "VerificationSession") -> None:
        """Print nothing yet; whether pytest has a terminal isn't known before it is configured."""
        self.session, self.config = session, session.config
        self._verbose: int = self.config.getoption("verbose", 0) or 0
        self._nodes: set[str] = set()
        self._left_out: Counter[str] = Counter()
        self._number = 0
        self._printed = self._ended = False

    @cached_property
    def _own(self) -> bool:
        shown = self.config.pluginmanager.has_plugin("terminalreporter")
        return bool(shown and not self.session.collect_only and self._verbose <= 0)

    @cached_property
    def live(self) -> LiveLine:
        """The line of what runs."""
        option = self.config.getoption
        prompts = option("usepdb", False) or option("trace", False)  # a debugger's, on that line
        return LiveLine(on=self._own and option("capture", "fd") != "no" and not prompts)

    def quieten_benchmark(self) -> None:
        """Leave out pytest-benchmark's tables, which repeat ours, unless a person asked for them."""
        words = [*self.config.invocation_params.args, *shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))]
        asked = any(str(word).startswith(tuple(f"--benchmark-{each}" for each in TABLES)) for word in words)
        if self._verbose <= 0 and not asked:
            self.config.option.benchmark_quiet = True

    @property
    def width(self) -> int:
        """Characters of a line."""
        writer = self.config.get_terminal_writer()
        return int(getattr(writer, "fullwidth", TERMINAL_WIDTH)) if self._is_screen else TERMINAL_WIDTH

    @property
    def _is_screen(self) -> bool:
        return "COLUMNS" in os.environ or sys.stdout.isatty()

    def say(self, line: str, *, indent: int = 0, wrap: bool = True) -> None:
        """Print a text at once, wrapped."""
        lines = [part for text in line.split("\n") for part in wrapped(text, self.width, indent)] if wrap else [line]
        with self.live.removed():
            if self.config.pluginmanager.has_plugin("terminalreporter"):
                self.config.pluginmanager.get_plugin("terminalreporter").ensure_newline()
                for each in lines:
                    self._coloured(self.config.get_terminal_writer(), each)
                self.config.get_terminal_writer().flush()
            else:  # -p no:terminal
                print("\n".join(lines), flush=True)

    @staticmethod
    def _coloured(writer: Any, line: str) -> None:
        """Print a line, its first status in colour where the terminal has colours."""
        if (found := STATUS.match(line)) and hasattr(writer, "markup"):
            word = writer.markup(found[2], bold=True, **{COLOURS[found[2]]: True})
            line = f"{found[1]}{word}{line[found.end() :]}"
        writer.line(line)

    @pytest.hookimpl(wrapper=True)
    def pytest_report_header(self) -> Iterator[Any]:
        """Leave out pytest-benchmark's settings, of which few are those of our own timer."""
        headers = yield
        return [each for each in headers if self._verbose > 0 or not str(each).startswith("benchmark: ")]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note which tests are ours."""
        self._nodes = {item.nodeid for item in session.items if item.path.parent == FOLDER}

    def _is_own(self, nodeid: str) -> bool:
        return self._own and nodeid in self._nodes

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Let pytest print the names of other files only."""
        if reporter := self.config.pluginmanager.get_plugin("terminalreporter"):
            own = self._is_own(nodeid)
            reporter.showfspath = False if own else None
            if own:
                reporter.ensure_newline()

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """Count our tests as pytest does, and print neither letter nor word."""
        if not isinstance(report, pytest.TestReport) or not self._is_own(report.nodeid):
            return None
        if report.outcome not in ("passed", "failed", "skipped"):  # another plugin's
            return None
        if report.when == "call" or report.skipped:
            return report.outcome, "", ""
        return ("error" if report.failed else ""), "", ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count what doesn't apply here, by its reason."""
        if report.skipped and self._is_own(report.nodeid) and not self.session.keeper.planned_of(report.nodeid):
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self._left_out[why.removeprefix("Skipped: ")] += 1

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        """Show a check or case while it runs, and what became of it; a failure with its fix."""
        planned = self.session.keeper.planned_of(item.nodeid) if self._own else None
        if planned is None:
            return (yield)
        self._number += 1
        what = f"[{self._number}/{self.session.keeper.count}] {_title(planned)}"
        began = time.monotonic()
        with self.live.showing(what):
            result = yield
        found = self.session.keeper.found(planned)
        status = planned.status or ("FAIL" if planned.state == "lost" else "not run")
        if status == "FAIL" or (self._verbose == 0 and not (self.live and status == "PASS")):
            self.say(f"{what}  {status}  {time.monotonic() - began:.1f} s", indent=8)
        for each in found:
            if each.status == "FAIL":
                self.say(f"    {described(each)}", indent=6)
                if each.fix:
                    self.say(f"    fix: {each.fix}", indent=6)
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
        """Print the verdict before what pytest and others print, and tables below it.

        Pytest lists no test of ours that was skipped or failed by a finding, and counts it all the same.
        """
        stats, whole = terminalreporter.stats, {name: list(each) for name, each in terminalreporter.stats.items()}
        if self.session.claimed:
            terminalreporter.section("verdict")
            for line in self._verdict():
                self._coloured(self.config.get_terminal_writer(), line)
            self._printed = True
        try:
            for name in ("skipped", "failed") if self._own else ():
                if kept := [each for each in stats.get(name, ()) if not self._is_told(each)]:
                    stats[name] = kept
                else:
                    stats.pop(name, None)
            return (yield)
        finally:  # pytest-benchmark's comparison may end in an error
            stats.update(whole)
            for title, lines in self._tables():
                if title and lines:
                    terminalreporter.section(title)
                for line in lines:
                    terminalreporter.write_line(line)

    def _is_told(self, report: Any) -> bool:
        """Whether the verdict says what a report of ours says: a finding, or why it doesn't apply."""
        nodeid = getattr(report, "nodeid", "")
        return self._is_own(nodeid) and (report.skipped or self.session.keeper.failed_by_finding(nodeid))

    def _verdict(self) -> Iterator[str]:
        session, width = self.session, self.width
        yield from summary(session.whole, width)
        yield ""
        if self._left_out:
            reasons = "; ".join(f"{why} ({count})" for why, count in self._left_out.items())
            count = self._left_out.total()
            yield from wrapped(f"{count} more case{'s' * (count > 1)} not part of it: {reasons}", width, 2)
        if session.devices == ("cpu:0",) and not session.not_ready:
            yield from wrapped("GPU: not run; this machine has none, or none was selected", width, 2)
        yield f"results: {session.whole.path}"
        if session.report:
            yield session.report

    def _tables(self) -> Iterator[tuple[str, Sequence[str]]]:
        session, width = self.session, min(self.width, 120)
        timings = session.record.timings
        if timings:
            tables = (throughput_table(timings, session.record.invalid), cost_table(timings, conditions=False))
            shown = [each.fitted(width) for each in tables]
            legend = [line for each in LEGEND.splitlines() for line in wrapped(each, width, 2)]
            yield "throughput, on synthetic images", ["\n\n".join([*filter(None, shown), "\n".join(legend)])]
        yield "", [each.fitted(width) if isinstance(each, TextTable) else each for each in session.lines]
        found = session.whole.findings["fast"]
        together = [table(found).fitted(width) for table in (device_table, scaling_table)]
        yield "devices together", list(filter(None, together))

    def last_words(self) -> None:
        """Print the verdict below all else, once; where pytest printed no summary, all that would have been in it."""
        if self._ended:
            return
        self._ended = True
        for line in () if self._printed else self._verdict():
            self.say(line, indent=2)
        self.say(verdict_line(self.session.whole), indent=2, wrap=sys.stdout.isatty())  # a log is searched by lines

    def begin_again(self) -> None:
        """Print the verdict once more: an error has changed it."""
        self._printed = self._ended = False


def _title(planned: Planned) -> str:
    """Return what runs, as `cpu:0 layers float32` or `cpu:0 forward, batch 32, float32`."""
    case = planned.name.partition("::test_")[2]
    chosen = parameters(case)[1]
    named = f"{chosen['check']} {chosen.get('precision', '')}" if "check" in chosen else label(case, ("device",))
    return f"{planned.device} {named}".strip()
