"""Real runs of `pytest benchmarks` that end before their end: what is left says what ran, and why it ended."""

import json
import os
import signal
from types import SimpleNamespace

import pytest

from alexnet_repro.verify.verdict import Planned
from benchmarks import session as module
from tests.helpers.junit_files import outcomes
from tests.helpers.paths import ROOT
from tests.helpers.pytest_here import benchmarks_apart
from tests.helpers.sessions import session_of

FORWARD = "benchmarks/test_forward.py::test_forward[device=cpu:0-batch=1-precision=float32]"
PLUGIN = """
import ctypes, os, signal, time, pytest
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item):
    {ending}
    return (yield)
"""
ENDINGS = {
    "hang": ("time.sleep(60)", "2s", -signal.SIGKILL, "FAIL", "forward: it didn't return within 4 s"),
    "SIGSEGV": ("ctypes.string_at(0)", "60s", -signal.SIGSEGV, "FAIL", "forward: the process died: Segmentation fault"),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM)", "60s", 143, "INCONCLUSIVE", "interrupted by SIGTERM"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, id=f"ending={name}") for name in ENDINGS])
def test_run_that_ends_early(tmp_path, name):
    """A timing that hangs, crashes or is killed is a FAIL of it; results, JUnit and page are there, and agree."""
    ending, deadline, status, verdict, why = ENDINGS[name]
    (tmp_path / "ends_early.py").write_text(PLUGIN.format(ending=ending))
    report = tmp_path / "report"
    environ = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "TF_CPP_MIN_LOG_LEVEL": "3"}
    options = ("-p", "ends_early", f"--report={report}", f"--deadline={deadline}")
    done = benchmarks_apart(*options, paths=(FORWARD,), environ=environ)
    assert done.returncode == status
    results = json.loads((report / "results.json").read_text())
    assert (results["verdict"], results["complete"]) == (verdict, False)
    assert results["run"]["ended"] == why
    planned = {each["name"]: each for each in results["plan"]}
    assert planned[FORWARD.removeprefix("benchmarks/")]["state"] == ("lost" if verdict == "FAIL" else "not asked")
    assert f"<h1>{'✗' if verdict == 'FAIL' else '?'} {verdict}</h1>" in (report / "report.html").read_text()
    assert outcomes(report / "junit.xml")["verdict"] == ("failed" if verdict == "FAIL" else "skipped")
    assert f"{verdict}: " in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("fixtures", "group", "options", "limit"),
    [
        pytest.param(("measure", "device"), "fast", {}, 10.0, id="test=timing"),
        pytest.param(("measure", "device"), "fast", {"benchmark_max_time": "4"}, 16.0, id="test=long timing"),
        pytest.param(("runner", "device"), "correct", {"burn_in": 60.0}, 5.0 * (10 + 3) + 60, id="test=check"),
        pytest.param(("runner", "device"), "fast", {"burn_in": 60.0}, 5.0 * (10 + 3) + 60, id="test=overhead"),
        pytest.param(("measure", "device"), "fast", {"usepdb": True}, None, id="test=debugged"),
    ],
)
def test_time_limit(tmp_path, fixtures, group, options, limit):
    """A timing has as long as its process, which ends first; a test of checks may wait for each that is planned.

    A process has --deadline, or twice the time that a timing was given. In a debugger nothing has a limit.
    """
    began = []
    session = session_of(tmp_path, **{"deadline": 5.0, "burn_in": 0.0, **options})
    session.watcher = SimpleNamespace(begin=lambda *arguments: began.append(arguments))
    session.record.plan = [Planned("test_a.py::test_a", group)] * 3
    session._begin(session.record.plan[0], SimpleNamespace(fixturenames=fixtures))
    assert began == [("test_a.py::test_a", limit)]


def test_run_without_a_watcher(tmp_path, monkeypatch):
    """Where no process can be started any more, the run says that nothing watches it, and goes on."""

    def none_left(*_):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    lines = []
    monkeypatch.setattr(module, "Watcher", none_left)
    session = session_of(tmp_path)
    session.say = lines.append
    session._watch()
    session._ending.close()
    assert lines == ["nothing watches this run, should it crash or hang: [Errno 11] Resource temporarily unavailable"]
