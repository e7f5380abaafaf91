"""The process that times a device: a test's function is called there, and what became of it is answered."""

import json
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest

from alexnet_repro.verify.benchmark.roofline import Part, Work
from alexnet_repro.verify.benchmark.telemetry import Conditions
from alexnet_repro.verify.benchmark.timer import Measured
from alexnet_repro.verify.benchmark.timing import Calibration
from benchmarks import timing_process as module
from benchmarks.timing_process import TimedCase, TimingProcess

PARAMS = {"device": "gpu:3", "batch": 32, "precision": "float32"}
CASE = TimedCase("test_made_up", "test_forward", PARAMS, "device=gpu:3-batch=32-precision=float32")
RATES = Calibration("gpu:0", {"float32": 100.0, "mixed_bfloat16": 1.0}, memory=50.0)
# As NVML has it: 0x20 is a slowdown by heat, 0x04 the power limit.
HOT = {"seconds": [0.0, 0.25], "temperature": [80, 93], "throttle_reasons": [0x04, 0x20]}
COOL = {"seconds": [0.0, 0.25], "temperature": [60, 61], "throttle_reasons": [0x04, 0x04]}
HOT_DURING = "its clocks were throttled by heat (software slowdown) in 1 of 2 samples, up to 93 °C"
HOT_AFTER = "its clocks are throttled by heat (software slowdown), 91 °C"


class Machine:
    """Stand-ins for timer, telemetry and calibration; `test` is the function of the timed test."""

    def __init__(self, monkeypatch):
        self.samples, self.after, self.asked = {}, Conditions(load=0.5), {}
        self.process = TimingProcess("gpu:3", min_rounds=7, seconds=0.5, disabled=False)
        self.tests = ModuleType("benchmarks.test_made_up")
        monkeypatch.setitem(sys.modules, self.tests.__name__, self.tests)
        monkeypatch.setattr(module, "Sampler", lambda _: self)
        monkeypatch.setattr(module, "conditions_of", lambda _: self.after)
        monkeypatch.setattr(module, "calibrate", lambda *_: RATES)
        for name in ("peak_memory", "reset_peak_memory"):
            monkeypatch.setattr(module, name, lambda device: {self.process.here: 1 << 30}[device])
        monkeypatch.setattr(module.timer, "measure", self.measure)

    def between(self, start, end):
        """Return samples, as telemetry does; the rounds were from 10 to 20 s."""
        assert (start, end) == (10.0, 20.0)
        return self.samples

    def close(self):
        """End sampling."""

    def measure(self, work, **asked):
        """Return seconds, as the timer does."""
        self.asked = asked
        return Measured(work(), [2.0] * 5, read_back=2.0, first=9.0, pipelined=1.5, began=10.0, ended=20.0, measured=2)

    def answer(self, fault=lambda _: None, case=CASE, **options):
        """Return the answer to a test whose result is "a result"."""

        def test_forward(device, batch, precision, measure):
            assert (device, precision) == (self.process.here, "float32")
            measure(lambda: "a result", fault, images=batch, **options)

        self.tests.test_forward = test_forward
        answer = self.process.answer(case)
        assert json.loads(json.dumps(answer)) == answer
        return answer


@pytest.fixture
def machine(monkeypatch):
    """A machine on which all is well."""
    return Machine(monkeypatch)


def test_what_is_answered(machine):
    """Seconds, images and rates are the case's own, as measured for as long as options say; names are the parent's."""
    found = machine.answer(todo=Work((Part("dense", "forward", flop=160, read=15, written=5),)), largest=True)
    timing = SimpleNamespace(**found["timing"])
    assert timing.case == "forward[device=gpu:3-batch=32-precision=float32]"
    assert (timing.device, timing.precision, timing.images, timing.peak_memory) == ("gpu:3", "float32", 32, 1 << 30)
    assert (timing.rounds, timing.read_back, timing.first, timing.pipelined) == ([2.0] * 5, 2.0, 9.0, 1.5)
    assert (timing.flop, timing.bytes, timing.peak, timing.roofline) == (160, 20, 100.0, 1.6)
    assert (timing.bottleneck, timing.layer) == ("compute", "dense")
    assert (timing.largest, timing.conditions["load"]) == (True, 0.5)
    assert (found["calibration"]["device"], found["calibration"]["memory"]) == ("gpu:3", 50.0)
    assert timing.measured == 2
    assert machine.asked == {"min_rounds": 7, "seconds": 0.5, "times": 1}


def test_cpus_timing_may_be_measured_again(machine):
    """Others' work on it may be over by then; a GPU's heat isn't waited out."""
    machine.process.device = "cpu:0"
    machine.answer(case=replace(CASE, params={**PARAMS, "device": "cpu:0"}))
    assert machine.asked["times"] == 3


