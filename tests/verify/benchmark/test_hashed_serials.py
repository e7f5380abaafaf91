"""Runs with `--hash-serials`: whatever a run writes and prints, no serial, UUID, machine id or key is in it."""

import json
import os
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from alexnet_repro.verify.checks.devices import MachineNotReadyError
from alexnet_repro.verify.finding import Finding
from benchmarks import session as module
from tests.helpers.machines import A100, box
from tests.helpers.paths import ROOT
from tests.helpers.pytest_here import benchmarks_apart
from tests.helpers.results_files import problems
from tests.helpers.sessions import session_of

UUID, SERIAL, MACHINE, KEY = "GPU-3a4b5c6d-1111-2222-3333-444455556666", "1320221015912", "CZ3404YXQ2", "of-the-site-7"
SECRETS = (UUID, UUID[4:12], SERIAL, MACHINE, KEY)
HASHED = "GPU-hashed-[0-9a-f]{16}"
LOST = Finding("gpu", "FAIL", f"{UUID} is lost", f"serial {SERIAL}, machine {MACHINE}", f"nvidia-smi -i {UUID}")


def shown(folder, *printed):
    """Return which secrets are in what was printed, and in files, or their names, below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    texts = [*printed, *(path.name for path in files), *(path.read_text() for path in files)]
    return [each for each in SECRETS if any(each.casefold() in text.casefold() for text in texts)]


@pytest.fixture
def here(monkeypatch):
    """A machine with one GPU, and a key."""
    monkeypatch.setenv("ALEXNET_REPRO_HASH_KEY", KEY)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", UUID[:12])
    monkeypatch.setattr(module, "machine_serials", lambda: [MACHINE])
    monkeypatch.setattr(module, "machine_identity", lambda: {"id": MACHINE, "product": None, "firmware": {}})
    found = box(replace(A100, uuid=UUID, serial=SERIAL), settings={"CUDA_VISIBLE_DEVICES": UUID[:12]})
    monkeypatch.setattr(module, "read_gpus", lambda: found)
    return found


@pytest.mark.parametrize("hashed", [True, False], ids=lambda each: f"hashed={each}")
def test_machine_that_isnt_ready(monkeypatch, tmp_path, capsys, here, hashed):
    """Neither the doctor's findings, nor the reason, nor the inventory of a machine that isn't ready show any.

    Without the option they are all there: a test that looks in the wrong places would find none.
    """

    def diagnose(_wanted, say, **_):
        say(str(LOST))
        raise MachineNotReadyError(f"fix {UUID} first", [LOST], here)

    monkeypatch.setattr(module, "diagnose_machine", diagnose)
    session = session_of(tmp_path, hash_serials=hashed)
    session.pytest_collection()
    session._finish(SimpleNamespace(shouldfail=False, shouldstop=False), 1)
    session.pytest_unconfigure()
    content = json.loads((tmp_path / "results.json").read_text())
    found = shown(tmp_path, capsys.readouterr().out, session.not_ready)
    if not hashed:
        assert found == [*SECRETS[:-1]]
        return
    assert found == []
    gpu = content["machine"]["inventory"]["gpu:0"]
    assert re.fullmatch(HASHED, gpu["uuid"])
    assert [gpu["uuid"]] == content["machine"]["gpu_uuids"]
    (finding,) = content["findings"]["doctor"]
    assert finding["message"] == f"{gpu['uuid']} is lost"
    assert finding["evidence"] == f"serial {gpu['serial']}, machine {content['machine']['id']}"
    assert content["run"]["ended"] == f"fix {gpu['uuid']} first"


PLUGIN = f"""
import os, pytest
@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item):
    print("on stdout: {UUID}")
    os.write(2, b"on stderr: {UUID}\\n")
    {{ending}}
    return (yield)
"""
ENDINGS = {
    "passed": ("pass", 0),
    "raised": (f"raise RuntimeError('{UUID} fell off the bus, ' + os.environ['ALEXNET_REPRO_HASH_KEY'])", 1),
    "crashed": ("import ctypes; ctypes.string_at(0)", -11),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, id=f"test={name}") for name in ENDINGS])
def test_real_run(tmp_path, name):
    """Nor do real runs, however they end: commands, pytest's own reports, JUnit, the page, or the watcher's part."""
    ending, status = ENDINGS[name]
    (tmp_path / "shows_a_serial.py").write_text(PLUGIN.format(ending=ending))
    report = tmp_path / "report"
    environ = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "ALEXNET_REPRO_HASH_KEY": KEY}
    path = "benchmarks/test_correct.py::test_correct[device=cpu:0-check=shapes]"
    options = ("-p", "shows_a_serial", f"--report={report}", "--hash-serials", "--deselect", UUID, "-rA")
    done = benchmarks_apart(*options, paths=(path,), environ=environ)
    content = json.loads((report / "results.json").read_text())
    assert done.returncode == status, done.stdout
    assert shown(report, done.stdout, done.stderr) == []
    assert problems(content) == []
    assert re.search(HASHED, content["run"]["command"])
    assert content["run"]["hashed"] is True
    assert content["machine"]["id"] is None or content["machine"]["id"].startswith("hashed-")
    if name == "raised":
        assert re.search(f"{HASHED} fell off the bus, \\(the key\\)", done.stdout)
        assert re.search(f"{HASHED} fell off the bus", (report / "junit.xml").read_text())
