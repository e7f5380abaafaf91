"""The plan: every check in every precision has a name, one cause is one failure, and an error is an answer."""

from dataclasses import replace

import pytest

from alexnet_repro.verify.checks import registry as plan
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.registry import (
    ALL,
    CORRECT,
    REPEATABLE,
    Check,
    CheckId,
    asked,
    attributed,
    crashed,
    run,
)
from alexnet_repro.verify.finding import Finding

CONFIG = CheckConfig(device="gpu:1", side=67, steps=2, replays=2)
ON_GPU = ("float32", "tf32", "mixed_bfloat16", "mixed_float16")


class ResourceExhaustedError(Exception):
    """TensorFlow's."""


def failed(check, precision="", device="gpu:0", **data):
    """Return a failure."""
    return Finding(check, "FAIL", "wrong", "off by 1", "replace it", device, precision, data=data)


@pytest.mark.parametrize("precision", ["", *ON_GPU])
@pytest.mark.parametrize("check", list(ALL))
def test_name_tells_which_check(check, precision):
    """A check's name, in any precision, is understood by the child that is asked."""
    assert CheckId.parse(str(CheckId(check, precision))) == CheckId(check, precision)


@pytest.mark.parametrize(
    ("check", "precision", "name"),
    [
        ("shapes", "", "shapes"),
        ("layers", "tf32", "layers tf32"),
        ("overhead xla=on", "mixed_float16", "overhead xla=on mixed_float16"),
    ],
)
def test_names(check, precision, name):
    """A name is the check, then the precision if there is one."""
    assert str(CheckId(check, precision)) == name


def test_checks_of_a_cpu():
    """A CPU is asked what it is to get right in float32 and bfloat16, each check after those it builds on."""
    assert list(map(str, asked(CORRECT, "cpu:0"))) == [
        "shapes",
        "image_labels",
        "pipeline",
        "resize",
        "copies",
        "layers float32",
        "layers mixed_bfloat16",
        "update float32",
        "update mixed_bfloat16",
        "dropout",
        "learning float32",
        "learning mixed_bfloat16",
        "checkpoint",
    ]


def test_checks_of_a_gpu():
    """A GPU is asked in TensorFloat-32 and float16 too."""
    names = [f"{check} {precision}" for check in ("layers", "update", "learning") for precision in ON_GPU]
    assert [str(each) for each in asked(CORRECT, "gpu:7") if each.precision] == names
    assert list(map(str, asked(REPEATABLE, "gpu:0"))) == [f"replay {precision}" for precision in ON_GPU]


def test_nothing_builds_on_what_comes_later():
    """What a check builds on is there, and asked before it."""
    for number, check in enumerate(ALL):
        assert set(ALL[check].builds_on) <= set(list(ALL)[:number])


@pytest.mark.parametrize(
    ("finding", "message"),
    [
        pytest.param(failed("layers", "float32"), "shapes", id="finding=layers"),
        pytest.param(failed("update", "mixed_bfloat16"), "layers mixed_bfloat16", id="finding=update"),
        pytest.param(failed("dropout"), "layers float32", id="finding=dropout"),
    ],
)
def test_failure_that_follows_is_in_doubt(finding, message):
    """A failure that builds on one before it says which, and is none of its own."""
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
        pytest.param(failed("shapes"), failed("layers", "float32"), id="earlier=builds-on-it"),
        pytest.param(failed("layers", "tf32"), replace(failed("shapes"), status="PASS"), id="earlier=passed"),
        pytest.param(failed("layers", "tf32"), replace(failed("shapes"), status="INCONCLUSIVE"), id="earlier=doubt"),
        pytest.param(replace(failed("layers", "tf32"), kind="crash"), failed("shapes"), id="finding=crash"),
        pytest.param(replace(failed("layers", "tf32"), status="PASS"), failed("shapes"), id="finding=passed"),
    ],
)
def test_failure_of_its_own_stays_one(finding, earlier):
    """Nothing else excuses a failure, a child that died least of all."""
    assert attributed(finding, [earlier]) == finding


@pytest.mark.parametrize(
    ("check", "in_precision"),
    [
        pytest.param(CheckId("shapes"), "float32", id="check=shapes"),
        pytest.param(CheckId("layers", "tf32"), "tf32", id="check=layers"),
    ],
)
def test_check_is_asked_in_its_precision(monkeypatch, check, in_precision):
    """The subject has the precision asked for, or float32; the finding has the name, device and precision asked."""
    subjects = []

    def note(config):
        subjects.append(config)
        return Finding("inner name", "PASS", "well")

    monkeypatch.setitem(plan.ALL, check.check, Check(note))
    found = run(check, replace(CONFIG, precision="mixed_bfloat16"))
    assert subjects == [replace(CONFIG, precision=in_precision)]
    assert found == Finding(check.check, "PASS", "well", device="gpu:1", precision=check.precision)


@pytest.mark.parametrize(
    ("error", "message", "fix"),
    [
        pytest.param(ArithmeticError("7\n of   9"), "layers crashed or timed out", "doctor", id="error=any"),
        pytest.param(ResourceExhaustedError("7 of 9"), "the device ran out of memory", "nvidia-smi", id="error=memory"),
    ],
)
def test_error_is_the_answer(monkeypatch, error, message, fix):
    """Whatever a check raises is its failure, in one line, with what to type; no memory is said as such."""

    def fails(_subject):
        raise error

    monkeypatch.setitem(plan.ALL, "layers", Check(fails))
    found = run(CheckId("layers", "tf32"), CONFIG)
    assert (found.check, found.status, found.device, found.precision) == ("layers", "FAIL", "gpu:1", "tf32")
    assert (found.message, found.evidence) == (message, f"{type(error).__name__}: 7 of 9")
    assert fix in found.fix
    assert found.kind == "crash"


def test_what_a_child_said_is_evidence():
    """A text is kept as it is; a long error is cut."""
    assert crashed("memory", "ended by SIGKILL").evidence == "ended by SIGKILL"
    assert len(crashed("memory", ValueError("x" * 9999)).evidence) == len("ValueError: ") + 500
