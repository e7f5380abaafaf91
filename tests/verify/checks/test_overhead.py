"""The overhead of determinism, precision and XLA: combinations are visited in turns, and noise is no cost."""

import contextlib
import json
import weakref
from types import SimpleNamespace

import pytest

from alexnet_repro.verify.checks import config
from alexnet_repro.verify.checks import overhead as module
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.overhead_cell import OverheadCell, cost
from alexnet_repro.verify.subprocesses import NoAnswerError


@pytest.mark.parametrize(
    ("device", "updates_per_call", "calls", "seconds"),
    [("cpu:0", 1, 1, 4.0), ("cpu:0", 32, 1, 0.125), ("gpu:0", 1, 10, 0.4), ("gpu:0", 32, 1, 0.125)],
)
def test_updates_are_timed_in_visits(monkeypatch, device, updates_per_call, calls, seconds):
    """After a call that warms up, a visit makes an update or a call's, and waits before it and once after it.

    A GPU makes ten, of batches so large that its work, not the launching of it, is what takes the time.
    """
    done, batch = [], {"cpu:0": 8, "gpu:0": 256}[device]

    def step(indices):
        assert indices.shape == (updates_per_call, batch)
        done.append("step")
        return None, None

    step.updates_per_call, step.classifier = updates_per_call, SimpleNamespace(jit_compile=False)
    monkeypatch.setattr(config, "on_device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(module, "best_train_step", lambda *_, **__: step)
    monkeypatch.setattr(module, "synchronize", lambda *_: done.append("wait"))
    clock = iter(range(0, 100, 4))
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: done.append("clock") or next(clock)))
    visit = module.step_timer(CheckConfig(device, side=67), xla=False)
    assert [visit(), visit()] == [seconds] * 2  # each takes 4 s
    assert done == ["step", "wait"] + ["wait", "clock", *["step"] * calls, "wait", "clock"] * 2


@pytest.mark.parametrize("xla", [False, True])
def test_model_suits_xla(monkeypatch, xla):
    """The step with XLA has a model built for XLA, the one without hasn't."""
    for_xlas = []

    def build(*_, for_xla, **__):
        for_xlas.append(for_xla)
        raise InterruptedError

    monkeypatch.setattr(config, "build_alexnet", build)
    with pytest.raises(InterruptedError):
        module.step_timer(CheckConfig(side=67), xla=xla)
    assert for_xlas == [xla]


class Children:
    """Stand-ins for the two processes: `visited` is what was waited for, by determinism and combination, in order."""

    def __init__(self, monkeypatch):
        self.visited, self.environ, self.answer, self.closed = [], [], lambda *_: {"seconds": 1.0}, 0
        self.alive = self.most = 0
        monkeypatch.setattr(module, "answers", self)

    def __call__(self, name, arguments, deadline, environ, *, paced):
        options, deterministic, *order = arguments
        assert (name, deadline, paced) == ("alexnet_repro.verify.checks.overhead", 30, True)
        assert json.loads(options)["device"] == "cpu:0"
        self.environ.append(environ)
        return self._visits(json.loads(deterministic), order)

    def _visits(self, deterministic, order):
        self.alive += 1
        self.most = max(self.most, self.alive)
        try:
            for combination in order:
                self.visited.append((deterministic, *json.loads(combination)))
                yield combination, {"log": "", **self.answer(*self.visited[-1])}
        finally:
            self.closed, self.alive = self.closed + 1, self.alive - 1


@pytest.fixture
def children(monkeypatch):
    """No process is started."""
    return Children(monkeypatch)


def test_combinations_take_turns(children):
    """Six visits of a precision's combinations, each visit in the opposite order of the one before; then the next's."""
    module.overhead_cells(CheckConfig("cpu:0"), {False: {"a": "1"}, True: {"a": "2"}}, 30)
    float32, bfloat16 = (
        [(False, name, False), (True, name, False), (False, name, True), (True, name, True)]
        for name in ("float32", "mixed_bfloat16")
    )
    assert children.visited == [*[*float32, *float32[::-1]] * 3, *[*bfloat16, *bfloat16[::-1]] * 3]
    assert children.environ == [{"a": "1"}, {"a": "2"}]
    assert (children.closed, children.most) == (2, 2)


def test_device_of_one_process(children):
    """Where one process at a time may use the device, all visits of one are made before the other starts."""
    cells, failed = module.overhead_cells(CheckConfig("cpu:0"), {False: {}, True: {}}, 30, one_process=True)
    assert [deterministic for deterministic, *_ in children.visited] == [False] * 24 + [True] * 24
    assert (children.closed, children.most) == (2, 1)
    assert (len(cells), {len(each.seconds) for each in cells}, failed) == (8, {5}, [])


