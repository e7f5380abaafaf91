"""Each device's checks run in children of its own, in the order planned, and a child that dies is a finding."""

import json
from dataclasses import replace
from threading import Barrier

import pytest

from alexnet_repro.verify import subprocesses
from alexnet_repro.verify.checks import registry
from alexnet_repro.verify.checks import runner as module
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.registry import CheckId, DeviceCheck
from alexnet_repro.verify.checks.runner import CheckRunner, run_in_child
from alexnet_repro.verify.finding import Finding
from tests.helpers.machines import TWO, box

CONFIG = CheckConfig(side=67, steps=2, replays=2)
SHAPES, IMAGE_LABELS, LAYERS, REPLAY = (
    CheckId("shapes"),
    CheckId("image_labels"),
    CheckId("layers", "tf32"),
    CheckId("replay", "tf32"),
)
PLANNED = {"gpu:0": [SHAPES, LAYERS, REPLAY, IMAGE_LABELS], "gpu:1": [SHAPES]}
HERE = box(*TWO)
SCRIPT = """\
import json, os, signal, sys
def main(options, *names):
    given = json.loads(options)
    for name in names:
        if name == "image_labels":
            print("E0000 00:00:1795527018.296294 10993 x.cc:52] failed call to cuInit", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        device = given["config"]["device"]
        message = f"sees {device.replace(':', ' ')}, {given['deterministic']}, on {device}"
        yield name, {"check": name.split()[0], "status": "PASS", "message": message}
"""


class Children:
    """Stands in for `run_in_child`: `started` is what each child was given, `answered` what came of it, in order."""

    def __init__(self):
        self.started, self.answered, self.statuses, self.alive, self.most = [], [], {}, 0, 0
        self.message, self.evidence, self.data = "well", "", {}

    def __call__(self, config, checks, *, deterministic, deadline, environ=None):
        self.started.append((config.device, list(map(str, checks)), deterministic, environ))
        assert (config.side, deadline) == (67, 30)
        self.alive += 1
        self.most = max(self.most, self.alive)
        try:
            for check in checks:
                self.answered.append((config.device, str(check)))
                status = self.statuses.get(str(check), "PASS")
                named = {"device": config.device, "precision": check.precision}
                yield Finding(check.check, status, self.message, self.evidence, data=self.data, **named)
        finally:
            self.alive -= 1


@pytest.fixture
def children(monkeypatch):
    """The children that are started."""
    children = Children()
    monkeypatch.setattr(module, "run_in_child", children)
    monkeypatch.setattr(module.keras.backend, "backend", lambda: "tensorflow")  # JAX has a child more
    return children


def started(children):
    """Return each child's device and checks, and whether determinism was on."""
    return [each[:3] for each in children.started]


@pytest.mark.parametrize(
    ("settings", "evidence", "fix"),
    [
        pytest.param({}, "", "", id="set=nothing"),
        pytest.param({"TF_ENABLE_ONEDNN_OPTS": "1"}, "", "", id="set=default"),
        pytest.param({"TF_ENABLE_ONEDNN_OPTS": "off"}, "", "", id="set=without effect"),
        pytest.param(
            {"TF_USE_CUBLASLT": "off"}, "with TF_USE_CUBLASLT=off", "run it without TF_USE_CUBLASLT", id="set=fatal"
        ),
        pytest.param(
            {"DNNL_MAX_CPU_ISA": "SSE41", "TF_NUM_INTRAOP_THREADS": "1"},
            "with TF_NUM_INTRAOP_THREADS=1, DNNL_MAX_CPU_ISA=SSE41",
            "run it without TF_NUM_INTRAOP_THREADS, DNNL_MAX_CPU_ISA",
            id="set=two",
        ),
    ],
)
def test_settings_are_beside_a_failure(children, settings, evidence, fix):
    """A check that fails while a setting changes numbers names it before anything else; one that passes doesn't."""
    children.statuses["shapes"] = "FAIL"
    runner = CheckRunner(CONFIG, PLANNED, replace(HERE, settings=settings), 30)
    failed, passed = runner.result("gpu:0", SHAPES), runner.result("gpu:0", IMAGE_LABELS)
    assert (failed.status, failed.evidence, failed.fix) == ("FAIL", evidence, fix)
    assert (passed.status, passed.evidence) == ("PASS", "")


