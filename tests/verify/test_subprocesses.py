"""Children with deadlines: a crash, a hang and an early end are results too, and only an answer is taken for one."""

import json
import os
import queue
import random
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

import alexnet_repro
from alexnet_repro.verify import subprocesses
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.registry import CheckId
from alexnet_repro.verify.checks.runner import run_in_child
from alexnet_repro.verify.subprocesses import NoAnswerError, answer_each, answers

SCRIPT = """\
import os, signal, sys, time
def main(*names):
    for name in names:
        if name == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if name == "real-time":
            os.kill(os.getpid(), 40)
        if name == "hang":
            time.sleep(600)
        if name == "hang-midway":
            os.write(sys._getframe(1).f_locals["channel"], b"{")
            time.sleep(600)
        while name == "print":
            print("still here")
            time.sleep(0.1)
        if name == "exit":
            sys.exit("I give up")
        if name == "leave":
            sys.exit()
        if name == "leave-at-once":
            os._exit(0)
        print(f"said {name}", file=sys.stderr)
        yield name, {"name": name}
"""
ANSWERED = [("a", "a"), ("b", "b")]  # by name, the answer's `name` or `error`

# What others do in a child that answers a, then b, between its answers.
OTHERS = {
    "banner": 'print("site banner", end="")',
    "object": 'print("{}")',
    "list": 'print("[]")',
    "number": 'print("1")',
    "forged": 'print(json.dumps({"sender": globals().get("sender"), "answers": "b", "answer": {"name": "forged"}}))',
    "native": 'os.write(1, b"{}\\n{}")',
    "printf": 'ctypes.CDLL(None).printf(b"{}\\n"); ctypes.CDLL(None).fflush(None)',
    "closed": "os.close(1)",
    "closed-file": "sys.stdout.close()",
    "redirected": "os.dup2(2, 1); print('{}')",
    "redirected-to-a-file": "os.dup2(os.open(os.devnull, os.O_WRONLY), 1)",
    "redirected-file": "sys.stdout = sys.stderr = None",
    "grandchild": "subprocess.Popen(['sleep', '30'], close_fds=False)",
    "fork": "os.fork() or (time.sleep(30), os._exit(0))",
    "stdin": "assert sys.stdin.read() == ''",
}

# What a child of ours never does: what it writes to its channel, and the error of b.
BROKEN = {
    "twice": ("yield 'a', {}", "it answered 'a' where 'b' was due"),
    "not-asked": ("yield 'c', {}", "it answered 'c' where 'b' was due"),
    "list": ("yield 'b', []", "its answer can't be read: {\"sender\": "),
    "number": ("yield 1, {}", "its answer can't be read: {\"sender\": "),
    "no-pair": ("yield {'name': 'b'}", "exit status 1"),
    "no-json": ("yield 'b', {'set': {1}}", "exit status 1"),
    "garbage": ("write(b'nonsense\\n')", "its answer can't be read: nonsense"),
    "not-utf-8": ("write(b'\\xff\\n')", "its answer can't be read: \ufffd"),
    "empty-line": ("write(b'\\n')", "its answer can't be read: "),
    "number-alone": ("write(b'1\\n')", "its answer can't be read: 1"),
    "unsigned": ("write(b'{\"answers\": \"b\", \"answer\": {}}\\n')", "its answer can't be read: {\"answers\": "),
    "another-sender": ("write(b'{\"sender\": \"a\", \"answers\": \"b\", \"answer\": {}}\\n')",
                       "its answer can't be read: {\"sender\": \"a\""),
    "cut-short": ("write(b'{\"sender\": '); sys.exit()", "its answer can't be read: {\"sender\": "),
    "dies-midway": ("write(b'{\"sender\": '); os.kill(os.getpid(), 9)", "ended by SIGKILL"),
    "closed": ("os.close(channel)", "exit status 1"),
}  # fmt: skip

IMPORTS = "import ctypes, json, os, subprocess, sys, time\n"


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Return a function that makes `child_for_test` a module of this source."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(source):
        (tmp_path / "child_for_test.py").write_text(source)

    return write


def brief(found):
    """Return each answer's name with its own name, or its error."""
    return [(name, answer.get("name") or answer["error"]) for name, answer in found]


