"""One results file, reduced to what a fleet compares; whatever isn't one is refused in one line, and never crashes."""

import copy
import json
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet_repro.fleet.content import reduced
from alexnet_repro.fleet.records import CASE_NUMBERS
from alexnet_repro.fleet.texts import RefusedError, printable
from tests.helpers.fleet_runs import REPLAY, sound

NOW = datetime(2026, 11, 28, tzinfo=UTC)
STEPS = REPLAY["data"]["steps"]
TF32 = {"device": "gpu:1", "precision": "tf32"}


def read(content):
    """Return what is made of a file's content."""
    return reduced(content if isinstance(content, bytes) else json.dumps(content).encode(), "/a/results.json", NOW)


def changed(*path, to):
    """Return a sound file's content in which one value, by its path, is another."""
    content = copy.deepcopy(sound())
    *parents, last = path
    place = content
    for name in parents:
        place = place[name]
    place[last] = to
    return content


def with_steps(steps):
    """Return a sound file's content in which a replay has these steps."""
    return changed("findings", "repeatable", 0, "data", to={"steps": steps})


def test_node():
    """Node, time, verdict, version and identity are the run's."""
    run = read(sound("n7")).run
    assert (run.node, run.verdict, run.complete, run.version) == ("n7", "PASS", True, "0.1.0")
    assert (run.started.year, run.started.tzinfo, run.path) == (2026, UTC, "/a/results.json")
    assert len(run.identity) == 32


def test_machine():
    """What is known of the machine is named in words, the kernel out of what the system says of itself."""
    machine = read(sound()).run.machine
    known = {name: machine[name] for name in ("packages tensorflow", "firmware bios", "kernel", "python", "driver")}
    assert known == {
        "packages tensorflow": "2.21.0",
        "firmware bios": "2.4.1",
        "kernel": "6.8.0-87-generic",
        "python": "3.12.1",
        "driver": "570.86.15",
    }


def test_devices():
    """A device has its product name, serial, inventory in texts, and hashes of what decides bits and speed."""
    first, second = read(sound()).run.devices
    assert (first.name, second.name, first.kind) == ("gpu:0", "gpu:1", "NVIDIA H100 80GB HBM3")
    assert first.serial != second.serial
    assert {first.inventory[name] for name in ("driver", "firmware", "pcie_width")} == {
        "570.86.15",
        "96.00.89.00.01",
        "16",
    }
    assert first.bits == second.bits != first.speed == second.speed


def test_steps():
    """A replay is a hash per step; what a hash stands for is kept once, loss first, then the last layer's gradient."""
    found = read(sound())
    hashes = found.run.devices[0].replays["replay float32"]
    assert len(set(hashes)) == len(found.steps) == 3
    assert found.run.devices[1].replays == found.run.devices[0].replays
    names = list(found.steps[hashes[1]].items())
    assert names[:2] == [
        ("loss", STEPS[1]["loss"]),
        ("gradient of dense_2/bias", STEPS[1]["gradients"]["dense_2/bias"]),
    ]


def test_failed_replay():
    """A device whose replay failed has nothing to vote with, and has its own FAIL."""
    content = changed("findings", "repeatable", 0, "status", to="FAIL") | {"verdict": "FAIL"}
    first, second = read(content).run.devices
    assert (first.replays, len(second.replays["replay float32"])) == ({}, 3)


