"""Runs of `pytest benchmarks`, on the CPU: stable ids, a record, a verdict, and the exit status that follows."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import keras
import pytest

import conftest
from alexnet_repro.training.distributed.cluster import ClusterError
from alexnet_repro.verify.checks.devices import MachineNotReadyError
from alexnet_repro.verify.doctor import fingerprint
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.verdict import Planned
from benchmarks import conftest as benchmarks_conftest
from benchmarks import session as module
from tests.helpers.junit_files import outcomes
from tests.helpers.machines import A100, box
from tests.helpers.paths import ROOT
from tests.helpers.pytest_here import benchmarks_apart, benchmarks_here
from tests.helpers.results_files import problems
from tests.helpers.sessions import session_of


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_devices_are_those_that_the_doctor_found(monkeypatch, tmp_path, backend):
    """Devices are chosen by what the doctor's children found: counting GPUs takes hold of them on JAX."""
    here, well, calls = box(A100), Finding("gpu", "PASS", "1 in this machine"), []

    def diagnose(*_, **__):
        calls.append("the doctor")
        return here, [well]

    def choose(*arguments, **_):
        calls.append(arguments)
        raise MachineNotReadyError("that was all")

    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    monkeypatch.setattr(module, "diagnose_machine", diagnose)
    monkeypatch.setattr(module, "choose_devices", choose)
    monkeypatch.setattr(fingerprint, "machine_record", lambda there: {"system": there.system})  # of this backend's own
    session = session_of(tmp_path, device=["gpu:0"], require_gpu=True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    session.pytest_collection()
    session.pytest_unconfigure()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"  # from here on: no test beside the benchmarks takes a GPU
    assert calls == ["the doctor", (here, ["gpu:0"])]
    assert session.record.findings["doctor"] == [well, Finding("devices", "FAIL", "that was all")]
    assert (session.machine, session.not_ready) == (here, "that was all")
    assert session.record.machine["system"] == "Linux-6.8.0-x86_64"


def test_listed_devices_are_those_that_tests_hid(monkeypatch, tmp_path):
    """Tests' conftest.py hides GPUs until pytest is configured: what is listed is of the devices after that."""
    session = session_of(tmp_path)
    session.collect_only = True
    monkeypatch.setattr(module, "read_machine", lambda: box(A100))
    session.pytest_collection()
    assert session.devices == ("cpu:0", "gpu:0")


def test_machine_that_isnt_ready(monkeypatch, tmp_path):
    """What the doctor found is recorded, and the first benchmark ends the run; tests don't."""
    ill = Finding("driver", "FAIL", "no driver")

    def diagnose(*_, **__):
        raise MachineNotReadyError("fix the machine first", [ill])

    monkeypatch.setattr(module, "diagnose_machine", diagnose)
    session = session_of(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    session.pytest_collection()
    assert session.devices == ("cpu:0",)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"  # tests beside the benchmarks run all the same, and on the CPU
    with pytest.raises(pytest.exit.Exception, match="fix the machine first"):
        benchmarks_conftest.pytest_runtest_setup(
            SimpleNamespace(config=SimpleNamespace(pluginmanager=SimpleNamespace(get_plugin=lambda _: session)))
        )
    ended = SimpleNamespace(shouldfail=False, shouldstop=False)
    session._finish(ended, 1)
    record = json.loads((tmp_path / "results.json").read_text())
    assert (record["complete"], record["verdict"], record["run"]["ended"]) == (False, "FAIL", "fix the machine first")
    assert {(each["state"], each["why"]) for each in record["plan"]} == {("not asked", "fix the machine first")}
    assert (tmp_path / "report.html").exists()
    session.pytest_unconfigure()
    assert [each["check"] for each in record["findings"]["doctor"]] == ["driver"]


class Collected(NamedTuple):
    """A test as far as its place goes."""

    path: Path
    name: str


def test_tests_run_before_benchmarks(tmp_path):
    """Order: tests as they come, then correctness, determinism, performance; a test's own name decides nothing.

    Benchmarks of a module stay as they were collected where another plugin shuffles.
    """
    names = ("forward", "overhead", "correct", "burn_in", "repeatable", "correct")
    items = [Collected(ROOT / f"benchmarks/test_{name}.py", f"test_{number}") for number, name in enumerate(names)]
    items += [Collected(ROOT / f"tests/test_{name}.py", f"test_{name}") for name in ("zeros", "correct")]
    hook = session_of(tmp_path).pytest_collection_modifyitems(items)
    next(hook)
    items.reverse()  # as by a plugin that shuffles
    next(hook, None)
    assert [f"{each.path.relative_to(ROOT).with_suffix('')} {each.name}" for each in items] == [
        "tests/test_correct test_correct",
        "tests/test_zeros test_zeros",
        "benchmarks/test_correct test_2",
        "benchmarks/test_correct test_5",
        "benchmarks/test_repeatable test_4",
        "benchmarks/test_burn_in test_3",
        "benchmarks/test_overhead test_1",
        "benchmarks/test_forward test_0",
    ]


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """A run of two checks, and its folder, which wasn't there."""
    folder = tmp_path_factory.mktemp("run") / "reports/today"
    return benchmarks_apart("-k", "test_correct and (shapes or resize)", "--device=cpu:0", f"--report={folder}"), folder


@pytest.mark.slow
def test_run_ends_in_a_verdict(checked):
    """Checks that ran pass, the rest is inconclusive, which alone doesn't fail the run; no library says anything."""
    done, folder = checked
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = done.stdout.splitlines()
    shown = [" ".join(line.split()[:2]) for line in lines]
    assert [each for each in shown if each in ("doctor PASS", "correct INCONCLUSIVE")] == [
        "doctor PASS",
        "correct INCONCLUSIVE",
    ]
    assert "correct     INCONCLUSIVE  2 of 2 passed, 13 of 15 not answered" in lines
    assert "repeatable  INCONCLUSIVE  4 of 4 not answered" in lines
    assert "fast        INCONCLUSIVE  21 of 21 not answered" in lines
    assert "INCONCLUSIVE: nothing failed, but 40 of 42 planned checks weren't answered" in lines
    assert "GPU: not run; this machine has none, or none was selected" in lines
    assert f"results: {folder / 'results.json'}" in lines
    assert lines[lines.index(f"results: {folder / 'results.json'}") + 1] == f"report: {folder / 'report.html'}"


@pytest.mark.slow
def test_run_is_recorded(checked):
    """The record has both checks' findings and says that the run came to its end; report and JUnit's file are there."""
    _, folder = checked
    assert sorted(path.name for path in folder.iterdir()) == ["junit.xml", "report.html", "results.json", "summary.md"]
    assert "<h1>? INCONCLUSIVE</h1>" in (folder / "report.html").read_text()
    record = json.loads((folder / "results.json").read_text())
    assert (record["schema"], record["complete"], record["verdict"]) == (4, True, "INCONCLUSIVE")
    assert record["verdicts"]["correct"] == "INCONCLUSIVE"
    assert record["machine"]["devices"] == ["cpu:0"]
    assert problems(record) == []
    assert re.fullmatch("[0-9a-f]{32}", record["run"]["id"])
    cpu = record["machine"]["inventory"]["cpu:0"]
    assert (cpu["serial"], cpu["ecc_uncorrected"], cpu["bits"]["packages"]["keras"]) == (None, None, keras.__version__)
    assert isinstance(record["run"]["library_output"], str)
    found = [(each["check"], each["device"], each["status"]) for each in record["findings"]["correct"]]
    assert found[-2:] == [("shapes", "cpu:0", "PASS"), ("resize", "cpu:0", "PASS")]
    assert outcomes(folder / "junit.xml") == {
        "test_correct[device=cpu:0-check=shapes]": "passed",
        "test_correct[device=cpu:0-check=resize]": "passed",
        "verdict": "skipped",
    }


OWN_DEVICES = {
    "tensorflow": "import tensorflow.python.eager.context as c; print('began', bool(c.context()._physical_devices))",
    "jax": "from jax._src import xla_bridge; print('began', xla_bridge.backends_are_initialized())",
    "torch": "import torch; print('began', torch.cuda.is_initialized())",
}


@pytest.mark.slow
def test_pytest_uses_no_device(tmp_path):
    """Checks and timings run in processes of their own: in pytest's own the backend never gets as far as a device."""
    options = ("benchmarks", "-k", "shapes or resize", "--benchmark-max-time=0.01", f"--report={tmp_path}")
    code = f"import pytest; print(pytest.main([*{options!r}, '-p', 'no:cacheprovider', '--device=cpu:0'])); "
    command = [sys.executable, "-c", code + OWN_DEVICES[keras.backend.backend()]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-2:] == ["0", "began False"], done.stdout
    assert [
        each["case"].partition("[")[0] for each in json.loads((tmp_path / "results.json").read_text())["timings"]
    ] == [
        "resize",
        "resize",
    ]


@pytest.mark.slow
def test_device_that_isnt_there_is_a_usage_error(tmp_path):
    """It ends the run before the first test, in one line."""
    visible = {"CUDA_VISIBLE_DEVICES": "0"}  # which tests hide, where there are GPUs
    done = benchmarks_apart("--device=gpu:99", f"--report={tmp_path}", environ=visible)
    assert done.returncode == 4
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 1
    assert errors[0].startswith("ERROR: --device=gpu:99: no such device; ")
    assert "passed" not in done.stdout


def test_folder_that_cant_be_written_is_a_usage_error(tmp_path):
    """So does a --report that can't be made, before anything is measured, with the option that names another."""
    (tmp_path / "file").write_text("no folder")
    status, printed = benchmarks_here("--device=cpu:0", f"--report={tmp_path / 'file'}")
    (error,) = [line for line in printed.splitlines() if line.startswith("ERROR")]
    assert status == 4
    assert "file/results.json can't be written: " in error
    assert error.endswith("; name another folder: --report=DIR")


def finished(folder, monkeypatch, *, write=None, compare=None):
    """Return the session, and the exit status, of a run that was well, but for one of these functions."""
    session = session_of(folder)
    session._claim()
    session.record.plan = [
        Planned(f"test_{group}.py::test_{group}", group, "cpu:0", "answered", status="PASS")
        for group in ("correct", "repeatable", "fast")
    ]
    for group in ("doctor", "correct", "repeatable", "fast"):
        session.record.add(group, Finding("any", "PASS", "as it should be"))
    monkeypatch.setattr(session.record, "write", write or session.record.write)
    if compare:
        session.record.timings = [SimpleNamespace(device="cpu:0", case="forward")]
        monkeypatch.setattr(module, "gpu_speed_parity", compare)
        monkeypatch.setattr(session.record, "write", lambda **_: None)
        monkeypatch.setattr(module, "report_line", lambda _: "report: none")
    ended = SimpleNamespace(shouldfail=False, shouldstop=False, exitstatus=0)
    hook = session.pytest_sessionfinish(ended, pytest.ExitCode.OK)
    with contextlib.suppress(StopIteration, pytest.exit.Exception):
        next(hook)
        hook.send(None)
    session.pytest_unconfigure()
    return session, ended.exitstatus


def raising(error):
    """Return a function that raises this, whatever it is called with."""

    def call(*_, **__):
        raise error

    return call


def test_results_that_cant_be_written(tmp_path, monkeypatch):
    """Where results can't be written at the end, the verdict and the exit status are a failure's, and say why."""
    session, status = finished(tmp_path, monkeypatch, write=raising(OSError("No space left on device")))
    assert status == 1
    (*_, found) = session.record.findings["doctor"]
    assert (found.status, found.evidence) == ("FAIL", "No space left on device")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(KeyError("gpu:0"), ("FAIL", 1, "an error at its end: KeyError: 'gpu:0'"), id="error=exception"),
        pytest.param(KeyboardInterrupt(), ("INCONCLUSIVE", 2, "interrupted by Ctrl-C"), id="error=interrupt"),
        pytest.param(
            pytest.exit.Exception("interrupted by SIGTERM", returncode=143),
            ("INCONCLUSIVE", 143, "interrupted by SIGTERM"),
            id="error=signal",
        ),
    ],
)
def test_comparison_that_ends_early(tmp_path, monkeypatch, error, expected):
    """At the end of a run an exception is a failure, and an interruption is one."""
    session, status = finished(tmp_path, monkeypatch, compare=raising(error))
    assert (session.record.verdict, status, session.keeper.ended) == expected


