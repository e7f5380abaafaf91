"""The watcher: whatever ends a run, its record is finished, what ran then has failed, and nothing is left running."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.run_record import RunRecord
from alexnet_repro.verify.verdict import Planned
from benchmarks import watcher_process
from tests.helpers.junit_files import outcomes
from tests.helpers.paths import ROOT

SHAPES = "test_correct.py::test_correct[device=cpu:0-check=shapes]"
FORWARD = "test_forward.py::test_forward[device=cpu:0-batch=1-precision=float32]"
REPLAY = "test_repeatable.py::test_replay[device=cpu:0-check=replay]"
START = """\
import ctypes, os, signal, subprocess, sys, time
from pathlib import Path
from benchmarks.watcher import Watcher

def crash():
    ctypes.string_at(0)

def stuck_in_c():  # a mutex that is locked twice, by a call that keeps the interpreter's lock
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.PyDLL(None).pthread_mutex_lock(mutex)

folder = Path(sys.argv[1])
watcher = Watcher(folder / "results.json", folder / "junit.xml", grace=0.5)
signal.set_wakeup_fd(watcher.signal_fd)
print(watcher._process.pid, flush=True)
"""
RUNS = f"watcher.begin({FORWARD!r}, 600)\n"
HANGS = f"watcher.begin({FORWARD!r}, 0.3)\n"
TRACELESS = "the process died without a trace: killed, perhaps by the kernel for want of memory, or ended by a library"


@pytest.fixture
def folder(tmp_path):
    """A run of three parts, of which one is answered."""
    plan = [
        Planned(SHAPES, "correct", "cpu:0", "answered", status="PASS"),
        Planned(FORWARD, "fast", "cpu:0"),
        Planned(REPLAY, "repeatable", "cpu:0"),
    ]
    run = {"host": "here", "version": "0.1.0", "command": "pytest benchmarks", "started": "2026-11-27T06:00:00+00:00"}
    record = RunRecord(tmp_path / "results.json", run=run, plan=plan)
    record.add("correct", Finding("shapes", "PASS", "14 layers", device="cpu:0"))
    return tmp_path


def started(folder, script):
    """Start a run, and return it with the pid of its watcher, once that watches."""
    process = subprocess.Popen(
        [sys.executable, "-c", START + script, str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process, int(process.stdout.readline())


def lives(pid):
    """Return whether a process is there that hasn't ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition):
    """Wait until a function returns True, for ten seconds at most."""
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def ended(process, *pids):
    """Wait for the run and what it started, and return the run's exit status and what it printed; none may be left."""
    said = process.communicate(timeout=30)[1]
    wait_until(lambda: not any(map(lives, pids)))
    return process.returncode, said


def written(folder):
    """Return results.json, and how the cases in junit.xml ended, by the tests' names."""
    cases = outcomes(folder / "junit.xml").items()
    return json.loads((folder / "results.json").read_text()), {name.partition("[")[0]: how for name, how in cases}


HUNG = "it didn't return within 0.3 s"
ENDS = [
    pytest.param("crash()", -11, "the process died: Segmentation fault", "in crash", id="end=SIGSEGV"),
    pytest.param(
        "os.abort()", -6, "the process died: Aborted", "in <module>", id="end=SIGABRT", marks=pytest.mark.slow
    ),
    pytest.param("os.kill(os.getpid(), 9)", -9, TRACELESS, "", id="end=SIGKILL", marks=pytest.mark.slow),
    pytest.param("os._exit(0)", 0, TRACELESS, "", id="end=exit", marks=pytest.mark.slow),
    pytest.param("time.sleep(600)", -9, HUNG, "in <module>", id="end=sleep", marks=pytest.mark.slow),
    pytest.param("stuck_in_c()", -9, HUNG, "in stuck_in_c", id="end=stuck"),
]


@pytest.mark.parametrize(("end", "status", "message", "function"), ENDS)
def test_unfinished_run_is_finished(folder, end, status, message, function):
    """What ran when the process died or hung has failed, what came after wasn't run, in every file and in print.

    The function that crashed or hangs is evidence, and the terminal has the stacks of all threads.
    """
    process, watcher = started(folder, (HANGS if message == HUNG else RUNS) + end)
    returned, printed = ended(process, watcher)
    assert returned == status
    results, outcomes = written(folder)
    assert (results["verdict"], results["complete"]) == ("FAIL", False)
    assert results["run"]["ended"] == f"forward: {message}"
    assert [(each["state"], each["status"], each["why"]) for each in results["plan"]] == [
        ("answered", "PASS", ""),
        ("lost", "FAIL", message),
        ("not asked", None, f"forward: {message}"),
    ]
    (found,) = results["findings"]["fast"]
    assert {name: found[name] for name in ("check", "status", "message", "device", "case", "kind")} == {
        "check": "forward",
        "status": "FAIL",
        "message": message,
        "device": "cpu:0",
        "case": "forward[device=cpu:0-batch=1-precision=float32]",
        "kind": "crash",
    }
    assert found["fix"]
    assert function in found["evidence"]
    assert outcomes == {
        "test_correct": "passed",
        "test_forward": "failed",
        "test_replay": "skipped",
        "verdict": "failed",
    }
    assert "FAIL: alexnet-repro" in (folder / "report.html").read_text()
    assert "FAIL: cpu:0 failed 1 check (forward)" in printed
    assert f"report: {folder / 'report.html'}" in printed
    assert ("Current thread" in printed) == (function != "")


