"""python -m alexnet_repro fleet: exit statuses, files, a screen of text, and no TensorFlow."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import alexnet_repro
from alexnet_repro.cli import parser as command_line
from alexnet_repro.fleet.text import terminal_lines
from benchmarks.tools.fleet_files import MadeFleet
from tests.helpers.fleet_runs import TEMPLATE, sound, write_fleet
from tests.helpers.fleets import FORGED, faulty_fleet, harmful_fleet, healthy_fleet, large_fleet
from tests.helpers.results_files import written

OUTPUTS = ["fleet.html", "fleet.json", "fleet.junit.xml", "fleet.prom"]


def fleet(*arguments):
    """Run the command, and return its exit status."""
    return command_line.main(["fleet", *map(str, arguments)])


def answered(folder):
    """Return what fleet.json holds."""
    return json.loads((folder / "fleet.json").read_text())


def found(folder, area):
    """Return status, node and device of each finding of an area."""
    return [
        (each["status"], each["node"], each["device"]) for each in answered(folder)["findings"] if each["area"] == area
    ]


def test_sound(tmp_path, capsys):
    """A sound fleet passes, in at most a screen, and its four files are written."""
    write_fleet(tmp_path, 12, days=3)
    assert fleet(tmp_path) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("PASS: ")
    assert len(out.splitlines()) <= 20
    assert all((tmp_path / name).stat().st_size for name in OUTPUTS)
    assert answered(tmp_path)["verdict"] == "PASS"
    assert {each["verdict"] for each in answered(tmp_path)["nodes"]} == {"PASS"}


def test_again(tmp_path, capsys):
    """A second look at the same folder, in which the first one's files are, says the same."""
    write_fleet(tmp_path, 8, days=3)
    fleet(tmp_path)
    first = capsys.readouterr().out
    fleet(tmp_path, tmp_path / "fleet.json")
    assert capsys.readouterr().out == first


def test_other_bits(tmp_path, capsys):
    """A node whose bits differ in one step fails by name, with the check and the step; the others pass."""
    write_fleet(tmp_path, 8, flipped={("node003", "gpu:1"): 2})
    assert fleet(tmp_path) == 1
    assert found(tmp_path, "bits") == [("FAIL", "node003", "gpu:1")]
    verdicts = {each["node"]: each["verdict"] for each in answered(tmp_path)["nodes"]}
    assert [node for node, verdict in verdicts.items() if verdict == "FAIL"] == ["node003"]
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith("FAIL: ")
    assert "node003 gpu:1" in out
    assert "replay float32: from step 2 the gradient of dense_2/kernel differs from 15 of" in " ".join(out.split())


def test_incomplete(tmp_path):
    """A node that died midway is inconclusive, by name."""

    def cut(node, _, content):
        if node == "node002":
            content |= {"complete": False, "verdict": "INCONCLUSIVE"}

    MadeFleet(8, gpus=1, days=3, noise=0.002, change=cut).write(TEMPLATE, tmp_path)
    assert fleet(tmp_path) == 3
    assert found(tmp_path, "own") == [("INCONCLUSIVE", "node002", "")]


def test_missing(tmp_path):
    """A node that is expected and wasn't heard of is inconclusive; groups may be by the file's own columns."""
    write_fleet(tmp_path / "results", 8, days=3)
    nodes = tmp_path / "nodes.csv"
    nodes.write_text("node,rack\n" + "".join(f"node{number:03},r{number % 2}\n" for number in range(1, 10)))
    assert fleet(tmp_path / "results", f"--expect={nodes}", "--by=rack", f"--out={tmp_path / 'out'}") == 3
    assert found(tmp_path / "out", "missing") == [("INCONCLUSIVE", "node009", "")]
    assert answered(tmp_path / "out")["settings"]["by"] == ["rack"]


