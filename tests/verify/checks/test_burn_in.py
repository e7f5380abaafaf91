"""A burn-in reports progress, runs for as long as given, and ends at the first failure."""

import json
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import pytest

from alexnet_repro.verify.checks import burn_in as module
from alexnet_repro.verify.checks.burn_in import burn_in, soak
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.numerics.replay import StepDigest
from alexnet_repro.verify.subprocesses import NoAnswerError
from tests.helpers.machines import A100, CPU, TWO, box

CONFIG = CheckConfig(side=67, steps=2, replays=2)
BOTH = ("float32", "mixed_bfloat16")
FILLED = Finding("memory", "PASS", "64 MiB filled")
RIGHT = [StepDigest("0x1", {"head": "g"}, {"head": "w"}), StepDigest("0x2", {"head": "g"}, {"head": "w"})]
WRONG = [RIGHT[0], StepDigest("0x2", {"head": "other"}, {"head": "w"})]
# A quarter of the host's memory takes long to fill: the child sees that little is free.
SMALL_HOST = """\
import psutil
memory = psutil.virtual_memory
psutil.virtual_memory = lambda: memory()._replace(available=4096 * 4096)
"""


class Device:
    """A device on which each run of a replay takes 20 seconds; `done` is what was run, in order."""

    def __init__(self):
        self.now, self.done, self.answers, self.digests = 1000.0, [], {}, {}

    def clock(self):
        return self.now

    def run_check(self, check, _config):
        self.done.append(check.check)
        answer = self.answers.get((check.check, self.done.count(check.check)))
        return answer or replace(FILLED, check=check.check)

    def new_replay(self, config):
        self.done.append(config.precision)
        return Replays(self, self.digests.get((config.precision, self.done.count(config.precision)), {}))


class Replays:
    """The replays of one turn: right but for those of some numbers."""

    def __init__(self, device, wrong):
        self.device, self.wrong, self.numbers = device, wrong, count(1)

    def run(self):
        self.device.now += 20
        self.device.done.append("run")
        return self.wrong.get(next(self.numbers), RIGHT)


@pytest.fixture
def device(monkeypatch):
    """A device without faults."""
    device = Device()
    monkeypatch.setattr(module, "run_check", device.run_check)
    monkeypatch.setattr(module.repeatability, "new_replay", device.new_replay)
    monkeypatch.setattr(module, "free_memory", lambda: device.done.append("freed"))
    return device


def test_a_line_per_minute(device):
    """Progress is reported once per minute, and at the end a summary."""
    *lines, finding = soak(CONFIG, BOTH, 180, device.clock)
    assert lines == [
        "1 of 3 minutes: 6 steps the same; 64 MiB filled",
        "2 of 3 minutes: 12 steps the same; 64 MiB filled",
        "3 of 3 minutes: 18 steps the same; 64 MiB filled",
    ]
    assert (finding.status, finding.message) == (
        "PASS",
        "3.0 minutes, 18 steps the same, copies right; 64 MiB filled",
    )
    assert device.now == 1180


def test_order_of_a_soak(device):
    """Memory is filled before each round of precisions; copies are made, and the last model is freed, before each's."""
    list(soak(CONFIG, BOTH, 100, device.clock))
    replays = ["run", "run"]
    assert device.done == [
        *("memory", "copies", "freed", "float32", *replays),
        *("copies", "freed", "mixed_bfloat16", *replays),
        *("memory", "copies", "freed", "float32", "run"),
    ]


@pytest.mark.parametrize(("seconds", "runs"), [(0, 3), (1, 3), (60, 3), (61, 4)])
def test_every_precision_has_its_turn(device, seconds, runs):
    """However short the time, it doesn't end before each precision was replayed once."""
    (finding,) = (each for each in soak(CONFIG, BOTH, seconds, device.clock) if isinstance(each, Finding))
    assert (finding.status, device.done.count("run")) == ("PASS", runs)


@pytest.mark.parametrize(
    ("check", "time", "runs"), [("memory", 1, 0), ("memory", 2, 4), ("copies", 1, 0), ("copies", 2, 2)]
)
def test_first_failure_ends_it(device, check, time, runs):
    """Memory or copies that fail are the finding, at once."""
    failure = Finding(check, "FAIL", "1 of 1024 bytes")
    device.answers[check, time] = failure
    found = list(soak(CONFIG, BOTH, 3600, device.clock))
    assert found[-1] == failure
    assert [each for each in found[:-1] if isinstance(each, Finding)] == []
    assert device.done.count("run") == runs