def test_one_child_per_device_and_kind(children):
    """A device has one child for what follows each other, another for what must be deterministic, one at a time."""
    runner = CheckRunner(CONFIG, PLANNED, HERE, 30)
    found = [runner.result("gpu:0", check) for check in PLANNED["gpu:0"]]
    found.append(runner.result("gpu:1", SHAPES))
    assert started(children) == [
        ("gpu:0", ["shapes", "layers tf32"], False),
        ("gpu:0", ["replay tf32"], True),
        ("gpu:0", ["image_labels"], False),
        ("gpu:1", ["shapes"], False),
    ]
    assert children.most == 1
    assert [(each.device, each.check, each.precision) for each in found] == [
        ("gpu:0", "shapes", ""),
        ("gpu:0", "layers", "tf32"),
        ("gpu:0", "replay", "tf32"),
        ("gpu:0", "image_labels", ""),
        ("gpu:1", "shapes", ""),
    ]
    assert runner.results == found


@pytest.mark.parametrize("device", ["cpu:0", "gpu:0"])
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_layers_on_jax(children, monkeypatch, backend, device):
    """XLA doesn't choose kernels of single layers by timing there; what else is compiled has a child that does."""
    monkeypatch.setattr(module.keras.backend, "backend", lambda: backend)
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/here")
    runner = CheckRunner(CONFIG, {device: [SHAPES, LAYERS, IMAGE_LABELS]}, HERE, 30)
    for check in (SHAPES, LAYERS, IMAGE_LABELS):
        runner.result(device, check)
    flags = {tuple(names): environ.get("XLA_FLAGS") for _, names, _, environ in children.started}
    if (backend, device) == ("jax", "gpu:0"):
        assert flags == {
            ("shapes",): None,
            ("layers tf32",): "--xla_dump_to=/here --xla_gpu_autotune_level=0",
            ("image_labels",): None,
        }
    else:
        assert flags == {("shapes", "layers tf32", "image_labels"): None}


