"""An examination asks each device in children of its own, in the order planned, and a child that dies is an answer."""

import json
from dataclasses import replace
from threading import Barrier

import pytest

from alexnet_repro.backend import determinism
from alexnet_repro.backend import memory as backend_memory
from alexnet_repro.verify import subprocesses as child
from alexnet_repro.verify.checks import registry as plan
from alexnet_repro.verify.checks import run
from alexnet_repro.verify.checks import runner as module
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.registry import Check, CheckId
from alexnet_repro.verify.checks.runner import CheckRunner
from alexnet_repro.verify.finding import Finding
from tests.helpers.machines import TWO, box

CONFIG = CheckConfig(side=67, steps=2, replays=2)
SHAPES, PAIRS, LAYERS, REPLAY = (
    CheckId("shapes"),
    CheckId("image_labels"),
    CheckId("layers", "tf32"),
    CheckId("replay", "tf32"),
)
PLANNED = {"gpu:0": [SHAPES, LAYERS, REPLAY, PAIRS], "gpu:1": [SHAPES]}
HERE = box(*TWO)
SCRIPT = """\
import json, os, signal, sys
options = json.loads(sys.argv[1])
for name in sys.argv[2:]:
    if name == "image_labels":
        print("E0000 00:00:1795527018.296294 10993 x.cc:52] failed call to cuInit", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    said = f"{options['subject']['device']} {options['deterministic']}"
    print(json.dumps({"check": name.split()[0], "status": "PASS", "message": said}))
"""


class Children:
    """Stands in for `check_device`: `started` is what each child was asked, `answered` what came of it, in order."""

    def __init__(self):
        self.started, self.answered, self.statuses = [], [], {}

    def __call__(self, config, checks, *, deterministic, deadline, environ=None):
        self.started.append((config.device, list(map(str, checks)), deterministic, environ))
        assert (config.side, deadline) == (67, 30)
        for check in checks:
            self.answered.append((config.device, str(check)))
            status = self.statuses.get(str(check), "PASS")
            yield Finding(check.check, status, "said", device=config.device, precision=check.precision)


@pytest.fixture
def children(monkeypatch):
    """The children that are started."""
    children = Children()
    monkeypatch.setattr(module, "check_device", children)
    monkeypatch.setattr(module.keras.backend, "backend", lambda: "tensorflow")  # JAX has a child more
    return children


def asked(children):
    """Return which device each child was asked what, and whether determinism was on."""
    return [each[:3] for each in children.started]


def test_one_child_a_device_and_kind(children):
    """Each device has one child for what is planned, another for what must be deterministic; each answers in order."""
    runner = CheckRunner(CONFIG, PLANNED, HERE, 30)
    found = [runner.find("gpu:0", check) for check in PLANNED["gpu:0"]]
    found.append(runner.find("gpu:1", SHAPES))
    assert asked(children) == [
        ("gpu:0", ["shapes", "layers tf32", "image_labels"], False),
        ("gpu:0", ["replay tf32"], True),
        ("gpu:1", ["shapes"], False),
    ]
    assert [(each.device, each.check, each.precision) for each in found] == [
        ("gpu:0", "shapes", ""),
        ("gpu:0", "layers", "tf32"),
        ("gpu:0", "replay", "tf32"),
        ("gpu:0", "image_labels", ""),
        ("gpu:1", "shapes", ""),
    ]
    assert runner.found == found


@pytest.mark.parametrize("device", ["cpu:0", "gpu:0"])
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_layers_on_jax(children, monkeypatch, backend, device):
    """XLA doesn't choose kernels of single layers by timing; what is compiled for training has a child that does."""
    monkeypatch.setattr(module.keras.backend, "backend", lambda: backend)
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/here")
    runner = CheckRunner(CONFIG, {device: [SHAPES, LAYERS, PAIRS]}, HERE, 30)
    for check in (SHAPES, LAYERS, PAIRS):
        runner.find(device, check)
    flags = {tuple(names): environ.get("XLA_FLAGS") for _, names, _, environ in children.started}
    if (backend, device) == ("jax", "gpu:0"):
        assert flags == {
            ("shapes", "image_labels"): None,
            ("layers tf32",): "--xla_dump_to=/here --xla_gpu_autotune_level=0",
        }
    else:
        assert flags == {("shapes", "layers tf32", "image_labels"): None}


def test_each_check_is_asked_once_and_when_needed(children):
    """A finding comes as soon as its check has answered, and is remembered."""
    runner = CheckRunner(CONFIG, PLANNED, HERE, 30)
    first = runner.find("gpu:0", LAYERS)
    assert children.answered == [("gpu:0", "shapes"), ("gpu:0", "layers tf32")]
    assert runner.find("gpu:0", LAYERS) is first
    runner.find("gpu:0", SHAPES)
    assert len(children.answered) == 2