def test_child_that_dies_is_an_answer(child):
    """Every name is answered in order: what kills the child is that name's error, and the rest are still answered."""
    child(SCRIPT)
    names = ["a", "crash", "b", "leave", "exit", "leave-at-once", "real-time", "c"]
    found = list(answer_each("child_for_test", [], names, 60))
    assert brief(found) == [
        ("a", "a"),
        ("crash", "ended by SIGSEGV"),
        ("b", "b"),
        ("leave", "it ended without an answer"),
        ("exit", "exit status 1"),
        ("leave-at-once", "it ended without an answer"),
        ("real-time", "ended by signal 40"),
        ("c", "c"),
    ]
    assert [answer["log"].split() for name, answer in found if name in "abc"] == [
        ["said", "a"],
        ["said", "b"],
        ["said", "c"],
    ]
    assert "I give up" in found[4][1]["log"]


PACED = """\
import os, time
def main(path):
    for number in range(4):
        with open(path, "a") as file:
            file.write(str(number))
        yield str(number), {}
"""


def test_paced_child_waits(child, tmp_path):
    """A paced child works on an answer only while it is waited for; others go on at once; both end after the last."""
    child(PACED)
    for paced, begun in ((True, "01"), (False, "0123")):
        path = tmp_path / str(paced)
        found = answers("child_for_test", [str(path)], 60, paced=paced)
        assert [next(found)[0], next(found)[0]] == ["0", "1"]
        end = time.monotonic() + (0.5 if paced else 30)
        while time.monotonic() < end and len(path.read_text()) <= len("01"):
            time.sleep(0.01)
        assert path.read_text()[: len(begun)] == begun
        assert len(path.read_text()) > len("01") or paced
        assert [name for name, _ in found] == ["2", "3"]


def test_paced_child_that_died_is_seen(child):
    """Its death is the end of the answers, also where it comes between two of them."""
    child("import os\ndef main():\n    yield 'a', {}\n    os.kill(os.getpid(), 9)\n")
    found = answers("child_for_test", [], 60, paced=True)
    assert next(found)[0] == "a"
    with pytest.raises(NoAnswerError, match="ended by SIGKILL"):
        next(found)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        pytest.param([2, 3], "; meanwhile the kernel killed 1 for want of memory: oom_kill in /m", id="kills=one_more"),
        pytest.param([2, 2], "", id="kills=others"),
    ],
)
def test_kernel_that_kills_is_named(child, monkeypatch, counts, words):
    """Where a child is killed and the kernel has counted one more that wanted too much memory, the error says so."""
    child("import os\ndef main():\n    os.kill(os.getpid(), 9)\n    yield")
    kills = iter(counts)
    monkeypatch.setattr(subprocesses, "oom_kills", lambda: (next(kills), "/m"))
    with pytest.raises(NoAnswerError, match=f"^ended by SIGKILL{words}$"):
        list(answers("child_for_test", [], 60))


@pytest.mark.parametrize("name", ["leave", "leave-at-once"])
def test_child_that_leaves_early_is_an_error(child, name):
    """Who takes answers as they come learns that there should have been more, however well the child seems to end."""
    child(SCRIPT)
    found = []
    with pytest.raises(NoAnswerError, match="it ended without an answer"):
        found.extend(answer["name"] for _, answer in answers("child_for_test", ["a", name, "b"], 60))
    assert found == ["a"]


@pytest.mark.slow
def test_grandchild_that_writes_on_ends_too(child):
    """What a fork of a child writes to its channel keeps nobody beyond the deadline."""
    child("import os, sys\ndef main():\n    channel = sys._getframe(1).f_locals['channel']\n"
          "    while not os.fork():\n        while True:\n            os.write(channel, b'x' * 4096)\n"
          "    yield 'a', {}\n")  # fmt: skip
    start = time.monotonic()
    with pytest.raises(NoAnswerError):
        list(answers("child_for_test", [], 5))
    assert time.monotonic() - start < 20


@pytest.mark.slow
@pytest.mark.parametrize("how", ["hang", "hang-midway", "print"])
def test_child_that_hangs_is_an_answer(child, how):
    """A child that is silent for longer than the deadline is ended, and what it answered before is kept."""
    child(SCRIPT)
    found = []
    with pytest.raises(NoAnswerError, match="no answer within 5 s") as caught:
        found.extend(answer["name"] for _, answer in answers("child_for_test", ["a", how, "b"], 5))
    assert found == ["a"]
    assert caught.value.log.startswith("said a\n")


def test_child_is_stopped(child):
    """Another thread can end a child that is waited for, at once."""
    child(SCRIPT)
    stop = threading.Event()
    found = answers("child_for_test", ["a", "hang"], 60, None, stop)
    assert next(found)[0] == "a"
    stop.set()
    with pytest.raises(NoAnswerError, match=r"^it was stopped$"):
        next(found)