@pytest.mark.parametrize(
    ("device", "precision", "flags"),
    [
        pytest.param("gpu:0", "float32", "--xla_gpu_autotune_level=0", id="device=gpu:0-precision=float32"),
        pytest.param("gpu:0", "tf32", "--xla_gpu_autotune_level=0", id="device=gpu:0-precision=tf32"),
        pytest.param("gpu:0", "mixed_bfloat16", None, id="device=gpu:0-precision=mixed_bfloat16"),
        pytest.param("cpu:0", "float32", None, id="device=cpu:0-precision=float32"),
    ],
)
def test_compiled_layers(children, monkeypatch, device, precision, flags):
    """XLA chooses kernels of compiled layers by timing in bfloat16 alone, as in training; transforms are off."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    CheckRunner(CONFIG, {}, HERE, 30).result(device, CheckId("compiled_layers", precision))
    ((_, _, deterministic, environ),) = children.started
    assert not deterministic
    off = "0" if device == "gpu:0" else None  # a CPU has no cuDNN
    assert (environ.get("XLA_FLAGS"), environ.get("TF_ENABLE_WINOGRAD_NONFUSED")) == (flags, off)


def test_each_check_runs_once_and_when_needed(children):
    """A finding is there as soon as its check is done, and is kept."""
    runner = CheckRunner(CONFIG, PLANNED, HERE, 30)
    first = runner.result("gpu:0", LAYERS)
    assert children.answered == [("gpu:0", "shapes"), ("gpu:0", "layers tf32")]
    assert runner.result("gpu:0", LAYERS) is first
    runner.result("gpu:0", SHAPES)
    assert len(children.answered) == 2


def test_unplanned_checks_run_too(children):
    """Any check can run, before or after the planned ones, which still share children."""
    runner = CheckRunner(CONFIG, PLANNED, HERE, 30)
    copies = runner.result("gpu:0", CheckId("copies"))
    assert (copies.check, copies.device) == ("copies", "gpu:0")
    for check in (SHAPES, LAYERS, IMAGE_LABELS):
        runner.result("gpu:0", check)
    runner.result("gpu:0", CheckId("resize"))
    assert started(children) == [
        ("gpu:0", ["copies"], False),
        ("gpu:0", ["shapes", "layers tf32"], False),
        ("gpu:0", ["replay tf32"], True),
        ("gpu:0", ["image_labels"], False),
        ("gpu:0", ["resize"], False),
    ]


def test_findings_are_attributed(children):
    """A failure that follows from another on the same device is inconclusive; the first one is the failure."""
    children.statuses = {"shapes": "FAIL", "layers tf32": "FAIL"}
    runner = CheckRunner(CONFIG, PLANNED, HERE, 30)
    assert runner.result("gpu:0", LAYERS).status == "INCONCLUSIVE"
    assert [each.status for each in runner.results] == ["FAIL", "INCONCLUSIVE"]


@pytest.mark.parametrize(
    ("check", "deterministic"),
    [("replay tf32", True), ("digest float32", True), ("layers tf32", False), ("learning float32", False),
     ("memory", False)],
)  # fmt: skip
def test_determinism_is_on_where_bits_are_compared(children, monkeypatch, check, deterministic):
    """Replays and digests have it, with the variables that it needs; nothing else pays for it."""
    monkeypatch.setattr(module, "determinism_variables", lambda: {"XLA_FLAGS": "--deterministic"})
    CheckRunner(CONFIG, {}, HERE, 30).result("gpu:0", CheckId.parse(check))
    ((_, names, with_determinism, environ),) = children.started
    assert (names, with_determinism) == ([check], deterministic)
    assert environ.get("XLA_FLAGS") == ("--deterministic" if deterministic else None)


def test_cpu_has_one_child(children):
    """A CPU's checks and replays are one child's, which turns determinism on where it comes to them."""
    planned = [SHAPES, LAYERS, CheckId("replay", "float32")]
    runner = CheckRunner(CONFIG, {"cpu:0": planned}, HERE, 30)
    assert [runner.result("cpu:0", check).status for check in planned] == ["PASS"] * 3
    assert started(children) == [("cpu:0", ["shapes", "layers tf32", "replay float32"], False)]


def test_determinism_is_on_from_the_first_replay_on(monkeypatch):
    """What comes before it runs without, as training does; it is turned on once."""
    called = []
    monkeypatch.setattr(module, "enable_memory_growth", lambda: None)
    monkeypatch.setattr(module, "enable_determinism", lambda: called.append("determinism"))
    monkeypatch.setattr(module, "run_check", lambda check, _: called.append(str(check)) or Finding("any", "PASS", ""))
    options = json.dumps({"deterministic": False, "config": {}})
    list(module.main(options, "shapes", "replay float32", "replay mixed_bfloat16"))
    assert called == ["shapes", "determinism", "replay float32", "replay mixed_bfloat16"]


def test_devices_run_at_the_same_time(children, monkeypatch):
    """Digests of several devices are computed all at once: each child waits here until the other runs too."""
    both = Barrier(2, timeout=10)

    def meeting(*arguments, **options):
        both.wait()
        yield from children(*arguments, **options)

    monkeypatch.setattr(module, "run_in_child", meeting)
    found = CheckRunner(CONFIG, PLANNED, HERE, 30).digests(["cpu:0", "gpu:1"])
    assert {device: [(each.check, each.device) for each in by_precision.values()]
            for device, by_precision in found.items()} == {
        "cpu:0": [("digest", "cpu:0")] * 2, "gpu:1": [("digest", "gpu:1")] * 4,
    }  # fmt: skip
    assert list(found["gpu:1"]) == ["float32", "tf32", "mixed_float16", "mixed_bfloat16"]
    assert {(each[0], each[2]) for each in children.started} == {("cpu:0", True), ("gpu:1", True)}


def test_each_run_of_digests_is_new(children):
    """Digests are never those of an earlier run."""
    runner = CheckRunner(CONFIG, PLANNED, HERE, 30)
    for _ in range(2):
        runner.digests(["cpu:0"])
    assert started(children) == [("cpu:0", ["digest float32", "digest mixed_bfloat16"], True)] * 2


def test_overhead_has_two_processes(monkeypatch):
    """Each sees the device alone, and the one with determinism has the variables that it needs."""
    asked = []
    monkeypatch.setattr(module, "determinism_variables", lambda: {"XLA_FLAGS": "--deterministic"})
    monkeypatch.setattr(module, "overhead_cells", lambda *given, **named: asked.append((*given, named)) or ([], []))
    assert CheckRunner(CONFIG, {}, HERE, 30).overhead("gpu:1") == ([], [])
    ((config, environ, deadline, named),) = asked
    assert (config.device, deadline, list(environ), named) == ("gpu:1", 30, [False, True], {"one_process": False})
    assert {each["CUDA_VISIBLE_DEVICES"] for each in environ.values()} == {"1"}
    assert [each.get("XLA_FLAGS") for each in environ.values()] == [None, "--deterministic"]


@pytest.mark.parametrize(("device", "one_process"), [("gpu:0", False), ("gpu:1", True), ("cpu:0", False)])
def test_overhead_of_a_gpu_of_one_process(monkeypatch, device, one_process):
    """The GPU's compute mode says whether its two processes may run at a time."""
    asked = []
    monkeypatch.setattr(module, "overhead_cells", lambda *_, **named: asked.append(named) or ([], []))
    CheckRunner(CONFIG, {}, box(TWO[0], replace(TWO[1], compute_mode=3)), 30).overhead(device)
    assert asked == [{"one_process": one_process}]


