"""Reading results back: what was written is what is read, and what can't be read is said in one line."""

import json
import math
from pathlib import Path

import pytest

from alexnet_repro.verify.benchmark.timing import Timing
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.read import Rates, UnreadableError, read_results
from alexnet_repro.verify.report.run_record import Record
from tests.helpers.results_files import CASE, WELL, WRONG, finding, run, timing, written


def test_what_a_record_wrote_is_read(tmp_path):
    """Findings, machine, verdict and timings come back as they went in, numbers that JSON doesn't have among them."""
    record = Record(tmp_path / "results.json", {"devices": ["cpu:0"]})
    wrong = Finding("layers", "FAIL", "off", "by much", "doctor", "cpu:0", "float32", math.inf, 0.5, {"worst": 3})
    record.add("correct", wrong)
    record.add_timing(Timing("forward[batch=1]", "cpu:0", "float32", [4.0, 1.0, 2.0, 3.0], 1.0, images=5, flop=10))
    record.write(complete=True)
    results = read_results(record.path)
    assert results.findings["correct"] == (wrong,)
    assert results.findings["doctor"] == ()
    assert (results.verdict, results.complete, results.machine) == ("FAIL", True, {"devices": ["cpu:0"]})
    (case,) = results.timings
    assert (case.case, case.rounds, case.images, case.flop) == ("forward[batch=1]", (4.0, 1.0, 2.0, 3.0), 5, 10)
    assert (case.median, case.iqr, case.rate(5), case.void) == (2.5, 1.5, 2.0, False)


def test_what_a_case_cost_is_read(tmp_path):
    """So do bytes, first round, memory, conditions as far as they were told, samples, and the device's own rates."""
    record = Record(tmp_path / "results.json")
    samples = {"seconds": [0.0, 0.25], "cpu_mhz": [2000.0, None]}
    conditions = {"load": 1.5, "cpu_mhz": 2000.0, "gpu_mhz": None, "temperature": None, "heat": ""}
    costs = {"first": 2.5, "pipelined": 0.9, "peak_memory": 10**9, "bytes": 4096}
    record.add_timing(Timing("a", "cpu:0", "", [1.0], 1.0, **costs, conditions=conditions, samples=samples))
    for memory in (1e10, 2e10):  # a device is calibrated once
        record.add_calibration({"device": "cpu:0", "matmul": {"float32": 2e11}, "memory": memory})
    record.write()
    results = read_results(record.path)
    (case,) = results.timings
    assert {name: getattr(case, name) for name in costs} == costs
    assert case.conditions == {"load": 1.5, "cpu_mhz": 2000.0}
    assert case.samples == {"seconds": (0.0, 0.25), "cpu_mhz": (2000.0, None)}
    assert results.rates == {"cpu:0": Rates({"float32": 2e11}, 1e10)}


def test_words_are_numbers(tmp_path):
    """`nan`, `inf` and `-inf` are numbers again, in findings and in rounds."""
    off = {**WELL, "number": "nan", "bound": "-inf"}
    path = written(tmp_path, run(correct=[off], timings=[timing(rounds=["inf", 1.0])]))
    results = read_results(path)
    assert math.isnan(results.findings["correct"][0].number)
    assert results.findings["correct"][0].bound == -math.inf
    assert results.timings[0].rounds == (math.inf, 1.0)


def test_fields_of_other_versions(tmp_path):
    """Fields that this version doesn't know are passed over, later groups are kept, and optional ones may be absent."""
    content = run(gate=[], timings=[{"case": "a", "device": "cpu:0", "precision": "", "rounds": [1], "new": 1}])
    content["findings"] |= {"gate": [finding(**WELL, later=1)]}
    del content["findings"]["doctor"], content["verdicts"]
    results = read_results(written(tmp_path, content))
    assert [each.check for each in results.findings["gate"]] == ["shapes"]
    assert results.findings["doctor"] == ()
    case = results.timings[0]
    assert (case.images, case.peak, case.bottleneck, case.bytes, case.first, case.peak_memory) == (0, None, "", 0, 0, 0)
    assert (case.conditions, case.samples, results.rates) == ({}, {}, {})


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        pytest.param({}, "PASS", id="nothing"),
        pytest.param({"complete": False}, "INCONCLUSIVE", id="complete=False"),
        pytest.param({"verdict": "INCONCLUSIVE"}, "INCONCLUSIVE", id="verdict=INCONCLUSIVE"),
        pytest.param({"verdict": "FAIL"}, "FAIL", id="verdict=FAIL"),
        pytest.param({"correct": [WRONG]}, "FAIL", id="correct=FAIL"),
        pytest.param({"correct": [WRONG], "complete": False}, "FAIL", id="correct=FAIL-complete=False"),
        pytest.param({"fast": []}, "INCONCLUSIVE", id="fast=nothing"),
    ],
)
def test_verdict_is_the_worst_of_what_is_said(tmp_path, changes, verdict):
    """A file that states PASS over a failure, over nothing asked, or over a run cut short, isn't believed."""
    assert read_results(written(tmp_path, run(**changes))).verdict == verdict


def judged(check, case, status="FAIL"):
    """Return a finding on a timing."""
    return {"check": check, "status": status, "message": "wrong", "case": case}


