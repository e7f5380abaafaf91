"""The published JSON Schema of results.json: what the suite writes is valid by it, and what it doesn't isn't."""

import copy
import json
import math
from dataclasses import asdict

import pytest
from jsonschema import Draft202012Validator

from alexnet_repro.verify.benchmark.telemetry import Conditions
from alexnet_repro.verify.benchmark.timing import Calibration, Timing
from alexnet_repro.verify.checks.overhead_cell import OverheadCell
from alexnet_repro.verify.doctor.inventory import DeviceInventory
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.merge import merged
from alexnet_repro.verify.report.run_record import RunRecord, read_results
from alexnet_repro.verify.verdict import Planned
from benchmarks.folder import claim, run_identity
from tests.helpers.paths import ROOT
from tests.helpers.results_files import EVERYTHING, FAILED, RUN, SCHEMA, problems


def test_schema_is_one():
    """It is a schema of the draft that it names."""
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("content", [pytest.param(FAILED, id="run=failed"), pytest.param(EVERYTHING, id="run=well")])
def test_runs_are_valid(content):
    """Complete and failed runs are, and so are those of later versions, with fields that this one doesn't know."""
    assert problems(content) == []
    later = copy.deepcopy(content) | {"later": [{}]}
    finding, *_ = later["findings"]["correct"]
    for each in (later["run"], later["machine"], later["plan"][0], later["timings"][0], finding):
        each["later"] = 4711
    assert problems(later) == []


def full(folder):
    """Return a record that has something in each of its parts."""
    record = RunRecord(folder / "results.json", run=dict(RUN))
    timing = Timing("a", "gpu:0", "float32", [1.0, math.inf], samples={"seconds": [0.0, 1.0], "watts": [None, 612.5]})
    record.plan = [Planned("test_any.py::test_any", "fast", "gpu:0", "lost", "it died", "FAIL")]
    record.machine = {
        "id": None,
        "firmware": {"bios": None, "microcode": "0x1"},
        "inventory": {"gpu:0": asdict(DeviceInventory("H100", memory=80, bits={"driver": "580"}))},
        "threads": {"processors": 2},
        "cpu_quota": 1.5,
    }
    record.add("correct", Finding("layers", "FAIL", "off", number=math.nan, bound=-math.inf, data={"any": [1, {}]}))
    record.add_timing(timing)
    record.add_calibration(Calibration("gpu:0", {"float32": math.inf}, 1e12))
    record.overheads.append(OverheadCell("gpu:0", "float32", True, False, 8, [0.5, math.nan]))
    record.write()
    return record


def test_what_is_written_is_valid(tmp_path):
    """So is each part of a record as it is written, with numbers that JSON doesn't have, and read back and written."""
    record = full(tmp_path)
    content = json.loads(record.path.read_text())
    assert problems(content) == []
    again = read_results(record.path)
    again.path = tmp_path / "again.json"
    again.write()
    assert json.loads(again.path.read_text()) == content


def test_merged_file_is_valid(tmp_path):
    """So is the file of several workers, which has an id of its own and names those of its runs."""
    one = full(tmp_path)
    other = RunRecord(tmp_path / "results.json", run=RUN | {"id": "f" * 32})
    whole = merged(tmp_path / "whole.json", {"a:1": one, "b:2": other})
    whole.write()
    content = json.loads(whole.path.read_text())
    assert problems(content) == []
    assert content["run"]["workers"] == [RUN["id"], "f" * 32]
    assert content["run"]["id"] not in content["run"]["workers"]


def test_first_file_is_valid(tmp_path):
    """So is what a run writes before it knows anything of its machine."""
    identity = run_identity(ROOT, ["benchmarks"]) | {"level": "quick"}
    claim(tmp_path, identity)
    content = json.loads((tmp_path / "results.json").read_text())
    assert problems(content) == []
    assert (content["schema"], content["complete"], content["verdict"]) == (4, False, "INCONCLUSIVE")
    assert content["run"] == identity


def broken(path, value):
    """Return a run's content with another value at a path; an Ellipsis removes it."""
    content = copy.deepcopy(EVERYTHING)
    *parents, last = path
    place = content
    for each in parents:
        place = place[each]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        pytest.param(["schema"], 3, "$.schema: 4 was expected", id="schema=3"),
        pytest.param(["schema"], ..., "$: 'schema' is a required property", id="schema=absent"),
        pytest.param(["run", "id"], ..., "$.run: 'id' is a required property", id="id=absent"),
        pytest.param(["run", "node"], ..., "$.run: 'node' is a required property", id="node=absent"),
        pytest.param(["run", "id"], "../../x", "$.run.id: '../../x' does not match", id="id=a path"),
        pytest.param(["run", "level"], "thorough", "$.run.level: 'thorough' is not one of", id="level=unknown"),
        pytest.param(["complete"], 1, "$.complete: 1 is not of type 'boolean'", id="complete=1"),
        pytest.param(["verdict"], "GREEN", "$.verdict: 'GREEN' is not one of", id="verdict=GREEN"),
        pytest.param(["machine", "id"], 4711, "$.machine.id: 4711 is not valid", id="machine=a number"),
        pytest.param(["findings", "correct", 0, "number"], "many", "$.findings.correct[0].number", id="number=a word"),
        pytest.param(["timings", 0, "rounds", 0], None, "$.timings[0].rounds[0]: None is not valid", id="round=null"),
    ],
)
def test_other_content_is_not_valid(path, value, where):
    """What a run of this version doesn't write isn't valid, and the place is named."""
    (problem,) = problems(broken(path, value))
    assert problem.startswith(where)


def test_conditions_that_arent_known_are_valid(tmp_path):
    """Conditions of a timing that no sensor tells are null."""
    record = RunRecord(tmp_path / "results.json", run=dict(RUN))
    record.add_timing(Timing("a", "cpu:0", "", [1.0], conditions=Conditions()))
    assert problems(json.loads(record.path.read_text())) == []
