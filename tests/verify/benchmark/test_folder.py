"""The folder of a run: its own, and what becomes of an earlier run's files."""

import errno
import json
import os
import re
import socket
import subprocess
import sys
import time

import pytest

from alexnet_repro.verify.report.run_record import read_results
from benchmarks import folder
from benchmarks.folder import claim, own_name, run_identity
from tests.helpers.paths import ROOT
from tests.helpers.results_files import problems

RUNNING = {"host": socket.gethostname(), "pid": os.getppid(), "started": "2026-11-24T10:15:00+00:00"}


def left(there, complete, **run):
    """Leave the files of an earlier run."""
    (there / "results.json").write_text(json.dumps({"complete": complete, "run": {**RUNNING, **run}}))
    for name in ("junit.xml", "report.html", "throughput-cpu-0.svg"):
        (there / name).write_text("earlier")


def test_own_name(monkeypatch):
    """By default it has day, time, host and process in its name: no two runs have the same."""
    monkeypatch.setattr(socket, "gethostname", lambda: "node 1/a")
    assert own_name("2026-11-24T10:15:00+00:00") == f"2026-11-24T10-15-00-node-1-a-{os.getpid()}"


def test_identity():
    """It says who, where, since when, which version and revision, and the command as it was typed."""
    found = run_identity(ROOT, ["benchmarks", "-k", "shapes or layers"])
    assert (found["host"], found["pid"]) == (socket.gethostname(), os.getpid())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found["started"])
    assert found["version"] == "0.1.0"
    assert re.fullmatch(r"[0-9a-f]{7,12}(-dirty)?|", found["revision"])
    assert found["command"] == "pytest benchmarks -k 'shapes or layers'"


def test_new_folder(tmp_path):
    """A folder that isn't there is made, and is taken from then on."""
    claim(tmp_path / "a/b", RUNNING)
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("complete", "run"),
    [
        pytest.param(True, {}, id="earlier=complete"),
        pytest.param(False, {"ended": "interrupted by SIGTERM"}, id="earlier=interrupted"),
        pytest.param(False, {"pid": 4_194_305}, id="earlier=killed"),  # above Linux's largest
        pytest.param(True, {"host": "another"}, id="earlier=another host's"),
    ],
)
def test_earlier_run_gives_way(tmp_path, complete, run):
    """A folder whose run has ended is taken by the next."""
    left(tmp_path, complete, **run)
    claim(tmp_path, RUNNING)
    begun = read_results(tmp_path / "results.json")
    assert (begun.run, begun.complete, begun.verdict) == (RUNNING, False, "INCONCLUSIVE")


def test_earlier_run_is_moved_aside(tmp_path):
    """An earlier run's files are kept together in a folder of their own; other files stay."""
    left(tmp_path, True)
    (tmp_path / "mine.txt").write_text("mine")
    claim(tmp_path, RUNNING)
    (earlier,) = tmp_path.glob("earlier-*")
    names = ["junit.xml", "report.html", "results.json", "throughput-cpu-0.svg"]
    assert sorted(path.name for path in earlier.iterdir()) == names
    assert json.loads((earlier / "results.json").read_text())["complete"] is True
    assert {path.name for path in tmp_path.iterdir()} == {earlier.name, "mine.txt", "results.json"}


def test_of_two_that_start_at_once_one_has_it(tmp_path, monkeypatch):
    """A run that another one forestalls, when it has found the folder free, doesn't take it."""
    left(tmp_path, True)
    monkeypatch.setattr(folder, "_move_aside", lambda *_: None)  # another has moved it, and begun
    with pytest.raises(FileExistsError, match=r"^another run writes to .*; name another folder: --report=DIR$"):
        claim(tmp_path, RUNNING)
    assert json.loads((tmp_path / "results.json").read_text())["run"] == RUNNING


@pytest.mark.parametrize("run", [pytest.param({}, id="host=here"), pytest.param({"host": "node9"}, id="host=another")])
def test_running_one_is_not_disturbed(tmp_path, run):
    """Another run that is under way keeps its folder; the message names it, and the option."""
    left(tmp_path, False, **run)
    name = run.get("host", socket.gethostname())
    with pytest.raises(FileExistsError, match=rf"another run, of {name}, process .* name another folder: --report=DIR"):
        claim(tmp_path, RUNNING)
    assert (tmp_path / "junit.xml").read_text() == "earlier"


@pytest.mark.parametrize("content", [pytest.param("", id="content=empty"), pytest.param("[1]", id="content=foreign")])
def test_what_isnt_a_result_is_moved_aside(tmp_path, content):
    """A file of that name which isn't ours is kept, too."""
    (tmp_path / "results.json").write_text(content)
    os.utime(tmp_path / "results.json", (0, 0))
    claim(tmp_path, RUNNING)
    (kept,) = tmp_path.glob("earlier-*/results.json")
    assert kept.read_text() == content


def test_one_that_just_begins_is_not_disturbed(tmp_path):
    """An empty file of this minute is of a run that is about to write it."""
    (tmp_path / "results.json").touch()
    with pytest.raises(FileExistsError, match="another run writes to"):
        claim(tmp_path, RUNNING)


