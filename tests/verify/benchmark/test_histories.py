"""Histories of a run: verdict, exit status, JUnit's file, page and results agree, and PASS is of the whole plan."""

import json
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alexnet_repro.verify.verdict import Planned
from tests.helpers.histories import ENDINGS, FAULTS, GROUPS, PASSED, run
from tests.verify.benchmark.test_session import session_of

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
        if stops:  # the last one, too: the run didn't come to its end
            status, left = 1, True
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


# By name: how its tests end, what is wrong, the options; the verdict, and words on the terminal.
HOW = {
    "history=all passed": (["pass"] * 4, None, (), "PASS", "correct, repeatable and fast"),
    "reference=new machine": (["pass", "pass", "pass", "inconclusive"], None, ("--fail-inconclusive",), "PASS", ""),
    "timing=exception": (["pass", "pass", "error"], None, (), "FAIL", "CUDA_ERROR_ILLEGAL_ADDRESS"),
    "fault=set-up": (["pass"] * 4, "set-up", (), "FAIL", "no set-up"),
    "fault=tear-down": (["pass"] * 4, "tear-down", (), "FAIL", "no tear-down"),
    "fault=collection": (["pass"] * 4, "collection", (), "FAIL", "a_module_that_is_not_there"),
    "fault=hook": (["pass"] * 4, "hook", (), "FAIL", "a plugin's own error"),
    "plan=deselected": (["pass"] * 5, None, ("-k=not test_1",), "INCONCLUSIVE", "1 of 5 planned checks"),
    "plan=deselected and fails": (["pass"] * 5, None, ("-k=not test_1", "--fail-inconclusive"), "INCONCLUSIVE", ""),
    "test=no finding": (["pass", "nothing", "pass"], None, (), "INCONCLUSIVE", "it gave no finding"),
    "test=skipped": (["pass", "skip", "pass"], None, (), "INCONCLUSIVE", "somebody's plugin"),
    "test=skipped after it passed": (["pass", "pass, then skip", "pass"], None, (), "INCONCLUSIVE", "then was skipped"),
    "test=forks": (["pass", "fork", "pass"], None, (), "PASS", "3 passed"),
    "test=xfail": (["pass", "xfail", "pass"], None, (), "FAIL", "somebody's mark"),
    "signal=SIGTERM": (["pass", "SIGTERM", "pass"], None, (), "INCONCLUSIVE", "interrupted by SIGTERM"),
    "signal=SIGHUP": (["pass", "SIGHUP", "pass"], None, (), "INCONCLUSIVE", "interrupted by SIGHUP"),
    "option=-x": (["fail", "pass", "pass"], None, ("-x",), "FAIL", "stopping after 1 failures"),
    "end=pytest.exit": (["pass", "pytest.exit", "pass"], None, (), "INCONCLUSIVE", "somebody's plugin"),
}


@pytest.mark.parametrize("history", [pytest.param(each, id=name) for name, each in HOW.items()])
def test_how_a_run_ends(tmp_path, history):
    """Whatever ends a test or the run, the verdict, the exit status and the terminal say so, and why."""
    endings, fault, options, verdict, words = history
    found = run(tmp_path / "run", endings, *options, fault=fault)
    assert (found.results["verdict"], found.status) == (verdict, expected(endings, fault, options)[1]), found.printed
    assert words in found.printed


ENEMIES = {
    "plugin=hides failures": (["pass", "error", "pass"], "hides failures", "FAIL", 1),
    "plugin=reports by itself": (["pass", "error", "pass"], "reports by itself", "FAIL", 1),
    "plugin=exit status 0": (["pass", "fail", "pass"], "exit status 0", "FAIL", 1),
    "plugin=raises at the end": (["pass"] * 4, "raises at the end", "FAIL", 1),
    "plugin=exits at the end": (["pass", "fail", "pass"], "exits at the end", "FAIL", 1),
    "plugin=exits at the end of a good run": (["pass"] * 4, "exits at the end", "INCONCLUSIVE", 0),
    "plugin=skips at the end": (["pass"] * 4, "skips at the end", "INCONCLUSIVE", 0),
    "plugin=usage error at the end": (["pass"] * 4, "usage error at the end", "INCONCLUSIVE", 4),
    "plugin=counts a failure": (["pass"] * 4, "counts a failure", "FAIL", 1),
    "plugin=counts a failure of a part": (["pass", "nothing", "pass"], "counts a failure", "FAIL", 1),
    "plugin=runs out of time": (["pass"] * 4, "runs out of time", "FAIL", 1),
    "plugin=raises when all is over": (["pass"] * 4, "raises when all is over", "FAIL", 1),
    "plugin=cleans up badly": (["pass"] * 4, "cleans up badly", "FAIL", 1),
    "plugin=prints for nobody": (["pass"] * 4, "prints for nobody", "INCONCLUSIVE", 3),
    "plugin=prints for nobody at the end": (["pass"] * 4, "prints for nobody at the end", "INCONCLUSIVE", 141),
    "signal=swallowed": (["pass", "SIGTERM swallowed", "pass"], None, "INCONCLUSIVE", 143),
    "signal=swallowed at the end": (["pass", "pass", "SIGTERM swallowed"], None, "INCONCLUSIVE", 143),
}


@pytest.mark.parametrize("history", [pytest.param(each, id=name) for name, each in ENEMIES.items()])
def test_other_plugins(tmp_path, history):
    """No other plugin makes a run better than it is, in none of its files."""
    endings, fault, verdict, status = history
    found = run(tmp_path / "run", endings, fault=fault)
    assert (found.results["verdict"], found.on_the_page, found.status) == (verdict, verdict, status), found.printed
    assert found.junit["verdict"] == ("failed" if verdict == "FAIL" else "skipped")
    assert f"\n{verdict}: " in found.printed


@pytest.mark.parametrize(
    "endings",
    [
        pytest.param(["pass"] * 4, id="verdict=PASS"),
        pytest.param(["pass", "error", "pass"], id="verdict=FAIL"),
        pytest.param(["pass", "nothing", "pass"], id="verdict=INCONCLUSIVE"),
        pytest.param(["pass", "SIGTERM", "pass"], id="signal=SIGTERM"),
    ],
)
def test_everything_says_the_same(tmp_path, endings):
    """Results, page, JUnit's file, terminal and exit status agree on the verdict."""
    agrees(tmp_path / "run", endings, None, ())


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


def test_interrupted_after_its_last_answer(tmp_path):
    """A run that is interrupted when all is answered, as while it compares with references, isn't complete."""
    session = session_of(tmp_path)
    session._claim()
    session.record.plan = [Planned(group, group, state="answered", status="PASS") for group in GROUPS]
    for group in GROUPS:
        session.record.add(group, PASSED)
    session.keeper.ended = "interrupted by SIGTERM"
    ended = SimpleNamespace(shouldfail=False, shouldstop=False)
    session._finish(ended, 143)
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["complete"], results["verdict"], ended.exitstatus) == (False, "INCONCLUSIVE", 143)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HISTORIES)
def test_random_histories(tmp_path_factory, history):
    """So it is for any history."""
    endings, fault, options = history
    agrees(tmp_path_factory.mktemp("run") / "run", endings, fault, options)
