"""References: what is kept of processes' timings, what is refused, and what identifies their code."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from alexnet_repro.verify.benchmark import reference as module
from alexnet_repro.verify.benchmark.reference import (
    Baseline,
    environment_differences,
    merge_references,
    path_of,
    read_reference,
    write_reference,
)
from alexnet_repro.verify.benchmark.regression import speed_findings
from tests.helpers.paths import ROOT
from tests.helpers.references import FROM, HERE, PLACES, PROCESSES, STORED, stored_in, timing

NOISE = ROOT / "benchmarks/references/recorded_noise.json"


@pytest.fixture
def folder(tmp_path):
    """A folder with tolerances and one reference."""
    return stored_in(tmp_path)


def test_file_is_read(folder):
    """What is written is read back, under the device's name; no file is no reference; nothing stays beside it."""
    path = folder / "speed-amd-epyc-2-processors-tensorflow-2.21.0.json"
    assert read_reference(path) == STORED
    assert read_reference(folder / "speed-another.json") is None
    assert sorted(each.name for each in folder.iterdir()) == [path.name, "tolerances.toml"]
    assert json.loads(path.read_text())["cases"]["resize"]["provenance"] == FROM


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(None, "", id="file=empty"),
        pytest.param(None, "[]", id="file=list"),
        pytest.param(None, '{"digests": []}', id="file=another"),
        pytest.param('"schema": 1', '"schema": 2', id="schema=newer"),
        pytest.param('"environment"', '"surroundings"', id="environment=missing"),
        pytest.param('"processes"', '"rounds"', id="processes=missing"),
        pytest.param("1.004", "0.0", id="round=nothing"),
        pytest.param("1.004", "-1.0", id="round=below"),
        pytest.param("1.004", "NaN", id="round=nan"),
        pytest.param("1.004", "Infinity", id="round=infinite"),
        pytest.param("1.004", '"1.0"', id="round=text"),
        pytest.param('"AMD EPYC, 2 processors"', "7", id="device=number"),
    ],
)
def test_damaged_file_is_named(folder, old, new):
    """A forged or truncated file is never taken for none, nor compared with: it is named, with what fixes it."""
    path = path_of(folder, STORED.device, STORED.environment)
    path.write_text(path.read_text().replace(old, new) if old else new)
    with pytest.raises(ValueError, match=f"git checkout {path}") as error:
        read_reference(path)
    assert "\n" not in str(error.value)
    (found,) = speed_findings([timing(1.0)], PLACES, folder)
    assert (found.status, str(path) in found.evidence) == ("FAIL", True)


def test_truncated_file_is_named(folder):
    """Wherever it ends."""
    path = path_of(folder, STORED.device, STORED.environment)
    text = path.read_text()
    for length in range(0, len(text) - 2, 97):
        path.write_text(text[:length])
        with pytest.raises(ValueError, match="holds no timings to compare with"):
            read_reference(path)


@pytest.mark.parametrize(
    "processes",
    [
        pytest.param(PROCESSES[:4], id="processes=4"),
        pytest.param([*PROCESSES, []], id="rounds=none"),
        pytest.param([*PROCESSES, [1.0] * 51], id="rounds=51"),
    ],
)
def test_too_little_is_refused(folder, processes):
    """Fewer than five processes aren't written, nor one without rounds; the old file stays."""
    path = path_of(folder, STORED.device, STORED.environment)
    with pytest.raises(ValueError, match=r"cases\.resize\.processes"):
        write_reference(path, replace(STORED, cases={"resize": Baseline("cpu:0", "", processes)}))
    assert read_reference(path) == STORED


def test_interrupted_write_leaves_the_old_file(folder, monkeypatch):
    """Whatever ends a write, the file is the old one or the new one."""

    def full(self, text, **_):
        with self.open("w") as file:
            file.write(text[:100])
        raise OSError(28, "No space left on device")

    path = path_of(folder, STORED.device, STORED.environment)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        write_reference(path, replace(STORED, cases={}))
    assert read_reference(path) == STORED


def test_new_cases_join_those_of_the_same_environment():
    """Cases that weren't timed anew stay, unless device or environment are others: then nothing of them does."""
    new = replace(STORED, cases={"forward": Baseline("cpu:0", "float32", PROCESSES)})
    assert list(merge_references(STORED, new).cases) == ["resize", "forward"]
    assert merge_references(None, new) == new
    assert merge_references(replace(STORED, device="another"), new) == new
    assert merge_references(replace(STORED, environment={}), new) == new


