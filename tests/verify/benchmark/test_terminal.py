"""What a verification prints: in a real terminal and in a pipe, in full and cut short, and nothing of libraries."""

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from types import SimpleNamespace

import pytest

from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.tables import TextTable
from alexnet_repro.verify.verdict import Planned
from benchmarks.terminal import LiveLine, Terminal, _title
from tests.helpers.paths import ROOT
from tests.helpers.sessions import session_of

CODES = re.compile(r"\x1b\[[\d;]*[A-Za-z]|\x1b\]9;4;[^\x1b]*\x1b\\")
FIX = "run it again with nothing else on the machine"
# A verification whose tests give these findings, without the doctor and in no time.
FAKE = """
import os, sys, time
import pytest

FIX = "{fix}"
STATUSES = {{"resize": "INCONCLUSIVE", "dropout": "INCONCLUSIVE", "learning": "FAIL"}}

class Fake:
    def pytest_sessionstart(self):
        from alexnet_repro.verify.finding import Finding
        from alexnet_repro.verify.doctor.environment import read_machine
        from benchmarks import session

        def doctor(wanted, say, **_):
            say("doctor: PASS, 14 checks")
            return read_machine(), [Finding("any", "PASS", "well")]

        session.diagnose_machine = doctor
        session.choose_devices = lambda *_, **__: ("cpu:0",)

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem):
        if pyfuncitem.path.name != "test_correct.py":
            return None
        from alexnet_repro.verify.finding import Finding

        check = pyfuncitem.callspec.params["check"].check
        os.write(2, b"E0000 a library\\n")
        {crash}
        status = STATUSES.get(check, "PASS")
        said = "a long message that says " * 8
        found = Finding(check, status, said, "its evidence", "" if status == "PASS" else FIX, device="cpu:0")
        pyfuncitem.config.pluginmanager.get_plugin("verification").report_findings("correct", found)
        return True

sys.exit(pytest.main(sys.argv[1:], plugins=[Fake()]))
"""
SELECT = "test_correct and (shapes or resize or dropout or {more})"


def command(tmp_path, *options, more="checkpoint", crash="", paths=("benchmarks",)):
    """Return the command of such a run, in which `learning` fails where it is selected; a check may crash."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE.format(fix=FIX, crash=crash))
    report = f"--report={tmp_path / 'r'}"
    return [sys.executable, str(script), *paths, "-k", SELECT.format(more=more), "-pno:cacheprovider", report, *options]


def variables(**changed):
    """Return this process's environment without what pytest and terminals go by."""
    names = ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "PY_COLORS", "TERM", "PYTEST", "CI", "PYTHONIOENCODING", "TF_CPP")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    return kept | {"PYTHONPATH": str(ROOT)} | changed


def in_terminal(words, columns, end=None, **changed):
    """Run a command in a terminal of that width; return its exit status and all that it wrote there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environ = variables(**{"TERM": "xterm", **changed})
    run = subprocess.Popen(words, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, process_group=0)
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # it has ended
        while read := os.read(ours, 65_536):
            written += read
            if end and end in written:
                os.killpg(run.pid, signal.SIGINT)
                end = None
    os.close(ours)
    return run.wait(60), written.decode()


def screen(written):
    """Return the lines that stay on the screen."""
    lines = []
    for line in CODES.sub("", written).replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


def in_pipe(words, **changed):
    """Run a command in a pipe; return its exit status and its lines, of stdout and stderr."""
    done = subprocess.run(words, cwd=ROOT, env=variables(**changed), capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 120], ids=lambda columns: f"columns={columns}")
def test_run_in_a_terminal(tmp_path, columns):
    """One line says what runs and doesn't stay; the verdict is first and last, and no line is too wide."""
    status, written = in_terminal(command(tmp_path), columns)
    lines = screen(written)
    assert status == 0
    assert "[1/4] cpu:0 shapes … 0 s" in written
    assert [line.partition("  ")[0] for line in lines if line.startswith("[")] == [
        "[2/4] cpu:0 resize",
        "[3/4] cpu:0 dropout",
    ]
    at = next(number for number, line in enumerate(lines) if " verdict " in line)
    assert lines[at + 1].startswith("INCONCLUSIVE: nothing failed, but ")
    assert [line for line in lines if line][-1].split()[-1] == lines[at + 1].split()[-1]
    assert sum(FIX in line for line in lines) == 1
    assert "\x1b[33mINCONCLUSIVE" in written
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= columns
    assert not any("SKIPPED" in line or "a library" in line or "absl" in line for line in lines)