@pytest.mark.slow
def test_evidence_is_what_was_captured(folder):
    """A library's last words are evidence where stderr is pytest's own file, which ends with the process."""
    said = "import tempfile; file = tempfile.TemporaryFile(); os.dup2(file.fileno(), 2)\n"
    end = "os.write(2, b'F0000 Check failed: stream->ok()\\nI0000 More\\n'); time.sleep(1); os.abort()"
    process, watcher = started(folder, said + RUNS + end)
    _, printed = ended(process, watcher)
    (found,) = written(folder)[0]["findings"]["fast"]
    assert found["evidence"].startswith("F0000 Check failed: stream->ok()")
    assert "F0000 Check failed: stream->ok()" in printed


@pytest.mark.slow
def test_death_between_tests(folder):
    """A process that dies while no test runs has failed, too."""
    process, watcher = started(folder, f"watcher.begin({SHAPES!r}, 600); watcher.end(); os._exit(0)")
    ended(process, watcher)
    results, outcomes = written(folder)
    assert results["verdict"] == "FAIL"
    assert [each["state"] for each in results["plan"]] == ["answered", "not asked", "not asked"]
    found = results["findings"]["correct"][-1]
    assert (found["check"], found["message"]) == ("run", f"between tests {TRACELESS}")
    assert outcomes["verdict"] == "failed"


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_interrupted_while_stuck(folder, number):
    """A signal that Python can't handle, for it is stuck in C, ends the run all the same; it isn't a failure."""
    handled = f"signal.signal({int(number)}, lambda *_: None); {RUNS}print('ready', flush=True); stuck_in_c()"
    process, watcher = started(folder, handled)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    returned, printed = ended(process, watcher)
    assert returned == -9
    results, outcomes = written(folder)
    assert (results["verdict"], results["run"]["ended"]) == ("INCONCLUSIVE", f"ended by {number.name}")
    assert [(each["state"], each["why"]) for each in results["plan"][1:]] == 2 * [
        ("not asked", f"ended by {number.name}")
    ]
    assert results["findings"]["fast"] == []
    assert outcomes == {
        "test_correct": "passed",
        "test_forward": "skipped",
        "test_replay": "skipped",
        "verdict": "skipped",
    }
    assert "INCONCLUSIVE: nothing failed" in printed


@pytest.mark.slow
def test_killed_after_a_signal(folder):
    """A process that was to end, and was killed before it could, is no failure either."""
    handled = f"signal.signal(15, lambda *_: None); {RUNS}os.kill(os.getpid(), 15); os.kill(os.getpid(), 9)"
    ended(*started(folder, handled))
    assert written(folder)[0]["verdict"] == "INCONCLUSIVE"


NORMAL = [
    pytest.param(f"{RUNS}watcher.end(); watcher.close()", id="end=closed"),
    pytest.param(
        f"{HANGS}watcher.end(); time.sleep(0.5); watcher.close()", id="end=within the limit", marks=pytest.mark.slow
    ),
    pytest.param(
        f"watcher.begin({FORWARD!r}, None); time.sleep(0.5); watcher.close()", id="end=no limit", marks=pytest.mark.slow
    ),
    pytest.param(
        f"{RUNS}\nif not os.fork(): watcher.close(); os._exit(0)\nos.wait(); watcher.close()", id="end=forked"
    ),
    pytest.param(
        "signal.signal(15, lambda *_: None); os.kill(os.getpid(), 15); watcher.end(); time.sleep(0.8); watcher.close()",
        id="end=SIGTERM that Python handles",
        marks=pytest.mark.slow,
    ),
    pytest.param(
        "watcher._process.kill(); watcher._process.wait(); watcher.begin('', 1); watcher.close()", id="end=gone"
    ),
]


@pytest.mark.parametrize("script", NORMAL)
def test_finished_run_is_left_alone(folder, script):
    """A run that finishes its record itself keeps it, and nothing is printed; nor does it need the watcher to live."""
    before = (folder / "results.json").read_bytes()
    returned, printed = ended(*started(folder, script))
    assert (returned, printed) == (0, "")
    assert (folder / "results.json").read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["results.json"]