def test_refused(tmp_path, capsys):
    """A file that isn't one is named with why, and makes the fleet inconclusive: it may have been a node's."""
    write_fleet(tmp_path, 8, days=3)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/results.json").write_text("{")
    assert fleet(tmp_path) == 3
    text = " ".join(capsys.readouterr().out.split())
    assert "a file is left out: it isn't JSON, was cut off, or is nested too deeply" in text
    assert "bad/results.json fix: remove it, or verify that machine again" in text


def test_nothing(tmp_path):
    """Without any node the verdict is inconclusive, not green."""
    assert fleet(tmp_path) == 3
    assert answered(tmp_path)["nodes"] == []


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        pytest.param([], "required: DIR|FILE", id="arguments=none"),
        pytest.param(["nowhere"], "no such file or folder: nowhere", id="arguments=no-folder"),
        pytest.param([".", "--expect=nowhere"], "no such file or folder: nowhere", id="arguments=no-nodes"),
        pytest.param([".", "--tolerance=0"], "expected a percentage", id="arguments=tolerance"),
        pytest.param([".", "--tolerance=nan"], "expected a percentage", id="arguments=nan"),
        pytest.param([".", "--max-age=0d"], "expected a whole number and s, m, h or d", id="arguments=age"),
        pytest.param([".", "--expect=empty"], "names no node", id="arguments=empty"),
        pytest.param([".", "--expect=utf16"], "isn't text in UTF-8", id="arguments=utf-16"),
        pytest.param([".", "--expect=."], "can't be read: Is a directory", id="arguments=folder"),
        pytest.param(["a" * 300], "File name too long", id="arguments=long"),
        pytest.param([".", "--out=/proc/x"], "--out=DIR", id="arguments=unwritable"),
        pytest.param([".", "--out=empty"], "--out=DIR", id="arguments=taken"),
        pytest.param([".", "--by=rack"], "argument --by: no node has a column 'rack'", id="arguments=column"),
    ],
)
def test_wrong_arguments(tmp_path, monkeypatch, capsys, arguments, why):
    """Wrong arguments end with status 2 and one line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("")
    (tmp_path / "utf16").write_text("n1", encoding="utf-16")
    with pytest.raises(SystemExit) as ended:
        fleet(*arguments)
    assert ended.value.code == 2
    assert why in capsys.readouterr().err


def test_tolerance(tmp_path):
    """The tolerance is the one that a person sets."""
    write_fleet(tmp_path, 2)
    fleet(tmp_path, "--tolerance=7.5%")
    assert answered(tmp_path)["settings"]["tolerance"] == 0.075


@pytest.mark.parametrize(
    ("answer", "most"),
    [
        pytest.param(healthy_fleet(), 16, id="fleet=healthy"),
        pytest.param(healthy_fleet(1000), 16, id="fleet=1000"),
        pytest.param(faulty_fleet(), 75, id="fleet=faulty"),
        pytest.param(large_fleet(), 60, id="fleet=large"),
    ],
)
def test_screen(answer, most):
    """The text is a screen at most, of 80 columns but for commands, with the verdict first and last."""
    lines = terminal_lines(answer)
    assert len(lines) <= most
    assert [line for line in lines if len(line) > 80 and ":" not in line] == []
    assert lines[0].startswith(f"{answer.verdict}: ")


def test_harmless():
    """Nothing that another machine's file says reaches the terminal as more than text."""
    text = "\n".join(terminal_lines(harmful_fleet()))
    assert all(line.isprintable() for line in text.splitlines())
    assert FORGED[:20] in text


def test_harmless_files(tmp_path):
    """Nor the files: names that mean harm are text in each."""
    for number, text in enumerate(["<script>alert(1)</script>", "\x1b[31m\u202e", "../../x", 'a"\\\n', "]]>"]):
        content = sound(f"n{number}", gpus=1)
        content["run"]["node"] = text
        content["machine"]["inventory"]["gpu:0"]["kind"] = text
        written(tmp_path / str(number), content)
    assert fleet(tmp_path) == 3
    assert "<script>alert" not in (tmp_path / "fleet.html").read_text()
    assert ET.parse(tmp_path / "fleet.junit.xml").getroot().tag == "testsuites"
    assert sorted(each.name for each in tmp_path.iterdir() if each.is_file()) == OUTPUTS


def test_without_tensorflow(tmp_path):
    """It runs where neither Keras nor TensorFlow nor JAX nor PyTorch can be imported."""
    write_fleet(tmp_path / "results", 3)
    for name in ("keras", "tensorflow", "jax", "torch"):
        (tmp_path / "none" / name).mkdir(parents=True)
        (tmp_path / "none" / name / "__init__.py").write_text("raise RuntimeError('imported')\n")
    root = Path(alexnet_repro.__file__).parents[1]
    env = os.environ | {"PYTHONPATH": f"{tmp_path / 'none'}{os.pathsep}{root}"}
    command = [sys.executable, "-m", "alexnet_repro", "fleet", str(tmp_path / "results")]
    ended = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, check=False)
    assert (ended.returncode in (0, 3), ended.stderr) == (True, "")
