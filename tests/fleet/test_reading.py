"""Results files of a fleet: found at any depth, read by several processes, by node, and never two votes for one run."""

import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from alexnet_repro.fleet import reading
from alexnet_repro.fleet.reading import read_fleet
from benchmarks.tools.fleet_files import MadeFleet
from tests.helpers.fleet_runs import TEMPLATE, sound, write_fleet
from tests.helpers.results_files import written


def refused(fleet):
    """Return why each file that is left out is, by its name and its folder's."""
    return {"/".join(Path(each.path).parts[-2:]): each.why for each in fleet.refused}


def test_any_depth(tmp_path):
    """Files called results.json are found at any depth, and nothing else is read."""
    written(tmp_path / "a/b/c", sound("n1"))
    written(tmp_path, sound("n2"))
    written(tmp_path / "d", sound("n3"), "other.json")
    fleet = read_fleet([tmp_path])
    assert (sorted(fleet.runs), fleet.refused) == (["n1", "n2"], [])


def test_by_name(tmp_path):
    """A file that is named is read, whatever it is called, and once however often it is named."""
    path = written(tmp_path, sound("n3"), "n3.json")
    assert [len(runs) for runs in read_fleet([path, path, tmp_path]).runs.values()] == [1]


def test_history(tmp_path):
    """A node's runs are in their order; the last one is the current one."""
    fleet = read_fleet([write_fleet(tmp_path, 2, days=3)])
    days = [[run.started.day for run in runs] for runs in fleet.runs.values()]
    assert days == [[1, 2, 3], [1, 2, 3]]
    assert [run.started.day for run in fleet.current] == [3, 3]


def test_processes(tmp_path, monkeypatch):
    """Two processes read what one reads."""
    monkeypatch.setattr(reading, "PER_PROCESS", 1)
    monkeypatch.setattr(reading, "CHUNK", 2)
    write_fleet(tmp_path, 7)
    written(tmp_path / "bad", [])
    alone, together = (read_fleet([tmp_path], processes=count) for count in (1, 2))
    assert (alone.steps, alone.environments, alone.refused) == (together.steps, together.environments, together.refused)
    assert [(run.node, run.identity) for run in alone.current] == [(run.node, run.identity) for run in together.current]
    rows = [[each.numbers.tolist() for run in fleet.current for each in run.devices] for fleet in (alone, together)]
    assert json.dumps(rows[0]) == json.dumps(rows[1])


def test_shared(tmp_path):
    """What runs have in common is in memory once."""
    first, second = read_fleet([write_fleet(tmp_path, 2)]).current
    one, other = first.devices[0], second.devices[1]
    assert one.cases is other.cases
    assert one.bits is other.bits
    assert one.replays["replay float32"] is other.replays["replay float32"]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        pytest.param(os.mkfifo, "it isn't a regular file", id="file=pipe"),
        pytest.param(lambda path: path.symlink_to(path), "it can't be read: Too many levels", id="file=circle"),
        pytest.param(lambda path: path.symlink_to("nowhere"), "it can't be read: No such file", id="file=link"),
        pytest.param(lambda path: path.symlink_to("/dev/zero"), "it isn't a regular file", id="file=device"),
        pytest.param(lambda path: path.write_bytes(b" " * (2**25 + 1)), "it has more than 33,554,432", id="file=large"),
    ],
)
def test_no_file(tmp_path, make, why):
    """What isn't a regular file of a run's size is named, and not waited for."""
    (tmp_path / "odd").mkdir()
    make(tmp_path / "odd/results.json")
    fleet = read_fleet([write_fleet(tmp_path, 2)])
    assert len(fleet.runs) == 2
    assert refused(fleet)["odd/results.json"].startswith(why)


def test_socket(tmp_path, monkeypatch):
    """A socket is named, too."""
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as here:
        here.bind("results.json")
        assert [each.why for each in read_fleet([tmp_path]).refused] == ["it isn't a regular file"]


def test_circle_of_folders(tmp_path):
    """Links among folders aren't followed, so that none is read twice, or forever."""
    write_fleet(tmp_path, 1)
    (tmp_path / "node001/up").symlink_to(tmp_path)
    assert [len(runs) for runs in read_fleet([tmp_path]).runs.values()] == [1]


def test_no_permission(tmp_path, monkeypatch):
    """A folder and a file that may not be read are named."""
    write_fleet(tmp_path, 2)
    scan, open_ = os.scandir, os.open
    closed, secret = str(tmp_path / "node001"), str(tmp_path / "node002/day0/results.json")

    def no_scan(path):
        if path == closed:
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    def no_open(path, *arguments):
        if path == secret:
            raise PermissionError(13, "Permission denied", path)
        return open_(path, *arguments)

    monkeypatch.setattr(os, "scandir", no_scan)
    monkeypatch.setattr(os, "open", no_open)
    fleet = read_fleet([tmp_path])
    assert fleet.runs == {}
    assert sorted(each.why for each in fleet.refused) == [
        "it can't be read: Permission denied",
        "the folder can't be read: Permission denied",
    ]


