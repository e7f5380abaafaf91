"""A benchmark case: recorded as it was timed and only then judged; a wrong result is a FAIL, timed or not."""

from types import SimpleNamespace

import pytest

from alexnet_repro.verify.benchmark.roofline import Work
from alexnet_repro.verify.benchmark.telemetry import Conditions
from alexnet_repro.verify.benchmark.timer import Measured
from alexnet_repro.verify.benchmark.timing import Calibration
from alexnet_repro.verify.report.run_record import RunRecord
from benchmarks import timed as module

CASE = "forward[device=cpu:0-batch=32-precision=float32]"
NODE = f"benchmarks/test_forward.py::test_{CASE}"
PARAMS = {"device": "cpu:0", "batch": 32, "precision": "float32"}
RATES = Calibration("cpu:0", {"float32": 100.0, "mixed_bfloat16": 1.0}, memory=50.0)
# As NVML has it: 0x20 is a slowdown by heat, 0x04 the power limit.
HOT = {"seconds": [0.0, 0.25], "temperature": [80, 93], "throttle_reasons": [0x04, 0x20]}
COOL = {"seconds": [0.0, 0.25], "temperature": [60, 61], "throttle_reasons": [0x04, 0x04]}
HOT_DURING = "its clocks were throttled by heat (software slowdown) in 1 of 2 samples, up to 93 °C"
HOT_AFTER = "its clocks are throttled by heat (software slowdown), 91 °C"


class Case:
    """A case that a stand-in of the timer measures, and what was reported of it; `asked` is what it was called with."""

    def __init__(self, monkeypatch, folder):
        self.record, self.node_ids, self.reported = RunRecord(folder / "results.json"), {}, []
        self.samples, self.after, self.rounds, self.asked = {}, Conditions(load=0.5), [2.0] * 5, {}
        options = {"benchmark_max_time": "0.5", "benchmark_min_rounds": 7}
        self.config = SimpleNamespace(getoption=options.__getitem__)
        monkeypatch.setattr(module, "Sampler", lambda _: self)
        monkeypatch.setattr(module, "conditions_of", lambda _: self.after)
        monkeypatch.setattr(module, "calibrate", lambda _: RATES)
        monkeypatch.setattr(module, "measure", self._measure)

    def between(self, start, end):
        """Return samples, as telemetry does; the rounds began at 10 s."""
        assert (start, end) == (10.0, 20.0)
        return self.samples

    def close(self):
        """End sampling."""

    def report_findings(self, group, *findings):
        """Keep what is reported, and the cases that are recorded by then."""
        kept = [each.case for each in self.record.timings]
        self.reported += [(group, each.check, each.status, kept) for each in findings]

    def _measure(self, _benchmark, work, **asked):
        self.asked = asked
        return Measured(work(), self.rounds, read_back=2.0, first=9.0, pipelined=1.5, began=10.0)

    def run(self, fault=lambda _: None, **options):
        """Measure it; its result is "a result"."""
        item = SimpleNamespace(
            callspec=SimpleNamespace(params=PARAMS), originalname="test_forward", name=f"test_{CASE}", nodeid=NODE
        )
        benchmark = SimpleNamespace(disabled=not self.rounds, group=None, extra_info={})
        module.measure_case(self, benchmark, item, lambda: "a result", fault, images=32, **options)
        (found,) = self.record.timings
        return found


@pytest.fixture
def case(monkeypatch, tmp_path):
    """A case whose result is right and whose rounds are all alike."""
    return Case(monkeypatch, tmp_path)


def test_what_is_recorded(case):
    """Seconds, images and rates are the case's own, as measured for as long as the options say."""
    found = case.run(todo=Work(flop=160, bytes=20, kernels=1), largest=True)
    assert (found.case, found.device, found.precision, found.images) == (CASE, "cpu:0", "float32", 32)
    assert (found.rounds, found.read_back, found.first, found.pipelined) == ([2.0] * 5, 2.0, 9.0, 1.5)
    assert (found.flop, found.bytes, found.peak, found.bandwidth) == (160, 20, 100.0, 50.0)
    assert (found.bottleneck, found.largest, found.conditions.load) == ("compute", True, 0.5)
    assert case.record.calibrations == [RATES]
    assert case.node_ids == {CASE: NODE}
    assert case.asked == {"min_rounds": 7, "seconds": 0.5}


@pytest.mark.parametrize(
    ("samples", "after", "heat"),
    [
        pytest.param(HOT, "", HOT_DURING, id="heat=during its rounds"),
        pytest.param(COOL, HOT_AFTER, HOT_AFTER, id="heat=right after"),
        pytest.param(HOT, HOT_AFTER, HOT_DURING, id="heat=both"),
        pytest.param(COOL, "", "", id="heat=none"),
    ],
)
def test_heat(case, samples, after, heat):
    """A device that was throttled by heat during the rounds was so, though it isn't any more."""
    case.samples, case.after = samples, Conditions(heat=after)
    assert case.run().heat == heat


@pytest.mark.parametrize(
    ("wrong", "status"),
    [pytest.param("it is off", "FAIL", id="result=wrong"), pytest.param(None, "PASS", id="result=right")],
)
def test_timed_result(case, wrong, status):
    """The result is looked at; the timing says what is wrong with it, and is judged once it is recorded."""
    assert case.run(lambda result: wrong if result == "a result" else "another's").fault == wrong
    assert case.reported[0] == ("fast", "valid", status, [CASE])


@pytest.mark.parametrize(
    ("wrong", "reported"),
    [
        pytest.param("it is off", [("fast", "valid", "FAIL", [])], id="result=wrong"),
        pytest.param(None, [], id="result=right"),
    ],
)
def test_untimed_result(case, wrong, reported):
    """With --benchmark-disable a wrong result fails all the same, and a right one says nothing of speed."""
    case.rounds = []
    with pytest.raises(pytest.skip.Exception, match="timing is off: --benchmark-disable"):
        case.run(lambda _: wrong)
    assert (case.reported, case.record.timings) == (reported, [])
