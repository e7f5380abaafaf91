"""Random histories of a run: verdict, exit status, JUnit, page and results agree; PASS is of the whole plan."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.histories import ENDINGS, FAULTS, run

FAIL = {"fail", "error", "exit", "xfail"}
END = {"pytest.exit": 0, "Ctrl-C": 2, "SIGTERM": 143, "SIGHUP": 129}  # pytest's exit status
HISTORIES = st.tuples(
    st.lists(st.sampled_from(["pass"] * 12 + sorted(ENDINGS)), min_size=3, max_size=6),
    st.sampled_from([None] * 6 + list(FAULTS)),
    st.lists(st.sampled_from(["-x", "--fail-inconclusive", "-k=not test_1"]), unique=True, max_size=2),
)


def expected(endings, fault, options):
    """Return the verdict and the exit status that a history has to end in."""
    fail_inconclusive = "--fail-inconclusive" in options
    ran = [place for place in range(len(endings)) if not (place == 1 and "-k=not test_1" in options)]
    if fault == "collection":
        return "FAIL", 2
    failed, left, status = False, len(ran) < len(endings), 0
    for number, place in enumerate(ran):
        last, name = number == len(ran) - 1, endings[place]
        if fault == "set-up":
            failed, stops = True, "-x" in options
        else:
            wrong = name in FAIL or (fault == "tear-down" and name not in END)
            failed |= wrong
            doubted = name == "inconclusive" and fail_inconclusive and place % 4 != 3
            stops = "-x" in options and ((wrong and name != "xfail") or doubted)
            left |= name in {"nothing", "skip"} or (name == "inconclusive" and place % 4 != 3)
            if name in END:
                return ("FAIL" if failed else "INCONCLUSIVE"), (END[name] or (1 if failed or fail_inconclusive else 0))
        if fault == "hook" and place == 0:
            return "FAIL", 3
        if stops:
            left |= not last
            status = 1
            left = True
            break
    verdict = "FAIL" if failed else "INCONCLUSIVE" if left else "PASS"
    return verdict, 1 if verdict == "FAIL" or status or (left and fail_inconclusive) else 0


def agrees(folder, endings, fault, options):
    """Run a history, and compare everything that says how it ended."""
    verdict, status = expected(endings, fault, options)
    found = run(folder, endings, *options, fault=fault)
    assert (found.results["verdict"], found.status) == (verdict, status), found.printed
    assert found.on_the_page == verdict
    fails = verdict == "FAIL" or (verdict == "INCONCLUSIVE" and "--fail-inconclusive" in options)
    assert found.junit["verdict"] == ("failed" if fails else "passed" if verdict == "PASS" else "skipped")
    assert f"\n{verdict}: " in found.printed
    plan = found.results["plan"]
    assert len(plan) == len(endings)
    assert {each["state"] for each in plan} <= {"answered", "not asked", "lost"}
    assert all(each["why"] for each in plan if each["state"] != "answered")
    if verdict == "PASS":
        assert {each["status"] for each in plan if each["group"] != "reference"} == {"PASS"}
        assert set(found.junit.values()) <= {"passed", "skipped"}
    for name, ended in found.junit.items():
        if ended == "passed" and name != "verdict":
            assert plan[int(name.removeprefix("test_"))]["status"] in {"PASS", "FAIL"}, found.printed
    return found


@pytest.mark.parametrize(
    ("history", "verdict", "words"),
    [
        pytest.param((["pass"] * 4, None, ()), "PASS", "correct, repeatable and fast", id="history=all passed"),
        pytest.param(
            (["pass", "pass", "pass", "inconclusive"], None, ("--fail-inconclusive",)),
            "PASS",
            "",
            id="reference=new machine",
        ),
        pytest.param(
            (["pass", "pass", "error"], None, ()), "FAIL", "CUDA_ERROR_ILLEGAL_ADDRESS", id="timing=exception"
        ),
        pytest.param((["pass"] * 4, "set-up", ()), "FAIL", "no set-up", id="fault=set-up"),
        pytest.param((["pass"] * 4, "tear-down", ()), "FAIL", "no tear-down", id="fault=tear-down"),
        pytest.param((["pass"] * 4, "collection", ()), "FAIL", "a_module_that_is_not_there", id="fault=collection"),
        pytest.param((["pass"] * 4, "hook", ()), "FAIL", "a plugin's own error", id="fault=hook"),
        pytest.param(
            (["pass"] * 5, None, ("-k=not test_1",)), "INCONCLUSIVE", "1 of 5 planned checks", id="plan=deselected"
        ),
        pytest.param(
            (["pass", "nothing", "pass"], None, ()), "INCONCLUSIVE", "it gave no finding", id="test=no finding"
        ),
        pytest.param((["pass", "skip", "pass"], None, ()), "INCONCLUSIVE", "somebody's plugin", id="test=skipped"),
        pytest.param((["pass", "xfail", "pass"], None, ()), "FAIL", "somebody's mark", id="test=xfail"),
        pytest.param(
            (["pass", "SIGTERM", "pass"], None, ()), "INCONCLUSIVE", "interrupted by SIGTERM", id="signal=SIGTERM"
        ),
        pytest.param(
            (["pass", "SIGHUP", "pass"], None, ()), "INCONCLUSIVE", "interrupted by SIGHUP", id="signal=SIGHUP"
        ),
        pytest.param((["fail", "pass", "pass"], None, ("-x",)), "FAIL", "stopping after 1 failures", id="option=-x"),
        pytest.param(
            (["pass", "pytest.exit", "pass"], None, ()), "INCONCLUSIVE", "somebody's plugin", id="end=pytest.exit"
        ),
    ],
)
def test_how_a_run_ends(tmp_path, history, verdict, words):
    """Whatever ends a test or the run, everything that is written says the same, and why."""
    found = agrees(tmp_path / "run", *history)
    assert found.results["verdict"] == verdict
    assert words in found.printed


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HISTORIES)
def test_random_histories(tmp_path_factory, history):
    """So it is for any history."""
    endings, fault, options = history
    agrees(tmp_path_factory.mktemp("run") / "run", endings, fault, options)
