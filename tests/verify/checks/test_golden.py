"""Golden digests: bits may be expected in the same environment only, and elsewhere nothing passes."""

import datetime as dt
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import pytest

from alexnet_repro.verify.checks import golden
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.golden import Golden
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.numerics.replay import StepDigest
from tests.helpers.paths import ROOT

SMALL = CheckConfig(side=67, steps=2, replays=2)
HERE = {"packages": {"numpy": "2.4.6"}, "settings": {}, "cpu": {"model": "17"}, "threads": {"processors": 2}}
ELSEWHERE = {**HERE, "cpu": {"model": "85"}, "threads": {"processors": 64}}
TASK = {
    "backend": keras.backend.backend(),
    "precision": "float32",
    "side": 67,
    "batch": 8,
    "steps": 2,
    "seed": 0,
    "determinism": True,
}
STEPS = [
    {"loss": "0x1.0p+1", "gradients": {"head": "g1", "first": "g2"}, "weights": {"head": "w1", "first": "w2"}},
    {"loss": "0x1.8p+0", "gradients": {"head": "g3", "first": "g4"}, "weights": {"head": "w3", "first": "w4"}},
]
STORED = Golden(TASK, HERE, "2026-11-24", [StepDigest(**step) for step in STEPS])
ON_FILE = """{"digests": [{"task": {"steps": 1}, "environment": {"cpu": "x"}, "recorded": "2026-11-24",
 "steps": [{"loss": "0x1p0", "gradients": {"head": "g"}, "weights": {"head": "w"}}]}]}"""
UPDATE = "python -m alexnet_repro verify --update-reference"
DIGESTS = ROOT / "benchmarks/references/digests.json"
DAY = "2027-01-02"


@pytest.fixture(autouse=True)
def _day(monkeypatch):
    """The day of new records."""
    monkeypatch.setattr(golden, "dt", SimpleNamespace(date=SimpleNamespace(today=lambda: dt.date.fromisoformat(DAY))))


def replayed(*steps, **changes):
    """Return what a replay found: these steps' digests."""
    return Finding("replay", "PASS", "2 runs", device="cpu:0", precision="float32", data={"steps": steps}, **changes)


def changed(number, what, path):
    """Return the digests, but for one of step `number`."""
    steps = [dict(step) for step in STEPS]
    step = steps[number - 1]
    step[what] = {**step[what], path: "other"} if path else "0x1.9p+0"
    return steps


def test_recorded_bits_pass():
    """The same bits in the same environment pass, with the day they were recorded."""
    found = golden.compare_digests(replayed(*STEPS), SMALL, HERE, [STORED])
    assert (found.check, found.status, found.device, found.precision) == ("golden", "PASS", "cpu:0", "float32")
    assert found.message == "the bits recorded on 2026-11-24"


@pytest.mark.parametrize(
    ("steps", "where"),
    [
        pytest.param(changed(2, "loss", None), "loss at step 2", id="changed=loss"),
        pytest.param(changed(1, "gradients", "first"), "gradient of first at step 1", id="changed=gradient"),
        pytest.param(changed(2, "weights", "head"), "weight head at step 2", id="changed=weight"),
    ],
)
def test_other_bits_fail(steps, where):
    """One other digest in the same environment fails; step, layer and the day of the record are named."""
    found = golden.compare_digests(replayed(*steps), SMALL, HERE, [replace(STORED, environment=ELSEWHERE), STORED])
    assert (found.check, found.status, found.device, found.precision) == ("golden", "FAIL", "cpu:0", "float32")
    assert found.message == f"this run differs from the one recorded on 2026-11-24 in the {where}"
    assert found.fix


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        pytest.param("0x1.0p+1", "first loss matches another", id="loss=same"),
        # 2 × 3.540e-4 × (2 + ln 10) = 3.046e-3
        pytest.param((2 + 3.04e-3).hex(), "first loss matches another", id="loss=within"),
        pytest.param((2 + 3.05e-3).hex(), "first loss doesn't match another", id="loss=above"),
        pytest.param((2 - 3.05e-3).hex(), "first loss doesn't match another", id="loss=below"),
        pytest.param("nan", "first loss doesn't match another", id="loss=nan"),
    ],
)
def test_another_environment_never_passes(loss, message):
    """Its first loss is compared, but it stays inconclusive, with what differs and the command that makes a record."""
    steps = [{**STEPS[0], "loss": loss}, STEPS[1]]
    found = golden.compare_digests(replayed(*steps), SMALL, HERE, [replace(STORED, environment=ELSEWHERE)])
    assert found.status == "INCONCLUSIVE"
    assert found.message.startswith(message)
    assert found.bound == pytest.approx(3.046e-3, rel=1e-3)
    assert "2.000000 on 2026-11-24 with other cpu, threads (processors 64, here 2);" in found.evidence
    assert found.fix.startswith(UPDATE)


