"""Small runs of pytest under the verification's own plugins: tests that end in given ways, and what is left."""

import contextlib
import json
import os
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import conftest
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.verdict import Planned
from benchmarks import session as module
from tests.helpers.junit_files import outcomes
from tests.helpers.pytest_here import pytest_here

PASSED = Finding("driver", "PASS", "is new enough")
GROUPS = ("correct", "repeatable", "fast", "reference")


def found(status):
    """Report a finding of this status, as a test does by itself."""

    def end(session, group):
        session.report_findings(group, Finding("any", status, f"it is {status}", device="cpu:0"))

    return end


def raised(error):
    """Report that all is well, then raise."""

    def end(session, group):
        session.keeper.report(group, Finding("any", "PASS", "it is well so far", device="cpu:0"))
        raise error

    return end


def skipped(session, group):
    """Report that all is well, then skip, as a plugin or a library may."""
    session.report_findings(group, Finding("any", "PASS", "it is well so far", device="cpu:0"))
    pytest.skip("somebody's plugin")


def forked(session, group):
    """Fork, let the child leave as a library's may, by an exception, and report that all is well."""
    if not (child := os.fork()):
        raise SystemExit(0)
    os.waitpid(child, 0)
    found("PASS")(session, group)


def swallowed(session, group):
    """Be ended by a signal, in code that catches every exception, and report that all is well."""
    with contextlib.suppress(Exception):
        killed(signal.SIGTERM)(session, group)
    found("PASS")(session, group)


def killed(number):
    """Send this process a signal, as a batch system does, and wait for it."""

    def end(_session, _group):
        assert signal.getsignal(number) != signal.SIG_DFL  # or this process would end here
        os.kill(os.getpid(), number)
        for _ in range(1000):
            pass

    return end