@pytest.mark.slow
def test_run_in_a_pipe(tmp_path):
    """A line per check, with what became of it; a failure with its fix at once; each thing once in the verdict."""
    status, lines = in_pipe(command(tmp_path, more="checkpoint or learning"))
    assert status == 1
    checks = [re.sub(r"\d+\.\d s", "TIME", line) for line in lines if line.startswith("[")]
    assert [line.split("] cpu:0 ")[1] for line in checks] == [
        "shapes  PASS  TIME",
        "resize  INCONCLUSIVE  TIME",
        "dropout  INCONCLUSIVE  TIME",
        "learning float32  FAIL  TIME",
        "learning mixed_bfloat16  FAIL  TIME",
        "checkpoint  PASS  TIME",
    ]
    assert sum(FIX in line for line in lines) == 3  # of each failure at once, and in the verdict
    assert not any("SKIPPED" in line or "= FAILURES =" in line or "\x1b" in line for line in lines)
    assert lines[-1].startswith("FAIL: ")
    assert re.search(r"2 failed, 2 passed, 2 skipped, \d+ deselected", lines[-2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "options"),
    [
        ({"NO_COLOR": "1"}, ()),
        ({"TERM": "dumb"}, ()),
        ({}, ("--color=no",)),
    ],
    ids=["colour=NO_COLOR", "colour=dumb", "colour=option"],
)
def test_no_colours(tmp_path, changed, options):
    """There are no colours where a person wants none; a dumb terminal has no live line, either."""
    _, written = in_terminal(command(tmp_path, *options), 80, **changed)
    assert "INCONCLUSIVE\x1b" not in written
    assert ("shapes … 0 s" in written) is (changed.get("TERM") != "dumb")
    assert "INCONCLUSIVE: nothing failed" in CODES.sub("", written)


@pytest.mark.slow
def test_ascii_terminal(tmp_path):
    """A terminal without our characters shows others in their place."""
    status, written = in_terminal(command(tmp_path), 80, PYTHONIOENCODING="ascii")
    assert status == 0
    assert "[1/4] cpu:0 shapes ... 0 s" in written
    assert "Error" not in written


@pytest.mark.slow
def test_interrupted_run(tmp_path):
    """After Ctrl-C the live line is gone, and the verdict says that the run was interrupted."""
    crash = 'check == "resize" and time.sleep(30)'
    status, written = in_terminal(command(tmp_path, crash=crash), 80, end="resize … 1 s".encode())
    lines = screen(written)
    assert status == 2
    assert not any(re.match(r"\[2/4\]", line) for line in lines)
    assert "interrupted by Ctrl-C" in " ".join(lines[-4:])


@pytest.mark.slow
def test_crashed_run(tmp_path):
    """Where the run dies the watcher prints the verdict below the live line, and a library's last words."""
    crash = 'check == "resize" and (time.sleep(1.5), os.abort())'
    _, written = in_terminal(command(tmp_path, crash=crash), 80)
    lines = [line for line in screen(written) if line]
    verdict = next(number for number, line in enumerate(lines) if line.startswith("FAIL: "))
    assert max(len(line) for line in lines[verdict:] if str(tmp_path) not in line) <= 80
    assert lines[verdict:].count(lines[verdict]) == 2  # first and last
    evidence = next(line for line in lines[verdict:] if "evidence: " in line)
    assert evidence.split("evidence: ")[1].startswith("E0000 a library | ")


