"""Bits of a fleet: who differs from a majority fails by name; without a majority nobody is called wrong."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from alexnet_repro.fleet.bits import judge_bits
from alexnet_repro.fleet.records import Fleet, FleetDevice, FleetRun, FleetSettings

DAY = datetime(2026, 11, 24, 10, 15, tzinfo=UTC)
STEP = {"loss": "0x1.2p+1", "gradient of dense/kernel": "aa" * 16, "weight dense/kernel": "bb" * 16}
STEPS = {
    **dict.fromkeys(("a1", "a2", "a3"), STEP),
    "b1": {**STEP, "loss": "0x1.3p+1"},
    "b2": {**STEP, "weight dense/kernel": "cc" * 16},
    "c2": {**STEP, "gradient of dense/kernel": "dd" * 16},
}
RIGHT, WRONG_FIRST, WRONG_SECOND = ("a1", "a2"), ("b1", "b2"), ("a1", "c2")
ENVIRONMENTS = {
    "e0": {"packages": {"tensorflow": "2.21.0"}, "driver": "570"},
    "e1": {"packages": {"tensorflow": "2.20.0"}, "driver": "570"},
}


def device(steps=RIGHT, number=0, *, bits="e0", serial="", check="replay float32", kind="a GPU"):
    """Return a GPU with the hashes of its steps."""
    return FleetDevice(f"gpu:{number}", kind, serial, bits, replays={check: tuple(steps)} if steps else {})


def run(node, *devices, day=0, complete=True, verdict="PASS", version="0.1.0"):
    """Return a node's run."""
    started, identity = DAY + timedelta(days=day), f"{node} {day}"
    return FleetRun("", node, started, verdict, complete, version=version, devices=devices, identity=identity)


def judged(*runs):
    """Return cohorts and findings of runs."""
    fleet = Fleet(steps=dict(STEPS), environments=dict(ENVIRONMENTS))
    for each in runs:
        fleet.runs.setdefault(each.node, []).append(each)
    return judge_bits(fleet, FleetSettings())


def found(*runs):
    """Return status, node and device of each finding."""
    return [(each.status, each.node, each.device) for each in judged(*runs)[1]]


def nodes(*steps, **fields):
    """Return a node of one GPU for each of the steps: `n0`, `n1`, …"""
    return [run(f"n{number}", device(each, **fields)) for number, each in enumerate(steps)]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        pytest.param(nodes(RIGHT, RIGHT, RIGHT), [], id="votes=3-of-3"),
        pytest.param(nodes(RIGHT, RIGHT, RIGHT, WRONG_FIRST), [("FAIL", "n3", "gpu:0")], id="votes=3-of-4"),
        pytest.param(
            nodes(*[RIGHT] * 4, WRONG_FIRST, WRONG_SECOND),
            [("FAIL", "n4", "gpu:0"), ("FAIL", "n5", "gpu:0")],
            id="votes=4-of-6",
        ),
        pytest.param(
            nodes(RIGHT, RIGHT, RIGHT, *[WRONG_FIRST] * 2),
            [("INCONCLUSIVE", f"n{number}", "gpu:0") for number in range(5)],
            id="votes=3-of-5",
        ),
        pytest.param(
            nodes(RIGHT, RIGHT, WRONG_FIRST),
            [("INCONCLUSIVE", f"n{number}", "gpu:0") for number in range(3)],
            id="votes=2-of-3",
        ),
        pytest.param(
            nodes(RIGHT, RIGHT), [("INCONCLUSIVE", "n0", "gpu:0"), ("INCONCLUSIVE", "n1", "gpu:0")], id="votes=2-of-2"
        ),
        pytest.param(nodes(RIGHT), [("INCONCLUSIVE", "n0", "gpu:0")], id="votes=alone"),
        pytest.param(
            [run("big", *(device(WRONG_FIRST, number) for number in range(8))), *nodes(RIGHT, RIGHT, RIGHT)],
            [("FAIL", "big", f"gpu:{number}") for number in range(8)],
            id="votes=one-per-node",
        ),
        pytest.param(
            [run("big", *(device(RIGHT if number else WRONG_FIRST, number) for number in range(8)))],
            [("FAIL", "big", "gpu:0")],
            id="votes=within-one-node",
        ),
        pytest.param(
            [run("big", *(device(RIGHT, number) for number in range(8)))],
            [("INCONCLUSIVE", "big", f"gpu:{number}") for number in range(8)],
            id="votes=one-node-alike",
        ),
        pytest.param(
            [*nodes(RIGHT, RIGHT), run("cut", device(RIGHT), complete=False, verdict="INCONCLUSIVE")],
            [("INCONCLUSIVE", node, "gpu:0") for node in ("n0", "n1", "cut")],
            id="votes=not-of-incomplete",
        ),
        pytest.param(
            [*nodes(*[RIGHT] * 3), run("cut", device(WRONG_FIRST), complete=False, verdict="INCONCLUSIVE")],
            [("FAIL", "cut", "gpu:0")],
            id="incomplete=judged",
        ),
    ],
)
def test_majority(runs, expected):
    """Two thirds of the nodes' votes, and three devices, are a majority; without one nobody fails."""
    assert found(*runs) == expected