SETTING = {**HERE, "settings": {"ONEDNN_MAX_CPU_ISA": "sse41"}}
THREADS = {**HERE, "threads": {"processors": 2, "intra_op": 1}}


@pytest.mark.parametrize(
    ("environment", "differs"),
    [
        pytest.param(SETTING, "settings (ONEDNN_MAX_CPU_ISA unset, here sse41)", id="set=here"),
        pytest.param(THREADS, "threads (intra_op unset, here 1)", id="set=threads"),
        pytest.param({**HERE, "packages": {"numpy": "2.5"}}, "packages", id="set=nothing"),
    ],
)
def test_another_setting_is_named(environment, differs):
    """Other bits under another setting are no fault; of what is on file the most alike is compared, and says which."""
    stored = [STORED, replace(STORED, environment=ELSEWHERE, recorded="2026-11-25")]
    found = golden.compare_digests(replayed(*changed(1, "weights", "head")), SMALL, environment, stored)
    assert (found.status, "hardware" in str(found)) == ("INCONCLUSIVE", False)
    assert f"on 2026-11-24 with other {differs};" in found.evidence


def test_other_bits_with_the_same_setting_fail():
    """Digests recorded with a setting hold for it: other bits fail, and the setting is beside them."""
    stored = [STORED, replace(STORED, environment=SETTING)]
    found = golden.compare_digests(replayed(*changed(1, "weights", "head")), SMALL, SETTING, stored)
    assert (found.status, found.evidence) == ("FAIL", "both with ONEDNN_MAX_CPU_ISA=sse41")


@pytest.mark.parametrize("order", [1, -1], ids=["last=gpu", "last=cpu"])
def test_another_processor_is_compared_with_a_processor(order):
    """Of other environments on file, one of the same kind is compared: a GPU's rounding is another."""
    gpu = replace(STORED, environment={"packages": {}, "settings": {}, "gpu": "NVIDIA H100"}, recorded="2026-11-26")
    stored = [replace(STORED, environment=ELSEWHERE), gpu][::order]
    assert "on 2026-11-24 with" in golden.compare_digests(replayed(*STEPS), SMALL, HERE, stored).evidence


@pytest.mark.parametrize(
    ("task", "config"),
    [
        pytest.param({}, replace(SMALL, precision="mixed_bfloat16"), id="config=precision"),
        pytest.param({}, replace(SMALL, seed=1), id="config=seed"),
        pytest.param({}, replace(SMALL, side=99), id="config=side"),
        pytest.param({}, replace(SMALL, steps=3), id="config=steps"),
        pytest.param({"batch": 16}, SMALL, id="recorded=batch"),
        pytest.param({"backend": "another"}, SMALL, id="recorded=backend"),
        pytest.param({"determinism": False}, SMALL, id="recorded=determinism"),
    ],
)
def test_another_task_is_not_compared(task, config):
    """Digests of anything else than what was replayed are as good as none, whatever their bits."""
    found = golden.compare_digests(replayed(*STEPS), config, HERE, [replace(STORED, task=TASK | task)])
    assert (found.status, found.message) == ("INCONCLUSIVE", "no digests are on file for this task")