@pytest.mark.parametrize("one_batch", [False, True])
def test_only_batch_is_the_largest(machine, one_batch):
    """At a level that has but one batch size, a smaller one than another level's largest is judged, too."""
    machine.process.one_batch = one_batch
    assert machine.answer(largest=False)["timing"]["largest"] is one_batch


@pytest.mark.parametrize(
    ("samples", "after", "heat"),
    [
        pytest.param(HOT, "", HOT_DURING, id="heat=during its rounds"),
        pytest.param(COOL, HOT_AFTER, HOT_AFTER, id="heat=right after"),
        pytest.param(HOT, HOT_AFTER, HOT_DURING, id="heat=both"),
        pytest.param(COOL, "", "", id="heat=none"),
    ],
)
def test_heat(machine, samples, after, heat):
    """A device that was throttled by heat during the rounds was so, though it isn't any more."""
    machine.samples, machine.after = samples, Conditions(heat=after)
    assert machine.answer()["timing"]["heat"] == heat


@pytest.mark.parametrize("wrong", ["it is off", None])
@pytest.mark.parametrize("disabled", [True, False])
def test_result_is_looked_at(machine, disabled, wrong):
    """Whether it is timed or not; where timing is off, the work is done once, and nothing is timed."""
    machine.process.disabled = disabled
    found = machine.answer(lambda result: wrong if result == "a result" else "another's")
    assert (found if disabled else found["timing"])["untimed" if disabled else "fault"] == wrong
    assert bool(machine.asked) is not disabled


def test_test_that_doesnt_apply(machine):
    """Its reason is answered."""
    machine.tests.test_forward = lambda device: pytest.skip(f"not on {device}")
    assert machine.process.answer(CASE) == {"skipped": "not on gpu:0"}


def large(batch, precision="float32"):
    """Return a case of a batch."""
    return TimedCase("test_made_up", "test_forward", {"batch": batch, "precision": precision}, f"batch={batch}")


def test_larger_batches_than_one_that_didnt_fit_arent_run(machine):
    """A batch that doesn't fit is answered so; larger ones of its series aren't run; other precisions are."""
    ran = []

    def test_forward(batch, precision):
        ran.append((batch, precision))
        if (batch, precision) == (256, "float32"):
            raise MemoryError("out of memory")

    machine.tests.test_forward = test_forward
    assert machine.process.answer(large(128)) == {}
    message, evidence, fix = machine.process.answer(large(256))["too_large"]
    assert message == "forward[batch=256] doesn't fit into the device's memory"
    assert evidence == "the device ran out of memory"
    assert fix.startswith("nvidia-smi; ")
    assert machine.process.answer(large(512))["too_large"] == [
        "forward[batch=512] isn't run: a batch of 256 didn't fit into the device's memory",
        "",
        "make 256 fit first",
    ]
    assert machine.process.answer(large(512, "mixed_bfloat16")) == {}
    assert ran == [(128, "float32"), (256, "float32"), (512, "mixed_bfloat16")]


def test_error_ends_the_process(machine, monkeypatch, capfd):
    """What isn't a lack of memory is answered, its stack is logged, and another process does the rest."""

    def test_forward(batch):
        raise ValueError(f"not with {batch}")

    monkeypatch.setattr(module, "enable_memory_growth", lambda: None)
    machine.tests.test_forward = test_forward
    cases = {"a": {"module": "test_made_up", "function": "test_forward", "params": {"batch": 32}}}
    options = {"device": "gpu:3", "min_rounds": 5, "seconds": 1.0, "disabled": False, "cases": cases}
    found = dict(module.main(json.dumps(options), "calibration", "a", "calibration"))
    assert list(found) == ["calibration", "a"]
    assert found["calibration"]["calibration"]["device"] == "gpu:3"
    assert found["a"] == {"error": "ValueError: not with 32"}
    assert "in test_forward" in capfd.readouterr().err


def test_memory_is_freed_after_each_case(machine, monkeypatch):
    """No case finds the models of those before it."""
    freed = []
    monkeypatch.setattr(module, "enable_memory_growth", lambda: freed.append("grows"))
    monkeypatch.setattr(module, "free_memory", lambda: freed.append("freed"))
    machine.tests.test_draw = lambda: None
    cases = {"a": {"module": "test_made_up", "function": "test_draw"}}
    options = {"device": "cpu:0", "min_rounds": 5, "seconds": 1.0, "disabled": False, "cases": cases}
    assert list(module.main(json.dumps(options), "a", "a")) == [("a", {}), ("a", {})]
    assert freed == ["grows", "freed", "freed"]