def test_numbers():
    """A case's columns are its level, error and median, and of the samples medians, the worst link and throttling."""
    content = sound()
    content["timings"][0] |= {
        "rounds": [2.0] * 5,
        "samples": {
            "seconds": [0.0, 1.0, 2.0, 3.0],
            "gpu_mhz": [1700, None, 1500, 1600],
            "watts": [690.0, 700.0, 710.0, None],
            "temperature": [60, 71, 65, 60],
            "pcie_width": [16, 8, 16, 16],
            "throttle_reasons": [0, 4, 4, None],
        },
    }
    device = read(content).run.devices[0]
    assert device.cases == ("train_step[batch=32-precision=float32]", "forward[batch=1-precision=float32]")
    row = dict(zip(CASE_NUMBERS, device.numbers[0].tolist(), strict=True))
    expected = {"level": math.log(2), "error": 0.0, "seconds": 2.0, "invalid": 0.0, "gpu_mhz": 1600.0, "watts": 700.0}
    expected |= {"temperature": 71.0, "pcie_width": 8.0, "throttled": 2 / 3}
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert math.isnan(row["cpu_mhz"])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda content: content["timings"][0].update(fault="off by 2"), id="why=fault"),
        pytest.param(
            lambda content: content["findings"]["fast"].append(
                {
                    "check": "synchronized",
                    "status": "FAIL",
                    "message": "",
                    "device": "gpu:0",
                    "case": content["timings"][0]["case"],
                }
            ),
            id="why=check",
        ),
    ],
)
def test_invalid(change):
    """A timing is marked that is no measurement, by its fault or by a check that failed."""
    content = sound() | {"verdict": "FAIL"}
    change(content)
    device = read(content).run.devices[0]
    assert device.numbers[:, CASE_NUMBERS.index("invalid")].tolist() == [1.0, 0.0]


def test_incomplete():
    """A run that died says so, with why; what it did is read."""
    content = sound() | {"complete": False, "verdict": "INCONCLUSIVE"}
    content["run"]["ended"] = "SIGTERM"
    run = read(content).run
    assert (run.complete, run.verdict, run.ended, len(run.devices)) == (False, "INCONCLUSIVE", "SIGTERM", 2)
    assert run.found[0].message == "the run didn't finish: SIGTERM"


def test_own_findings():
    """A run's own failures come first; of a reference, an inconclusive one lowers nothing and isn't brought along."""
    content = sound() | {"verdict": "FAIL"}
    doubt = {"check": "golden", "status": "INCONCLUSIVE", "message": "recorded elsewhere"}
    content["findings"]["reference"] = [doubt]
    content["findings"]["correct"] += [
        {"check": "layers", "status": "INCONCLUSIVE", "message": "not sure", "device": "gpu:1"},
        {
            "check": "update",
            "status": "FAIL",
            "message": "off by 1",
            "device": "gpu:1",
            "precision": "tf32",
            "fix": "x",
        },
    ]
    found = [(each.status, each.check, each.device, each.message, each.fix) for each in read(content).run.found]
    assert found == [
        ("FAIL", "update tf32", "gpu:1", "off by 1", "x"),
        ("INCONCLUSIVE", "layers", "gpu:1", "not sure", ""),
    ]


def test_unanswered():
    """A run of which only the plan is unanswered says how much of it, and why."""
    content = changed("plan", 0, "state", to="not asked") | {"verdict": "INCONCLUSIVE"}
    content["plan"][0]["why"] = "deselected"
    assert [each.message for each in read(content).run.found] == ["1 of 6 planned checks weren't answered: deselected"]


def test_worse_verdict():
    """A file may state a worse verdict than its findings add up to; that one holds, and is a finding."""
    run = read(sound() | {"verdict": "FAIL"}).run
    assert (run.verdict, run.found[0].message) == ("FAIL", "its verdict is FAIL")


def test_lone_surrogate():
    """A text that is no Unicode, as of a command with a strange file name, costs nothing but that character."""
    content = json.dumps(changed("run", "node", to="n\udcff1")).encode()
    assert read(content).run.node == "n?1"


def test_long_names():
    """A long name is cut, and two that differ beyond the cut stay two."""
    one, other = (read(changed("run", "node", to="n" * 10_000 + end)).run.node for end in "ab")
    assert len(one) == len(other) == 200
    assert one != other


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("node 1", "node 1", id="text=usual"),
        pytest.param("a\n\tb", "a b", id="text=lines"),
        pytest.param("\x1b[31mred", "�[31mred", id="text=escape"),
        pytest.param("\u202eabc\u2066", "�abc�", id="text=direction"),
        pytest.param("\ud800", "�", id="text=surrogate"),
        pytest.param("../../etc", "../../etc", id="text=path"),
    ],
)
def test_printable(text, shown):
    """A text of somebody else's is one line that a terminal prints, and nothing else."""
    assert printable(text) == shown


