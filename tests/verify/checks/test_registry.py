"""Every check in every precision has a name, one cause is one failure, and an exception is a finding."""

from dataclasses import replace

import pytest

from alexnet_repro.verify.checks import registry
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.registry import (
    ALL_CHECKS,
    CORRECT,
    REPEATABLE,
    CheckId,
    DeviceCheck,
    attributed,
    crashed,
    expand,
    in_names_of,
    run_check,
    with_log,
)
from alexnet_repro.verify.finding import Finding

CONFIG = CheckConfig(device="gpu:1", side=67, steps=2, replays=2)
ON_GPU = ("float32", "tf32", "mixed_float16", "mixed_bfloat16")


class ResourceExhaustedError(Exception):
    """TensorFlow's."""


def failed(check, precision="", device="gpu:0", **data):
    """Return a failure."""
    return Finding(check, "FAIL", "wrong", "off by 1", "replace it", device, precision, data=data)


@pytest.mark.parametrize("precision", ["", *ON_GPU])
@pytest.mark.parametrize("check", list(ALL_CHECKS))
def test_name_is_parsed(check, precision):
    """A check's name, in any precision, is parsed to the same check by the child."""
    assert CheckId.parse(str(CheckId(check, precision))) == CheckId(check, precision)


@pytest.mark.parametrize(
    ("check", "precision", "name"),
    [
        ("shapes", "", "shapes"),
        ("layers", "tf32", "layers tf32"),
        ("gpu_to_gpu_copies", "mixed_float16", "gpu_to_gpu_copies mixed_float16"),
    ],
)
def test_names(check, precision, name):
    """A name is the check, then the precision if there is one."""
    assert str(CheckId(check, precision)) == name


@pytest.fixture
def backend(monkeypatch):
    """A function that sets Keras's backend; until it is called, TensorFlow, whatever runs here."""

    def choose(name):
        monkeypatch.setattr(registry.keras.backend, "backend", lambda: name)

    choose("tensorflow")
    return choose


@pytest.mark.usefixtures("backend")
def test_checks_of_a_cpu():
    """A CPU is checked in float32 and bfloat16, each check after those it depends on."""
    assert list(map(str, expand(CORRECT, "cpu:0"))) == [
        "shapes",
        "image_labels",
        "pipeline",
        "resize",
        "copies",
        "layers float32",
        "layers mixed_bfloat16",
        "compiled_layers float32",
        "compiled_layers mixed_bfloat16",
        "update float32",
        "update mixed_bfloat16",
        "dropout",
        "learning float32",
        "learning mixed_bfloat16",
        "checkpoint",
    ]


@pytest.mark.usefixtures("backend")
def test_checks_of_a_gpu():
    """A GPU is checked in TensorFloat-32 and float16 too."""
    checks = ("layers", "compiled_layers", "update", "learning")
    names = [f"{check} {precision}" for check in checks for precision in ON_GPU]
    assert [str(each) for each in expand(CORRECT, "gpu:7") if each.precision] == names
    assert list(map(str, expand(REPEATABLE, "gpu:0"))) == [f"replay {precision}" for precision in ON_GPU]


@pytest.mark.parametrize(("name", "compiled"), [("tensorflow", True), ("jax", True), ("torch", False)])
def test_what_is_compiled_is_checked(backend, name, compiled):
    """Layers are compiled and checked where training has a compiler: not on PyTorch."""
    backend(name)
    found = {each.check for each in expand(CORRECT, "gpu:0")}
    assert found == set(CORRECT) - (set() if compiled else {"compiled_layers"})


def test_dependencies_come_first():
    """What a check depends on is there, and runs before it."""
    for number, check in enumerate(ALL_CHECKS):
        assert set(ALL_CHECKS[check].depends_on) <= set(list(ALL_CHECKS)[:number])


@pytest.mark.parametrize(
    ("finding", "message"),
    [
        pytest.param(failed("layers", "float32"), "shapes", id="finding=layers"),
        pytest.param(failed("compiled_layers", "tf32"), "layers tf32", id="finding=compiled_layers"),
        pytest.param(failed("update", "mixed_bfloat16"), "layers mixed_bfloat16", id="finding=update"),
        pytest.param(failed("update", "tf32"), "compiled_layers tf32", id="finding=update-earlier=compiled"),
        pytest.param(failed("dropout"), "layers float32", id="finding=dropout"),
    ],
)
def test_failure_that_follows_is_inconclusive(finding, message):
    """A failure that depends on an earlier one names it, and is inconclusive."""
    check, _, precision = message.partition(" ")
    found = attributed(finding, [failed("image_labels"), failed(check, precision)])
    assert (found.status, found.message) == ("INCONCLUSIVE", f"caused by failed check '{message}': wrong")
    assert (found.check, found.precision, found.evidence) == (finding.check, finding.precision, "off by 1")
    assert found.fix == "fix that check first"


