"""Whose a run is: what one machine ran at the same time is one run, and machines of one name share one vote."""

import copy
from datetime import UTC, datetime, timedelta

import pytest

from alexnet_repro.fleet.judge import judge_fleet
from alexnet_repro.fleet.machines import runs_by_node
from alexnet_repro.fleet.reading import read_fleet
from alexnet_repro.fleet.records import FleetSettings, OwnFinding
from benchmarks.tools.fleet_files import MadeFleet
from tests.helpers.fleet_runs import TEMPLATE, write_fleet
from tests.helpers.fleets import DAY, device, node_run
from tests.helpers.results_files import written

NOW = datetime(2026, 11, 28, tzinfo=UTC)
WRONG = OwnFinding("FAIL", "layers", "off by 0.5", "gpu:0")
SERIAL, LINUX = {"id": "S1", "id_source": "serial"}, {"id": "a1b2", "id_source": "machine-id"}


def at(minutes, *devices, seconds=600.0, **fields):
    """Return a run of node `n1` that started some minutes after `DAY`."""
    run = node_run("n1", *devices, seconds=seconds, days=minutes / 1440, **fields)
    assert run.started == DAY + timedelta(minutes=minutes)
    return run


def gpu(serial, name="gpu:0"):
    """Return a GPU by its serial."""
    return device(name, serial=serial)


def test_at_once():
    """Two pods of one machine are one current run: both have GPUs in it, the worst verdict, and all findings."""
    first = at(0, gpu("A"), verdict="FAIL", found=(WRONG,))
    nodes, _ = runs_by_node([first, at(1, gpu("B"))], NOW)
    (run,) = nodes["n1"]
    assert (run.verdict, run.started) == ("FAIL", DAY + timedelta(minutes=1))
    assert [each.name for each in run.devices] == ["gpu:0 (A)", "gpu:0 (B)"]
    assert [(each.status, each.device) for each in run.found] == [("FAIL", "gpu:0 (A)")]


KILLED = {"complete": False, "verdict": "INCONCLUSIVE", "seconds": 30.0}


@pytest.mark.parametrize(
    ("runs", "current", "earlier"),
    [
        pytest.param([at(0, gpu("A")), at(20, gpu("B"))], (["gpu:0"], "PASS"), 1, id="runs=one after the other"),
        pytest.param([at(0, gpu("A")), at(9, gpu("B", "gpu:1"))], (["gpu:0", "gpu:1"], "PASS"), 0, id="runs=of names"),
        pytest.param([at(0, gpu("A"), verdict="FAIL"), at(9, gpu("A"))], (["gpu:0"], "FAIL"), 1, id="runs=of one GPU"),
        pytest.param([at(0, gpu("A"), verdict="FAIL"), at(11, gpu("A"))], (["gpu:0"], "PASS"), 1, id="runs=again"),
        pytest.param(
            [at(0, gpu("A"), **KILLED), at(60, gpu("B", "gpu:1"))],
            *((["gpu:0", "gpu:1"], "INCONCLUSIVE"), 0),
            id="runs=one goes on",
        ),
        pytest.param([at(0, gpu("A"), **KILLED), at(2, gpu("A"))], (["gpu:0"], "PASS"), 1, id="runs=killed and again"),
        pytest.param(
            [at(0, gpu("A"), **KILLED), at(2 * 1440, gpu("B"))], (["gpu:0"], "PASS"), 1, id="runs=killed days ago"
        ),
        pytest.param([at(0, **KILLED), at(0, gpu("A"))], (["gpu:0"], "INCONCLUSIVE"), 0, id="runs=one without devices"),
        pytest.param(
            [at(0, gpu("A", "gpu:0")), at(9, gpu("B", "gpu:1")), at(18, gpu("A", "gpu:0"))],
            *((["gpu:0", "gpu:1"], "PASS"), 1),
            id="runs=in a chain",
        ),
        pytest.param(
            [at(0, device("cpu:0", serial=""), verdict="FAIL"), at(9, device("cpu:0", serial=""))],
            *((["cpu:0"], "FAIL"), 1),
            id="runs=of one CPU",
        ),
    ],
)
def test_current(runs, current, earlier):
    """Only runs that overlap in time are one; a GPU that both had stays in the earlier run."""
    nodes, _ = runs_by_node(runs, NOW)
    *before, last = nodes["n1"]
    assert ([each.name for each in last.devices], last.verdict) == current
    assert len(before) == earlier


