"""References: what is kept of processes' timings, what is refused, and what identifies their code."""

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from alexnet_repro.verify.benchmark import reference as module
from alexnet_repro.verify.benchmark.reference import (
    Baseline,
    Place,
    environment_differences,
    merge_references,
    path_of,
    read_reference,
    write_reference,
)
from alexnet_repro.verify.benchmark.regression import speed_findings
from alexnet_repro.verify.benchmark.timing import Timing
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
    with pytest.raises(ValueError, match=f"restore {path}, or remove it") as error:
        read_reference(path)
    assert "\n" not in str(error.value)
    (found,) = speed_findings([timing(1.0)], PLACES, [folder])
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


HOSTS = {"cpu:0": Place("AMD EPYC", HERE, "2c26b46b68ff")}


def run(seconds=1.0, **changes):
    """Return what a process timed."""
    return {"resize": Timing("resize", "cpu:0", "", [seconds] * 99, **changes)}


def test_processes_become_a_reference():
    """At most fifty rounds of each process are kept, in six digits, with where they come from."""
    (found,) = module.references_of([run(1 / (3 + i)) for i in range(5)], HOSTS, {"system": "Linux"}, FROM)
    assert (found.device, found.environment, found.machine) == ("AMD EPYC", HERE, {"system": "Linux"})
    case = found.cases["resize"]
    assert [len(each) for each in case.processes] == [50] * 5
    assert [each[0] for each in case.processes] == [0.333333, 0.25, 0.2, 0.166667, 0.142857]
    assert case.provenance == {**FROM, "boot": "2c26b46b68ff"}


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        pytest.param([{}, {}], "nothing was timed", id="runs=empty"),
        pytest.param([run(), {}], "not timed in each process: resize", id="runs=of other cases"),
        pytest.param([run(), run(fault="0.5")], "nothing is kept of invalid timings: resize", id="runs=invalid"),
    ],
)
def test_processes_of_no_use(runs, message):
    """All timed the same cases, at least one, and computed right: or no reference is made of them."""
    with pytest.raises(ValueError, match=message):
        module.references_of(runs, HOSTS, {}, FROM)


def test_file_of_each_kind(tmp_path):
    """Each kind's file is written anew, with the cases of the same environment that weren't timed this time."""
    stored_in(tmp_path)
    new = replace(STORED, cases={"forward": Baseline("cpu:0", "float32", PROCESSES)})
    module.keep_references(tmp_path, [new, replace(new, device="NVIDIA H100")])
    assert list(read_reference(path_of(tmp_path, STORED.device, HERE)).cases) == ["resize", "forward"]
    assert list(read_reference(path_of(tmp_path, "NVIDIA H100", HERE)).cases) == ["forward"]


def test_provenance_is_whole():
    """Day, command, revision and seed."""
    assert set(module.provenance(ROOT, "pytest")) == {"recorded", "command", "revision", "seed"}