@pytest.mark.slow
def test_crash_of_a_fork_is_not_the_runs(folder):
    """A fork writes its fatal error where the run does; the run's own end isn't explained by it."""
    fork = "\nif not os.fork(): ctypes.string_at(0)\nos.wait(); watcher.end(); os._exit(0)"
    ended(*started(folder, RUNS + fork))
    assert written(folder)[0]["run"]["ended"] == f"between tests {TRACELESS}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("handler", "stopped", "after"),
    [
        pytest.param("", 1.5, 0, id="stopped=beyond the limit"),
        pytest.param("signal.signal(signal.SIGCONT, lambda *_: None); ", 0.7, 0.6, id="stopped=within the limit"),
    ],
)
def test_stopped_process_does_not_hang(folder, handler, stopped, after):
    """A process that was stopped (^Z) isn't ended for that, whether its limit of a second was over then or later."""
    script = f"watcher.begin({FORWARD!r}, 1); os.kill(os.getpid(), signal.SIGSTOP); time.sleep({after}); watcher.end()"
    process, watcher = started(folder, f"{handler}{script}; watcher.close()")
    time.sleep(stopped)
    process.send_signal(signal.SIGCONT)
    assert ended(process, watcher) == (0, "")


GRANDCHILD = "print(subprocess.Popen(['sleep', '600'], start_new_session=True, stdout=2).pid, flush=True)\n"


@pytest.mark.slow
@pytest.mark.parametrize("end", ["stuck_in_c()", "os._exit(1)"])
def test_descendants_are_ended(folder, end):
    """What the run started is ended with it, though it is in a session of its own."""
    process, watcher = started(folder, GRANDCHILD + HANGS + end)
    ended(process, watcher, int(process.stdout.readline()))
    assert written(folder)[0]["verdict"] == "FAIL"


@pytest.mark.slow
def test_fork_that_lives_on_is_no_life(folder):
    """A fork that still has the run's end of every pipe doesn't hide that the run died."""
    fork = "child = os.fork()\nif not child: time.sleep(600)\nprint(child, flush=True); os._exit(1)"
    process, watcher = started(folder, RUNS + fork)
    fork = psutil.Process(int(process.stdout.readline()))
    try:
        wait_until((folder / "report.html").exists)
        assert fork.is_running()
    finally:
        fork.kill()
    ended(process, watcher)
    assert written(folder)[0]["verdict"] == "FAIL"


@pytest.mark.slow
@pytest.mark.parametrize("content", [None, "{}"])
def test_nothing_to_finish(folder, content):
    """Without a record that can be read, the watcher writes none, and says so."""
    (folder / "results.json").unlink()
    if content:
        (folder / "results.json").write_text(content)
    _, printed = ended(*started(folder, f"{RUNS}os._exit(1)"))
    assert "there is nothing to finish" in printed
    assert [path.name for path in folder.iterdir()] == (["results.json"] if content else [])


@pytest.mark.slow
def test_closed_terminal_does_not_matter(folder):
    """The files are written though nobody reads what is printed."""
    process, watcher = started(folder, f"{RUNS}time.sleep(0.3); os._exit(1)")
    process.stderr.close()
    process.wait(30)
    process.stdout.close()
    wait_until(lambda: not lives(watcher))
    assert written(folder)[1]["verdict"] == "failed"


def test_watcher_that_cannot_start(tmp_path, monkeypatch):
    """Where no process can be started, OSError says so, and nothing stays open."""
    from benchmarks import watcher

    def refused(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(watcher.subprocess, "Popen", refused)
    with pytest.raises(OSError, match="temporarily unavailable"):
        watcher.Watcher(tmp_path / "results.json", tmp_path / "junit.xml")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_last_words_of_a_run_explain_its_death(tmp_path, monkeypatch):
    """What a library wrote before it ended the run is the cause, with its fix; what hung isn't explained so."""
    words = "F0000 00:00:1795783301.273857   15701 parse_flags_from_env.cc:234] Unknown flag in XLA_FLAGS: --bogus"
    monkeypatch.setattr(watcher_process, "_print", lambda _text: None)
    for died, message in ((True, "the process died: Aborted"), (False, "it didn't return within 9 s")):
        record = RunRecord(tmp_path / "results.json", plan=[Planned("test_forward.py::test_forward", "fast", "cpu:0")])
        record.write()
        end = watcher_process.End(message, record.plan[0].name, "in forward", "look", output=words, died=died)
        watcher_process.finish(end, record.path, tmp_path / "junit.xml", 0.0)
        (found,) = json.loads(record.path.read_text())["findings"]["fast"]
        cause = ": XLA_FLAGS has --bogus, which this version doesn't know" if died else ""
        assert found["message"] == f"{message}{cause}"
        assert found["fix"] == ("take it out of XLA_FLAGS, or: unset XLA_FLAGS" if died else "look")
        shown = "Unknown flag in XLA_FLAGS: --bogus | in forward" if died else "in forward"
        assert found["evidence"] == shown