def test_what_was_not_planned_is_asked_too(children):
    """Any check can be asked for, before or after the planned ones, which are still asked in one child."""
    runner = CheckRunner(CONFIG, PLANNED, HERE, 30)
    copies = runner.find("gpu:0", CheckId("copies"))
    assert (copies.check, copies.device) == ("copies", "gpu:0")
    for check in (SHAPES, LAYERS, PAIRS):
        runner.find("gpu:0", check)
    runner.find("gpu:0", CheckId("resize"))
    assert asked(children) == [
        ("gpu:0", ["copies"], False),
        ("gpu:0", ["shapes", "layers tf32", "image_labels"], False),
        ("gpu:0", ["resize"], False),
    ]


def test_findings_are_attributed(children):
    """A failure that follows from another on the same device is in doubt; the first one is the failure."""
    children.statuses = {"shapes": "FAIL", "layers tf32": "FAIL"}
    runner = CheckRunner(CONFIG, PLANNED, HERE, 30)
    assert runner.find("gpu:0", LAYERS).status == "INCONCLUSIVE"
    assert [each.status for each in runner.found] == ["FAIL", "INCONCLUSIVE"]


@pytest.mark.parametrize(
    ("check", "deterministic"),
    [("replay tf32", True), ("digest float32", True), ("layers tf32", False), ("learning float32", False),
     ("memory", False), ("overhead xla=on float32", False)],
)  # fmt: skip
def test_determinism_is_on_where_bits_are_compared(children, monkeypatch, check, deterministic):
    """Replays and digests have it, with the variables that it needs; nothing else pays for it."""
    monkeypatch.setattr(module, "determinism_variables", lambda: {"XLA_FLAGS": "--deterministic"})
    CheckRunner(CONFIG, {}, HERE, 30).find("gpu:0", CheckId.parse(check))
    ((_, asked, with_determinism, environ),) = children.started
    assert (asked, with_determinism) == ([check], deterministic)
    assert environ.get("XLA_FLAGS") == ("--deterministic" if deterministic else None)


def test_devices_run_at_the_same_time(children, monkeypatch):
    """Digests of several devices are computed all at once: each child waits here until the other runs too."""
    both = Barrier(2, timeout=10)

    def meeting(*arguments, **options):
        both.wait()
        yield from children(*arguments, **options)

    monkeypatch.setattr(module, "check_device", meeting)
    found = CheckRunner(CONFIG, PLANNED, HERE, 30).digests(["cpu:0", "gpu:1"], "digest")
    assert {device: [(each.check, each.device) for each in by_precision.values()]
            for device, by_precision in found.items()} == {
        "cpu:0": [("digest", "cpu:0")] * 2, "gpu:1": [("digest", "gpu:1")] * 4,
    }  # fmt: skip
    assert list(found["gpu:1"]) == ["float32", "tf32", "mixed_bfloat16", "mixed_float16"]
    assert {(each[0], each[2]) for each in children.started} == {("cpu:0", True), ("gpu:1", True)}


def test_each_run_of_digests_is_new(children):
    """Digests are never those of an earlier run."""
    runner = CheckRunner(CONFIG, PLANNED, HERE, 30)
    for _ in range(2):
        runner.digests(["cpu:0"], "digest")
    assert asked(children) == [("cpu:0", ["digest float32", "digest mixed_bfloat16"], True)] * 2


def test_matrix_has_every_cell(children):
    """The price of determinism, precision and XLA is that of each combination."""
    cells = CheckRunner(CONFIG, {}, HERE, 30).matrix("cpu:0")
    assert {cell: finding.check for cell, finding in cells.items()} == {
        (determinism, precision, xla): f"overhead xla={xla}"
        for determinism in ("off", "on")
        for precision in ("float32", "mixed_bfloat16")
        for xla in ("off", "on")
    }
    assert [(len(checks), deterministic) for _, checks, deterministic, _ in children.started] == [(4, False), (4, True)]


def test_copies_between_gpus_see_all_of_them(children):
    """The child that copies between GPUs is the one that is shown more than one."""
    assert CheckRunner(CONFIG, PLANNED, HERE, 30).between_gpus().check == "gpu_to_gpu_copies"
    assert children.started == [("gpu:0", ["gpu_to_gpu_copies"], False, None)]


