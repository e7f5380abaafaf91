"""What becomes of each part of the plan: whatever happens to a test is an answer, or says why there is none."""

import os
import shlex
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from unittest import SkipTest

import pytest

from alexnet_repro.layout import VERIFY
from alexnet_repro.verify.doctor.endings import find_ending
from alexnet_repro.verify.finding import Finding, worst, worst_status
from alexnet_repro.verify.report.run_record import RunRecord
from alexnet_repro.verify.verdict import Planned, overall

LOOK = "python -m alexnet_repro doctor; sudo dmesg | tail -50"

NOT_CHOSEN = "not chosen by --device"
NO_FINDING = "it gave no finding"
NO_READER = "what read its output is gone"
ENDED = {"PASS": "passed", "FAIL": "failed", "INCONCLUSIVE": "inconclusive"}  # how a test did


class PlanKeeper:
    """Pytest's hooks that keep a run's plan, in its record."""

    def __init__(self, record: RunRecord) -> None:
        """Begin without a plan; nothing happens before it is set."""
        self.record = record
        self.ended = ""
        """Why the run ended early; empty while it goes on, or came to its end."""
        self.signal: tuple[str, int] | None = None
        """The signal that is to end the run, and the exit status for it."""
        self.on_begin: Callable[[Planned, pytest.Item], None] = lambda _planned, _item: None
        self.on_end: Callable[[], None] = lambda: None
        self._pid = os.getpid()
        self._by_node: dict[str, Planned] = {}
        self._current: Planned | None = None
        self._findings: dict[str, list[tuple[str, Finding]]] = {}  # by name in the plan
        self._earlier: dict[str, list[tuple[str, Finding]]] = {}  # of a test that is run again
        self._skipped: dict[str, str] = {}
        self._uncollected = False  # whether a file could not be collected
        self._noted: object = None  # the last report of a failure
        self._told: set[str] = set()  # tests that failed for their findings
        self._raised = ""  # the test whose failure `report` has just recorded

    @property
    def count(self) -> int:
        """The number of planned parts that run."""
        return len(self._by_node)

    def planned_of(self, node: str) -> Planned | None:
        """Return the part of the plan that a test is; None if it is none."""
        return self._by_node.get(node)

    def found(self, planned: Planned) -> list[Finding]:
        """Return the findings of a part of the plan so far."""
        return [each for _, each in self._findings.get(planned.name, ())]

    def failed_by_finding(self, node: str) -> bool:
        """Whether a test failed for findings that are recorded, and not by an error of its own."""
        return node in self._by_node and self._by_node[node].name in self._told

    def signalled(self, reason: str, status: int) -> None:
        """Note that a signal is to end the run."""
        self.signal = reason, status

    def end_by_signal(self) -> None:
        """End the run if a signal should have: something may have caught its exception."""
        if self.signal:
            pytest.exit(self.signal[0], returncode=self.signal[1])

    def report(self, group: str, *findings: Finding) -> None:
        """Record findings of the test that runs."""
        if self._current:
            self._findings.setdefault(self._current.name, []).extend((group, each) for each in findings)
        self.record.add(group, *findings)

    def fail(self, text: str) -> None:
        """Fail the test that runs, for findings that are recorded."""
        self._raised = self._current.name if self._current else ""
        self._told.add(self._raised)
        pytest.fail(text, pytrace=False)

    def collected(
        self,
        items: Sequence[pytest.Item],
        chosen: Sequence[str],
        names: Mapping[str, str],
        unusable: Container[str] = (),
    ) -> None:
        """Compare what pytest will run with the plan. `names` are those of the plan, by node id."""
        planned = {each.name: each for each in self.record.plan}
        running = [names[item.nodeid] for item in items if item.nodeid in names]
        self._by_node = {node: planned[name] for node, name in names.items() if name in planned}
        for each in self.record.plan:
            if each.name not in running:
                left_out = each.device and each.device not in chosen
                why = "not collected" if self._uncollected else "deselected, or not named"
                if left_out:
                    why = "the doctor found that it can't be used" if each.device in unusable else NOT_CHOSEN
                self._not_asked(each, why)
        self.record.write()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Note that a test runs, and what became of it; one that is interrupted stays as it is."""
        self._current = planned = self._by_node.get(item.nodeid)
        if planned is None:
            return (yield)
        self.end_by_signal()
        planned.state, planned.why = "running", ""
        self.record.write()
        self.on_begin(planned, item)
        try:
            result = yield
        except BaseException as error:  # whatever becomes of it: a second Ctrl-C may come before pytest's own hook
            self.ended = self.ended or one_line(str(error)) or "interrupted by Ctrl-C"
            raise
        finally:
            if os.getpid() != self._pid:
                os._exit(1)  # a fork in the test came back: it isn't the run, and would go on as a second one
            self.on_end()
        self._settle(planned)
        self._current = None
        self.record.write()
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """A test that is run again: its first answer stays if it was worse."""
        self._raised = ""
        if planned := self._by_node.get(item.nodeid):
            self._skipped.pop(planned.name, None)
            self._earlier.setdefault(planned.name, []).extend(self._findings.pop(planned.name, ()))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        """An exception in set-up, call or tear-down is a FAIL, whatever other plugins make of pytest's report of it.

        A test that gives no finding has passed nothing: for pytest, and JUnit, it is skipped.
        """
        report = yield
        planned = self._by_node.get(item.nodeid)
        if report.failed:
            self._failed(report)
        elif call.excinfo and not isinstance(call.excinfo.value, pytest.skip.Exception | SkipTest):
            self._failed(report, one_line(call.excinfo.exconly()))
        if planned and report.when == "call" and report.passed and not self._findings.get(planned.name):
            report.outcome, report.longrepr = "skipped", (*item.location[:2], NO_FINDING)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """So is a failure that another plugin reports; note why a test was skipped."""
        failed = report.failed or report.outcome == "rerun"
        if failed and report is not self._noted:
            self._failed(report)
        elif report.skipped and (planned := self._by_node.get(report.nodeid)):
            longrepr = report.longrepr
            self._skipped[planned.name] = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)

    def _failed(self, report: pytest.TestReport, error: str = "") -> None:
        self._noted = report
        planned = self._by_node.get(report.nodeid)
        if planned and self._raised == planned.name:
            self._raised = ""
            return
        where = {"setup": "the set-up of ", "teardown": "the tear-down of "}.get(report.when or "", "")
        self._crashed(planned, f"{where}{report.nodeid} ended with an error", error or last_line(report), report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that can't be collected is a FAIL."""
        self.end_by_signal()  # which collection takes for its error
        if report.failed:
            self._uncollected = True
            self._crashed(None, f"{report.nodeid or 'a file'} can't be collected", last_line(report))

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """So is an error of pytest's own, or of a plugin's; one that has nobody left to print for is interrupted."""
        if isinstance(excinfo.value, BrokenPipeError):
            self.ended = NO_READER
            return
        self.ended = f"an error in pytest or a plugin: {one_line(excinfo.exconly())}"
        self._crashed(self._current, "pytest, or a plugin, ended with an error", one_line(excinfo.exconly()))

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Note why a run is interrupted: by Ctrl-C, or by `pytest.exit`, as for a signal."""
        self.ended = one_line(str(excinfo.value)) or "interrupted by Ctrl-C"

    def ended_by(self, error: BaseException) -> None:
        """Note what ended the run after its last test: an interruption, an option, or an error, which is a failure."""
        said = one_line(f"{type(error).__name__}: {error}")
        if isinstance(error, BrokenPipeError):
            self.ended = self.ended or NO_READER
        elif isinstance(error, KeyboardInterrupt | pytest.exit.Exception):
            self.ended = self.ended or one_line(str(error)) or "interrupted by Ctrl-C"
        elif isinstance(error, pytest.UsageError):  # such as pytest-benchmark's, with nothing on file to compare with
            self.ended = self.ended or f"it was started wrongly: {one_line(str(error))}"
        else:
            self.ended = self.ended or f"an error at its end: {said}"
            self._crashed(None, "the end of the run, or a last tear-down, ended with an error", said)

    def interrupted_test(self) -> str:
        """Return the node id of the test that was interrupted; empty if none was."""
        running = (node for node, each in self._by_node.items() if each is self._current)
        return next(running, "") if self._current else ""

    def finish(self, why: str, status: int = 0) -> None:
        """Settle what is left at the end of the run; `why` it ended before its end, if it did.

        `status` is pytest's own: what it counts as a failure is one, and what it didn't end well didn't end.
        """
        self.ended = self.ended or (self.signal[0] if self.signal else why)
        for each in self.record.plan:
            if each.state in ("waiting", "running"):
                self._settle(each)
        verdict = overall(self.record.findings, self.record.plan, complete=not self.ended)
        if status == pytest.ExitCode.TESTS_FAILED:
            inconclusive = verdict == "INCONCLUSIVE" and self.record.run.get("fail_inconclusive")
            if verdict != "FAIL" and not inconclusive:
                why = self.ended or f"exit status {status}"
                self._crashed(None, "pytest, or a plugin, counts a failure that no test gave", why)
        elif status and verdict == "PASS":
            self.ended = f"pytest, or a plugin, ended it with exit status {status}"

    def _crashed(self, planned: Planned | None, message: str, evidence: str, node: str = "") -> None:
        group = planned.group if planned else "correct"
        name = planned.short if planned else "tests"
        device = planned.device if planned else ""
        fix = LOOK
        if ending := find_ending(device or "cpu:0", evidence):
            message, fix = f"{message}: {ending.message}", ending.fix
        again = VERIFY if node.startswith("benchmarks/") else "pytest"
        fix = f"{again} {shlex.quote(node)}; {fix}" if node else fix
        found = self.record.hide(Finding(name, "FAIL", message, evidence, fix, device=device, kind="crash"))
        if planned:
            self._findings.setdefault(planned.name, []).append((group, found))
        self.record.add(group, found)

    def _settle(self, planned: Planned) -> None:
        """Decide what became of a part of the plan."""
        own = self._one_answer(planned.name)
        if not own:
            self._not_asked(planned, self._skipped.get(planned.name) or self.ended or "the run ended before it")
            return
        found = [each for _, each in own]
        if (why := self._skipped.get(planned.name)) and worst(found) == "PASS":  # by somebody else, and only then
            message = f"it passed, and then was skipped: {one_line(why)}"
            found.append(Finding(planned.short, "INCONCLUSIVE", message, device=planned.device))
            self.record.findings[own[0][0]].append(found[-1])
        planned.status = worst(found)
        planned.state = "lost" if all(each.kind == "crash" for each in found) else "answered"
        planned.why = next((each.evidence or each.message for each in found if planned.state == "lost"), "")

    def _one_answer(self, name: str) -> list[tuple[str, Finding]]:
        """Return a test's findings; of one that was run again, only the last, or those before it that were worse."""
        last, earlier = self._findings.get(name, []), self._earlier.pop(name, [])
        now, before = (worst(each for _, each in found) for found in (last, earlier))
        doubted = [(group, each) for group, each in earlier if each.status == before != "PASS"]
        kept = last or doubted
        if last and worst_status([before, now]) != now:
            once = f"{ENDED[before]} once, then {ENDED[now]}"
            kept = [(group, replace(each, message=f"{once}: {each.message}")) for group, each in doubted]
        if earlier:
            for group, each in (*earlier, *last):
                self.record.findings[group].remove(each)
            for group, each in kept:
                self.record.findings[group].append(each)
        self._findings[name] = kept
        return kept

    @staticmethod
    def _not_asked(planned: Planned, why: str) -> None:
        planned.state, planned.why, planned.status = "not asked", one_line(why).removeprefix("Skipped: "), None


def one_line(text: str) -> str:
    """Return a text's words on one line, cut off after 300 characters."""
    return " ".join(text.split())[:300]


def last_line(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return the error of a report: the exception, or the last line of what it says."""
    crash = getattr(report.longrepr, "reprcrash", None)
    said = str(crash.message if crash else report.longreprtext).strip() or "nothing is known of it"
    return one_line(said.splitlines()[0 if crash else -1])
