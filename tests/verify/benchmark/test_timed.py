"""Timed tests in pytest's own process: who times them, and what becomes of each answer."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from alexnet_repro.verify.benchmark.layer_timing import LayerTiming
from alexnet_repro.verify.benchmark.timing import Calibration, Timing
from alexnet_repro.verify.report.run_record import RunRecord
from benchmarks import timed as module
from benchmarks.plan import Asked
from benchmarks.timed import TimingRunner
from benchmarks.timing_process import TimedCase
from tests.helpers.machines import A100, box
from tests.helpers.paths import ROOT

CASE = TimedCase("test_forward", "test_forward", {"device": "gpu:1", "batch": 32}, "device=gpu:1-batch=32")
NODE = "benchmarks/test_forward.py::test_forward[device=gpu:1-batch=32]"
NAME = "forward[device=gpu:1-batch=32]"
RATES = Calibration("gpu:1", {"float32": 100.0})
UUIDS = {"CUDA_VISIBLE_DEVICES": "GPU-aaaa,GPU-bbbb"}


class Children:
    """Stand-ins for child processes: which began, with which device and names, and which were ended."""

    def __init__(self, monkeypatch):
        self.began, self.options, self.ended, self.answers = [], [], 0, {}
        monkeypatch.setattr(module, "answer_each", self)

    def __call__(self, program, arguments, names, deadline, environ):
        """Answer as a child does."""
        assert (program, deadline) == ("benchmarks.timing_process", 60.0)
        self.began.append((environ["CUDA_VISIBLE_DEVICES"], list(names)))
        self.options.append(json.loads(*arguments))
        return self._answer(names)

    def _answer(self, names):
        try:
            for name in names:
                yield name, self.answers.get(name, {"name": name})
        finally:
            self.ended += 1


@pytest.fixture
def children(monkeypatch):
    """No child process is started."""
    return Children(monkeypatch)


def runner(planned, **options):
    """Return a runner on a machine of two GPUs that are named by their UUIDs."""
    options = {"deadline": 60.0, "min_rounds": 7, "seconds": 0.5} | options
    return TimingRunner(box(A100, A100, settings=UUIDS), planned, **options)


def test_a_device_is_one_process(children):
    """Asked in their order, a device's cases are timed by one process, which sees it alone; then by another's."""
    planned = {"cpu:0": {"a": CASE, "b": CASE}, "gpu:1": {"calibration": None, "c": CASE}}
    timings = runner(planned)
    for device, names in planned.items():
        for name in names:
            assert timings.answer(device, name) == {"name": name}
    assert children.began == [("-1", ["a", "b"]), ("GPU-bbbb", ["calibration", "c"])]
    assert children.ended == 2
    assert children.options[1] == {
        "device": "gpu:1",
        "min_rounds": 7,
        "seconds": 0.5,
        "disabled": False,
        "profile_seconds": 0.0,
        "cases": {"c": asdict(CASE)},
    }


@pytest.mark.parametrize(
    ("asked", "began"),
    [
        pytest.param("aabc", [["a", "b", "c"], ["a", "b", "c"]], id="asked=once more"),
        pytest.param("ca", [["c"], ["a", "b", "c"]], id="asked=in another order"),
        pytest.param("ac", [["a", "b", "c"], ["c"]], id="asked=not all"),
    ],
)
def test_out_of_turn(children, asked, began):
    """A case out of turn is timed, anew if need be, by a new process that begins with it; the other one ends."""
    timings = runner({"cpu:0": dict.fromkeys("abc", CASE)})
    for number, name in enumerate(asked):
        timings.answer("cpu:0", name)
        assert len(children.began) - children.ended <= 1, number
    timings.close()
    assert [names for _, names in children.began] == began
    assert children.ended == len(began)


def timed(rounds, **changes):
    """Return a process's answer to a case."""
    return {"timing": asdict(Timing(NAME, "gpu:1", "float32", rounds, read_back=1.0, **changes)), "log": ""}


def test_fresh_timings(children):
    """They are another process's, and nothing else runs at that time."""
    children.answers = {NODE: timed([1.0, 2.0])}
    timings = runner({"gpu:1": {"a": CASE, NODE: CASE}})
    timings.answer("gpu:1", "a")
    assert timings.fresh("gpu:1", [NODE])[NAME].rounds == [1.0, 2.0]
    assert children.began == [("GPU-bbbb", ["a", NODE]), ("GPU-bbbb", [NODE])]
    assert children.ended == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param({"error": "SIGSEGV", "log": ""}, "wasn't timed: SIGSEGV", id="answer=error"),
        pytest.param({"too_large": ["it doesn't fit", "", ""]}, "wasn't timed: .*it doesn't fit", id="answer=large"),
        pytest.param(timed([1.0], fault="off by 2"), "is invalid: off by 2", id="answer=wrong"),
    ],
)
def test_fresh_timing_of_no_use(children, answer, message):
    """It is an error, which says why."""
    children.answers = {NODE: answer}
    with pytest.raises(ValueError, match=message):
        runner({"gpu:1": {NODE: CASE}}).fresh("gpu:1", [NODE])


class ReportedError(Exception):
    """What ends a test that failed or was skipped for a finding."""


