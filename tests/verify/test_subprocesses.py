"""Children with deadlines: a crash, a hang and an early end are results too."""

import pytest

from alexnet_repro.verify.subprocesses import NoAnswerError, answer_each, answers

SCRIPT = """\
import os, signal, sys, time
def main(*names):
    for name in names:
        if name == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if name == "hang":
            time.sleep(600)
        if name == "exit":
            sys.exit("I give up")
        if name == "leave":
            sys.exit()
        print("library noise")
        print(f"said {name}", file=sys.stderr)
        yield {"name": name}
"""


@pytest.fixture
def child(tmp_path):
    """Return the environment in which `child_for_test` is a module."""
    (tmp_path / "child_for_test.py").write_text(SCRIPT)
    return {"PYTHONPATH": str(tmp_path)}


def test_child_that_dies_is_an_answer(child):
    """Every name is answered in order: what kills the child is that name's error, and the rest are still answered."""
    names = ["a", "crash", "b", "leave", "exit", "c"]
    found = list(answer_each("child_for_test", [], names, 60, child))
    assert [name for name, _ in found] == names
    assert [answer.get("name") or answer["error"] for _, answer in found] == [
        "a",
        "ended by SIGSEGV",
        "b",
        "it ended without an answer",
        "exit status 1",
        "c",
    ]
    assert [answer["log"].split() for name, answer in found if name in "abc"] == [
        ["said", "a"],
        ["said", "b"],
        ["said", "c"],
    ]
    assert "I give up" in found[4][1]["log"]


@pytest.mark.slow
def test_child_that_hangs_is_an_answer(child):
    """A child that is silent for longer than the deadline is ended, and what it answered before is kept."""
    found = []
    with pytest.raises(NoAnswerError, match="no answer within 5 s") as caught:
        found.extend(answer["name"] for answer in answers("child_for_test", ["a", "hang", "b"], 5, child))
    assert found == ["a"]
    assert caught.value.log == "said a\n"
