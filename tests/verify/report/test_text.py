"""The lines for the terminal: every group, what didn't pass, what is missing by name, and a verdict in words."""

from pathlib import Path

import pytest

from alexnet_repro.verify.finding import GROUPS, Finding
from alexnet_repro.verify.report.run_record import RunRecord
from alexnet_repro.verify.report.text import headline, in_words, summary, unanswered, verdict_line
from alexnet_repro.verify.verdict import Planned, per_machine

LAYERS = "test_correct.py::test_correct[device=cpu:0-check=layers-precision=float32]"
LEFT_OUT = Planned(LAYERS, "correct", "cpu:0", "not asked", "deselected")


def record(statuses, plan=None, *, complete=True, **machine):
    """Return the record of a run with findings of these statuses in each group, all of it planned and answered."""
    findings = {group: [Finding("any", each, "a cause") for each in statuses] for group in GROUPS}
    answered = [Planned(LAYERS, group, state="answered", status=each) for group in GROUPS[1:] for each in statuses]
    plan = answered if plan is None else plan
    return RunRecord(Path("results.json"), machine=machine, findings=findings, plan=plan, complete=complete)


def test_summary_lists_what_did_not_pass():
    """The verdict; a line per group; what didn't pass, failures first, with its fix; what is missing, by name."""
    found = record(["PASS"])
    found.plan.append(LEFT_OUT)
    found.findings["correct"].append(
        Finding("layers", "FAIL", "conv1 is off", "3e-3", "fix it", device="gpu:1", precision="tf32")
    )
    found.findings["fast"].append(Finding("low_noise", "INCONCLUSIVE", "a cause"))
    found.findings["reference"] = []
    assert summary(found) == [
        "FAIL: gpu:1 failed 1 check (layers tf32); the fix is listed",
        "",
        "doctor      PASS          1 of 1 passed",
        "correct     FAIL          1 of 2 passed, 1 failed, 1 of 2 not answered",
        "repeatable  PASS          1 of 1 passed",
        "fast        INCONCLUSIVE  1 of 2 passed, 1 inconclusive",
        "reference   INCONCLUSIVE  not run",
        "",
        "FAIL          gpu:1 layers tf32: conv1 is off",
        "              evidence: 3e-3",
        "              fix: fix it",
        "",
        "INCONCLUSIVE  low_noise: a cause",
        "",
        "not answered:",
        "  cpu:0: not asked (deselected): layers",
    ]
    assert verdict_line(found) == f"FAIL: {in_words(found)}"


def noisy(count, fix="run it again with nothing else on the machine", **fields):
    """Return as many inconclusive findings, each of another check."""
    return [
        Finding(f"check{number}", "INCONCLUSIVE", f"message {number}", "evidence", fix, device="cpu:0", **fields)
        for number in range(1, count + 1)
    ]


def test_thing_to_do_is_said_once():
    """What several findings have as their fix stands below them, once: three are written out, others are names."""
    found = record(["PASS"])
    found.findings["fast"] += noisy(5)
    assert summary(found)[8:] == [
        "INCONCLUSIVE  5 cases",
        "              cpu:0 check1: message 1",
        "              cpu:0 check2: message 2",
        "              cpu:0 check3: message 3",
        "              and 2 more: cpu:0 check4, cpu:0 check5",
        "              fix: run it again with nothing else on the machine",
    ]


def test_commands_of_a_fix_can_be_pasted():
    """A command has a line of its own, whole however narrow the terminal; prose before and after it is wrapped."""
    found = record(["PASS"])
    fix = "if it stays: python -m alexnet_repro doctor; pytest benchmarks --benchmark-only # on a quiet machine"
    found.findings["fast"].append(Finding("low_noise", "INCONCLUSIVE", "a cause", fix=fix))
    assert summary(found, 44)[-4:] == [
        "              fix: if it stays:",
        "                   python -m alexnet_repro doctor",
        "                   pytest benchmarks --benchmark-only",
        "                   on a quiet machine",
    ]


def test_same_finding_of_several_devices_is_said_once():
    """Findings without a fix that say the same are one, with the devices that have it."""
    found = record(["PASS"])
    found.findings["fast"] += [Finding("clock", "FAIL", "it is low", device=f"gpu:{number % 2}") for number in range(3)]
    assert summary(found)[8:] == ["FAIL          it is low", "              in 3 cases: gpu:0 clock ×2, gpu:1 clock"]


@pytest.mark.parametrize("width", [60, 80, 100, 120], ids=lambda width: f"width={width}")
def test_no_line_is_wider_than_the_terminal(width):
    """Each line is as wide as the terminal at most; no word is cut, but a word that is wider stays whole."""
    found = record(["PASS", "FAIL"], [Planned(f"test_a.py::test_{'a' * 9}{n}", "fast", "cpu:0") for n in range(30)])
    text = "a message of many words that say at length what is wrong, and with what " * 3
    found.findings["fast"] += [*noisy(9), Finding("long", "FAIL", text, text, f"{text} {'x' * 130}", device="cpu:0")]
    lines = summary(found, width)
    assert max(len(line) for line in lines if "x" * 130 not in line) <= width
    assert [line.strip() for line in lines if "xxx" in line] == ["x" * 130]