@pytest.fixture
def report(tmp_path):
    """A function that returns the session, and what it reports, for an answer of a device's process."""

    def report(answer):
        def report_findings(group, *findings):
            kept = [each.case for each in session.record.timings]
            session.reported += [(group, each.check, each.status, kept) for each in findings]
            session.findings += findings
            if any(each.status != "PASS" for each in findings):
                raise ReportedError

        session = SimpleNamespace(
            record=RunRecord(tmp_path / "results.json"),
            node_ids={},
            reported=[],
            findings=[],
            report_findings=report_findings,
            machine=box(A100, A100, settings={"TF_ENABLE_ONEDNN_OPTS": "0"}),
            timings=SimpleNamespace(answer=lambda *asked: {("gpu:1", NODE): answer}[asked]),
        )
        return session

    return report


class Benchmark:
    """pytest-benchmark's fixture, as far as it is used."""

    def __init__(self):
        self.extra_info, self.group, self._mode, self.rounds = {}, None, None, []

    def _make_stats(self, iterations):
        assert iterations == 1
        return SimpleNamespace(update=self.rounds.append)


def item_of():
    """Return the test."""
    return SimpleNamespace(
        path=SimpleNamespace(stem="test_forward"),
        originalname="test_forward",
        nodeid=NODE,
        callspec=SimpleNamespace(params=CASE.params, id=CASE.id),
        funcargs={"benchmark": Benchmark()},
    )


def test_timing_is_recorded_then_judged(report):
    """The record, and pytest-benchmark's fixture, have the rounds and what they were measured by."""
    item = item_of()
    session = report({**timed([2.0] * 5, images=32), "calibration": asdict(RATES)})
    module.time_case(session, item)
    assert session.record.calibrations == [RATES]
    assert session.node_ids == {NAME: NODE}
    assert session.reported[0] == ("fast", "valid", "PASS", [NAME])
    benchmark = item.funcargs["benchmark"]
    assert (benchmark.group, benchmark.rounds) == ("test_forward", [2.0] * 5)
    assert {name: benchmark.extra_info[name] for name in ("device", "batch", "images")} == {
        "device": "gpu:1",
        "batch": 32,
        "images": 32,
    }


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        pytest.param({"error": "SIGSEGV", "log": ""}, ("forward", "FAIL", "crash"), id="answer=error"),
        pytest.param({"too_large": ["too large", "", "less"]}, ("fits", "INCONCLUSIVE", "result"), id="answer=large"),
        pytest.param({"untimed": "off by 2"}, ("valid", "FAIL", "result"), id="answer=wrong"),
    ],
)
def test_case_that_wasnt_timed(report, answer, found):
    """It is a finding of its case and its device, and no timing."""
    session = report(answer)
    with pytest.raises(ReportedError):
        module.time_case(session, item_of())
    (only,) = session.findings
    assert (only.check, only.status, only.kind) == found
    assert (only.device, only.case, session.record.timings) == ("gpu:1", NAME, [])


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param({"untimed": None}, "timing is off: --benchmark-disable", id="answer=right"),
        pytest.param({"skipped": "not on PyTorch"}, "not on PyTorch", id="answer=skipped"),
    ],
)
def test_case_without_a_finding_is_skipped(report, answer, why):
    """A right result that isn't timed says nothing of speed, nor does a case that doesn't apply."""
    session = report(answer)
    with pytest.raises(pytest.skip.Exception, match=why):
        module.time_case(session, item_of())
    assert session.findings == []


LAYER = LayerTiming("gpu:1", "float32", 512, "dense", "forward", 2.0, 0.5)


def test_profile_is_recorded(report):
    """Its layers come into the record, in place of those that were there of this device and precision."""
    session = report({})
    session.timings.answer = lambda *asked: {
        ("gpu:1", "profile float32"): {"layers": [asdict(LAYER)], "missing": ["dense_1"], "log": ""}
    }[asked]
    other = replace(LAYER, precision="mixed_bfloat16")
    session.record.layers = [replace(LAYER, seconds=9.0), other]
    assert module.profile_of(session, "gpu:1", "float32") == ([LAYER], ["dense_1"])
    assert session.record.layers == [other, LAYER]


def test_profile_that_cant_be_had(report):
    """A process that dies as it profiles is a failure, with the cause that it died of."""
    session = report({})
    session.timings.answer = lambda *_: {"error": "SIGILL", "log": ""}
    with pytest.raises(ReportedError):
        module.profile_of(session, "gpu:1", "float32")
    (found,) = session.findings
    assert (found.check, found.status, found.device, found.precision) == ("profile", "FAIL", "gpu:1", "float32")
    assert session.record.layers == []


def test_rates_that_cant_be_had(report):
    """A process that dies as it calibrates is a failure, with the cause that it died of."""
    session = report({})
    session.timings.answer = lambda *_: {"error": "SIGILL", "log": ""}
    with pytest.raises(ReportedError):
        module.rates_of(session, "gpu:1")
    (found,) = session.findings
    assert (found.check, found.status, found.device) == ("calibration", "FAIL", "gpu:1")
    assert "this processor lacks an instruction" in found.message


def test_tests_of_the_same_name_arent_timed(request, monkeypatch):
    """A test beside the benchmarks may be in a file that is called as one of theirs, and asks for no device."""
    monkeypatch.setattr(request.node, "path", ROOT / "tests/verify/benchmark/test_calibration.py")
    config = SimpleNamespace(getoption=lambda _: 1)
    session = SimpleNamespace(config=config, machine=box(), asked=Asked())
    assert module.timing_runner(session, [request.node])._planned == {}
