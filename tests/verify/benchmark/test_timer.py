"""The timer: warm, enough rounds, and a clock that waits for the device or is found out."""

import contextlib
import gc
import time
from types import SimpleNamespace
from unittest.mock import Mock

import keras
import numpy as np
import pytest

from alexnet_repro.verify.benchmark import timer as module
from alexnet_repro.verify.benchmark.timer import Measured, measure, pipelined_rounds, read_back_round, uncollected
from alexnet_repro.verify.benchmark.timing import Timing, synchronized

MOMENT = 0.02  # seconds that the work takes; far above what a call and a read cost


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Half a second of warm-up is for GPUs, and all the garbage of the tests so far for those about it."""
    monkeypatch.setattr(module, "WARM_UP_SECONDS", 0.0)
    monkeypatch.setattr(module, "gc", Mock())


class Work:
    """Takes its time, and returns how often it was done."""

    def __init__(self, seconds=0.0):
        self.seconds, self.calls = seconds, 0

    def __call__(self):
        self.calls += 1
        time.sleep(self.seconds)
        return self.calls


class Promise:
    """A result that isn't there yet: reading it takes as long as the work does."""

    def __array__(self, dtype=None, copy=None):
        """Return it once it is there."""
        time.sleep(MOMENT)
        return np.zeros(3, dtype)


def judged(done):
    """Return whether the timing is found to have waited."""
    return synchronized(Timing("case", "gpu:0", "float32", done.rounds, done.read_back)).status


@pytest.mark.parametrize(("least", "rounds"), [(1, 5), (5, 5), (9, 9)])
def test_at_least_five_rounds(least, rounds):
    """As many as wanted, and never fewer than five."""
    assert len(measure(Work(seconds=0.001), min_rounds=least, seconds=0.0).rounds) == rounds


@pytest.mark.parametrize("slow_reading", [False, True], ids=["reading=quick", "reading=slow"])
@pytest.mark.parametrize("rounds", [5, 12], ids=["rounds=5", "rounds=12"])
@pytest.mark.parametrize("kind", ["number", "array", "tensor"], ids="result={}".format)
def test_result_is_the_very_last_rounds(monkeypatch, kind, rounds, slow_reading):
    """A check of the result knows what the last call of the work was to compute, however it was timed."""
    work, real = Work(), read_back_round
    make = {"number": float, "array": np.asarray, "tensor": keras.ops.convert_to_tensor}[kind]
    seconds = 1.0 if slow_reading else 1e-9  # then it is read back again, after the rounds
    monkeypatch.setattr(module, "read_back_round", lambda work: (real(work)[0], seconds))
    done = measure(lambda: make(work()), min_rounds=rounds, seconds=0.0, times=3)
    assert int(done.result) == work.calls


def test_rounds_and_warm_up_fill_their_times(monkeypatch):
    """Of rounds of an eighth of a second, 4 warm up for half a second, two of them read back; 9 take 1.1 seconds."""
    monkeypatch.setattr(module, "WARM_UP_SECONDS", 0.5)
    monkeypatch.setattr(module, "read_back_round", lambda _: (None, 0.125))
    work = Work()
    done = measure(work, min_rounds=5, seconds=1.1)
    assert len(done.rounds) == 9
    assert work.calls == 1 + 2 + 9  # the first one compiles; this one reads nothing back


def test_honest_work_is_timed_as_long_as_it_takes():
    """Each round takes at least its time, reading back no less, and the timing is believed."""
    done = measure(Work(MOMENT), min_rounds=5, seconds=0.0)
    assert min(done.rounds) >= MOMENT * 0.99
    assert done.read_back >= MOMENT * 0.99
    assert judged(done) == "PASS"


def test_work_that_isnt_done_is_found_out():
    """A result whose reading takes its time was timed too soon, as the time until it is read shows."""
    done = measure(Promise, min_rounds=5, seconds=0.0)
    assert isinstance(done.result, Promise)
    assert sorted(done.rounds)[2] < 0.1 * done.read_back
    assert done.read_back >= MOMENT / 2 * 0.99  # of two rounds one was read
    assert judged(done) == "FAIL"


@pytest.mark.parametrize(("waits", "status"), [(True, "PASS"), (False, "FAIL")])
def test_device_is_waited_for(monkeypatch, waits, status):
    """With a device that works in the background, a `synchronize` that waits is believed, one that doesn't is not."""
    until = [0.0]

    def start():
        until[0] = max(until[0], time.perf_counter()) + MOMENT
        return result

    def wait(*_):
        time.sleep(max(0.0, until[0] - time.perf_counter()))

    def read(value):
        wait()
        return value

    result = np.zeros(3)
    monkeypatch.setattr(module.devices, "synchronize", wait if waits else lambda *_: None)
    monkeypatch.setattr(module.ops, "convert_to_numpy", read)
    done = measure(start, min_rounds=5, seconds=0.0)
    assert judged(done) == status
    if waits:
        assert min(done.rounds) >= MOMENT * 0.99


