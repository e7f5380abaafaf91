"""Reading results back: what was written is what is read, and a file that can't be read is refused in one line."""

import json
import math
from pathlib import Path

import pytest

from alexnet_repro.verify.benchmark.layer_timing import LayerTiming
from alexnet_repro.verify.benchmark.telemetry import Conditions
from alexnet_repro.verify.benchmark.timing import Calibration, Timing
from alexnet_repro.verify.checks.overhead_cell import OverheadCell
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.run_record import RunRecord, UnreadableError, read_results
from tests.helpers.results_files import CASE, WELL, WRONG, finding, run, timing, written


def test_record_is_read_as_written(tmp_path):
    """Findings, machine, verdict and timings come back as they went in, numbers that JSON doesn't have among them."""
    record = RunRecord(tmp_path / "results.json", {"devices": ["cpu:0"]})
    wrong = Finding("layers", "FAIL", "off", "by much", "doctor", "cpu:0", "float32", math.inf, 0.5, {"worst": 3})
    record.add("correct", wrong)
    timing = Timing("forward[batch=1]", "cpu:0", "float32", [4.0, 1.0, 2.0, 3.0], 1.0, images=5, flop=10)
    record.add_timing(timing)
    record.write(complete=True)
    results = read_results(record.path)
    assert results.findings["correct"] == [wrong]
    assert results.findings["doctor"] == []
    assert results.timings == [timing]
    assert (results.verdict, results.complete, results.machine) == ("FAIL", True, {"devices": ["cpu:0"]})
    (read,) = results.timings
    assert (read.median, read.rate(5), results.invalid) == (2.5, 2.0, set())


def test_costs_of_a_case_are_read(tmp_path):
    """Bytes, first round, memory, recorded conditions, samples, and the device's own rates come back, too."""
    record = RunRecord(tmp_path / "results.json")
    samples = {"seconds": [0.0, 0.25], "cpu_mhz": [2000.0, None]}
    costs = {"first": 2.5, "pipelined": 0.9, "peak_memory": 10**9, "bytes": 4096}
    conditions = Conditions(load=1.5, cpu_mhz=2000.0)
    timing = Timing("a", "cpu:0", "", [1.0], 1.0, **costs, conditions=conditions, samples=samples)
    record.add_timing(timing)
    for memory in (1e10, 2e10):  # a device is calibrated once
        record.add_calibration(Calibration("cpu:0", {"float32": 2e11}, memory))
    layer = LayerTiming("cpu:0", "float32", 32, "dense", "backward", 0.25, math.inf, "memory")
    cell = OverheadCell("cpu:0", "float32", True, False, 8, [0.5, math.nan, 0.25])
    record.add_layers([layer])
    record.overheads.append(cell)
    record.write()
    results = read_results(record.path)
    assert results.layers == [layer]
    assert repr(results.overheads) == repr([cell])  # NaN isn't equal to itself
    assert results.timings == [timing]
    assert results.calibrations == [Calibration("cpu:0", {"float32": 2e11}, 1e10)]


def test_words_are_numbers(tmp_path):
    """`nan`, `inf` and `-inf` are numbers again, in findings and in rounds."""
    off = {**WELL, "number": "nan", "bound": "-inf"}
    path = written(tmp_path, run(correct=[off], timings=[timing(rounds=["inf", 1.0])]))
    results = read_results(path)
    assert math.isnan(results.findings["correct"][0].number)
    assert results.findings["correct"][0].bound == -math.inf
    assert results.timings[0].rounds == [math.inf, 1.0]


def test_fields_of_other_versions(tmp_path):
    """Fields that this version doesn't know are ignored, later groups are kept, and optional ones may be absent."""
    content = run(gate=[], timings=[{"case": "a", "device": "cpu:0", "precision": "", "rounds": [1], "new": 1}])
    content["findings"] |= {"gate": [finding(**WELL, later=1)]}
    del content["findings"]["doctor"], content["verdicts"]
    results = read_results(written(tmp_path, content))
    assert [each.check for each in results.findings["gate"]] == ["shapes"]
    assert results.findings["doctor"] == []
    case = results.timings[0]
    assert case == Timing("a", "cpu:0", "", [1])
    assert results.calibrations == []


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        pytest.param({}, "PASS", id="changed=nothing"),
        pytest.param({"complete": False}, "INCONCLUSIVE", id="complete=False"),
        pytest.param({"verdict": "INCONCLUSIVE"}, "INCONCLUSIVE", id="verdict=INCONCLUSIVE"),
        pytest.param({"verdict": "FAIL"}, "FAIL", id="verdict=FAIL"),
        pytest.param({"correct": [WRONG]}, "FAIL", id="correct=FAIL"),
        pytest.param({"correct": [WRONG], "complete": False}, "FAIL", id="correct=FAIL-complete=False"),
        pytest.param({"fast": []}, "INCONCLUSIVE", id="fast=nothing"),
    ],
)
def test_verdict_is_the_worst_stated_or_found(tmp_path, changes, verdict):
    """A file that states PASS over a failure, over a group without checks, or over a run cut short, isn't believed."""
    assert read_results(written(tmp_path, run(**changes))).verdict == verdict


