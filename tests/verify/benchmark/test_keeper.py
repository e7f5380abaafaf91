"""Tests that are run again: a failure stays one, and is counted once."""

from types import SimpleNamespace

import pytest

from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.run_record import RunRecord
from alexnet_repro.verify.verdict import Planned
from benchmarks.keeper import PlanKeeper

NODE = "benchmarks/test_forward.py::test_forward[device=cpu:0]"
NAME = NODE.removeprefix("benchmarks/")
ITEM = SimpleNamespace(nodeid=NODE, location=("benchmarks/test_forward.py", 0, "test_forward"))
FAULTY = Finding("valid", "FAIL", "the output is off", device="cpu:0")
DOUBTFUL = Finding("low_noise", "INCONCLUSIVE", "too noisy", device="cpu:0")
WELL = Finding("valid", "PASS", "as it should be", device="cpu:0")


@pytest.fixture
def keeper(tmp_path):
    """The keeper of a plan of one case."""
    keeper = PlanKeeper(RunRecord(tmp_path / "results.json", plan=[Planned(NAME, "fast", "cpu:0")]))
    keeper.collected([ITEM], ["cpu:0"], {NODE: NAME})
    return keeper


def report(outcome, **fields):
    """Return what pytest reports of a test's call."""
    longrepr = SimpleNamespace(reprcrash=SimpleNamespace(message="RuntimeError: lost"))
    return SimpleNamespace(
        nodeid=NODE,
        outcome=outcome,
        when="call",
        failed=outcome == "failed",
        skipped=False,
        longrepr=longrepr,
        **fields,
    )


def history(keeper, *attempts):
    """Run the test with these findings, one attempt after the other, as pytest-rerunfailures does."""
    protocol = keeper.pytest_runtest_protocol(ITEM)
    next(protocol)
    for number, found in enumerate(attempts, 1):
        keeper.pytest_runtest_setup(ITEM)
        again = number < len(attempts)
        if found is None:
            keeper.pytest_runtest_logreport(report("rerun" if again else "failed"))
            continue
        keeper.report("fast", found)
        if found.status == "FAIL":
            with pytest.raises(pytest.fail.Exception):
                keeper.fail(str(found))
            keeper.pytest_runtest_logreport(report("rerun" if again else "failed"))
    with pytest.raises(StopIteration):
        protocol.send(True)
    return [(each.status, each.message) for each in keeper.record.findings["fast"]]


@pytest.mark.parametrize(
    ("attempts", "expected", "state"),
    [
        pytest.param([WELL], [("PASS", "as it should be")], ("answered", "PASS"), id="attempts=one"),
        pytest.param(
            [FAULTY, WELL],
            [("FAIL", "failed once, then passed: the output is off")],
            ("answered", "FAIL"),
            id="attempts=wrong once",
        ),
        pytest.param(
            [DOUBTFUL, WELL],
            [("INCONCLUSIVE", "inconclusive once, then passed: too noisy")],
            ("answered", "INCONCLUSIVE"),
            id="attempts=noisy once",
        ),
        pytest.param(
            [FAULTY, DOUBTFUL],
            [("FAIL", "failed once, then inconclusive: the output is off")],
            ("answered", "FAIL"),
            id="attempts=wrong then noisy",
        ),
        pytest.param(
            [WELL, FAULTY], [("FAIL", "the output is off")], ("answered", "FAIL"), id="attempts=wrong at last"
        ),
        pytest.param(
            [FAULTY, FAULTY], [("FAIL", "the output is off")], ("answered", "FAIL"), id="attempts=wrong twice"
        ),
        pytest.param(
            [None, WELL],
            [("FAIL", f"failed once, then passed: {NODE} ended with an error")],
            ("lost", "FAIL"),
            id="attempts=exception once",
        ),
        pytest.param(
            [None, FAULTY], [("FAIL", "the output is off")], ("answered", "FAIL"), id="attempts=exception then wrong"
        ),
    ],
)
def test_rerun_erases_nothing(keeper, attempts, expected, state):
    """What failed once and then passed is a FAIL that says so; the same failure twice is counted once."""
    assert history(keeper, *attempts) == expected
    (planned,) = keeper.record.plan
    assert (planned.state, planned.status) == state


@pytest.mark.parametrize("when", ["setup", "call", "teardown"])
def test_failure_that_is_only_reported(keeper, when):
    """A failure of which there is a report alone, as of a test that another plugin ran elsewhere, is a FAIL."""
    failed = report("failed")
    failed.when = when
    keeper.pytest_runtest_logreport(failed)
    assert [each.status for each in keeper.record.findings["fast"]] == ["FAIL"]


@pytest.mark.parametrize(
    ("error", "cause", "fix"),
    [
        pytest.param("RuntimeError: lost", "", "doctor", id="error=unknown"),
        pytest.param(
            "XlaRuntimeError: UNIMPLEMENTED: DNN library is not found.",
            ": cuDNN doesn't start",
            "cudnn",
            id="error=cudnn",
        ),
        pytest.param(
            "RuntimeError: CUDA error: uncorrectable ECC error encountered",
            *(": the GPU's memory had an error that couldn't be corrected", "replaced"),
            id="error=ecc",
        ),
    ],
)
def test_error_of_a_test_is_explained(tmp_path, error, cause, fix):
    """What a test dies of is named as what a child dies of, with the fix that fits it."""
    keeper = PlanKeeper(RunRecord(tmp_path / "results.json", plan=[Planned(NAME, "fast", "gpu:0")]))
    keeper.collected([ITEM], ["gpu:0"], {NODE: NAME})
    failed = report("failed")
    failed.longrepr.reprcrash.message = error
    keeper.pytest_runtest_logreport(failed)
    (found,) = keeper.record.findings["fast"]
    assert found.message.startswith(f"{NODE} ended with an error{cause}")
    assert found.evidence == error
    assert fix in found.fix