def test_each_round_begins_and_ends_with_a_wait(monkeypatch):
    """Nothing is under way when the clock is started, nor when it is stopped."""
    events = []
    monkeypatch.setattr(module, "read_back_round", lambda _: (None, 1e-9))  # in no doubt, so never measured again
    monkeypatch.setattr(module.devices, "synchronize", lambda *_: events.append("wait"))
    measure(lambda: events.append("work"), min_rounds=5, seconds=0.0)
    assert events[-15:] == ["wait", "work", "wait"] * 5


def test_disturbance_is_measured_again():
    """Where only the reading back was slow, once, it is measured again before the rounds are doubted."""
    sleeps = iter([0.0, 5 * MOMENT, 5 * MOMENT])  # the call that compiles, then the two that are read back
    work = Work()

    def disturbed():
        time.sleep(next(sleeps, MOMENT / 10))
        return work()

    done = measure(disturbed, min_rounds=5, seconds=0.0)
    assert done.read_back < 4 * MOMENT
    assert judged(done) == "PASS"


def test_every_part_of_a_result_is_read():
    """Results may be nested; each tensor, array and number among them is waited for."""
    nested = {"a": [Promise(), 1.0], "b": (Promise(), keras.ops.ones(2))}
    result, seconds = read_back_round(lambda: nested)
    assert result is nested
    assert seconds >= 2 * MOMENT / 2 * 0.99


def test_time_until_it_is_read_is_that_of_one_round(monkeypatch):
    """Two rounds are done, and the second's result and half their time are returned."""
    work, clock = Work(), iter([10.0, 10.5])
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert read_back_round(work) == (2, 0.25)


class Littering:
    """Work that leaves cycles behind, enough for a collection at each call; it notes where collections begin."""

    def __init__(self):
        self.calls, self.working, self.collections = 0, False, []
        self.result = keras.ops.ones(1)

    def __call__(self):
        self.calls += 1
        self.working = True
        for _ in range(100):
            cycle = []
            cycle.append(cycle)
        self.working = False
        return self.result

    def collecting(self, phase, _):
        if phase == "start":
            self.collections.append((self.calls, self.working))


@pytest.fixture
def unfrozen():
    """Garbage collection as users have it, who freeze nothing as the tests do."""
    gc.unfreeze()
    yield
    gc.freeze()


@pytest.fixture
def littering(monkeypatch):
    """Such work, while garbage is collected at every chance; what the tests have frozen stays so, for it takes long."""
    named = ("collect", "isenabled", "disable", "enable")
    real = {name: getattr(gc, name) for name in named}
    monkeypatch.setattr(module, "gc", SimpleNamespace(**real, freeze=lambda: None, unfreeze=lambda: None))
    monkeypatch.setattr(module, "read_back_round", lambda _: (None, 1e-9))  # in no doubt, so never measured again
    work, thresholds = Littering(), gc.get_threshold()
    gc.callbacks.append(work.collecting)
    gc.set_threshold(20)
    yield work
    gc.set_threshold(*thresholds)
    gc.callbacks.remove(work.collecting)


def test_no_garbage_is_collected_within_a_round(littering):
    """Neither in the timed rounds nor in the pipelined; before each of the timed, and the pipeline, it is."""
    before = []
    for _ in range(3):  # while another thread collects, which is rare, this one's calls for it do nothing
        littering.calls = 0
        littering.collections.clear()
        measure(littering, min_rounds=12, seconds=0.0)
        assert littering.calls == 1 + 12 + 3
        assert {call for call, working in littering.collections if working} <= {1}  # the round that compiles
        before.append({call for call, working in littering.collections if not working} >= {1, 2, 3, 4, 5, 6})
    assert any(before)