@pytest.mark.parametrize(
    ("finding", "earlier"),
    [
        pytest.param(failed("layers", "tf32"), failed("shapes", device="gpu:1"), id="earlier=another-device"),
        pytest.param(failed("update", "tf32"), failed("layers", "float32"), id="earlier=another-precision"),
        pytest.param(failed("dropout"), failed("layers", "mixed_float16"), id="earlier=not-float32"),
        pytest.param(failed("layers", "tf32"), failed("image_labels"), id="earlier=unrelated"),
        pytest.param(failed("shapes"), failed("layers", "float32"), id="earlier=depends-on-it"),
        pytest.param(failed("layers", "tf32"), replace(failed("shapes"), status="PASS"), id="earlier=passed"),
        pytest.param(
            failed("layers", "tf32"), replace(failed("shapes"), status="INCONCLUSIVE"), id="earlier=inconclusive"
        ),
        pytest.param(replace(failed("layers", "tf32"), kind="crash"), failed("shapes"), id="finding=crash"),
        pytest.param(replace(failed("layers", "tf32"), status="PASS"), failed("shapes"), id="finding=passed"),
    ],
)
def test_failure_of_its_own_stays_one(finding, earlier):
    """A failure from any other cause, or a crash, stays a failure."""
    assert attributed(finding, [earlier]) == finding


def test_one_cause_is_one_failure():
    """A second check that dies of what is the machine's, on any device, is caused by the first; a hang is its own."""
    flags = ("exit status 1", "Unknown flag in XLA_FLAGS: --bogus", "cpu:0")
    first = replace(crashed("layers", *flags), device="cpu:0", precision="float32")
    for device in ("cpu:0", "gpu:1"):
        second = replace(crashed("update", *flags), device=device)
        found = attributed(second, [first])
        message = "as 'layers float32' of cpu:0: XLA_FLAGS has --bogus, which this version doesn't know"
        assert (found.status, found.message, found.fix) == ("INCONCLUSIVE", message, first.fix)
        assert attributed(second, [failed("layers"), found]) == second
    for how in ("no answer within 9 s", "ended by SIGSEGV", "RuntimeError: CUDA error: uncorrectable ECC error"):
        earlier, later = (replace(crashed(check, how, "", "gpu:0"), device="gpu:0") for check in ("layers", "update"))
        assert attributed(later, [earlier]) == later


def test_what_a_child_logged_explains_its_error():
    """An error that a child answers with is explained by what it logged; what is no crash stays as it is."""
    log = "Loaded runtime CuDNN library: 9.1.0 but source was compiled with: 9.3.0."
    answered = replace(crashed("layers", ValueError("DNN library is not found."), device="gpu:0"), precision="tf32")
    found = with_log(answered, log, "gpu:0")
    assert (found.message, found.precision, found.data["cause"]) == (
        "cuDNN 9.1.0 is loaded, and this version was compiled with 9.3.0",
        *("tf32", "cudnn version"),
    )
    assert found.evidence.startswith(f"ValueError: DNN library is not found.; {log}; found as ")
    assert with_log(failed("layers"), log, "gpu:0") == failed("layers")


@pytest.mark.parametrize(
    ("devices", "text", "named"),
    [
        (["gpu:3"], "lies on cpu:0, should be on gpu:0", "lies on cpu:0, should be on gpu:3"),
        (["gpu:0", "gpu:2"], "from gpu:1 to gpu:0", "from gpu:2 to gpu:0"),
        (["gpu:1"], "on gpu:10, gpu:7", "on gpu:10, gpu:7"),
        (["cpu:0"], "on gpu:0", "on gpu:0"),
    ],
)
def test_names_of_a_child_are_those_here(devices, text, named):
    """A GPU that a child sees as its first has the name that it has here, in message and evidence."""
    found = in_names_of(devices, Finding("copies", "FAIL", text, text))
    assert found == Finding("copies", "FAIL", named, named)


@pytest.mark.parametrize(
    ("check", "in_precision"),
    [
        pytest.param(CheckId("shapes"), "float32", id="check=shapes"),
        pytest.param(CheckId("layers", "tf32"), "tf32", id="check=layers"),
    ],
)
def test_check_runs_in_its_precision(monkeypatch, check, in_precision):
    """The config has the check's precision, or float32; the finding has the name, device and precision."""
    configs = []

    def note(config):
        configs.append(config)
        return Finding("inner name", "PASS", "right")

    monkeypatch.setitem(registry.ALL_CHECKS, check.check, DeviceCheck(note))
    found = run_check(check, replace(CONFIG, precision="mixed_bfloat16"))
    assert configs == [replace(CONFIG, precision=in_precision)]
    assert found == Finding(check.check, "PASS", "right", device="gpu:1", precision=check.precision)


@pytest.mark.parametrize(
    ("error", "message", "fix"),
    [
        pytest.param(ArithmeticError("7\n of   9"), "layers crashed or timed out", "doctor", id="error=any"),
        pytest.param(ResourceExhaustedError("7 of 9"), "the device ran out of memory", "nvidia-smi", id="error=memory"),
    ],
)
def test_exception_is_the_finding(monkeypatch, error, message, fix):
    """An exception is the check's failure, in one line, with a fix; memory that is full is named."""

    def fails(_config):
        raise error

    monkeypatch.setitem(registry.ALL_CHECKS, "layers", DeviceCheck(fails))
    found = run_check(CheckId("layers", "tf32"), CONFIG)
    assert (found.check, found.status, found.device, found.precision) == ("layers", "FAIL", "gpu:1", "tf32")
    assert (found.message, found.evidence) == (message, f"{type(error).__name__}: 7 of 9")
    assert fix in found.fix
    assert found.kind == "crash"


def test_evidence_of_a_crash():
    """A text is kept as it is; a long error is cut."""
    assert crashed("memory", "ended by SIGSEGV").evidence == "ended by SIGSEGV"
    assert len(crashed("memory", ValueError("x" * 9999)).evidence) == len("ValueError: ") + 500
