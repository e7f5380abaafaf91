"""Histories of a run: verdict, exit status, JUnit's file, page and results agree, and PASS is of the whole plan."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.histories import ENDINGS, FAULTS, run

FAIL = {"fail", "error", "exit", "xfail"}
END = {"pytest.exit": 0, "Ctrl-C": 2, "SIGTERM": 143, "SIGHUP": 129, "SIGTERM swallowed": 143}  # pytest's exit status
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
    for place in ran:
        name = endings[place]
        if fault == "set-up":
            failed, stops = True, "-x" in options
        else:
            wrong = name in FAIL or (fault == "tear-down" and name not in END)
            failed |= wrong
            doubted = name == "inconclusive" and fail_inconclusive and place % 4 != 3
            stops = "-x" in options and ((wrong and name != "xfail") or doubted)
            left |= name in {"nothing", "skip"} or (name in {"inconclusive", "pass, then skip"} and place % 4 != 3)
            if name in END:
                failed |= fault == "tear-down"  # at the end of the run
                return ("FAIL" if failed else "INCONCLUSIVE"), (END[name] or (1 if failed or fail_inconclusive else 0))
        if fault == "hook" and place == 0:
            return "FAIL", 3
        if stops:  # where it was the last one, too: the run is cut short
            status, left = 1, True
            break
    verdict = "FAIL" if failed else "INCONCLUSIVE" if left else "PASS"
    return verdict, 1 if verdict == "FAIL" or status or (left and fail_inconclusive) else 0


def agrees(folder, history, verdict, status):
    """Run a history, and return what it left, once everything in it says that it ended so."""
    endings, fault, options = history
    found = run(folder, endings, *options, fault=fault)
    assert (found.results["verdict"], found.status) == (verdict, status), found.printed
    assert found.results["complete"] == ("ended" not in found.results["run"])
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


FOUR, DESELECTED = ["pass"] * 4, "-k=not test_1"
# By name: how its tests end, what is wrong, the options; the verdict, the exit status, and words on the terminal.
HOW = {
    "history=all passed": (FOUR, None, (), "PASS", 0, "correct, repeatable and fast"),
    "reference=new machine": ([*FOUR[1:], "inconclusive"], None, ("--fail-inconclusive",), "PASS", 0, ""),
    "timing=exception": (["pass", "pass", "error"], None, (), "FAIL", 1, "CUDA_ERROR_ILLEGAL_ADDRESS"),
    "fault=set-up": (FOUR, "set-up", (), "FAIL", 1, "no set-up"),
    "fault=tear-down": (FOUR, "tear-down", (), "FAIL", 1, "no tear-down"),
    "fault=collection": (FOUR, "collection", (), "FAIL", 2, "a_module_that_is_not_there"),
    "fault=hook": (FOUR, "hook", (), "FAIL", 3, "a plugin's own error"),
    "plan=deselected": (FOUR, None, (DESELECTED,), "INCONCLUSIVE", 0, "1 of 4 planned checks"),
    "plan=deselected and fails": (FOUR, None, (DESELECTED, "--fail-inconclusive"), "INCONCLUSIVE", 1, ""),
    "test=no finding": (["pass", "nothing", "pass"], None, (), "INCONCLUSIVE", 0, "it gave no finding"),
    "test=skipped": (["pass", "skip", "pass"], None, (), "INCONCLUSIVE", 0, "somebody's plugin"),
    "test=skipped after it passed": (["pass", "pass, then skip"], None, (), "INCONCLUSIVE", 0, "then was skipped"),
    "test=forks": (["pass", "fork", "pass"], None, (), "PASS", 0, "3 passed"),
    "test=xfail": (["pass", "xfail", "pass"], None, (), "FAIL", 1, "somebody's mark"),
    "signal=SIGTERM": (["pass", "SIGTERM", "pass"], None, (), "INCONCLUSIVE", 143, "interrupted by SIGTERM"),
    "signal=SIGHUP": (["pass", "SIGHUP", "pass"], None, (), "INCONCLUSIVE", 129, "interrupted by SIGHUP"),
    "signal=swallowed": (["pass", "SIGTERM swallowed", "pass"], None, (), "INCONCLUSIVE", 143, "by SIGTERM"),
    "signal=after all passed": (["pass", "pass", "SIGTERM swallowed"], None, (), "INCONCLUSIVE", 143, "by SIGTERM"),
    "signal=Ctrl-C, then tear-down": (["pass", "Ctrl-C"], "tear-down", (), "FAIL", 2, "no tear-down"),
    "signal=SIGTERM, then tear-down": (["pass", "SIGTERM"], "tear-down", (), "FAIL", 143, "no tear-down"),
    "option=-x": (["fail", "pass", "pass"], None, ("-x",), "FAIL", 1, "stopping after 1 failures"),
    "end=pytest.exit": (["pass", "pytest.exit", "pass"], None, (), "INCONCLUSIVE", 0, "somebody's plugin"),
    "plugin=hides failures": (["pass", "error", "pass"], "hides failures", (), "FAIL", 1, "CUDA_ERROR"),
    "plugin=reports by itself": (["pass", "error", "pass"], "reports by itself", (), "FAIL", 1, "CUDA_ERROR"),
    "plugin=exit status 0": (["pass", "fail", "pass"], "exit status 0", (), "FAIL", 1, "it is FAIL"),
    "plugin=raises at the end": (FOUR, "raises at the end", (), "FAIL", 1, "a plugin's own error"),
    "plugin=exits at the end": (["pass", "fail", "pass"], "exits at the end", (), "FAIL", 1, "somebody's plugin"),
    "plugin=exits after all passed": (FOUR, "exits at the end", (), "INCONCLUSIVE", 0, "somebody's plugin"),
    "plugin=skips at the end": (FOUR, "skips at the end", (), "INCONCLUSIVE", 0, "somebody's plugin"),
    "plugin=usage error at the end": (FOUR, "usage error at the end", (), "INCONCLUSIVE", 4, "somebody's plugin"),
    "plugin=has nothing to compare with": (
        *(FOUR, "has nothing to compare with", ()),
        *("INCONCLUSIVE", 4, "it was started wrongly: --benchmark-compare-fail requires valid --benchmark-compare."),
    ),
    "plugin=counts a failure": (FOUR, "counts a failure", (), "FAIL", 1, "counts a failure that no test gave"),
    "plugin=counts a failure of a part": (
        *(["pass", "nothing", "pass"], "counts a failure", ()),
        *("FAIL", 1, "counts a failure that no test gave"),
    ),
    "plugin=runs out of time": (FOUR, "runs out of time", (), "FAIL", 1, "session-timeout: 1.0 s"),
    "plugin=raises when all is over": (FOUR, "raises when all is over", (), "FAIL", 1, "a plugin's own error"),
    "plugin=cleans up badly": (FOUR, "cleans up badly", (), "FAIL", 1, ""),
    "plugin=prints for nobody": (FOUR, "prints for nobody", (), "INCONCLUSIVE", 3, "what read its output is gone"),
    "plugin=prints for nobody at the end": (
        *(FOUR, "prints for nobody at the end", ()),
        *("INCONCLUSIVE", 141, "what read its output is gone"),
    ),
}


@pytest.mark.parametrize("history", [pytest.param(each, id=name) for name, each in HOW.items()])
def test_how_a_run_ends(tmp_path, history):
    """Whatever ends a test or the run, and whatever other plugins do, all that is left agrees, and says why."""
    *history, verdict, status, words = history
    printed = agrees(tmp_path / "run", history, verdict, status).printed
    assert words in " ".join(printed.split())  # as wide as the terminal is


@pytest.mark.parametrize(
    ("options", "ended"),
    [
        pytest.param((), ("skipped", "skipped", "skipped"), id="options=none"),
        pytest.param(("--fail-inconclusive",), ("failed", "skipped", "failed"), id="options=--fail-inconclusive"),
    ],
)
def test_inconclusive_tests(tmp_path, options, ended):
    """A test that decides nothing is skipped, or fails if the option says so; a reference never fails by it."""
    junit = run(tmp_path / "run", ["pass", "inconclusive", "pass", "inconclusive"], *options).junit
    assert (junit["test_1"], junit["test_3"], junit["verdict"]) == ended


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HISTORIES)
def test_random_histories(tmp_path_factory, history):
    """So it is for any history."""
    agrees(tmp_path_factory.mktemp("run") / "run", history, *expected(*history))