def test_first_step_and_what():
    """A failure names check, step and what of it differs, with how many agree, both digests' cohort and the fix."""
    _, (finding,) = judged(*nodes(*[RIGHT] * 5, WRONG_SECOND))
    assert finding.message == "replay float32: from step 2 the gradient of dense/kernel differs from 5 of 6 devices"
    assert finding.data == {"step": 2, "check": "replay float32"}
    assert finding.group == "a GPU, replay float32"
    assert "run it again" in finding.fix


def test_several_checks():
    """A device that differs in several checks fails once: by the first, with the others' names."""
    checks = {"replay float32": RIGHT, "processes float32": RIGHT}
    wrong = {"replay float32": WRONG_FIRST, "processes float32": WRONG_FIRST}
    runs = [
        run(f"n{number}", FleetDevice("gpu:0", "a GPU", bits="e0", replays=replays))
        for number, replays in enumerate([checks, checks, checks, wrong])
    ]
    _, (finding,) = judged(*runs)
    assert finding.message.startswith("replay float32: from step 1 the loss differs")
    assert finding.evidence == "so in processes float32"


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param([RIGHT, RIGHT, (*RIGHT, "a3")], [], id="steps=2-2-3"),
        pytest.param(
            [RIGHT, RIGHT, (*RIGHT, "a3"), (*RIGHT, "b2")],
            [("INCONCLUSIVE", "n2", "gpu:0"), ("INCONCLUSIVE", "n3", "gpu:0")],
            id="steps=third-differs",
        ),
        pytest.param([RIGHT, RIGHT, RIGHT, (*WRONG_FIRST, "a3")], [("FAIL", "n3", "gpu:0")], id="steps=first-differs"),
    ],
)
def test_levels(steps, expected):
    """Replays of two and of three steps are compared in the steps that both have."""
    assert found(*nodes(*steps)) == expected


@pytest.mark.parametrize(
    ("other", "message"),
    [
        pytest.param(
            run("odd", device(WRONG_FIRST, bits="e1")),
            "no other node has its environment: packages tensorflow 2.20.0, the others 2.21.0",
            id="other=software",
        ),
        pytest.param(
            run("odd", device(WRONG_FIRST), version="0.2.0"),
            "no other node has its environment: alexnet-repro 0.2.0, the others 0.1.0",
            id="other=version",
        ),
        pytest.param(
            run("odd", device(WRONG_FIRST, kind="another GPU")),
            "no other node has such a device in its environment",
            id="other=kind",
        ),
    ],
)
def test_environments(other, message):
    """Bits of another environment are no failure; who is alone in one is inconclusive, with what is other."""
    _, findings = judged(*nodes(*[RIGHT] * 3), other)
    assert [(each.status, each.node, each.message) for each in findings] == [("INCONCLUSIVE", "odd", message)]


@pytest.mark.parametrize(
    ("one", "message"),
    [
        pytest.param(device(RIGHT, bits=""), "what decides its bits wasn't recorded", id="why=environment"),
        pytest.param(device(None), "it has no digests of train steps", id="why=digests"),
    ],
)
def test_nothing_to_compare(one, message):
    """A device without digests, or of an unknown environment, isn't green by omission."""
    _, findings = judged(*nodes(*[RIGHT] * 3), run("odd", one))
    assert [(each.status, each.node, each.message) for each in findings] == [("INCONCLUSIVE", "odd", message)]