@pytest.mark.parametrize(
    ("changes", "void"),
    [
        pytest.param({}, False, id="nothing"),
        pytest.param({"timings": [timing(fault="its loss is nan")]}, True, id="fault=given"),
        pytest.param({"fast": [judged("synchronized", CASE)]}, True, id="synchronised=FAIL"),
        pytest.param({"fast": [judged("valid", CASE)]}, True, id="valid=FAIL"),
        pytest.param({"fast": [judged("valid", f"{CASE}2")]}, False, id="valid=FAIL of another"),
        pytest.param({"fast": [judged("slower", CASE)]}, False, id="slower=FAIL"),
        pytest.param({"fast": [judged("valid", CASE, "PASS")]}, False, id="valid=PASS"),
    ],
)
def test_failed_case_is_void(tmp_path, changes, void):
    """A case with a fault, or that wasn't measured soundly, has no speed; one that is merely slow has."""
    (case,) = read_results(written(tmp_path, run(**{"timings": [timing()], **changes}))).timings
    assert case.void is void


def changed(**changes):
    """Return a run's JSON with other fields."""
    return json.dumps(run() | changes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", "isn't JSON, or was cut off", id="text=nothing"),
        pytest.param(json.dumps(run())[:-9], "isn't JSON, or was cut off", id="text=half"),
        pytest.param("[" * 100_000, "isn't JSON, or was cut off", id="text=deep"),
        pytest.param("\xff", "isn't JSON, or was cut off", id="text=latin-1"),
        pytest.param("[1]", "isn't a results file, but other JSON", id="text=list"),
        pytest.param("{}", "it has no schema; read it with the version that wrote it", id="text=empty"),
        pytest.param(changed(schema=3), "its schema is 3, this version reads 2;", id="schema=3"),
        pytest.param(changed(schema="1"), "its schema is '1', this version reads 2;", id="schema=text"),
        pytest.param('{"schema": 2}', "'findings' is missing", id="findings=absent"),
        pytest.param(changed(verdict="GREEN"), "'GREEN' is no verdict", id="verdict=GREEN"),
        pytest.param(changed(verdict=None), "verdict is 'None'", id="verdict=null"),
        pytest.param(changed(machine=[]), "machine is '[]'", id="machine=list"),
        pytest.param(changed(findings={"correct": ["well"]}), "'well' stands where fields should", id="finding=text"),
        pytest.param(changed(findings={"correct": 1}), "correct is '1'", id="group=number"),
        pytest.param(changed(findings={"correct": [{"check": "a"}]}), "'message' is missing", id="message=absent"),
        pytest.param(changed(findings={"correct": [WELL | {"fix": 1}]}), "fix is '1'", id="fix=number"),
        pytest.param(changed(findings={"correct": [WELL | {"number": "a"}]}), "'a' is no number", id="number=text"),
        pytest.param(changed(timings=[timing(rounds=[])]), "aren't numbers, at least one", id="rounds=none"),
        pytest.param(changed(timings=[timing(rounds=[None])]), "aren't numbers, at least one", id="rounds=null"),
        pytest.param(changed(timings=[timing(rounds=[True])]), "'True' is no number", id="rounds=true"),
        pytest.param(changed(timings=[timing(rounds=[10**400])]), "too large", id="rounds=huge"),
        pytest.param(changed(timings=[timing(first="a")]), "'a' is no number", id="first=text"),
        pytest.param(changed(timings=[timing(conditions=[])]), "conditions is '[]'", id="conditions=list"),
        pytest.param(changed(timings=[timing(conditions={"load": "a"})]), "'a' is no number", id="load=text"),
        pytest.param(changed(timings=[timing(samples=[1])]), "samples is '[1]'", id="samples=list"),
        pytest.param(changed(timings=[timing(samples={"seconds": 1})]), "seconds is '1'", id="seconds=number"),
        pytest.param(
            changed(timings=[timing(samples={"seconds": [1], "load": []})]), "of equal length", id="samples=unequal"
        ),
        pytest.param(changed(timings=[timing(samples={"load": [1]})]), "of equal length", id="seconds=absent"),
        pytest.param(changed(calibrations={"a": 1}), "'a' stands where fields should", id="calibrations=object"),
        pytest.param(changed(calibrations=[{"device": "a"}]), "'matmul' is missing", id="matmul=absent"),
        pytest.param(changed(timings=[{"case": "a"}]), "'rounds' is missing", id="rounds=absent"),
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
    assert message.endswith(("make a new one: pytest benchmarks", "name a results.json"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("gone.json", "gone.json: no such file; `pytest benchmarks` prints where", id="path=absent"),
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


def test_what_a_terminal_obeys_is_replaced(tmp_path):
    """Controls, halves of characters and what Unicode calls none come back as a replacement; a case is one line."""
    forged = "a\x1b]0;b\x07\ud800\uffff\tc"
    results = read_results(written(tmp_path, run(correct=[{**WRONG, "message": forged}], timings=[timing("x\ny")])))
    assert results.findings["correct"][0].message == "a\ufffd]0;b\ufffd\ufffd\ufffd\tc"
    assert results.timings[0].case == "x y"


def test_round_of_ages(tmp_path):
    """A round that took longer than anyone measures isn't what a run writes."""
    with pytest.raises(UnreadableError, match=r"a round of 'a' is said to have taken over 1e\+09 s"):
        read_results(written(tmp_path, run(timings=[timing("a", rounds=[1.0, 1e308])])))


@pytest.mark.parametrize("depth", [450, 600, 900, 100_000])
def test_deep_nesting(tmp_path, depth):
    """However deep a file is nested, it is read or refused in one line."""
    path = tmp_path / "results.json"
    path.write_text('{"a":' * depth + "1" + "}" * depth)
    with pytest.raises(UnreadableError):
        read_results(path)