@pytest.mark.parametrize(
    ("kind", "packages", "settings", "file"),
    [
        pytest.param(
            *("NVIDIA A100-SXM4-80GB", {"tensorflow": "2.17.0+nv24.8", "jax": "0.6.0"}, {}),
            "speed-nvidia-a100-sxm4-80gb-tensorflow-2.17.0-nv24.8.json",
            id="framework=tensorflow",
        ),
        pytest.param(
            *("AMD EPYC, 2 processors", {"tensorflow": "2.21.0", "jax": "0.6.0"}, {"KERAS_BACKEND": "jax"}),
            "speed-amd-epyc-2-processors-jax-0.6.0.json",
            id="framework=jax",
        ),
        pytest.param(
            *("Apple M4", {}, {"KERAS_BACKEND": "torch"}), "speed-apple-m4-torch.json", id="framework=unknown version"
        ),
    ],
)
def test_name_of_the_file(tmp_path, kind, packages, settings, file):
    """A reference's file is named after the kind of device and its framework, in letters, digits, dots and hyphens."""
    assert path_of(tmp_path, kind, {"packages": packages, "settings": settings}).name == file


def test_differences_of_environments():
    """What is other, what is new and what is gone, each with both values."""
    found = environment_differences(
        {"packages": {"numpy": "2", "jax": "1"}, "threads": 2}, {"packages": {"numpy": "1"}, "gpu": "T4"}
    )
    assert found == [
        "gpu none (was T4)",
        "packages jax 1 (was none)",
        "packages numpy 2 (was 1)",
        "threads 2 (was none)",
    ]
    assert environment_differences(HERE, dict(HERE)) == []


def test_no_revision_without_git(tmp_path):
    """Outside a checkout there is none, and that is no error."""
    assert module.revision(tmp_path / "nowhere") == ""


def test_revision_waits_for_git_alone(tmp_path, monkeypatch):
    """What git starts, as a monitor of its files, may live on, with its streams, and say what it wants."""
    (tmp_path / "git").write_text("#!/bin/sh\nsleep 30 &\necho 0123456789ab\necho slow >&2\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    start = time.monotonic()
    assert module.revision(tmp_path) == "0123456789ab"
    assert time.monotonic() - start < 20


def test_no_revision_of_something_else(tmp_path):
    """An environment that lies in the checkout of something else doesn't have that one's revision."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@localhost"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message=a"], check=True)
    package = tmp_path / "site-packages/alexnet_repro/__init__.py"
    package.parent.mkdir(parents=True)
    package.touch()
    assert module.revision(package.parents[1]) == ""
    subprocess.run([*git, "add", str(package)], check=True)
    assert module.revision(package.parents[1]).endswith("-dirty")


def test_recorded_noise():
    """The timings that the gate's error rates are simulated over: at least eight processes of several cases."""
    stored = read_reference(NOISE)
    assert len(stored.cases) >= 5
    assert min(len(case.processes) for case in stored.cases.values()) >= 8 + 3
    assert NOISE.stat().st_size < 300_000


def run(seconds=1.0, **changes):
    """Return what a process recorded."""
    speed = {"devices": {"cpu:0": {"kind": "AMD EPYC", "environment": HERE}}, "machine": {"system": "Linux"}}
    timings = [{"case": "resize", "device": "cpu:0", "precision": "", "rounds": [seconds] * 99, "fault": None}]
    return {"complete": True, "machine": {"speed": speed}, "timings": timings} | changes


def test_processes_become_a_reference(monkeypatch):
    """At most fifty rounds of each process are kept, in six digits, with where they come from."""
    monkeypatch.setattr(module, "boot_of", {"cpu:0": "2c26b46b68ff"}.get)
    (found,) = module.references_of([run(1 / (3 + i)) for i in range(5)], FROM)
    assert (found.device, found.environment, found.machine) == ("AMD EPYC", HERE, {"system": "Linux"})
    case = found.cases["resize"]
    assert [len(each) for each in case.processes] == [50] * 5
    assert [each[0] for each in case.processes] == [0.333333, 0.25, 0.2, 0.166667, 0.142857]
    assert case.provenance == {**FROM, "boot": "2c26b46b68ff"}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        pytest.param(run(machine={"speed": {}}), "in different environments", id="other=environment"),
        pytest.param(run(timings=[]), "not timed in each process: resize", id="other=cases"),
    ],
)
def test_unlike_processes_make_no_reference(other, message):
    """One environment, and the same cases in each."""
    with pytest.raises(ValueError, match=message):
        module.references_of([run(), other], FROM)