NEXT_YEAR, LONG_AGO = "2027-11-30T00:00:00+00:00", "0001-01-01T00:00:00+00:00"
MANY = [f"gpu:{number}" for number in range(3000)]
REFUSED = {
    "empty": (b"", "it is empty"),
    "no-json": (b"# results", "it isn't JSON, was cut off"),
    "binary": (b"\x00\xff\xfe" * 10, "it isn't JSON, was cut off"),
    "deep": (b"[" * 100_000, "it isn't JSON, was cut off, or is nested too deeply"),
    "digits": (json.dumps(sound()).replace("85520809984", "9" * 5000).encode(), "it isn't JSON, was cut off"),
    "list": ([], "it isn't a results file, but other JSON"),
    "other": ({"a": 1}, "it isn't a results file, but other JSON"),
    "training": ({"recipe": {}}, "it is the record of a training"),
    "fleet": ({"fleet_schema": 1}, "it was written by fleet"),
    "schema=3": (changed("schema", to=3), "its schema is 3, of an earlier version; this one reads 4"),
    "schema=5": (changed("schema", to=5), "its schema is 5, of another version; this one reads 4"),
    "schema=text": (changed("schema", to="4"), "its schema is 4, of another version; this one reads 4"),
    "no-run": ({"schema": 4, "complete": False}, "it isn't a results file: verdict: Field required"),
    "verdict": (changed("verdict", to="OK"), "it isn't a results file: verdict"),
    "complete=text": (changed("complete", to="yes"), "it isn't a results file: complete"),
    "no-node": (changed("run", to={"id": "1"}), "it names no node"),
    "no-id": (changed("run", "id", to=None), "its run has no id"),
    "no-date": (changed("run", "started", to=17), "when it started isn't a date: 17"),
    "no-zone": (changed("run", "started", to="2026-11-24T10:15:00"), "when it started has no time zone"),
    "future": (changed("run", "started", to=NEXT_YEAR), "T00:00:00+00:00: the clock of node001 is ahead"),
    "year=1": (changed("run", "started", to=LONG_AGO), "it started before there was this program"),
    "seconds=-1": (changed("run", "seconds", to=-1), "it took -1 s"),
    "seconds=nan": (changed("run", "seconds", to=math.nan), "it took nan s"),
    "rounds=none": (changed("timings", 0, "rounds", to=[]), "has no rounds"),
    "rounds=nan": (changed("timings", 0, "rounds", to=[1.0, math.nan]), "has a round of nan s"),
    "rounds=-1": (changed("timings", 0, "rounds", to=[-1.0]), "has a round of -1.0 s"),
    "rounds=huge": (changed("timings", 0, "rounds", to=[1e300]), "has a round of 1e+300 s"),
    "rounds=integer": (changed("timings", 0, "rounds", to=[10**400]), "timings.0.rounds.0: Input should be a valid"),
    "rounds=text": (changed("timings", 0, "rounds", to=["1"]), "it isn't a results file: timings.0.rounds"),
    "case-twice": (changed("timings", 1, to=sound()["timings"][0]), "is in it twice"),
    "replay-twice": (
        changed("findings", "repeatable", 1, "device", to="gpu:0"), "replay float32 of gpu:0 is in it twice"),
    "memory=huge": (changed("machine", "inventory", "gpu:0", "memory", to=10**30), "a number in it is too large"),
    "devices=many": (changed("machine", "devices", to=MANY), "it has 3,002 devices, more than a machine can have"),
    "device=path": (changed("machine", "devices", to=["../x"]), "a device in it is called '../x'"),
    "device=number": (changed("machine", "devices", to=[7]), "a device in it is called '7'"),
    "forged-pass": (
        changed("findings", "correct", 0, "status", to="FAIL"),
        "it contradicts itself: it states PASS, and its findings add up to FAIL",
    ),
    "forged-plan": (
        changed("plan", 0, "state", to="not asked"),
        "it contradicts itself: it states PASS, and its findings add up to INCONCLUSIVE",
    ),
    "forged-end": (changed("complete", to=False), "it states PASS, and its findings add up to INCONCLUSIVE"),
    "waiting": (
        changed("plan", 0, "state", to="waiting"),
        "it contradicts itself: it is complete, and a part of its plan still waits or runs",
    ),
    "no-findings": (changed("findings", to={}), "it states PASS, and its findings add up to INCONCLUSIVE"),
    "merged": (changed("machine", "machines", to=["a", "b"]), "it is of several workers"),
    **{
        f"digest={name}": (with_steps(steps), "the digests of a replay in it aren't digests of steps")
        for name, steps in {
            "text": "abc",
            "numbers": [1, 2],
            "no-loss": [{**STEPS[0], "loss": None}],
            "decimal-loss": [{**STEPS[0], "loss": "2.5"}],
            "no-gradients": [{**STEPS[0], "gradients": {}}],
            "short": [{**STEPS[0], "weights": {"a": "abc"}}],
            "markup": [{**STEPS[0], "weights": {"a": "<script>alert(1)</script>"}}],
            "list": [{**STEPS[0], "weights": ["a"]}],
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize(("content", "why"), [pytest.param(*each, id=f"file={name}") for name, each in REFUSED.items()])
def test_refused(content, why):
    """Whatever isn't a results file, or contradicts itself, is refused with why, in one short line."""
    with pytest.raises(RefusedError) as error:
        read(content)
    assert why in str(error.value)
    assert len(str(error.value)) <= 500
    assert str(error.value).isprintable()


def test_cut_off_anywhere():
    """A file that is cut off at any byte is refused."""
    content = json.dumps(sound(gpus=0)).encode()
    for end in range(0, len(content), 7):
        with pytest.raises(RefusedError):
            read(content[:end])


def _places(value, path=()):
    """Yield the path of each value in JSON."""
    yield path
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(each, (*path, key))


PLACES = [each for each in _places(sound()) if each]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**30, 10**4000, -1, 0, math.nan, math.inf, 1e308]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["gpu:0", "PASS", "FAIL", "nan", "inf", "\x1b[0m", "a" * 10_000, "waiting"]),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)