def judged(check, case, status="FAIL"):
    """Return a finding on a timing."""
    return {"check": check, "status": status, "message": "wrong", "case": case}


@pytest.mark.parametrize(
    ("changes", "invalid"),
    [
        pytest.param({}, False, id="changed=nothing"),
        pytest.param({"timings": [timing(fault="its loss is nan")]}, True, id="fault=given"),
        pytest.param({"fast": [judged("synchronized", CASE)]}, True, id="synchronised=FAIL"),
        pytest.param({"fast": [judged("valid", CASE)]}, True, id="valid=FAIL"),
        pytest.param({"fast": [judged("valid", f"{CASE}2")]}, False, id="valid=FAIL of another"),
        pytest.param({"fast": [judged("slower", CASE)]}, False, id="slower=FAIL"),
        pytest.param({"fast": [judged("valid", CASE, "PASS")]}, False, id="valid=PASS"),
    ],
)
def test_failed_case_is_invalid(tmp_path, changes, invalid):
    """A case with a fault, or that wasn't measured soundly, has no speed; one that is merely slow has."""
    results = read_results(written(tmp_path, run(**{"timings": [timing()], **changes})))
    assert results.invalid == ({CASE} if invalid else set())


def changed(**changes):
    """Return a run's JSON with other fields."""
    return json.dumps(run() | changes)


def without(name):
    """Return a run's JSON without a field."""
    return json.dumps({field: value for field, value in run().items() if field != name})


def found(**fields):
    """Return a run's JSON with such a finding."""
    return changed(findings={"correct": [WELL | fields]})


LAYER = {
    "device": "cpu:0",
    "precision": "float32",
    "batch": 32,
    "layer": "dense",
    "direction": "forward",
    "seconds": 1.0,
    "roofline": 0.5,
}
CELL = {"device": "cpu:0", "precision": "float32", "deterministic": True, "xla": False, "batch": 8, "seconds": [1.0]}


