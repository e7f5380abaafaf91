"""Each fault of the catalogue fails its check, with the right name in the message."""

from contextlib import nullcontext

import keras
import pytest

from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.registry import (
    ALL_CHECKS,
    CORRECT,
    LAYER_CHECKS,
    REPEATABLE,
    CheckId,
    attributed,
    run_check,
)
from alexnet_repro.verify.numerics import error_bounds
from tests.faults.catalogue import FAULTS
from tests.helpers.models import narrow_layers

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="faults are patched into what Keras runs on TensorFlow"
)

# Small images and few steps: the same code, in a fraction of the time.
CONFIG = CheckConfig(side=67, steps=2, replays=2)
BY_NAME = [pytest.param(fault, id=f"fault={fault.name}") for fault in FAULTS]


def in_float32(check):
    """Return a check in float32."""
    return CheckId(check, "float32" if ALL_CHECKS[check].in_each_precision else "")


def run_narrow(check, compiled=""):
    """Run a check in float32 on narrower dense layers; that of the shapes on the documented ones.

    A few updates aren't compiled, which takes longer than they do; but they are in the check named `compiled`.
    """
    import tensorflow as tf

    tf.config.run_functions_eagerly(check in {"update", "dropout", "replay"} and check != compiled)
    try:
        with nullcontext() if check == "shapes" else narrow_layers():
            return run_check(in_float32(check), CONFIG)
    finally:
        tf.config.run_functions_eagerly(False)


def test_catalogue():
    """There are at least 24 faults, no two of one name."""
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 24


@pytest.mark.parametrize("check", [*CORRECT, *REPEATABLE])
def test_without_a_fault(check):
    """Without a fault the same checks, run in the same way, pass."""
    finding = run_narrow(check)
    assert finding.status == "PASS", str(finding)


@pytest.mark.parametrize("fault", BY_NAME)
def test_fault_is_noticed(fault, monkeypatch):
    """The fault's check fails, and its message says what is off, and what to do next.

    A wrong layer is noticed even within the bounds of a GPU, which may convolve by Fourier transforms: in float32 none
    are wider, and a CPU's are narrower or the same.
    """
    original = error_bounds.arithmetics
    monkeypatch.setattr(error_bounds, "arithmetics", lambda precision, _, **by: original(precision, "gpu:0", **by))
    fault.inject(monkeypatch)
    finding = run_narrow(fault.check)
    assert finding.status == "FAIL", str(finding)
    for words in fault.words:
        assert words in str(finding)
    assert finding.fix


@pytest.mark.parametrize("check", ["layers", "update", "dropout"])
def test_expected_side_has_the_weights_handed_over(check, monkeypatch):
    """A kernel that reaches the device transposed is seen by every check that computes with it."""
    next(each for each in FAULTS if each.name == "kernel-transposed").inject(monkeypatch)
    assert run_narrow(check).status == "FAIL"


@pytest.mark.slow
@pytest.mark.parametrize("fault", BY_NAME)
def test_no_other_check_fails(fault, monkeypatch):
    """Of all checks that one alone fails; those that depend on it are inconclusive, others pass."""
    findings = []
    for check in (*CORRECT, *REPEATABLE):
        if check == "compiled_layers" and fault.check not in LAYER_CHECKS:
            continue  # it would compile, for seconds, what `layers` computes
        with monkeypatch.context() as patch:  # anew, for faults that strike once
            fault.inject(patch)
            findings.append(attributed(run_narrow(check, compiled=fault.check), findings))
    assert [finding.check for finding in findings if finding.status == "FAIL"] == [fault.check]