@pytest.mark.parametrize("doing", OTHERS)
def test_others_dont_answer(child, doing):
    """Whatever is printed, closed or redirected, and whichever process outlives the child, the answers are the same."""
    child(f"{IMPORTS}def main(*names):\n    global sender\n    sender = sys._getframe(1).f_locals['sender']\n"
          f"    for name in names:\n        {OTHERS[doing]}\n"
          "        yield name, {'name': name}\n        break\n")  # fmt: skip
    start = time.monotonic()
    assert brief(answer_each("child_for_test", [], ["a", "b"], 30)) == ANSWERED
    assert time.monotonic() - start < 20, "it waited for a grandchild"


def test_what_others_print_is_evidence(child):
    """What is printed is in the log, in its order among what is written to stderr."""
    child(f"{IMPORTS}def main():\n    os.write(2, b'1 ')\n    print('2', end=' ')\n    os.write(1, b'3 ')\n"
          "    os.write(2, b'4')\n    yield 'a', {}\n")  # fmt: skip
    assert list(answers("child_for_test", [], 30)) == [("a", {"log": "1 2 3 4"})]


@pytest.mark.parametrize("doing", ["banner", "object", "list", "number", "forged", "native", "closed", "stdin"])
def test_site_doesnt_answer(child, tmp_path, doing):
    """A `sitecustomize`, which runs before any of our code does, has no part in the answers either."""
    child(SCRIPT)
    (tmp_path / "sitecustomize.py").write_text(f"{IMPORTS}{OTHERS[doing]}")
    environ = {"PYTHONPATH": str(tmp_path)}
    assert brief(answer_each("child_for_test", [], ["a", "b"], 30, environ)) == ANSWERED


@pytest.mark.parametrize("doing", BROKEN)
def test_what_isnt_an_answer_is_an_error(child, doing):
    """An answer is never taken for another's: a wrong one is an error in words of the name whose turn it was."""
    code, error = BROKEN[doing]
    child(f"{IMPORTS}def write(text):\n    os.write(channel, text)\ndef main(*names):\n    global channel\n"
          "    channel = sys._getframe(1).f_locals['channel']\n"
          f"    for name in names:\n        if name == 'b':\n            {code}\n"
          "        yield name, {'name': name}\n")  # fmt: skip
    a, b, c = brief(answer_each("child_for_test", [], ["a", "b", "c"], 30))
    assert (a, b[0], c) == (("a", "a"), "b", ("c", "c"))
    assert b[1].startswith(error)


def test_child_without_stdin(child, tmp_path):
    """Where a `sitecustomize` closes stdin, a child that isn't paced answers as ever."""
    child(SCRIPT)
    (tmp_path / "sitecustomize.py").write_text("import os\nos.close(0)\n")
    assert brief(answer_each("child_for_test", [], ["a", "b"], 30, {"PYTHONPATH": str(tmp_path)})) == ANSWERED


def test_import_hooks_see_what_the_child_imports(child, tmp_path):
    """A hook that a `sitecustomize` installs sees the modules that the parent has, too."""
    child("import sys\ndef main():\n    import queue\n    yield 'seen', {'queue': 'queue' in sys.meta_path[0].seen}\n")
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nclass Hook:\n    seen = []\n    find_spec = lambda name, *_: Hook.seen.append(name)\n"
        "sys.meta_path.insert(0, Hook)\n"
    )
    assert "queue" in sys.modules
    ((_, answer),) = answers("child_for_test", [], 30, {"PYTHONPATH": str(tmp_path)})
    assert answer == {"queue": True, "log": ""}


def test_parent_without_streams(child, tmp_path):
    """Answers arrive too where the parent was started with stdin, stdout and stderr closed."""
    child(SCRIPT)
    done = "[name for name, _ in answers('child_for_test', ['a', 'b'], 30)] == ['a', 'b']"
    code = f"import sys; from alexnet_repro.verify.subprocesses import answers; sys.exit(not {done})"
    path = os.pathsep.join((str(Path(alexnet_repro.__file__).parents[1]), str(tmp_path)))
    command = ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code]
    assert subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode == 0


def test_long_answers_arrive(child):
    """An answer may be longer than a pipe holds."""
    child("def main():\n    for name in 'ab':\n        yield name, {'text': name * 1_000_000}\n")
    found = [(name, answer["text"]) for name, answer in answers("child_for_test", [], 30)]
    assert found == [("a", "a" * 1_000_000), ("b", "b" * 1_000_000)]