ENDINGS = {
    "pass": found("PASS"),
    "inconclusive": found("INCONCLUSIVE"),
    "fail": found("FAIL"),
    "nothing": lambda _session, _group: None,
    "skip": lambda _session, _group: pytest.skip("somebody's plugin"),
    "pass, then skip": skipped,
    "xfail": lambda _session, _group: pytest.xfail("somebody's mark"),
    "error": raised(RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered")),
    "exit": raised(SystemExit(0)),
    "fork": forked,
    "pytest.exit": lambda _session, _group: pytest.exit("somebody's plugin", returncode=0),
    "Ctrl-C": raised(KeyboardInterrupt()),
    "SIGTERM": killed(signal.SIGTERM),
    "SIGHUP": killed(signal.SIGHUP),
    "SIGTERM swallowed": swallowed,
}
# Faults of the run itself, by what raises: fixtures, files, hooks; `Plugin` has others, which are other plugins'.
FAULTS = ("set-up", "tear-down", "collection", "hook")


@dataclass
class Outcome:
    """What a run left."""

    status: int
    folder: Path
    printed: str

    @property
    def results(self):
        """The content of results.json."""
        return json.loads((self.folder / "results.json").read_text())

    @property
    def junit(self):
        """How the test cases of JUnit's file ended, by name."""
        return outcomes(self.folder / "junit.xml")

    @property
    def on_the_page(self):
        """The verdict on the page."""
        return re.search(r"<h1>. (\w+)</h1>", (self.folder / "report.html").read_text())[1]


class Stopped(module.VerificationSession):
    """The verification's plugin, of a machine that the doctor found well and a plan of one check of each group."""

    planned, extra = (), ()

    def pytest_collection(self):
        self._claim()
        self._ending.enter_context(module.ended_by_signals(self.keeper.signalled))
        self.record.add("doctor", PASSED)
        self.record.plan = [Planned(name, group, "cpu:0") for name, group in self.planned]
        self.record.plan += [Planned(each.name, "fast", each.device) for each in self.extra]


class Plugin:
    """What `conftest.py` does for the verification, with a fault of the run itself."""

    def __init__(self, fault):
        self.fault, self.session = fault, None

    @staticmethod
    def pytest_addoption(parser):
        conftest.pytest_addoption(parser)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_cmdline_main(self, config):
        return (yield from conftest.pytest_cmdline_main(config))

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config):
        self.session = Stopped(config)
        if self.fault == "cleans up badly":
            config.add_cleanup(lambda: os.close(-1))
        config.pluginmanager.register(self.session, module.NAME)
        config.pluginmanager.register(self.session.keeper, "plan")

    @pytest.fixture
    def verification(self):
        if self.fault == "set-up":
            raise OSError("no set-up")
        yield self.session
        if self.fault == "tear-down":
            raise OSError("no tear-down")
        if self.fault == "skips at the end":
            pytest.skip("somebody's plugin")

    @pytest.hookimpl(tryfirst=True, specname="pytest_runtest_makereport")
    def pytest_report_by_itself(self, item, call):
        if self.fault == "reports by itself":
            return pytest.TestReport(item.nodeid, item.location, {}, "passed", None, call.when)
        return None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self):
        report = yield
        if self.fault == "hides failures":
            report.outcome, report.longrepr = "passed", None
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session):
        self.session.pytest_session = session
        yield
        if self.fault == "usage error at the end":
            raise pytest.UsageError("somebody's plugin")
        if self.fault == "counts a failure":
            session.testsfailed += 1
        return True

    def pytest_unconfigure(self):
        if self.fault == "raises when all is over":
            raise OSError("a plugin's own error")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        if self.fault == "exit status 0":
            session.exitstatus = 0
        if self.fault == "raises at the end":
            raise OSError("a plugin's own error")
        if self.fault == "has nothing to compare with":
            raise pytest.UsageError("--benchmark-compare-fail requires valid --benchmark-compare.")
        if self.fault == "prints for nobody at the end":
            raise BrokenPipeError
        if self.fault == "exits at the end":
            pytest.exit("somebody's plugin", returncode=0)

    def pytest_runtest_logfinish(self, nodeid):
        if self.fault == "hook" and nodeid.endswith("test_0"):
            raise OSError("a plugin's own error")
        if self.fault == "runs out of time" and nodeid.endswith("test_1"):
            self.session.pytest_session.shouldfail = "session-timeout: 1.0 s"
        if self.fault == "prints for nobody" and nodeid.endswith("test_1"):
            raise BrokenPipeError


def run(folder, endings, *options, fault=None, extra=()):
    """Run a test with each of these endings, in turns of each group, and return what it left in `folder`/report.

    `fault` is one of `FAULTS`, which lies beside the tests; `extra` is planned, and not there.
    """
    folder.mkdir()
    tests = [(f"test_{place}", GROUPS[place % 4], name) for place, name in enumerate(endings)]
    stem = f"test_history_{abs(hash(folder))}"
    lines = ["import pytest", "from tests.helpers import histories", ""]
    for name, group, end in tests:
        lines += [f"def {name}(verification):", f"    histories.ENDINGS[{end!r}](verification, {group!r})"]
    (folder / f"{stem}.py").write_text("\n".join(lines))
    if fault == "collection":
        (folder / f"{stem}_2.py").write_text("import a_module_that_is_not_there")
    Stopped.planned = [(f"{stem}.py::{name}", group) for name, group, _ in tests]
    Stopped.extra = extra

    where = [f"-c{os.devnull}", f"--rootdir={folder}", f"--report={folder / 'report'}"]
    arguments = ["-q", "-s", "--tb=native", *where, *options, *map(str, sorted(folder.glob("*.py")))]
    old, module.FOLDER = module.FOLDER, folder
    hang_up = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
    try:
        status, printed = pytest_here(*arguments, plugins=[Plugin(fault)])
    finally:
        signal.signal(signal.SIGHUP, hang_up)
        module.FOLDER = old
        for name in [name for name in sys.modules if name.startswith("test_history_")]:
            del sys.modules[name]
    return Outcome(status, folder / "report", printed)