def test_overhead_that_crashed_has_settings_beside_it(monkeypatch):
    """A setting that changes numbers is in its evidence, and comes first in its fix."""
    failed = Finding("overhead", "FAIL", "it crashed", fix="the doctor", device="gpu:0")
    monkeypatch.setattr(module, "overhead_cells", lambda *_, **__: ([], [failed]))
    here = box(*TWO, settings={"TF_USE_CUBLASLT": "off"})
    _, (found,) = CheckRunner(CONFIG, {}, here, 30).overhead("gpu:0")
    assert found.evidence == "with TF_USE_CUBLASLT=off"
    assert found.fix == "run it without TF_USE_CUBLASLT; then: the doctor"


@pytest.mark.parametrize(
    ("wanted", "visible", "message"),
    [
        pytest.param((), "0,1,2", "gpu:1 to gpu:0 is well", id="wanted=all"),
        pytest.param(("gpu:0", "gpu:2"), "0,2", "gpu:2 to gpu:0 is well", id="wanted=two of three"),
    ],
)
def test_copies_between_gpus_see_all_of_them(children, wanted, visible, message):
    """They have a child of their own, which sees every GPU that is wanted; the finding has their names here."""
    children.message = children.evidence = "gpu:1 to gpu:0 is well"
    children.data = {"gpus": len(visible.split(","))}
    here = replace(box(*TWO, replace(TWO[0], index=2)), wanted=wanted)
    found = CheckRunner(CONFIG, PLANNED, here, 30).between_gpus()
    assert (found.check, found.status, found.message, found.evidence) == ("gpu_to_gpu_copies", "PASS", message, message)
    environ = {"CUDA_VISIBLE_DEVICES": visible}
    assert children.started == [("gpu:0", ["gpu_to_gpu_copies"], False, environ)]