def test_what_is_missing_has_a_name():
    """A line per device and reason; each check by its name, and how often; of several machines by theirs."""
    plan = [
        Planned("test_correct.py::test_correct[device=cpu:0-check=shapes]", "correct", "cpu:0", "answered"),
        LEFT_OUT,
        Planned(LAYERS.replace("float32", "mixed_bfloat16"), "correct", "cpu:0", "not asked", "deselected"),
        Planned("test_forward.py::test_forward[device=cpu:0-batch=1]", "fast", "cpu:0", "lost", "it died"),
        Planned("test_forward.py::test_forward[device=gpu:0-batch=1]", "fast", "gpu:0", "waiting"),
        Planned("test_input_pipeline.py::test_draw_train[batch=128]", "fast", "", "not asked", "deselected"),
    ]
    assert unanswered(record([], plan)) == [
        "cpu:0: not asked (deselected): layers ×2",
        "cpu:0: lost (it died): forward",
        "gpu:0: waiting: forward",
        "machine: not asked (deselected): draw_train",
    ]
    assert unanswered(record([], per_machine("node1", plan)))[-2:] == [
        "node1/gpu:0: waiting: forward",
        "node1: not asked (deselected): draw_train",
    ]


def failing(*findings, doctor=(), plan=None):
    """Return the record of a run in which these checks failed, and the doctor's."""
    found = record(["PASS"], plan)
    found.findings["correct"] += findings
    found.findings["doctor"] += doctor
    return found


def wrong(check, device="", precision="", status="FAIL", **data):
    """Return a finding that isn't PASS."""
    return Finding(check, status, "a cause", device=device, precision=precision, data=data)


TWO = {"machines": ["node1", "node2"]}
WORDS = {
    "PASS": (record(["PASS"]), "this machine is correct, repeatable and fast by its own measure alone"),
    "PASS of two": (
        record(["PASS"], **TWO),
        "these 2 machines are correct, repeatable and fast by their own measure alone",
    ),
    "FAIL of a device": (
        failing(wrong("layers", "gpu:1", "tf32"), wrong("layers", "gpu:1", "float32")),
        "gpu:1 failed 2 checks (layers tf32, layers float32); the fix is listed",
    ),
    "FAIL of several devices": (
        failing(*(wrong(name, f"gpu:{gpu}") for gpu in range(3) for name in ("a", "b", "c", "d", "e"))),
        "gpu:0, gpu:1 and gpu:2 failed 15 checks (a, b, c, 2 more); the fix is listed",
    ),
    "FAIL of no device": (failing(wrong("workers")), "this machine failed 1 check (workers); the fix is listed"),
    "FAIL of the set-up": (
        failing(doctor=[wrong("host memory"), wrong("xla", "cpu:0")]),
        "the set-up isn't right (host memory, xla); the fix is listed",
    ),
    "FAIL of a GPU by the doctor": (
        failing(doctor=[wrong("ecc", "GPU 0"), wrong("rows", "GPU 0")]),
        "GPU 0 isn't right (ecc, rows); the fix is listed",
    ),
    "FAIL of both": (
        failing(wrong("update", "cpu:0"), doctor=[wrong("disk")]),
        "the set-up isn't right (disk) and cpu:0 failed 1 check (update); the fix is listed",
    ),
    "FAIL beside what was ignored": (
        failing(wrong("update", "cpu:0"), doctor=[wrong("disk", status="INCONCLUSIVE", ignored=True)]),
        "cpu:0 failed 1 check (update); the fix is listed; what the doctor failed (disk) was ignored",
    ),
    "FAIL of the plan": (
        record(["PASS"], [Planned(LAYERS, "correct", "cpu:0", state="lost", status="FAIL")]),
        "cpu:0 failed 1 check (layers); the fix is listed",
    ),
    "INCONCLUSIVE without a plan": (record(["PASS"], []), "nothing failed, but nothing was planned"),
    "INCONCLUSIVE answered": (record(["INCONCLUSIVE"]), "nothing failed, but not every check was conclusive"),
    "INCONCLUSIVE in part": (
        record(["PASS"], [Planned(LAYERS, "correct", state="answered"), LEFT_OUT]),
        "nothing failed, but 1 of 2 planned checks weren't answered",
    ),
    "INCONCLUSIVE by what was ignored": (
        failing(doctor=[wrong("disk", status="INCONCLUSIVE", ignored=True)]),
        "no check failed, but what the doctor failed (disk) was ignored",
    ),
    "INCONCLUSIVE cut short": (
        record(["PASS"], complete=False),
        "nothing failed, but not every check was conclusive; the run didn't finish: it was killed, or still runs",
    ),
}


@pytest.mark.parametrize(("found", "words"), WORDS.values(), ids=[f"verdict={name}" for name in WORDS])
def test_verdict_in_words(found, words):
    """What failed by name, or a claim of no more than what ran."""
    assert in_words(found) == words


@pytest.mark.parametrize(
    ("level", "line", "head"),
    [
        pytest.param(
            "quick",
            "PASS (quick): this machine is correct, repeatable and fast by its own measure alone, as far as the quick "
            "level looks. Everything: --level=standard",
            "Quick level: this machine is correct, repeatable and fast by its own measure alone, as far as the quick "
            "level looks. Everything: --level=standard.",
            id="level=quick",
        ),
        pytest.param(
            "standard",
            "PASS: this machine is correct, repeatable and fast by its own measure alone",
            "This machine is correct, repeatable and fast by its own measure alone.",
            id="level=standard",
        ),
        pytest.param(
            "long",
            "PASS (long): this machine is correct, repeatable and fast by its own measure alone",
            "Long level: this machine is correct, repeatable and fast by its own measure alone.",
            id="level=long",
        ),
    ],
)
def test_level_is_named(level, line, head):
    """A verdict names its level, in the terminal and at the head of a page; a quick one says that there is more."""
    found = record(["PASS"])
    found.run["level"] = level
    assert (verdict_line(found), headline(found)) == (line, head)


def test_devices_name_begins_no_sentence():
    """At the head of a page a device's name stays as it is."""
    assert headline(failing(wrong("update", "gpu:0"))) == "gpu:0 failed 1 check (update); the fix is listed."