@pytest.mark.parametrize(
    ("machines", "nodes"),
    [
        pytest.param([SERIAL, {**SERIAL, "id": "S2"}], 2, id="ids=two serials"),
        pytest.param([SERIAL, LINUX], 1, id="ids=of other sources"),
        pytest.param([{**SERIAL, "machine_id": "a1b2"}, {**LINUX, "machine_id": "a1b2"}], 1, id="ids=root and user"),
        pytest.param([{**SERIAL, "machine_id": "c3d4"}, LINUX], 2, id="ids=two machines, root and user"),
        pytest.param(
            [{**SERIAL, "machine_id": "a1b2"}, {**SERIAL, "id": "S2", "machine_id": "a1b2"}], 2, id="ids=one image"
        ),
        pytest.param([{"id": ""}, {"id": ""}], 1, id="ids=none"),
    ],
)
def test_ids(machines, nodes):
    """Machines of one name differ by what both have recorded; root and another user are one machine."""
    runs = [at(60 * n, gpu(f"G{n}"), machine={"id": "", **each}) for n, each in enumerate(machines)]
    found, names = runs_by_node(runs, NOW)
    assert (len(found), len(names)) == (nodes, nodes - 1)
    assert set(names.values()) <= {"n1"}


def test_one_device():
    """Runs that had one GPU are of one machine, whatever id they state."""
    runs = [at(60 * n, gpu(serial), machine={**SERIAL, "id": f"S{n}"}) for n, serial in enumerate("AAA")]
    assert [len(own) for own in runs_by_node(runs, NOW)[0].values()] == [3]


def test_name_of_a_file():
    """A node's name that a file states is only that, also where it looks like one of two machines' of one name."""
    runs = [at(n, gpu(f"G{n}"), machine={**SERIAL, "id": f"S{n}"}) for n in range(2)]
    stated = node_run("n1@S0", gpu("C"))
    nodes, names = runs_by_node([*runs, stated], NOW)
    assert (sorted(nodes), names) == (["n1", "n1@S0", "n1@S0'"], {"n1@S0'": "n1"})
    assert nodes["n1@S0"] == [stated]


@pytest.mark.parametrize(
    "name", [pytest.param("node001@x{}", id="name=with @"), pytest.param("node001", id="name=same")]
)
def test_invented_machines(tmp_path, name):
    """Nine machines of an expected node's name have no more than its vote, and make no other node FAIL."""
    write_fleet(tmp_path, 4)
    for number in range(9):
        forged = MadeFleet(4, gpus=2, seed=100 + number, flipped={("node001", "gpu:0"): 1, ("node001", "gpu:1"): 1})
        content = forged.content(copy.deepcopy(TEMPLATE), "node001")
        content["run"]["node"] = name.format(number)
        written(tmp_path / f"forged{number}", content)
    expected = tuple(f"node00{number}" for number in range(1, 5))
    answer = judge_fleet(read_fleet([tmp_path]), FleetSettings(expected=expected))
    failed = {each.node for each in answer.findings if each.area == "bits" and each.status == "FAIL"}
    assert not failed & {"node002", "node003", "node004"}
    assert answer.nodes["node002"] == "PASS"


def test_many_of_one_name():
    """Ten thousand runs of one name at the same time take no longer than any others."""
    runs = [at(n / 1000, gpu(f"G{n}"), machine={"id": ""}) for n in range(10_000)]
    nodes, _ = runs_by_node(runs, NOW)
    assert [len(own) for own in nodes.values()] == [1]