@pytest.mark.parametrize("make", [pytest.param(os.mkfifo, id="kind=pipe"), pytest.param(os.mkdir, id="kind=folder")])
def test_what_is_no_file_is_refused(tmp_path, make):
    """A results.json that isn't a file is neither waited for nor replaced."""
    make(tmp_path / "results.json")
    with pytest.raises(
        OSError, match=r"results\.json can't be written: it is a folder, a device or a pipe; name another"
    ):
        claim(tmp_path, RUNNING)


def test_page_without_results_is_moved_aside(tmp_path):
    """The page of a run whose results were taken elsewhere isn't taken for this one's; drawings of others stay."""
    for name in ("junit.xml", "report.html", "summary.md", "mine.svg"):
        (tmp_path / name).write_text("earlier")
    claim(tmp_path, RUNNING)
    assert sorted(path.name for path in tmp_path.glob("earlier-*/*")) == ["junit.xml", "report.html", "summary.md"]
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"mine.svg", "results.json"}


def refusing(number):
    """Return a function that fails with this number, whatever it is called with."""

    def call(*_, **__):
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS], ids=lambda each: f"errno={each}")
def test_file_system_without_links(tmp_path, monkeypatch, number):
    """Where files can't have two names, the folder is taken all the same, and once."""
    monkeypatch.setattr(os, "link", refusing(number))
    claim(tmp_path, RUNNING)
    assert read_results(tmp_path / "results.json").run == RUNNING
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    with pytest.raises(FileExistsError, match="another run, of"):
        claim(tmp_path, RUNNING)


@pytest.mark.parametrize(
    ("function", "number"),
    [("os.link", errno.ENOSPC), ("benchmarks.folder.sync", errno.ENOSPC), ("benchmarks.folder.sync", errno.EIO)],
    ids=lambda each: f"{'errno' if isinstance(each, int) else 'fails'}={each}",
)
def test_claim_that_fails(tmp_path, monkeypatch, function, number):
    """A full or failing disk leaves no file that would be taken for a run's, and is the reason that is given."""
    monkeypatch.setattr(function, refusing(number))
    with pytest.raises(OSError, match=rf"results\.json can't be written: {os.strerror(number)}; name another folder"):
        claim(tmp_path, RUNNING)
    assert list(tmp_path.iterdir()) == []


FORKS = """
import os, signal, sys
from pathlib import Path
from benchmarks import folder
def refuse(*_):
    raise PermissionError(1, "Operation not permitted")
if sys.argv[2] == "without":
    os.link = refuse
go, (done, last) = os.pipe(), os.pipe()
children = []
for number in range(8):
    if not (pid := os.fork()):
        os.close(go[1])
        os.read(go[0], 1)  # all begin at once, when it is closed
        try:
            folder.claim(Path(sys.argv[1]), {"host": os.uname().nodename, "pid": os.getpid(), "number": number})
            os.write(last, b"+")
        except FileExistsError:
            os.write(last, b"-")
        signal.pause()
    children.append(pid)
os.close(go[1])
answers = b""
while len(answers) < 8:
    answers += os.read(done, 8)
for pid in children:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
print(answers.decode())
"""


def python(code, *arguments):
    """Start Python with this code and these arguments."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("links", ["with", "without"])
def test_of_many_processes_one_has_it(tmp_path, links):
    """Of eight processes that want a folder at the same moment one has it, and the file is that one's."""
    for number in range(5):
        answers, _ = python(FORKS, tmp_path / str(number), links).communicate(timeout=60)
        assert sorted(answers.strip()) == ["+", *"-------"]
        assert read_results(tmp_path / str(number) / "results.json").complete is False


ENDLESS = """
import itertools, os, sys
from pathlib import Path
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.run_record import RunRecord
from benchmarks.folder import claim, run_identity
print(flush=True)
for number in itertools.count():
    there = Path(sys.argv[1]) / str(number)
    record = RunRecord(there / "results.json", run=run_identity(Path("/"), []) | {"level": "quick"})
    claim(there, record.run)
    for _ in range(3):
        record.add("correct", Finding("layers", "PASS", "well" * 5000))
"""


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path):
    """Whenever a run is killed, its file is whole and says that it isn't complete, or there is none."""
    found = 0
    for number, seconds in enumerate((0.0, 0.01, 0.03, 0.1, 0.2, 0.3)):
        there = tmp_path / str(number)
        process = python(ENDLESS, there)
        process.stdout.readline()
        time.sleep(seconds)
        process.kill()
        process.communicate()
        for path in there.glob("*/results.json"):
            content = json.loads(path.read_text())
            assert problems(content) == []
            assert (content["complete"], content["verdict"]) == (False, "INCONCLUSIVE")
            found += 1
    assert found > 6


FULL = """
import resource, sys
from pathlib import Path
from benchmarks.folder import claim
resource.setrlimit(resource.RLIMIT_FSIZE, (99, 99))
try:
    claim(Path(sys.argv[1]), {"host": "here"})
except OSError as error:
    print(error)
"""


@pytest.mark.slow
def test_full_disk(tmp_path):
    """Where the file doesn't fit, the system's reason is given, and nothing is left of it."""
    printed, _ = python(FULL, tmp_path).communicate(timeout=60)
    assert printed == f"{tmp_path}/results.json can't be written: File too large; name another folder: --report=DIR\n"
    assert list(tmp_path.iterdir()) == []