def timed(**fields):
    """Return a run's JSON with such a timing."""
    return changed(timings=[timing(**fields)])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", "isn't JSON, or was cut off", id="text=nothing"),
        pytest.param(json.dumps(run())[:-9], "isn't JSON, or was cut off", id="text=half"),
        pytest.param("[" * 100_000, "isn't JSON, or was cut off", id="text=deep"),
        pytest.param("\xff", "isn't JSON, or was cut off", id="text=latin-1"),
        pytest.param("[1]", "isn't a results file, but other JSON", id="text=list"),
        pytest.param('{"schema": 1, "recipe": {}}', "is the record of a training, drawn in", id="text=training"),
        pytest.param("{}", "it has no schema; read it with the version that wrote it", id="text=empty"),
        pytest.param(changed(schema=2), "its schema is 2, this version reads 3 and 4;", id="schema=2"),
        pytest.param(changed(schema="1"), "its schema is '1', this version reads 3 and 4;", id="schema=text"),
        pytest.param('{"schema": 4}', "complete: Field required;", id="fields=none"),
        pytest.param(changed(schema=5), "its schema is 5, this version reads 3 and 4;", id="schema=5"),
        pytest.param(changed(run={"id": "../x"}), "run.id: String should match pattern", id="id=a path"),
        pytest.param(changed(run={"id": None}), "run.id: Input should be a valid string", id="id=null"),
        pytest.param(changed(run={"hosts": "node1"}), "run.hosts: Input should be a valid array", id="hosts=text"),
        pytest.param(changed(machine={"gpus": "x"}), "machine.gpus: Input should be a valid array", id="gpus=text"),
        pytest.param(
            changed(machine={"inventory": {"gpu:0": {"kind": "H100", "memory": "80 GB"}}}),
            *("machine.inventory.gpu:0.memory: Input should be a valid integer",),
            id="memory=text",
        ),
        pytest.param(without("findings"), "findings: Field required;", id="findings=absent"),
        pytest.param(changed(verdict="GREEN"), "verdict: Input should be 'PASS', 'FAIL' or ", id="verdict=GREEN"),
        pytest.param(changed(verdict=None), "or 'INCONCLUSIVE', not 'None';", id="verdict=null"),
        pytest.param(changed(complete=1), "complete: Input should be a valid boolean, not '1';", id="complete=number"),
        pytest.param(changed(machine=[]), "machine: Input should be an object, not '[]';", id="machine=list"),
        pytest.param(changed(findings={"correct": ["well"]}), "findings.correct.0: Input should be", id="finding=text"),
        pytest.param(changed(findings={"correct": 1}), "findings.correct: Input should be", id="group=number"),
        pytest.param(changed(findings={"a\nb\t": 1}), "findings.a b : Input should be", id="group=two lines"),
        pytest.param(changed(findings={"correct": [{"check": "a"}]}), "0.status: Field required", id="status=absent"),
        pytest.param(found(message=None), "findings.correct.0.message: Input should be", id="message=null"),
        pytest.param(found(fix=1), "findings.correct.0.fix: Input should be a valid string, not '1'", id="fix=number"),
        pytest.param(found(number="a"), "0.number: Input should be a valid number, not 'a'", id="number=text"),
        pytest.param(found(number="1.5"), "0.number: Input should be a valid number, not '1.5'", id="number=digits"),
        pytest.param(found(bound=True), "0.bound: Input should be a valid number, not 'True'", id="bound=true"),
        pytest.param(found(data=[1]), "findings.correct.0.data: Input should be", id="data=list"),
        pytest.param(found(data={"a": [10**400]}), "a number in it is too large", id="data=huge"),
        pytest.param(timed(rounds=[]), f"timings.0: {CASE!r} has no rounds", id="rounds=none"),
        pytest.param(timed(rounds=[None]), "rounds.0: Input should be a valid number, not 'None'", id="rounds=null"),
        pytest.param(timed(rounds=[True]), "rounds.0: Input should be a valid number, not 'True'", id="rounds=true"),
        pytest.param(timed(rounds=[10**400]), "a number in it is too large", id="rounds=huge"),
        pytest.param(timed(images=10**400), "a number in it is too large", id="images=huge"),
        pytest.param(timed(first="a"), "timings.0.first: Input should be a valid number, not 'a'", id="first=text"),
        pytest.param(timed(conditions=[]), "timings.0.conditions: Input should be", id="conditions=list"),
        pytest.param(timed(conditions={"load": "a"}), "conditions.load: Input should be", id="load=text"),
        pytest.param(timed(samples=[1]), "timings.0.samples: Input should be", id="samples=list"),
        pytest.param(timed(samples={"seconds": 1}), "timings.0.samples.seconds: Input should be", id="seconds=number"),
        pytest.param(timed(samples={"seconds": [1], "load": []}), "of equal length", id="samples=unequal"),
        pytest.param(timed(samples={"load": [1]}), "of equal length", id="seconds=absent"),
        pytest.param(changed(calibrations={"a": 1}), "calibrations: Input should be", id="calibrations=object"),
        pytest.param(changed(calibrations=[{"device": "a"}]), "0.matmul: Field required", id="matmul=absent"),
        pytest.param(changed(layers={"a": 1}), "layers: Input should be", id="layers=object"),
        pytest.param(changed(layers=[{"device": "a"}]), "0.precision: Field required", id="layer=no precision"),
        pytest.param(changed(layers=[LAYER | {"direction": "up"}]), "direction: Input should be", id="direction=up"),
        pytest.param(
            changed(layers=[LAYER | {"seconds": "1"}]), "should be a valid number", id="layer=seconds are text"
        ),
        pytest.param(changed(overheads=[CELL | {"xla": 1}]), "xla: Input should be a valid boolean", id="xla=number"),
        pytest.param(
            changed(overheads=[CELL | {"seconds": 1}]), "seconds: Input should be", id="cell=seconds are a number"
        ),
        pytest.param(changed(timings=[{"case": "a"}]), "timings.0.device: Field required", id="device=absent"),
    ],
)
def test_other_files_are_refused(tmp_path, text, words):
    """What isn't a whole results file of this version is refused in one line that names it, and says what to do."""
    path = tmp_path / "results.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UnreadableError) as error:
        read_results(path)
    message = str(error.value)
    assert message.startswith(f"{path} ")
    assert words in message
    assert "\n" not in message
    assert message.endswith(("make a new one: python -m alexnet_repro verify", "name a results.json"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("gone.json", "gone.json: no such file; `python -m alexnet_repro verify` prints", id="path=absent"),
        pytest.param("", " is a folder; name the file in it: ", id="path=folder"),
        pytest.param("file/results.json", "file/results.json can't be read: Not a directory", id="path=below a file"),
    ],
)
def test_what_isnt_a_file_is_refused(tmp_path, name, message):
    """So are a folder, which has its results named, and what isn't there."""
    (tmp_path / "file").touch()
    with pytest.raises(UnreadableError) as error:
        read_results(tmp_path / Path(name))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_control_characters_are_replaced(tmp_path):
    """Controls, halves of characters and what Unicode calls none come back as a replacement; a case is one line."""
    forged = "a\x1b]0;b\x07\ud800\uffff\tc"
    results = read_results(written(tmp_path, run(correct=[{**WRONG, "message": forged}], timings=[timing("x\ny")])))
    assert results.findings["correct"][0].message == "a\ufffd]0;b\ufffd\ufffd\ufffd\tc"
    assert results.timings[0].case == "x y"


def test_endless_round_is_refused(tmp_path):
    """A round longer than any run measures is refused."""
    with pytest.raises(UnreadableError, match=r"a round of 'a' took over 1e\+09 s"):
        read_results(written(tmp_path, run(timings=[timing("a", rounds=[1.0, 1e308])])))


@pytest.mark.parametrize("depth", [450, 600, 900, 100_000])
def test_deep_nesting(tmp_path, depth):
    """However deep a file is nested, it is read or refused in one line."""
    path = tmp_path / "results.json"
    path.write_text('{"a":' * depth + "1" + "}" * depth)
    with pytest.raises(UnreadableError):
        read_results(path)
