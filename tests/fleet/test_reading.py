"""Results files of a fleet: found at any depth, read by several processes, by node, and never two votes for one run."""

import json
import os
import shutil
import socket
from datetime import UTC, datetime, timedelta
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
    """Links among folders end where a folder was searched already, so that none is read twice, or forever."""
    write_fleet(tmp_path, 1)
    (tmp_path / "node001/up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to("node001")
    (tmp_path / "self").symlink_to("self")
    fleet = read_fleet([tmp_path])
    assert [len(runs) for runs in fleet.runs.values()] == [1]
    assert {name.rpartition("/")[2]: why for name, why in refused(fleet).items()} == {
        "self": "the folder can't be read: Too many levels of symbolic links"
    }


@pytest.mark.parametrize(
    ("make", "nodes", "why"),
    [
        pytest.param(lambda folder: folder / "away/node002", 2, None, id="link=elsewhere"),
        pytest.param(lambda folder: folder / "gone", 1, "No such file or directory", id="link=nowhere"),
        pytest.param(lambda folder: folder, 1, "a folder that holds the one to be searched", id="link=above"),
        pytest.param(lambda _: Path("/"), 1, "a folder that holds the one to be searched", id="link=root"),
    ],
)
def test_linked_folder(tmp_path, make, nodes, why):
    """A node's folder that is a link is read; one that leads nowhere, or to all the world, is named."""
    write_fleet(tmp_path / "away", 2)
    write_fleet(tmp_path / "here", 1)
    (tmp_path / "here/node002").symlink_to(make(tmp_path))
    fleet = read_fleet([tmp_path / "here"])
    assert len(fleet.runs) == nodes
    assert [each.why.endswith(why or "-") for each in fleet.refused] == [True] * (why is not None)


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
    ("ids", "own", "why"),
    [
        pytest.param(True, (0, 1), None, id="own=all"),
        pytest.param(True, (0,), "; missing: that of worker 1", id="own=one"),
        pytest.param(True, (), "; missing: that of worker 0, worker 1", id="own=none"),
        pytest.param(False, (0, 1), "as worker0/results.json", id="own=not said"),
    ],
)
def test_merged(tmp_path, ids, own, why):
    """The merged file of workers is left out for their own, and named where not all of these are there."""
    workers = [sound(f"n{number}") for number in range(2)]
    merged = sound("n1")
    merged["machine"] = {"machines": ["worker 0", "worker 1"]}
    merged["run"] |= {"id": "f" * 32} | ({"workers": [each["run"]["id"] for each in workers]} if ids else {})
    written(tmp_path, merged)
    for number in own:
        written(tmp_path / f"worker{number}", workers[number])
    fleet = read_fleet([tmp_path])
    assert len(fleet.runs) == len(own)
    assert [each.why[-len(why or "") :] for each in fleet.refused] == [why] * (why is not None)


def test_own_outputs(tmp_path):
    """What fleet itself has written is passed over, also where a shell's pattern names it."""
    path = written(tmp_path, {"fleet_schema": 1}, "fleet.json")
    fleet = read_fleet([path])
    assert (fleet.runs, fleet.refused) == ({}, [])


def test_called_results(tmp_path):
    """A file called as results are is named, also where it says that it is what fleet has written."""
    written(tmp_path, {**sound(), "fleet_schema": 1, "schema": "x"})
    fleet = read_fleet([tmp_path])
    assert (fleet.runs, [each.why for each in fleet.refused]) == ({}, ["it was written by fleet"])


def test_clock_ahead(tmp_path):
    """A run whose machine's clock is ahead isn't the current one, and is named with its node."""
    now = datetime.now(UTC)
    for number, minutes in enumerate((-60, 2, 13 * 60)):
        content = sound("n1")
        content["run"] |= {"id": f"run{number}", "started": (now + timedelta(minutes=minutes)).isoformat()}
        written(tmp_path / f"run{number}", content)
    fleet = read_fleet([tmp_path])
    assert [run.identity for run in fleet.current] == ["run1"]
    assert [each.status for each in fleet.refused] == ["INCONCLUSIVE"]
    assert refused(fleet)["run2/results.json"].endswith(": the clock of n1 is ahead; set it")


def test_one_name(tmp_path):
    """Two machines that are called the same on one day are two nodes; on another day one has replaced the other."""
    content = {machine: sound("n1", day=day) for machine, day in (("aaaa", 0), ("bbbb", 9), ("cccc", 9))}
    for machine, each in content.items():
        each["run"]["id"] = machine
        each["machine"]["id"] = machine
        for number, gpu in enumerate(each["machine"]["inventory"].values()):
            gpu["serial"] = f"{machine}{number}"
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