@pytest.mark.parametrize(
    ("status", "text", "message"),
    [
        pytest.param(1, json.dumps(run()), "fails .exit status 1.:\nthe end", id="status=1"),
        pytest.param(0, "", "left no results", id="results=none"),
        pytest.param(0, json.dumps(run(complete=False)), "didn't complete its timings", id="results=half"),
        pytest.param(0, json.dumps(run(timings=[])), "didn't complete its timings", id="timings=none"),
        pytest.param(
            0,
            json.dumps(run(timings=[{"case": "resize", "fault": "0.5"}])),
            "invalid timings: resize",
            id="timing=invalid",
        ),
    ],
)
def test_process_of_no_use(tmp_path, status, text, message):
    """Nothing is kept of a process that failed, timed nothing or computed wrongly; the end of its output is shown."""
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        module.process_results(tmp_path / "results.json", status, "the end")


def test_process_of_use(tmp_path):
    """What it recorded is returned, and each case's rounds are found in it."""
    (tmp_path / "results.json").write_text(json.dumps(run()))
    assert module.rounds_by_case(module.process_results(tmp_path / "results.json", 0, "")) == {"resize": [1.0] * 99}


def test_provenance_is_whole():
    """Day, command, revision and seed; a note where there is one."""
    found = module.provenance(ROOT, "make", "busy")
    assert set(found) == {"recorded", "command", "revision", "seed", "note"}
    assert set(module.provenance(ROOT, "make")) == {"recorded", "command", "revision", "seed"}


def test_command_of_a_process(monkeypatch):
    """A process runs the benchmarks alone, with the options given and a folder of its own, for as long as it may."""
    commands = []

    def started(command, root, limit):
        commands.append((command[1:], root, limit))
        results = Path(command[-1].removeprefix("--report=")) / "results.json"
        results.write_text(json.dumps(run()))
        return 0, ""

    monkeypatch.setattr(module, "run_to_end", started)
    lines = []
    assert len(module.run_processes(ROOT, 2, ["-k", "test_resize"], lines.append, 600.0)) == 2
    module.run_processes(ROOT, 1, ["benchmarks/test_resize.py::test_resize[side=28]"])
    assert lines == ["process 1 of 2: 1 cases", "process 2 of 2: 1 cases"]
    shown = [" ".join(command[:-1]) for command, _, _ in commands]
    always = "-Xfaulthandler -m pytest -p no:cacheprovider --benchmark-only"
    assert shown[:2] == [f"{always} benchmarks -k test_resize"] * 2
    assert shown[2] == f"{always} benchmarks/test_resize.py::test_resize[side=28]"
    assert all(command[-1].startswith("--report=") for command, _, _ in commands)
    assert [(root, limit) for _, root, limit in commands] == [(ROOT, 600.0), (ROOT, 600.0), (ROOT, None)]


def test_process_that_ends(tmp_path):
    """Status and output, of both streams, are returned; the process knows that it compares nothing, and where it is."""
    code = "import os, sys; print(os.environ['ALEXNET_REPRO_COLLECTING'], os.getcwd()); sys.exit('end')"
    assert module.run_to_end([sys.executable, "-u", "-c", code], tmp_path, 60.0) == (1, f"1 {tmp_path}\nend\n")


HANGS = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
def stuck():
    pathlib.Path("ready").write_text(str(child.pid))
    time.sleep(600)
stuck()
"""


def test_process_that_hangs(tmp_path, monkeypatch):
    """It is ended in time, with its children of other process groups, and the error has the stack of where it hung."""
    ready, limit = tmp_path / "ready", 60.0

    class Hanging(subprocess.Popen):
        def wait(self, timeout=None):
            if timeout == limit:
                while not (ready.exists() and ready.read_text()):
                    time.sleep(0.01)
                raise subprocess.TimeoutExpired(self.args, timeout)
            return super().wait(timeout)

    monkeypatch.setattr(module.subprocess, "Popen", Hanging)
    with pytest.raises(ValueError, match="nothing is kept of a process that isn't done within 60 s") as error:
        module.run_to_end([sys.executable, "-Xfaulthandler", "-c", HANGS], tmp_path, limit)
    assert re.search(r'File "<string>", line \d+ in stuck', str(error.value))
    end = time.monotonic() + limit
    with contextlib.suppress(psutil.NoSuchProcess):
        while psutil.Process(int(ready.read_text())).status() != psutil.STATUS_ZOMBIE:  # of the container's init
            assert time.monotonic() < end
            time.sleep(0.01)


def test_process_that_takes_too_long(tmp_path):
    """The limit is in seconds."""
    with pytest.raises(ValueError, match=r"isn't done within 0\.1 s"):
        module.run_to_end([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path, 0.1)


def test_interrupted_process_is_ended(tmp_path, monkeypatch):
    """Whatever ends the wait for it ends the process."""
    started = []

    class Interrupted(subprocess.Popen):
        def wait(self, timeout=None):
            if self not in started:
                started.append(self)
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(module.subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        module.run_to_end([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path)
    assert started[0].returncode in (-signal.SIGABRT, -signal.SIGKILL)