@pytest.mark.usefixtures("unfrozen")
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("before", ["enabled", "disabled"])
def test_collection_is_what_it_was(monkeypatch, before, fails):
    """After the timing, or whatever ends it, garbage is collected or not as before, and all of it is looked at."""
    names = ("isenabled", "freeze", "disable", "unfreeze", "enable")
    quick = SimpleNamespace(collect=lambda: None, **{name: getattr(gc, name) for name in names})
    monkeypatch.setattr(module, "gc", quick)
    try:
        if before == "disabled":
            gc.disable()
        with contextlib.suppress(KeyboardInterrupt), uncollected():
            assert not gc.isenabled()
            if fails:
                raise KeyboardInterrupt
        assert gc.isenabled() == (before == "enabled")
        assert gc.get_freeze_count() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("work", "pipelined"),
    [
        pytest.param(lambda: 1.0, False, id="result=number"),
        pytest.param(lambda: np.zeros(3), False, id="result=array"),
        pytest.param(lambda: (keras.ops.ones(2), 1.0), True, id="result=tensor"),
    ],
)
def test_only_asynchronous_work_is_pipelined(work, pipelined):
    """A number or an array has been waited for already, so that pipelined rounds would be no faster."""
    done = measure(work, min_rounds=12, seconds=0.0)
    assert (done.pipelined is not None) == pipelined


def test_few_rounds_are_pipelined_where_they_are_read_back(monkeypatch):
    """Of fewer than twelve rounds no further ones are made: the two whose result was read were a pipeline."""
    monkeypatch.setattr(module, "read_back_round", lambda _: (keras.ops.ones(2), 0.25))
    calls = []
    done = measure(lambda: calls.append(None) or keras.ops.ones(2), min_rounds=5, seconds=0.0)
    assert (done.pipelined, len(calls)) == (0.25, 1 + 5)


CALM, SLOW = [1.0, 1.01] * 20, [1.3, 1.31] * 20
NOISY, NOISIER = [1.0, 1.4] * 20, [1.0, 1.6] * 20
RISING = [1.0 + 0.01 * each for each in range(40)]
FALLING = [1.3] * 15 + [1.0] * 25


@pytest.mark.parametrize(
    ("measured", "kept"),
    [
        pytest.param([CALM], 0, id="first=calm"),
        pytest.param([NOISY, CALM], 1, id="noise=at first"),
        pytest.param([NOISIER, NOISY, CALM], 2, id="noise=twice"),
        pytest.param([NOISIER, NOISY, NOISIER], 0, id="noise=always"),
        pytest.param([RISING, CALM], 1, id="drift=over"),
        pytest.param([RISING, RISING, RISING], 0, id="drift=always"),
        pytest.param([RISING, SLOW], 0, id="drift=stays slow"),
        pytest.param([RISING, NOISY, SLOW], 0, id="drift=noisy, then slow"),
        pytest.param([FALLING, SLOW], 0, id="speed=slow again after a while"),
        pytest.param([NOISY, RISING, CALM], 2, id="drift=after noise"),
        pytest.param([[3 * each for each in NOISY]], 0, id="noise=of long rounds"),
    ],
)
def test_noisy_rounds_are_measured_again(monkeypatch, measured, kept):
    """Three times at most; the first calm one counts, unless it is slower than what was seen before it."""
    made = [
        Measured(f"result {number}", [0.02 * each for each in rounds], 0.01, 9.0 - number, None, number, number + 0.5)
        for number, rounds in enumerate(measured)
    ]
    left = iter(made)
    monkeypatch.setattr(module, "_measure", lambda *_: next(left))
    done = measure(None, min_rounds=5, seconds=0.0, times=3)
    assert list(left) == []
    assert (done.rounds, done.began, done.ended) == (made[kept].rounds, kept, kept + 0.5)
    assert (done.result, done.first, done.measured) == (f"result {len(made) - 1}", 9.0, len(made))


class Device:
    """Works behind the host's back: each takes a second of made-up time for a round, and they may overlap."""

    def __init__(self):
        self.now, self.done, self.rounds, self.waits = 0.0, 0.0, 0, []

    def work(self):
        self.now += 1
        self.done = max(self.done, self.now) + 1
        self.rounds += 1
        return self.rounds

    def wait(self, *_):
        self.now = max(self.now, self.done)
        self.waits.append(self.rounds)


@pytest.mark.parametrize(
    ("rounds", "waits", "seconds"),
    [
        pytest.param(12, [0, 3], 4 / 3, id="rounds=12"),  # three: the host works for three, the device for one more
        pytest.param(40, [0, 10], 11 / 10, id="rounds=40"),
        pytest.param(96, [0, 8, 8, 16, 16, 24], 9 / 8, id="rounds=96"),
        pytest.param(8000, [0, 666, 666, 1332, 1332, 1998], 667 / 666, id="rounds=8000"),
    ],
)
def test_pipeline_is_synchronized_once(monkeypatch, rounds, waits, seconds):
    """A quarter of the rounds, in up to three pipelines: host and device overlap, but at their ends."""
    device = Device()
    monkeypatch.setattr(module.devices, "synchronize", device.wait)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: device.now))
    assert pipelined_rounds(device.work, rounds) == (waits[-1], seconds)
    assert device.waits == waits