@pytest.mark.parametrize(
    ("visible", "device", "shown"),
    [
        pytest.param(None, "cpu:0", "-1", id="device=cpu:0"),
        pytest.param("GPU-b,GPU-a", "cpu:0", "-1", id="device=cpu:0-visible=named"),
        pytest.param(None, "gpu:1", "1", id="device=gpu:1"),
        pytest.param("GPU-b,GPU-a", "gpu:0", "GPU-b", id="device=gpu:0-visible=named"),
        pytest.param("3,1", "gpu:1", "1", id="device=gpu:1-visible=numbers"),
    ],
)
def test_child_sees_its_device_alone(children, visible, device, shown):
    """A CPU's child sees no GPU; a GPU's sees that one, by the name that the user chose it by."""
    settings = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    CheckRunner(CONFIG, {}, replace(HERE, settings=settings), 30).find(device, SHAPES)
    ((_, _, _, environ),) = children.started
    assert environ["CUDA_VISIBLE_DEVICES"] == shown


def test_child_that_is_killed_is_one_failure(monkeypatch, tmp_path):
    """What kills the child is that check's failure, with what was said; the rest is asked of another child."""
    (tmp_path / "child_for_test.py").write_text(SCRIPT)
    monkeypatch.setattr(run, "each", lambda _module, *arguments: child.each("child_for_test", *arguments))
    config, environ = replace(CONFIG, device="gpu:3"), {"PYTHONPATH": str(tmp_path)}
    asked = [SHAPES, PAIRS, LAYERS]
    found = list(run.check_device(config, asked, deterministic=True, deadline=60, environ=environ))
    assert [(each.check, each.precision, each.device, each.status) for each in found] == [
        ("shapes", "", "gpu:3", "PASS"),
        ("image_labels", "", "gpu:3", "FAIL"),
        ("layers", "tf32", "gpu:3", "PASS"),
    ]
    assert {found[0].message, found[2].message} == {"gpu:0 True"}  # the one GPU that it sees is its first
    assert (found[1].evidence, found[1].kind) == ("ended by SIGKILL; failed call to cuInit", "crash")


def _wrong(_subject):
    raise ArithmeticError("7 of 9")


@pytest.mark.parametrize("deterministic", [False, True])
def test_child_stops_after_an_error(monkeypatch, capsys, deterministic):
    """A failure is no reason to stop; an error, which may stick to the device, is. Determinism is on if asked for."""
    called = []
    monkeypatch.setattr(backend_memory, "enable_memory_growth", lambda: called.append("growth"))
    monkeypatch.setattr(determinism, "enable_determinism", lambda: called.append("determinism"))
    monkeypatch.setitem(plan.ALL, "shapes", Check(lambda _: Finding("shapes", "FAIL", "not documented")))
    monkeypatch.setitem(plan.ALL, "layers", Check(_wrong))
    options = {"deterministic": deterministic, "subject": {"device": "gpu:0", "side": 67}}
    run.main(json.dumps(options), ["shapes", "layers tf32", "image_labels"])
    shapes, layers = (Finding(**json.loads(line)) for line in capsys.readouterr().out.splitlines())
    assert (shapes.check, shapes.message, shapes.device) == ("shapes", "not documented", "gpu:0")
    assert (layers.check, layers.precision, layers.evidence) == ("layers", "tf32", "ArithmeticError: 7 of 9")
    assert called == (["growth", "determinism"] if deterministic else ["growth"])


@pytest.mark.slow
def test_this_processor_passes():
    """Real checks, in a real child, pass here."""
    asked, environ = [SHAPES, CheckId("resize")], {"CUDA_VISIBLE_DEVICES": "-1"}
    found = list(run.check_device(CONFIG, asked, deterministic=False, deadline=180, environ=environ))
    assert [(each.check, each.status) for each in found] == [("shapes", "PASS"), ("resize", "PASS")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("deadline", "backend", "evidence"),
    [
        pytest.param(0.2, None, "no answer within 0.2 s", id="child=slow"),
        pytest.param(60, "nowhere", "exit status 1", id="child=without-backend"),
    ],
)
def test_child_that_does_not_answer_fails(deadline, backend, evidence):
    """A real child that is too slow, or can't even start, is a failure of each check that it was asked."""
    environ = {"KERAS_BACKEND": backend} if backend else {}
    asked = [SHAPES, CheckId("resize")]
    found = list(run.check_device(CONFIG, asked, deterministic=False, deadline=deadline, environ=environ))
    assert [(each.check, each.status) for each in found] == [("shapes", "FAIL"), ("resize", "FAIL")]
    assert all(each.evidence.startswith(evidence) for each in found)