def test_nothing_on_file():
    """Without a record it is inconclusive, with the command that makes one."""
    found = golden.compare_digests(replayed(*STEPS), SMALL, HERE, [])
    assert (found.status, found.fix.startswith(UPDATE)) == ("INCONCLUSIVE", True)


def test_replay_without_digests():
    """A replay that failed has nothing to compare: inconclusive, and no second failure."""
    failed = Finding("replay", "FAIL", "it hangs", device="gpu:1", precision="tf32", kind="crash")
    found = golden.compare_digests(failed, SMALL, HERE, [STORED])
    assert (found.status, found.device, found.precision) == ("INCONCLUSIVE", "gpu:1", "tf32")
    assert found.fix == "fix that check first"


def test_file_is_read(tmp_path):
    """What is written is read back; no file holds no digests; no half-written file stays beside it."""
    path = tmp_path / "references" / "digests.json"
    assert golden.read_digests(path) == []
    golden.update_digests(path, replayed(*STEPS), SMALL, HERE)
    assert golden.read_digests(path) == [replace(STORED, recorded=DAY)]
    assert [each.name for each in path.parent.iterdir()] == ["digests.json"]
    path.write_text(ON_FILE)
    step = StepDigest("0x1p0", {"head": "g"}, {"head": "w"})
    assert golden.read_digests(path) == [Golden({"steps": 1}, {"cpu": "x"}, "2026-11-24", [step])]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="file=empty"),
        pytest.param(ON_FILE[:100], id="file=truncated"),
        pytest.param("[]", id="file=list"),
        pytest.param('{"results": []}', id="file=another"),
        pytest.param(ON_FILE.replace('"recorded"', '"day"'), id="entry=another"),
        pytest.param(ON_FILE.replace('"recorded"', '"more": 1, "recorded"'), id="entry=more"),
        pytest.param(ON_FILE.replace('"gradients"', '"more": 1, "gradients"'), id="step=more"),
        pytest.param(ON_FILE.replace('"gradients"', '"slopes"'), id="step=another"),
        pytest.param(ON_FILE.replace('"steps": 1', '"steps": 2'), id="step=missing"),
    ],
)
def test_damaged_file_is_named(tmp_path, text):
    """A damaged file is never taken for one without digests: it is named, with the command that fixes it."""
    path = tmp_path / "digests.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"restore {path}, or remove it"):
        golden.read_digests(path)


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    """Whatever ends a write, the file is the old one or the new one."""
    path = tmp_path / "digests.json"
    golden.update_digests(path, replayed(*STEPS), SMALL, HERE)

    def full(self, text, **_):
        with self.open("w") as file:
            file.write(text[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        golden.update_digests(path, replayed(*STEPS), SMALL, ELSEWHERE)
    assert golden.read_digests(path) == [replace(STORED, recorded=DAY)]


def test_update_replaces_its_own(tmp_path):
    """A new record takes the place of the one of the same task and environment, and of no other."""
    path, steps = tmp_path / "digests.json", changed(1, "weights", "head")
    bfloat16 = replace(SMALL, precision="mixed_bfloat16")
    for config, environment in ((SMALL, ELSEWHERE), (SMALL, HERE), (bfloat16, HERE)):
        golden.update_digests(path, replayed(*STEPS), config, environment)
    golden.update_digests(path, replayed(*steps), SMALL, HERE)
    assert golden.read_digests(path) == [
        replace(STORED, environment=ELSEWHERE, recorded=DAY),
        replace(STORED, task={**TASK, "precision": "mixed_bfloat16"}, recorded=DAY),
        Golden(TASK, HERE, DAY, [StepDigest(**step) for step in steps]),
    ]


def test_committed_digests():
    """The file in the repository can be read, and has a digest of each of 16 gradients and weights at each step."""
    stored = golden.read_digests(DIGESTS)
    assert stored
    for each in stored:
        assert len(each.steps) == each.task["steps"] == 3
        for step in each.steps:
            assert (len(step.gradients), len(step.weights)) == (16, 16)