@pytest.mark.slow
@pytest.mark.parametrize("option", ["-v", "-q"], ids=lambda option: f"option={option}")
def test_more_and_less(tmp_path, option):
    """With -v a test's line is pytest's own; with -q there are none but failures'."""
    _, lines = in_pipe(command(tmp_path, option, more="learning"))
    ours = [line for line in lines if line.startswith("[")]
    theirs = [line for line in lines if line.startswith("benchmarks/test_correct.py::test_correct[")]
    assert (len(theirs) > 0) is (option == "-v")
    assert len(ours) == (0 if option == "-v" else 2)
    assert lines[-1].startswith("FAIL: ")


@pytest.mark.slow
def test_tests_beside_the_benchmarks_have_pytests_output(tmp_path):
    """Tests of other folders in the same run have their names and dots; our first line begins on its own."""
    test = tmp_path / "test_other.py"
    test.write_text("import pytest\ndef test_a(): pass\n@pytest.mark.skip('other')\ndef test_shapes(): pass\n")
    words = command(tmp_path, "-k", "test_other or (test_correct and shapes)", paths=(str(test), "benchmarks"))
    _, lines = in_pipe(words)
    at = next(number for number, line in enumerate(lines) if line.startswith("[1/1] cpu:0 shapes"))
    assert re.fullmatch(r".* \.s *(\[ *\d+%\])?", lines[at - 1])
    assert any(line.startswith("SKIPPED [1]") and line.endswith(": other") for line in lines)


def terminal(tmp_path, **options):
    """Return what prints for a run without pytest."""
    return Terminal(session_of(tmp_path, **options))


@pytest.mark.parametrize(
    ("words", "quiet"),
    [((), True), (("--benchmark-compare=1",), False), (("--benchmark-columns=min",), False)],
    ids=["words=none", "words=compare", "words=columns"],
)
def test_tables_of_pytest_benchmark(tmp_path, monkeypatch, words, quiet):
    """They are left out, for they say what ours do, unless an option asks for them."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    ours = terminal(tmp_path)
    ours.config.invocation_params.args = words
    ours.quieten_benchmark()
    assert getattr(ours.config.option, "benchmark_quiet", False) is quiet


@pytest.mark.parametrize(
    ("devices", "absent"),
    [
        pytest.param(("cpu:0",), True, id="devices=cpu:0"),
        pytest.param(("gpu:0",), False, id="devices=gpu:0"),
        pytest.param(("cpu:0", "gpu:0"), False, id="devices=cpu:0 gpu:0"),
    ],
)
def test_absence_of_gpus_is_reported(tmp_path, capsys, devices, absent):
    """The end of a run says that no GPU was verified, and only then; the verdict is its first line and its last."""
    session = session_of(tmp_path)
    session.record.add("correct", Finding("shapes", "PASS", "well"))
    session.claimed = session.record.complete = True
    session.devices = devices
    session.pytest_unconfigure()
    session.pytest_unconfigure()  # once
    lines = capsys.readouterr().out.splitlines()
    assert ("GPU: not run; this machine has none, or none was selected" in lines) is absent
    assert "correct     PASS          1 of 1 passed" in lines
    verdict = "INCONCLUSIVE: nothing failed, but nothing was planned"
    assert [number for number, line in enumerate(lines) if line.startswith(verdict)] == [0, len(lines) - 1]


def test_what_does_not_apply_is_one_line(tmp_path):
    """Tests that don't apply here are counted by their reasons, in place of a line each."""
    ours = terminal(tmp_path)
    ours._own, ours._nodes = True, {f"test_{number}" for number in range(4)}
    for number, why in enumerate(["needs two GPUs", "needs two GPUs", "runs with --burn-in=10m"]):
        ours.pytest_runtest_logreport(
            pytest.TestReport(f"test_{number}", ("", 0, ""), {}, "skipped", ("", 0, f"Skipped: {why}"), "setup")
        )
    line = "3 more cases not part of it: needs two GPUs (2); runs with --burn-in=10m (1)"
    assert line in list(ours._verdict())