# A parent whose child says what it imports, and with which options, as the parent does.
PARENT = """\
import sys
from alexnet_repro.verify import subprocesses
def main():
    import json, queue, random, beside_for_test
    files = [each.__file__ for each in (json, queue, random, beside_for_test, subprocesses)]
    yield "all", {"files": files, "path": sys.path, "asserts": __debug__, "warnings": sys.warnoptions}
def test_parent():
    ours, theirs = (list(each) for each in (main(), subprocesses.answers("parent_for_test", [], 60)))
    del theirs[0][1]["log"]
    print("same" if ours == theirs else f"{ours} {theirs}", *(file for file in ours[0][1]["files"]), sep="\\n")
if __name__ == "__main__":
    test_parent()
"""
RUN = "import parent_for_test; parent_for_test.test_parent()"
# How a Python may be started, and where it has `json`, `queue` and `random` from; `.` has files of these names too.
STARTS = {
    "module": (["-m", "parent_for_test"], ["here", "here", "here"]),
    "file": (["parent_for_test.py"], ["here", "here", "here"]),
    "command": (["-c", RUN], ["here", "here", "here"]),
    "safe-path": (["-P", "-c", f"import sys; sys.path.append('.'); {RUN}"], ["stdlib", "stdlib", "stdlib"]),
    "isolated": (["-I", "-c", f"import sys; sys.path = [PACKAGE, *sys.path, '.']; {RUN}"],
                 ["stdlib", "stdlib", "stdlib"]),
    "path-added": (["-c", f"import sys; sys.path.insert(0, 'plugin'); {RUN}"], ["here", "here", "plugin"]),
    "imported-before": (["-P", "-c", f"import json, random, sys; sys.path.insert(0, '.'); {RUN}"],
                        ["stdlib", "here", "stdlib"]),
    "zipped": (["-c", f"import sys; sys.path.insert(0, 'all.zip'); {RUN}"], ["here", "here", "all.zip"]),
    "options": (["-O", "-W", "error::ResourceWarning", "-X", "faulthandler", "-c", RUN], ["here", "here", "here"]),
    # Which of its plugins imports `queue` is another matter.
    "pytest": (["-P", "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "parent_for_test.py"],
               ["stdlib", None, "stdlib"]),
}  # fmt: skip


@pytest.mark.parametrize("start", STARTS)
def test_child_imports_what_its_parent_imports(tmp_path, start):
    """However a Python is started and its `sys.path` changed, the child has the same files, path and options."""
    arguments, origins = STARTS[start]
    package = Path(alexnet_repro.__file__).parents[1]
    (tmp_path / "plugin").mkdir()
    for module in (json, queue, random):
        file = Path(module.__file__)
        if file.name == "__init__.py":
            shutil.copytree(file.parent, tmp_path / module.__name__)
        else:
            shutil.copy(file, tmp_path)
    shutil.copy(random.__file__, tmp_path / "plugin")
    (tmp_path / "parent_for_test.py").write_text(PARENT)
    (tmp_path / "beside_for_test.py").touch()
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as zipped:
        zipped.write(random.__file__, "random.py")
    command = [sys.executable, *(each.replace("PACKAGE", repr(str(package))) for each in arguments)]
    environ = {**os.environ, "PYTHONPATH": str(package)}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    same, *files = done.stdout.splitlines()
    assert same == "same", done.stdout + done.stderr
    folders = {str(tmp_path): "here", str(tmp_path / "plugin"): "plugin", str(tmp_path / "all.zip"): "all.zip"}
    found = [str((tmp_path / file.replace("/__init__.py", "")).parent) for file in files[:3]]
    assert all(each in (folders.get(file, "stdlib"), None) for file, each in zip(found, origins, strict=True))


@pytest.mark.parametrize("how", ["next", "close"], ids="ended by={}".format)
@pytest.mark.parametrize("runner", ["names", "checks"], ids="of={}".format)
def test_ctrl_c_while_the_child_ends(monkeypatch, runner, how):
    """After its last answer a child is waited for; an interruption meanwhile reaches the caller."""

    def interrupted(_, arguments, *__):
        try:
            yield arguments[-1], {"status": "PASS", "check": "shapes", "message": "", "log": ""}
        finally:
            raise KeyboardInterrupt

    monkeypatch.setattr(subprocesses, "answers", interrupted)
    child = answer_each("a_module", [], ["shapes"], 1.0)
    if runner == "checks":
        child = run_in_child(CheckConfig(), [CheckId("shapes")], deterministic=False, deadline=1.0)
    assert next(child)
    with pytest.raises(KeyboardInterrupt):
        child.close() if how == "close" else next(child, None)