def test_copy(tmp_path):
    """A second copy of a run is no second vote, and nothing is lost by it."""
    write_fleet(tmp_path, 1)
    shutil.copytree(tmp_path / "node001", tmp_path / "copy")
    fleet = read_fleet([tmp_path])
    assert [len(runs) for runs in fleet.runs.values()] == [1]
    assert [(each.why[:12], each.status) for each in fleet.refused] == [("it is a copy", "PASS")]


def test_two_of_one_run(tmp_path):
    """Two different files of one run are both left out: nobody knows which of them was changed."""
    one, other = sound("n1"), sound("n2")
    written(tmp_path / "a", one)
    written(tmp_path / "b", {**other, "run": {**other["run"], "id": one["run"]["id"]}})
    fleet = read_fleet([tmp_path])
    assert fleet.runs == {}
    assert {name: each[:46] for name, each in refused(fleet).items()} == {
        "a/results.json": "it has the identity of another run's file and ",
        "b/results.json": "it has the identity of another run's file and ",
    }


def test_copied_too_early(tmp_path):
    """Of a file that was copied while its run went on, the later one, which is complete, counts."""
    whole = sound("n1")
    written(tmp_path / "early", {**whole, "complete": False, "verdict": "INCONCLUSIVE"})
    written(tmp_path / "late", whole)
    fleet = read_fleet([tmp_path])
    assert [run.complete for run in fleet.current] == [True]
    assert refused(fleet)["early/results.json"].startswith("it is an earlier state of ")


@pytest.mark.parametrize(
    ("own", "left_out"), [pytest.param(True, 0, id="own=there"), pytest.param(False, 1, id="own=no")]
)
def test_merged(tmp_path, own, left_out):
    """The merged file of workers is left out for their own, and named where these aren't there."""
    merged = sound("n1")
    merged["machine"] = {"machines": ["worker 0", "worker 1"]}
    written(tmp_path, merged)
    for number in range(2 * own):
        written(tmp_path / f"worker{number}", sound(f"n{number}"))
    fleet = read_fleet([tmp_path])
    assert (len(fleet.runs), len(fleet.refused)) == (2 * own, left_out)


def test_own_outputs(tmp_path):
    """What fleet itself has written is passed over, also where a shell's pattern names it."""
    path = written(tmp_path, {"fleet_schema": 1}, "fleet.json")
    fleet = read_fleet([path])
    assert (fleet.runs, fleet.refused) == ({}, [])


def test_one_name(tmp_path):
    """Two machines that are called the same on one day are two nodes; on another day one has replaced the other."""
    content = {machine: sound("n1", day=day) for machine, day in (("aaaa", 0), ("bbbb", 9), ("cccc", 9))}
    for machine, each in content.items():
        each["run"]["id"] = machine
        each["machine"]["id"] = machine
        written(tmp_path / machine, each)
    runs = read_fleet([tmp_path]).runs
    nodes = {node: sorted(run.machine["id"] for run in own) for node, own in runs.items()}
    assert nodes in ({"n1": ["aaaa", "cccc"], "n1@bbbb": ["bbbb"]}, {"n1": ["aaaa", "bbbb"], "n1@cccc": ["cccc"]})


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param((("S1", "serial"), ("a1b2", "machine-id")), id="user=other"),
        pytest.param((("S1", "serial"), ("hashed-77", "serial")), id="hashed=one"),
    ],
)
def test_one_machine_of_two_ids(tmp_path, ids):
    """Ids of another source, as root and others read them, or hashed beside plain ones, make no second machine."""
    for number, (machine, source) in enumerate(ids):
        content = sound("n1")
        content["run"]["id"] = f"run{number}"
        content["machine"] |= {"id": machine, "id_source": source}
        written(tmp_path / f"run{number}", content)
    assert [len(runs) for runs in read_fleet([tmp_path]).runs.values()] == [2]


def test_nothing(tmp_path):
    """A folder without results is no error here; there is no node."""
    fleet = read_fleet([tmp_path])
    assert (fleet.runs, fleet.refused) == ({}, [])


def test_made_fleet():
    """The files for tests and simulations have the same bits on all nodes, and other times and serials on each."""
    files = [content for _, _, content in MadeFleet(3, gpus=2).files(TEMPLATE)]
    steps = [each["findings"]["repeatable"][0]["data"]["steps"] for each in files]
    rounds = [tuple(each["timings"][0]["rounds"]) for each in files]
    serials = [each["machine"]["inventory"][gpu]["serial"] for each in files for gpu in ("gpu:0", "gpu:1")]
    assert steps[0] == steps[1] == steps[2]
    assert (len(set(rounds)), len(set(serials))) == (3, 6)
