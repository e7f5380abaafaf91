"""Fresh processes' timings become a reference, or are refused."""

import json
from pathlib import Path

import pytest

from alexnet_repro.verify.benchmark import collect
from tests.helpers.paths import ROOT

HERE = {"packages": {"numpy": "2.4.6"}, "settings": {}, "threads": {"processors": 2}}
FROM = {
    "recorded": "2026-11-24",
    "command": "python -m benchmarks.tools.make_reference",
    "revision": "486c04f",
    "seed": "0",
}


def run(seconds=1.0, **changes):
    """Return what a process recorded."""
    speed = {"devices": {"cpu:0": {"kind": "AMD EPYC", "environment": HERE}}, "machine": {"system": "Linux"}}
    timings = [{"case": "resize", "device": "cpu:0", "precision": "", "rounds": [seconds] * 99, "fault": None}]
    return {"complete": True, "machine": {"speed": speed}, "timings": timings} | changes


def test_processes_become_a_reference(monkeypatch):
    """Each process's rounds are kept, fifty at the most, in six digits, with where they come from."""
    monkeypatch.setattr(collect, "boot_of", {"cpu:0": "2c26b46b68ff"}.get)
    (found,) = collect.references([run(1 / (3 + i)) for i in range(5)], FROM)
    assert (found.device, found.environment, found.machine) == ("AMD EPYC", HERE, {"system": "Linux"})
    case = found.cases["resize"]
    assert [len(each) for each in case.processes] == [50] * 5
    assert [each[0] for each in case.processes] == [0.333333, 0.25, 0.2, 0.166667, 0.142857]
    assert case.provenance == {**FROM, "boot": "2c26b46b68ff"}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        pytest.param(run(machine={"speed": {}}), "in different environments", id="other=environment"),
        pytest.param(run(timings=[]), "not timed in each process: resize", id="other=cases"),
    ],
)
def test_unlike_processes_make_no_reference(other, said):
    """One environment, and the same cases in each."""
    with pytest.raises(ValueError, match=said):
        collect.references([run(), other], FROM)


@pytest.mark.parametrize(
    ("status", "text", "said"),
    [
        pytest.param(1, json.dumps(run()), "fails .exit status 1.:\nthe end", id="status=1"),
        pytest.param(0, "", "left no results", id="results=none"),
        pytest.param(0, json.dumps(run(complete=False)), "timed nothing to its end", id="results=half"),
        pytest.param(0, json.dumps(run(timings=[])), "timed nothing to its end", id="timings=none"),
        pytest.param(
            0, json.dumps(run(timings=[{"case": "resize", "fault": "0.5"}])), "what is wrong: resize", id="timing=void"
        ),
    ],
)
def test_process_of_no_use(tmp_path, status, text, said):
    """Nothing is kept of a process that failed, timed nothing or computed wrongly, and its last words are shown."""
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        collect.checked(tmp_path / "results.json", status, "the end")


def test_process_of_use(tmp_path):
    """What it recorded is returned, and each case's rounds are found in it."""
    (tmp_path / "results.json").write_text(json.dumps(run()))
    assert collect.rounds_of(collect.checked(tmp_path / "results.json", 0, "")) == {"resize": [1.0] * 99}


def test_provenance_is_whole():
    """Day, command, revision and seed; a note where there is one."""
    found = collect.provenance(ROOT, "make", "busy")
    assert set(found) == {"recorded", "command", "revision", "seed", "note"}
    assert set(collect.provenance(ROOT, "make")) == {"recorded", "command", "revision", "seed"}


def test_command_of_a_process(monkeypatch):
    """A process runs the benchmarks alone, with the options given and a folder of its own, and compares nothing."""
    commands = []

    def started(command, *, env, **_):
        commands.append((command[1:], env[collect.COLLECTING]))
        results = Path(command[-1].removeprefix("--report=")) / "results.json"
        results.write_text(json.dumps(run()))
        return collect.subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(collect.subprocess, "run", started)
    said = []
    assert len(collect.collected(ROOT, 2, ["-k", "test_resize"], said.append)) == 2
    collect.collected(ROOT, 1, ["benchmarks/test_resize.py::test_resize[side=28]"])
    assert said == ["process 1 of 2: 1 cases", "process 2 of 2: 1 cases"]
    shown = [" ".join(command[:-1]) for command, _ in commands]
    always = "-m pytest -p no:cacheprovider --benchmark-only"
    assert shown[:2] == [f"{always} benchmarks -k test_resize"] * 2
    assert shown[2] == f"{always} benchmarks/test_resize.py::test_resize[side=28]"
    assert {(command[-1].startswith("--report="), variable) for command, variable in commands} == {(True, "1")}