@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
def test_forged(changes):
    """A file in which any values are others is refused or read, and nothing else; what is read is printable."""
    content = sound()
    for (*parents, last), value in changes:
        place = content
        for name in parents:
            known = isinstance(place, dict) and name in place
            listed = isinstance(place, list) and isinstance(name, int) and name < len(place)
            place = place[name] if known or listed else None
        if isinstance(place, dict) or (isinstance(place, list) and isinstance(last, int) and last < len(place)):
            place[last] = value
    try:
        run = read(json.dumps(content).encode()).run
    except RefusedError as error:
        assert str(error).isprintable()  # noqa: PT017 - it may be raised, and needn't be
        return
    assert run.node.isprintable()
    assert all(each.kind.isprintable() for each in run.devices)
    assert all(text.isprintable() for text in (*run.machine, *run.machine.values()))


@pytest.mark.parametrize(
    "stated",
    [
        pytest.param(each, id=f"serial={number}")
        for number, each in enumerate(["N/A", "0", "[N/A]", "Unknown", "None", "000-000", "[Not Supported]", None])
    ],
)
def test_no_serial(stated):
    """What a driver says in place of a serial is none; the UUID is taken."""
    content = changed("machine", "inventory", "gpu:0", "serial", to=stated)
    assert read(content).run.devices[0].serial.startswith("GPU-")
