"""Timings on file: what is kept of them, what is refused, and when a run is compared with them at all."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from alexnet_repro.verify.benchmark import reference as speed_reference
from alexnet_repro.verify.benchmark.reference import Baseline, environment_differences, merged, path_of
from alexnet_repro.verify.benchmark.regression import speed_findings
from tests.helpers.paths import ROOT
from tests.helpers.references import FROM, HERE, PLACES, PROCESSES, STORED, stored_in, timing

NOISE = ROOT / "benchmarks/references/recorded_noise.json"


@pytest.fixture
def folder(tmp_path):
    """A folder with rules and one reference."""
    return stored_in(tmp_path)


def test_file_is_read(folder):
    """What is written is read back, under the device's name; no file is no reference; nothing stays beside it."""
    path = folder / "speed-amd-epyc-2-processors.json"
    assert speed_reference.read(path) == STORED
    assert speed_reference.read(folder / "speed-another.json") is None
    assert sorted(each.name for each in folder.iterdir()) == ["rules.toml", path.name]
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
    path = path_of(folder, STORED.device)
    path.write_text(path.read_text().replace(old, new) if old else new)
    with pytest.raises(ValueError, match=f"git checkout {path}"):
        speed_reference.read(path)
    (found,) = speed_findings([timing(1.0)], PLACES, folder)
    assert (found.status, str(path) in found.evidence) == ("FAIL", True)


def test_truncated_file_is_named(folder):
    """Wherever it ends."""
    path = path_of(folder, STORED.device)
    text = path.read_text()
    for length in range(0, len(text) - 2, 97):
        path.write_text(text[:length])
        with pytest.raises(ValueError, match="holds no timings to compare with"):
            speed_reference.read(path)


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
    path = path_of(folder, STORED.device)
    with pytest.raises(ValueError, match="resize has "):
        speed_reference.write(path, replace(STORED, cases={"resize": Baseline("cpu:0", "", processes)}))
    assert speed_reference.read(path) == STORED


def test_interrupted_write_leaves_the_old_file(folder, monkeypatch):
    """Whatever ends a write, the file is the old one or the new one."""

    def full(self, text, **_):
        with self.open("w") as file:
            file.write(text[:100])
        raise OSError(28, "No space left on device")

    path = path_of(folder, STORED.device)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        speed_reference.write(path, replace(STORED, cases={}))
    assert speed_reference.read(path) == STORED


def test_new_cases_join_those_of_the_same_environment():
    """Cases that weren't timed anew stay, unless device or environment are others: then nothing of them does."""
    new = replace(STORED, cases={"forward": Baseline("cpu:0", "float32", PROCESSES)})
    assert list(merged(STORED, new).cases) == ["resize", "forward"]
    assert merged(None, new) == new
    assert merged(replace(STORED, device="another"), new) == new
    assert merged(replace(STORED, environment={}), new) == new


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("NVIDIA A100-SXM4-80GB", "speed-nvidia-a100-sxm4-80gb.json"),
        ("AMD EPYC cpu family 25 model 17, 2 processors", "speed-amd-epyc-cpu-family-25-model-17-2-processors.json"),
    ],
)
def test_name_of_the_file(tmp_path, kind, file):
    """A reference's file is named after the kind of device, in letters, digits and hyphens."""
    assert path_of(tmp_path, kind).name == file


def test_differences_are_told():
    """What is other, what is new and what is gone, each with both values."""
    told = environment_differences(
        {"packages": {"numpy": "2", "jax": "1"}, "threads": 2}, {"packages": {"numpy": "1"}, "gpu": "T4"}
    )
    assert told == [
        "gpu none (was T4)",
        "packages jax 1 (was none)",
        "packages numpy 2 (was 1)",
        "threads 2 (was none)",
    ]
    assert environment_differences(HERE, dict(HERE)) == []


def test_no_revision_without_git(tmp_path):
    """Outside a checkout there is none, and that is no error."""
    assert speed_reference.revision(tmp_path / "nowhere") == ""


def test_no_revision_of_something_else(tmp_path):
    """An environment that lies in the checkout of something else doesn't have that one's revision."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@localhost"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message=a"], check=True)
    package = tmp_path / "site-packages/alexnet_repro/__init__.py"
    package.parent.mkdir(parents=True)
    package.touch()
    assert speed_reference.revision(package.parents[1]) == ""
    subprocess.run([*git, "add", str(package)], check=True)
    assert speed_reference.revision(package.parents[1]).endswith("-dirty")


def test_recorded_noise():
    """The timings that the gate's figures are simulated over: at least eight processes of several cases."""
    stored = speed_reference.read(NOISE)
    assert len(stored.cases) >= 5
    assert min(len(case.processes) for case in stored.cases.values()) >= 8 + 3
    assert NOISE.stat().st_size < 300_000