@pytest.mark.parametrize(
    ("precision", "turn", "number", "named"),
    [("float32", 1, 2, "run 2 of turn 1"), ("mixed_bfloat16", 1, 2, "run 2 of turn 2"),
     ("float32", 2, 1, "run 1 of turn 3"), ("mixed_bfloat16", 3, 2, "run 2 of turn 6")],
)  # fmt: skip
def test_first_other_bit_ends_it(device, precision, turn, number, named):
    """Every run is compared with the first of its precision, hours ago or not; run, layer and step are named."""
    device.digests[precision, turn] = {number: WRONG}
    finding = list(soak(CONFIG, BOTH, 3600, device.clock))[-1]
    assert (finding.check, finding.status, finding.precision) == ("replay", "FAIL", precision)
    assert finding.message == f"{named} differs from the first run in the gradient of head at step 2"


def test_inconclusive_memory_is_inconclusive(device):
    """Where too little memory could be filled, a soak without a failure doesn't pass."""
    device.answers["memory", 1] = replace(FILLED, status="INCONCLUSIVE", message="50%", fix="nvidia-smi")
    finding = list(soak(CONFIG, BOTH, 60, device.clock))[-1]
    assert (finding.status, finding.fix) == ("INCONCLUSIVE", "nvidia-smi")


def answered(monkeypatch, *lines, error=None):
    """Have the child answer this; return the list of what it was given."""
    given = []

    def answers(_module, arguments, deadline, environ, _stop):
        given.append((json.loads(arguments[0]), deadline, environ))
        yield from (("progress" if "line" in each else "finding", {**each, "log": ""}) for each in lines)
        if error:
            raise error

    monkeypatch.setattr(module, "answers", answers)
    return given


def test_child_soaks_the_device_it_sees(monkeypatch):
    """The child's one GPU is its first; lines and finding have the name that the device has here."""
    monkeypatch.setattr(module, "read_gpus", lambda here: here)
    nothing = [Finding("after load", "PASS", "no new fault")]
    monkeypatch.setattr(module, "LoadWatch", lambda *_: SimpleNamespace(findings=lambda: nothing))
    passed = {"check": "memory", "status": "PASS", "message": "well on gpu:0", "device": "gpu:0", "data": {"steps": 6}}
    given = answered(monkeypatch, {"line": "1 of 1 minutes"}, passed)
    lines = []
    given_here = {"deadline": 30, "here": box(A100), "environ": {"A": "b"}}
    found = burn_in(replace(CONFIG, device="gpu:3"), BOTH, 60, lines.append, **given_here)
    assert lines == ["gpu:3 burn-in 1 of 1 minutes"]
    assert found == Finding("burn-in", "PASS", "well on gpu:3", device="gpu:3", data={"steps": 6})
    ((options, deadline, environ),) = given
    assert (options["config"]["device"], options["precisions"], options["seconds"]) == ("gpu:0", list(BOTH), 60)
    assert (deadline, environ["A"]) == (90, "b")  # a line per minute, and what a check may take


CORRECTED = Finding("after load", "PASS", "3 errors of its memory were corrected under load", fix="nvidia-smi -q")
LOST = Finding("after load", "FAIL", "the driver lost this GPU under load", fix="sudo reboot")


@pytest.mark.parametrize(
    ("soaked", "counted", "expected"),
    [
        ("PASS", [CORRECTED], ("PASS", "1.0 minutes; 3 errors of its memory were corrected under load", "")),
        ("PASS", [CORRECTED, LOST], ("FAIL", f"1.0 minutes; {CORRECTED.message}; {LOST.message}", "sudo reboot")),
        ("FAIL", [LOST], ("FAIL", f"1.0 minutes; {LOST.message}", "run it again; sudo reboot")),
    ],
)
def test_what_the_driver_counted_meanwhile(monkeypatch, soaked, counted, expected):
    """Errors that the driver counted of that very GPU are in the finding, which is no better than they are."""
    before, watched = box(*TWO), []
    monkeypatch.setattr(module, "read_gpus", lambda here: here)
    watch = SimpleNamespace(findings=lambda: counted)
    monkeypatch.setattr(module, "LoadWatch", lambda *given: watched.append(given) or watch)
    fixed = {"fix": "run it again"} if soaked == "FAIL" else {}
    answered(monkeypatch, {"check": "memory", "status": soaked, "message": "1.0 minutes", **fixed})
    found = burn_in(replace(CONFIG, device="gpu:1"), BOTH, 60, print, deadline=30, here=before, environ={})
    assert (found.status, found.message, found.fix) == expected
    assert watched == [(before, "gpu:1")]