def test_cohort_of_a_later_step():
    """Who differs in a later step alone isn't counted among those of the same bits."""
    [cohort], _ = judged(*nodes(*[RIGHT] * 3, WRONG_SECOND))
    assert cohort.message == "3 of 4 devices have the same bits; n3 gpu:0 differs"


def test_cohorts():
    """Cohorts are by kind, environment and check, with what sets the smaller apart in their names."""
    cohorts, _ = judged(*nodes(*[RIGHT] * 4, WRONG_FIRST), *(run(f"m{each}", device(bits="e1")) for each in range(3)))
    assert [(each.name, each.status, each.message) for each in cohorts] == [
        ("a GPU, replay float32", "FAIL", "4 of 5 devices have the same bits; n4 gpu:0 differs"),
        ("a GPU, replay float32, packages tensorflow 2.20.0", "PASS", "3 devices have the same bits"),
    ]


WENT = [("INCONCLUSIVE", "n0", "gpu:0")]


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        pytest.param(device(RIGHT), device(RIGHT), [], id="bits=same"),
        pytest.param(device(WRONG_SECOND), device(RIGHT), WENT, id="bits=other"),
        pytest.param(device(WRONG_FIRST, bits="e1"), device(RIGHT), [], id="environment=other"),
        pytest.param(device(WRONG_FIRST, 3, serial="77"), device(RIGHT, serial="77"), WENT, id="place=other"),
        pytest.param(device(WRONG_FIRST, serial="76"), device(RIGHT, serial="77"), [], id="device=other"),
    ],
)
def test_own_earlier_runs(before, now, expected):
    """A device that has a majority's bits, and had others before, was wrong then, wherever it was built in."""
    assert found(run("n0", before, day=-3), run("n0", now), *nodes(RIGHT, RIGHT, RIGHT)[1:], run("n3", device())) == (
        expected
    )


@pytest.mark.parametrize(
    ("others", "status"),
    [
        pytest.param([RIGHT, RIGHT], "INCONCLUSIVE", id="others=2"),
        pytest.param([RIGHT], "FAIL", id="others=1"),
        pytest.param([WRONG_FIRST] * 3, "FAIL", id="others=otherwise"),
    ],
)
def test_who_was_wrong(others, status):
    """Without a majority for its newest bits, a device that had others before fails."""
    more = [run(f"m{number}", device(each)) for number, each in enumerate(others)]
    _, findings = judged(run("n0", device(WRONG_SECOND), day=-3), run("n0", device(RIGHT)), *more)
    assert [each.status for each in findings if "its own run" in each.message] == [status]


def test_devices_that_share_a_serial():
    """Two devices of one board aren't each other's earlier runs."""
    both = [device(RIGHT, 0, serial="77"), device(WRONG_SECOND, 1, serial="77")]
    _, findings = judged(run("n0", *both, day=-3), run("n0", *both))
    assert [each.message for each in findings if "its own run" in each.message] == []


def test_own_earlier_run_worded():
    """That finding says when, where in the steps, in how many of the earlier runs, and what it means."""
    runs = [run("n0", device(WRONG_SECOND), day=-3), run("n0", device(RIGHT), day=-2), run("n0", device(RIGHT))]
    _, (finding,) = judged(*runs, *nodes(RIGHT, RIGHT, RIGHT)[1:])
    assert finding.message == (
        "replay float32: from step 2 the gradient of dense/kernel differs from its own run of 2026-11-21 10:15; "
        "now it agrees with the others: it was repaired, or has a fault that comes and goes"
    )
    assert finding.evidence.startswith("1 of its 2 earlier runs in this environment differ from this one; ")
    assert finding.fix.startswith("if it was repaired, move its earlier results elsewhere; ")


def test_many_environments():
    """Thousands of nodes of which no two have one environment are each inconclusive, in time in proportion."""
    began = time.process_time()
    assert len(found(*(run(f"n{number}", device(bits=f"e{number}")) for number in range(5000)))) == 5000
    assert time.process_time() - began < 10