@pytest.mark.parametrize("broken", [False, True], ids=["output=log", "output=terminal"])
def test_last_line_of_a_log_is_whole(tmp_path, monkeypatch, capsys, broken):
    """In a log the last line is all of the verdict, whatever COLUMNS says: logs are searched by lines."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: broken)
    ours = terminal(tmp_path)
    ours.config.get_terminal_writer = lambda: SimpleNamespace(fullwidth=60)
    ours.session.keeper.ended = ours.session.record.run["ended"] = "a reason of many words " * 8
    ours.last_words()
    last = capsys.readouterr().out.splitlines()[-1]
    assert (not last.startswith("INCONCLUSIVE: ")) is broken
    assert last.rstrip().endswith("words")


@pytest.mark.parametrize("columns", ["60", "100"], ids=lambda columns: f"columns={columns}")
def test_tables_of_tests_fit_the_terminal(tmp_path, monkeypatch, columns):
    """A table that a test has left for the end is fitted to the terminal; a line is as it was left."""
    monkeypatch.setenv("COLUMNS", columns)
    ours = terminal(tmp_path)
    ours.config.get_terminal_writer = lambda: SimpleNamespace(fullwidth=int(columns))
    ours.session.lines += ["scaling: not run", TextTable(("layer", *"abcdefgh"), [("conv2d", *["1,234.5"] * 8)])]
    _, (line, table) = next(section for section in ours._tables() if section[1])
    assert line == "scaling: not run"
    assert table.splitlines()[1].split() == ["conv2d", *["1,234.5"] * {"60": 6, "100": 8}[columns]]


def test_settings_of_pytest_benchmark_are_no_header(tmp_path):
    """Of the headers the line of pytest-benchmark's settings is left out; others stay."""
    hook = terminal(tmp_path).pytest_report_header()
    next(hook)
    with pytest.raises(StopIteration) as end:
        hook.send(["benchmark: 5.3.1 (defaults: min_rounds=5)", ["keras 3"], "a plugin's"])
    assert end.value.value == [["keras 3"], "a plugin's"]


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("test_correct.py::test_correct[device=cpu:0-check=layers-precision=float32]", "cpu:0 layers float32"),
        ("test_correct.py::test_correct[device=cpu:0-check=shapes]", "cpu:0 shapes"),
        ("test_forward.py::test_forward[device=cpu:0-batch=32-precision=float32]", "cpu:0 forward, batch 32, float32"),
        ("test_overhead.py::test_overhead[device=cpu:0]", "cpu:0 overhead"),
        ("test_input_pipeline.py::test_draw_train[batch=128]", "draw_train, batch 128"),
    ],
    ids=["name=layers", "name=shapes", "name=forward", "name=overhead", "name=draw_train"],
)
def test_titles(name, title):
    """What runs has a name that a person reads: its device, its check or case, its precision."""
    device = "cpu:0" if "device" in name else ""
    assert _title(Planned(name, "fast", device)) == title


def test_terminal_that_is_gone():
    """A terminal that was closed while a check ran doesn't end the run."""
    live = LiveLine(on=False)
    assert not live
    reader, writer = os.pipe()
    live._stream = open(writer, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - a descriptor
    os.close(reader)
    with live.showing("cpu:0 layers"):
        time.sleep(0.05)
    live._width = 5
    live.erase()
    with contextlib.suppress(OSError):
        live._stream.close()


@pytest.mark.parametrize("width", [60, 80, 100], ids=lambda width: f"width={width}")
def test_numbers_of_tables_are_never_cut(width):
    """A table is as wide as the terminal at most: names are wrapped, last columns left out, and no number is cut."""
    rows = [(f"train_step, cpu:0, batch {n}, mixed_bfloat16", *(f"{n},234.5 ms" for _ in range(7))) for n in (1, 8)]
    lines = TextTable(("case", *"abcdefg"), rows).fitted(width).splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].split()[1:] == list("abcdefg"[: {60: 3, 80: 5, 100: 6}[width]])
    assert lines[1].count("1,234.5 ms") == len(lines[0].split()) - 1