@pytest.mark.parametrize(
    ("backend", "set_by_user", "added"),
    [
        ("tensorflow", None, {}),
        ("torch", None, {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}),
        ("jax", None, {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true", "XLA_CLIENT_MEM_FRACTION": ".95"}),
        ("jax", "XLA_CLIENT_MEM_FRACTION", {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}),
        ("jax", "XLA_PYTHON_CLIENT_MEM_FRACTION", {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}),
    ],
)
def test_environment_of_the_child(monkeypatch, backend, set_by_user, added):
    """Its environment has what determinism needs, and on JAX that it may fill the memory, unless that is set."""
    for name in ("XLA_FLAGS", "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"):
        monkeypatch.delenv(name, raising=False)
    if set_by_user:
        monkeypatch.setenv(set_by_user, ".5")
    monkeypatch.setattr(module.keras.backend, "backend", lambda: backend)
    given = answered(monkeypatch, {"check": "memory", "status": "PASS", "message": "1.0 minutes"})
    burn_in(CONFIG, BOTH, 60, print, deadline=30, here=CPU, environ={"CUDA_VISIBLE_DEVICES": "3"})
    ((_, _, environ),) = given
    assert environ == {"CUDA_VISIBLE_DEVICES": "3", **added}


@pytest.mark.parametrize(
    ("error", "evidence"),
    [
        pytest.param(None, "it ended without an answer", id="child=silent"),
        pytest.param(
            NoAnswerError("ended by SIGSEGV", "Fatal error\n"), "ended by SIGSEGV; Fatal error", id="child=dead"
        ),
    ],
)
def test_child_that_ends_early_fails(monkeypatch, error, evidence):
    """A child that reports progress and then is gone has failed."""
    answered(monkeypatch, {"line": "1 of 60 minutes"}, error=error)
    found = burn_in(CONFIG, BOTH, 3600, lambda _: None, deadline=30, here=CPU, environ={})
    assert (found.check, found.status, found.device, found.evidence) == ("burn-in", "FAIL", "cpu:0", evidence)


def test_child_answers_lines_then_the_finding(monkeypatch):
    """What the child answers is a line per minute and a finding; an error is a finding too. Determinism is on."""
    called = []
    monkeypatch.setattr(module, "enable_memory_growth", lambda: called.append("growth"))
    monkeypatch.setattr(module, "enable_determinism", lambda: called.append("determinism"))
    options = json.dumps({"config": {"side": 67}, "precisions": BOTH, "seconds": 1})

    def soaking(config, precisions, seconds):
        assert (config, precisions, seconds) == (CheckConfig(side=67), BOTH, 1)
        yield "1 of 1 minutes"
        raise ArithmeticError("7 of 9")

    monkeypatch.setattr(module, "soak", soaking)
    progress, (name, finding) = module.main(options)
    assert (progress, name) == (("progress", {"line": "1 of 1 minutes"}), "finding")
    assert (finding["check"], finding["status"], finding["evidence"]) == ("burn-in", "FAIL", "ArithmeticError: 7 of 9")
    assert called == ["growth", "determinism"]


@pytest.mark.slow
def test_this_processor_holds_out(tmp_path):
    """A second's soak of this processor, in a real child, passes."""
    (tmp_path / "sitecustomize.py").write_text(SMALL_HOST)
    environ = {"CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(tmp_path)}
    found = burn_in(CONFIG, BOTH, 1, print, deadline=180, here=CPU, environ=environ)
    assert (found.check, found.status, found.device) == ("burn-in", "PASS", "cpu:0"), str(found)
    assert found.message.endswith("copies right; 4 MiB filled and read back, 5 patterns")