def test_workers_that_dont_meet(tmp_path):
    """Where another worker isn't there, or runs other tests, the run fails, as its exit status says."""

    def check_collected(_):
        raise ClusterError("worker 1 runs other tests")

    session = session_of(tmp_path)
    session.workers = SimpleNamespace(check_collected=check_collected)
    session.pytest_collection_finish(SimpleNamespace(items=[]))
    (found,) = session.record.findings["fast"]
    assert (session.not_ready, session.record.verdict) == ("worker 1 runs other tests", "FAIL")
    assert (found.check, found.status, found.message) == ("workers", "FAIL", "worker 1 runs other tests")


@pytest.mark.parametrize(
    ("named", "pyargs"),
    [("benchmarks", None), ("./benchmarks/test_forward.py::test_forward", True), ("benchmarks.test_forward", True)],
    ids=["named=folder", "named=path", "named=module"],
)
def test_checkout_behind_a_link(tmp_path, monkeypatch, named, pyargs):
    """The verification is there by whichever path its folder is named, or as a module."""
    (tmp_path / "link").symlink_to(ROOT)
    monkeypatch.setattr(conftest, "__file__", str(tmp_path / "link/conftest.py"))
    terminal = SimpleNamespace(quieten_benchmark=lambda: None)
    session = SimpleNamespace(keeper=None, terminal=terminal, record=SimpleNamespace(run={}))
    monkeypatch.setattr(module, "VerificationSession", lambda _: session)
    registered = []
    config = SimpleNamespace(
        args=[named],
        option=SimpleNamespace(keyword=""),
        invocation_params=SimpleNamespace(dir=tmp_path / "link"),
        getoption={"pyargs": pyargs}.get,
        pluginmanager=SimpleNamespace(register=lambda _, name: registered.append(name)),
    )
    conftest.pytest_configure(config)
    assert registered == ["verification", "verification's plan", "verification's terminal"]


def test_relative_folder(tmp_path, monkeypatch):
    """A `--report` stays the folder that it was named as, wherever a test goes."""
    monkeypatch.chdir(tmp_path)
    session = session_of(tmp_path, report="reports")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    session.record.add("correct", Finding("shapes", "PASS", "well"))
    assert (tmp_path / "reports/results.json").exists()


def test_without_a_terminal(tmp_path, capsys):
    """With -p no:terminal the run says what it says all the same."""
    session_of(tmp_path).say("doctor: PASS")
    assert capsys.readouterr().out == "doctor: PASS\n"


def test_folder_of_another_run_is_left_alone(tmp_path):
    """A run that was refused a folder writes nothing there."""
    (tmp_path / "results.json").write_text('{"run": {"host": "node9"}}')
    session = session_of(tmp_path)
    with pytest.raises(pytest.UsageError, match="another run, of node9"):
        session.pytest_collection()
    list(session.pytest_sessionfinish(SimpleNamespace(), pytest.ExitCode.USAGE_ERROR))
    assert (tmp_path / "results.json").read_text() == '{"run": {"host": "node9"}}'
