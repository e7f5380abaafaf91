"""The results file: complete after each finding, written atomically, and standard JSON."""

import json
import math
from pathlib import Path

import pytest

from alexnet_repro.verify.benchmark.timing import Timing
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.run_record import RunRecord

WELL = Finding("shapes", "PASS", "14 layers", device="cpu:0", number=1.5, bound=2.0)
FIELDS = {
    "check": "shapes",
    "status": "PASS",
    "message": "14 layers",
    "evidence": "",
    "fix": "",
    "device": "cpu:0",
    "precision": "",
    "number": 1.5,
    "bound": 2.0,
    "data": {},
    "case": "",
    "kind": "result",
    "scope": "device",
}


@pytest.fixture
def record(tmp_path):
    """An empty record, to be written into a folder that isn't there yet."""
    return RunRecord(tmp_path / "reports/today/results.json")


def read(path):
    """Return what the file holds; the literals NaN and Infinity, which JSON doesn't have, are errors."""
    return json.loads(path.read_text(), parse_constant=lambda literal: pytest.fail(f"{literal} isn't JSON"))


def test_finding_is_written_at_once(record):
    """After a finding the file has it with all its fields, and says that the run is unfinished."""
    record.machine = {"devices": ["cpu:0"]}
    record.add("correct", WELL)
    assert read(record.path) == {
        "schema": 4,
        "complete": False,
        "verdict": "INCONCLUSIVE",
        "verdicts": {
            "doctor": "INCONCLUSIVE",
            "correct": "PASS",
            "repeatable": "INCONCLUSIVE",
            "fast": "INCONCLUSIVE",
            "reference": "INCONCLUSIVE",
        },
        "run": {},
        "plan": [],
        "machine": {"devices": ["cpu:0"]},
        "findings": {"doctor": [], "correct": [FIELDS], "repeatable": [], "fast": [], "reference": []},
        "timings": [],
        "calibrations": [],
        "layers": [],
        "overheads": [],
    }


def test_findings_add_up(record):
    """A later finding joins those before it, in their order, and the verdict follows."""
    record.add("correct", WELL)
    record.add("repeatable", Finding("replay", "FAIL", "other bits"))
    record.add("correct", Finding("image_labels", "PASS", "paired"))
    written = read(record.path)
    assert [each["check"] for each in written["findings"]["correct"]] == ["shapes", "image_labels"]
    assert [each["check"] for each in written["findings"]["repeatable"]] == ["replay"]
    assert (written["verdict"], written["verdicts"]["repeatable"]) == ("FAIL", "FAIL")


def test_timing_is_written_at_once(record):
    """A case's rounds are kept, each of them."""
    record.add_timing(Timing("forward", "cpu:0", "float32", [0.5, 0.25], 0.75, 128, 10**9, "warm", None))
    assert read(record.path)["timings"] == [
        {
            "case": "forward",
            "device": "cpu:0",
            "precision": "float32",
            "rounds": [0.5, 0.25],
            "read_back": 0.75,
            "images": 128,
            "flop": 1000000000,
            "heat": "warm",
            "fault": None,
            "peak": None,
            "bottleneck": "",
            "layer": "",
            "largest": False,
            "first": 0.0,
            "pipelined": None,
            "peak_memory": 0,
            "conditions": {
                "load": None,
                "cpu_mhz": None,
                "gpu_mhz": None,
                "temperature": None,
                "heat": "",
                "cpu_quota": None,
                "gpu": "",
            },
            "bytes": 0,
            "samples": {},
            "roofline": None,
            "measured": 1,
        }
    ]


def test_finished_run_is_marked(record):
    """The last write of a finished run marks it complete; the next write takes that back."""
    record.add("correct", WELL)
    record.write(complete=True)
    assert read(record.path)["complete"] is True
    record.add("correct", WELL)
    assert read(record.path)["complete"] is False


def test_numbers_that_arent_finite_are_words(record):
    """They are strings wherever they stand, since JSON has no such numbers; finite ones stay numbers."""
    data = {"largest": math.inf, "each": (1.5, -math.inf, {"mean": math.nan})}
    record.add("correct", Finding("layers", "FAIL", "off", number=math.nan, bound=math.inf, data=data))
    written = read(record.path)["findings"]["correct"][0]
    assert (written["number"], written["bound"]) == ("nan", "inf")
    assert written["data"] == {"largest": "inf", "each": [1.5, "-inf", {"mean": "nan"}]}


def not_replaced(*_):
    """Fail as `Path.replace` may."""
    raise OSError(5, "Input/output error")


def test_failed_write_leaves_the_old_file(record, monkeypatch):
    """The file is written atomically (tests/test_files.py): the old one stays alone, and the message has the option."""
    record.add("correct", WELL)
    before = record.path.read_bytes()
    monkeypatch.setattr(Path, "replace", not_replaced)
    with pytest.raises(OSError, match=r"results\.json can't be written: Input/output error; .* folder: --report=DIR$"):
        record.add("correct", WELL)
    assert record.path.read_bytes() == before
    assert [path.name for path in record.path.parent.iterdir()] == ["results.json"]


def test_what_isnt_json_leaves_the_old_file(record):
    """A finding that can't be written as JSON is an error, and leaves the old file."""
    record.add("correct", WELL)
    before = record.path.read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        record.add("correct", Finding("layers", "PASS", "well", data={"what": {1, 2}}))
    assert record.path.read_bytes() == before
    assert [path.name for path in record.path.parent.iterdir()] == ["results.json"]


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_unwritable_folder_is_named_with_its_remedy(tmp_path, folder):
    """A folder that can't be made is named in one line, with the option that names another."""
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="can't be written") as error:
        RunRecord(tmp_path / folder / "results.json").add("correct", WELL)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / folder / 'results.json'} can't be written: ")
    assert message.endswith("; name another folder: --report=DIR")
    assert (tmp_path / "file").read_text() == "no folder"


def test_new_run_replaces_the_file(tmp_path):
    """A new record of the same name keeps nothing of the old one."""
    path = tmp_path / "results.json"
    RunRecord(path).add("correct", WELL)
    RunRecord(path).write()
    assert read(path)["findings"]["correct"] == []


@pytest.mark.parametrize(
    ("run", "machine", "level"),
    [
        pytest.param({"level": "long"}, {}, "long", id="level=of the run"),
        pytest.param({}, {"level": "quick"}, "quick", id="level=of the machine, in earlier files"),
        pytest.param({}, {}, "standard", id="level=none"),
    ],
)
def test_level(run, machine, level):
    """A quick run stays one, wherever its file has the level."""
    assert RunRecord(Path("results.json"), run=run, machine=machine).level == level