@pytest.mark.parametrize("seen", [0, 1, 2])
def test_copies_between_fewer_gpus_than_there_are(children, seen):
    """Where the child sees fewer GPUs than are wanted, as of one that was lost, right copies among those don't pass."""
    children.data = {"gpus": seen}
    found = CheckRunner(CONFIG, PLANNED, box(*TWO, replace(TWO[0], index=2)), 30).between_gpus()
    assert (found.status, found.message) == ("FAIL", f"their process saw {seen} of 3 GPUs")
    assert found.fix


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
    CheckRunner(CONFIG, {}, replace(HERE, settings=settings), 30).result(device, SHAPES)
    ((_, _, _, environ),) = children.started
    assert environ["CUDA_VISIBLE_DEVICES"] == shown


def test_child_that_is_killed_is_one_failure(monkeypatch, tmp_path):
    """What kills the child is that check's failure, with what was logged; another child runs the rest."""
    (tmp_path / "child_for_test.py").write_text(SCRIPT)
    monkeypatch.setattr(
        module, "answer_each", lambda _module, *arguments: subprocesses.answer_each("child_for_test", *arguments)
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = replace(CONFIG, device="gpu:3")
    checks = [SHAPES, IMAGE_LABELS, LAYERS]
    found = list(run_in_child(config, checks, deterministic=True, deadline=60))
    assert [(each.check, each.precision, each.device, each.status) for each in found] == [
        ("shapes", "", "gpu:3", "PASS"),
        ("image_labels", "", "gpu:3", "FAIL"),
        ("layers", "tf32", "gpu:3", "PASS"),
    ]
    assert {found[0].message, found[2].message} == {
        "sees gpu 0, True, on gpu:3"
    }  # the one GPU that it sees is its first
    assert found[1].evidence.startswith("ended by SIGKILL; failed call to cuInit; ")
    assert (found[1].kind, found[1].data["cause"]) == ("crash", "killed")


def _wrong(_config):
    raise ArithmeticError("7 of 9")


@pytest.mark.parametrize("deterministic", [False, True])
def test_child_stops_after_an_error(monkeypatch, deterministic):
    """A failure is no reason to stop; an error, which may stick to the device, is. Determinism is on if wanted."""
    called = []
    monkeypatch.setattr(module, "enable_memory_growth", lambda: called.append("growth"))
    monkeypatch.setattr(module, "enable_determinism", lambda: called.append("determinism"))
    monkeypatch.setitem(
        registry.ALL_CHECKS, "shapes", DeviceCheck(lambda _: Finding("shapes", "FAIL", "not documented"))
    )
    monkeypatch.setitem(registry.ALL_CHECKS, "layers", DeviceCheck(_wrong))
    options = {"deterministic": deterministic, "config": {"device": "gpu:0", "side": 67}}
    answers = dict(module.main(json.dumps(options), "shapes", "layers tf32", "image_labels"))
    assert list(answers) == ["shapes", "layers tf32"]
    shapes, layers = (Finding(**answer) for answer in answers.values())
    assert (shapes.check, shapes.message, shapes.device) == ("shapes", "not documented", "gpu:0")
    assert (layers.check, layers.precision, layers.evidence) == ("layers", "tf32", "ArithmeticError: 7 of 9")
    assert called == (["growth", "determinism"] if deterministic else ["growth"])


@pytest.mark.slow
def test_this_processor_passes():
    """Real checks, in a real child, pass here."""
    checks, environ = [SHAPES, CheckId("resize")], {"CUDA_VISIBLE_DEVICES": "-1"}
    found = list(run_in_child(CONFIG, checks, deterministic=False, deadline=180, environ=environ))
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
    """A real child that is too slow, or can't even start, is a failure of each of its checks."""
    environ = {"KERAS_BACKEND": backend} if backend else {}
    checks = [SHAPES, CheckId("resize")]
    found = list(run_in_child(CONFIG, checks, deterministic=False, deadline=deadline, environ=environ))
    assert [(each.check, each.status) for each in found] == [("shapes", "FAIL"), ("resize", "FAIL")]
    assert all(each.evidence.startswith(evidence) for each in found)