def test_first_visit_isnt_counted(children):
    """It builds and warms up; the other five are the cell's, with the device's name here, or why there are none."""
    count = iter(range(1000))
    children.answer = lambda deterministic, _, xla: (
        {"why": "no such step"} if deterministic and xla else {"seconds": float(next(count))}
    )
    cells, failed = module.overhead_cells(CheckConfig("cpu:0"), {False: {}, True: {}}, 30)
    assert (len(cells), failed) == (8, [])
    # Three of a visit's four have seconds: this one's come first, in the next visit, of the opposite order, last.
    assert cells[0] == OverheadCell("cpu:0", "float32", False, False, 8, [5.0, 6.0, 11.0, 12.0, 17.0])
    assert [(each.seconds, each.why) for each in cells if each.deterministic and each.xla] == [([], "no such step")] * 2


@pytest.mark.parametrize("how", ["error", "death"])
def test_crash_is_a_failure(children, how):
    """A process that fails at a combination ends both, and is the finding, with its cause; there are no cells."""

    def answer(deterministic, precision, _):
        if (deterministic, precision) != (True, "mixed_bfloat16"):
            return {"seconds": 1.0}
        if how == "death":
            raise NoAnswerError("ended by SIGILL", "")
        return {"error": "SIGILL"}

    children.answer = answer
    cells, (found,) = module.overhead_cells(CheckConfig("cpu:0"), {False: {}, True: {}}, 30)
    assert (cells, found.check, found.status, found.kind) == ([], "overhead", "FAIL", "crash")
    assert found.device == "cpu:0"
    assert children.closed == 2


def test_process_visits_what_it_is_told(monkeypatch):
    """The child builds each combination once, and visits it as often as it is named, in its precision."""
    built, visited = [], []

    def timer(config, *, xla):
        built.append((config.precision, xla))
        return None if xla else lambda: visited.append(module.CheckConfig and config.precision) or 0.5

    monkeypatch.setattr(module, "step_timer", timer)
    order = [json.dumps(each) for each in (["float32", False], ["float32", True], ["float32", False])]
    found = list(module.main(json.dumps({"device": "cpu:0"}), "false", *order))
    assert [answer for _, answer in found] == [{"seconds": 0.5}, {"why": module.NO_XLA}, {"seconds": 0.5}]
    assert (built, visited) == ([("float32", False), ("float32", True)], ["float32"] * 2)


def test_process_frees_models_of_a_precision(monkeypatch):
    """Before the next precision's are built; those of one stay until then."""
    alive = weakref.WeakSet()

    class Model:
        def __init__(self, precision):
            self.precision = precision
            alive.add(self)

    def timer(config, **_):
        assert {each.precision for each in alive} <= {config.precision}
        model = Model(config.precision)
        return lambda: model in alive and len(alive)

    monkeypatch.setattr(module, "step_timer", timer)
    order = [json.dumps([precision, xla]) for precision in ("float32", "tf32") for xla in (False, True)]
    found = [answer["seconds"] for _, answer in module.main(json.dumps({"device": "cpu:0"}), "false", *order)]
    assert found == [1, 2, 1, 2]


def test_process_prints_what_it_fails_of(monkeypatch, capsys):
    """An error is the last answer, and its traceback is in the process's output."""
    monkeypatch.setattr(module, "step_timer", lambda *_, **__: 1 // 0)
    order = [json.dumps(["float32", False])] * 2
    ((_, answer),) = module.main(json.dumps({"device": "cpu:0"}), "false", *order)
    assert answer == {"error": "ZeroDivisionError: integer division or modulo by zero"}
    assert "Traceback" in capsys.readouterr().err


def cell(*seconds):
    """Return a combination with these seconds."""
    return OverheadCell("cpu:0", "float32", False, False, 8, seconds)


@pytest.mark.parametrize(
    ("one", "other", "extra", "noise", "seen"),
    [
        pytest.param((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), 0.0, 0.0, False, id="difference=none"),
        pytest.param((1.5, 1.5, 1.5), (1.0, 1.0, 1.0), 0.5, 0.0, True, id="difference=50 %"),
        pytest.param(
            (1.5, 3.0, 6.0), (1.0, 2.0, 4.0), 0.5, 0.0, True, id="difference=50 %, as the machine gets slower"
        ),
        pytest.param((1.2, 0.9, 1.0), (1.0, 1.0, 1.0), 0.0260, 0.4356, False, id="difference=within noise"),
        pytest.param((1.2, 1.3, 1.25), (1.0, 1.0, 1.0), 0.2493, 0.1045, True, id="difference=above noise"),
    ],
)
def test_cost(one, other, extra, noise, seen):
    """By the visits' ratios: their mean of logarithms, and its 95 % interval by Student's t of two degrees."""
    found = cost(cell(*one), cell(*other))
    assert (found.extra, found.noise) == pytest.approx((extra, noise), abs=1e-4)
    assert found.seen == seen


@pytest.mark.parametrize("seconds", [(), (1.0,)])
def test_cost_of_too_few(seconds):
    """One visit has no spread, so nothing is claimed."""
    assert cost(cell(*seconds), cell(*seconds)) is None
