"""A run's timings beside references: cases that were slow are timed again, and references are made on request."""

from types import SimpleNamespace

import pytest

from alexnet_repro.verify.benchmark.reference import Place, path_of, read_reference
from alexnet_repro.verify.benchmark.timing import Timing
from alexnet_repro.verify.finding import Finding
from benchmarks import speed_references as module
from tests.helpers.paths import ROOT
from tests.helpers.references import HERE
from tests.helpers.sessions import session_of

PLACES = {"cpu:0": Place("AMD EPYC", HERE), "gpu:0": Place("NVIDIA H100", HERE)}
DEVICES = {"resize": "cpu:0", "forward": "gpu:0", "draw": "cpu:0"}


@pytest.fixture
def session(monkeypatch, tmp_path):
    """A run that timed three cases; `asked` is what fresh processes were to time, `fault` what they find wrong."""

    def fresh(device, nodes):
        session.asked.append((device, nodes))
        if session.fault:
            raise ValueError(session.fault)
        cases = [node.partition("::")[2] for node in nodes]
        return {case: Timing(case, device, "float32", [2.0] * 5) for case in cases}

    monkeypatch.setattr(module, "places_of", lambda devices, _: {device: PLACES[device] for device in devices})
    session = session_of(tmp_path, reference_processes=8)
    session.references = [tmp_path, tmp_path / "suite"]
    session.asked, session.fault, session.timings = [], "", SimpleNamespace(fresh=fresh)
    session.record.timings = [Timing(case, device, "float32", [1.0] * 5) for case, device in DEVICES.items()]
    session.node_ids = {case: f"node::{case}" for case in DEVICES}
    return session


@pytest.mark.parametrize(
    ("option", "variable", "expected"),
    [(None, None, []), (None, "site", ["site"]), ("own", "site", ["own"]), ("own", None, ["own"])],
)
def test_where_references_are(monkeypatch, tmp_path, option, variable, expected):
    """The option's folder comes before the variable's, whatever the working folder becomes; the suite's come last."""
    for name in ("own", "site"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALEXNET_REPRO_REFERENCES", variable or "")
    session = session_of(tmp_path, references=option)
    assert session.references == [*(tmp_path / each for each in expected), ROOT / "benchmarks/references"]


def test_slow_cases_are_measured_again(monkeypatch, session, tmp_path):
    """Those alone, in a fresh process of each device, with what else the machine did meanwhile."""
    well, spent = Finding("speed", "PASS", "as before"), iter(["before", "after"])

    def compare(timings, places, folders, remeasure):
        assert (timings, set(places)) == (session.record.timings, {"cpu:0", "gpu:0"})
        assert folders == [tmp_path, tmp_path / "suite"]
        assert remeasure(["draw", "forward"]) == ({"draw": [2.0] * 5, "forward": [2.0] * 5}, 0.25)
        return [well]

    monkeypatch.setattr(module, "speed_findings", compare)
    monkeypatch.setattr(module, "cpu_time", lambda: next(spent))
    monkeypatch.setattr(module, "share_of_others", lambda *times: {("before", "after"): 0.25}[times[:2]])
    assert module.compare_with_references(session) == [well]
    assert session.asked == [("cpu:0", ["node::draw"]), ("gpu:0", ["node::forward"])]


def test_references_are_made(monkeypatch, session, tmp_path):
    """Of this run's process and of seven fresh ones, a file for each device."""
    monkeypatch.setattr(module, "speed_findings", lambda *_: [])
    session.config.getoption = {"update_reference": True, "reference_processes": 8}.get
    assert module.compare_with_references(session) == []
    assert session.asked == [("cpu:0", ["node::resize", "node::draw"]), ("gpu:0", ["node::forward"])] * 7
    found = read_reference(path_of(tmp_path, "AMD EPYC", HERE))
    assert sorted(found.cases) == ["draw", "resize"]
    assert found.cases["draw"].processes == [[1.0] * 5, *[[2.0] * 5] * 7]
    assert list(read_reference(path_of(tmp_path, "NVIDIA H100", HERE)).cases) == ["forward"]


def test_no_reference_of_what_isnt_right(session, tmp_path):
    """A process that fails or computes wrongly is a failure of the run, and nothing is written."""
    session.config.getoption = {"update_reference": True, "reference_processes": 8}.get
    session.fault = "node::draw is invalid: off by 2"
    (found,) = module.compare_with_references(session)
    assert (found.status, found.evidence) == ("FAIL", "node::draw is invalid: off by 2")
    assert not list(tmp_path.glob("speed-*"))
