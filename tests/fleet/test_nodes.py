"""Nodes of a fleet: expected, missing, behind, of one name, and what they have otherwise than most."""

from dataclasses import replace
from datetime import timedelta

import pytest

from alexnet_repro.fleet.inventory import expected_part, judge_inventory, read_nodes, settings_for
from alexnet_repro.fleet.records import Fleet, FleetSettings
from tests.helpers.fleets import DAY, device, node_run


def fleet_of(*runs):
    """Return a fleet of runs."""
    fleet = Fleet()
    for each in runs:
        fleet.runs.setdefault(each.node, []).append(each)
    return fleet


def six(**changes):
    """Return six nodes' runs, of which some are changed, by name."""
    runs = [node_run(f"n{number}", device(seed=number)) for number in range(1, 7)]
    return [changes.get(each.node, each) for each in runs]


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        pytest.param("n1\nn2\n", {"n1": {}, "n2": {}}, id="file=list"),
        pytest.param("# all\n\nn1  # the first\r\n  n2", {"n1": {}, "n2": {}}, id="file=comments"),
        pytest.param(
            "node,rack,switch\nn1,r1,s1\nn2,r2,\n",
            {"n1": {"rack": "r1", "switch": "s1"}, "n2": {"rack": "r2"}},
            id="file=table",
        ),
        pytest.param("\ufeffnode,rack\nn1,r1", {"n1": {"rack": "r1"}}, id="file=excel"),
        pytest.param("Hostname\nn1\nn2\n", {"n1": {}, "n2": {}}, id="file=a column with its name"),
        pytest.param("n[01-03,05]\nlogin", {n: {} for n in ("n01", "n02", "n03", "n05", "login")}, id="file=folded"),
        pytest.param("n[1-2],m1\nm[2-3]", {n: {} for n in ("n1", "n2", "m1", "m2", "m3")}, id="file=Slurm's lists"),
        pytest.param("n1,n2", {"n1": {}, "n2": {}}, id="file=one line"),
        pytest.param(
            'node,rack\nn[1-2],r1\n"m[1,3]",r2',
            {"n1": {"rack": "r1"}, "n2": {"rack": "r1"}, "m1": {"rack": "r2"}, "m3": {"rack": "r2"}},
            id="file=folded table",
        ),
        pytest.param('host,room\nn1,"a, b"', {"n1": {"room": "a, b"}}, id="file=quoted"),
    ],
)
def test_read_nodes(tmp_path, text, nodes):
    """A file names nodes one a line, or is a table whose first column is the node."""
    path = tmp_path / "nodes.txt"
    path.write_text(text)
    assert read_nodes(path) == nodes


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(b"", "names no node", id="file=empty"),
        pytest.param(b"node,rack\n", "names no node", id="file=head"),
        pytest.param(
            b"n1,r1\nn2,r1\n", "first line must name the columns, as node,rack, and is n1,r1", id="file=headless"
        ),
        pytest.param(b"# node,rack\nn1,r1\nn2,r2", "first line must name the columns", id="file=commented head"),
        pytest.param(b"rack,node\nr1,n1", "first line must name the columns", id="file=other first column"),
        pytest.param(b"n[1-2]\nn2\n", "n2 is in it twice", id="file=folded twice"),
        pytest.param(b"n[2-1]\n", r"n\[2-1\] has a range that ends before it begins", id="file=backwards"),
        pytest.param(b"node,a\n,1\n", "has .*no name", id="file=no name"),
        pytest.param(b"a" * 200_000 + b",b\nc,d", "field larger than", id="file=huge cell"),
        pytest.param(b"n1\n" + b"#" * 2**25, "more than 33,554,432 bytes", id="file=large"),
        pytest.param(b"n1\nn1\n", "n1 is in it twice", id="file=twice"),
        pytest.param(b"node,a,a\nn1,1,2", "a column is in it twice", id="file=column"),
        pytest.param(b"node,a\nn1,1,2", "n1 has more cells than there are columns", id="file=cells"),
        pytest.param(b"\xff\xfe\x00", "isn't text in UTF-8", id="file=binary"),
    ],
)
def test_unreadable_nodes(tmp_path, content, why):
    """A file that isn't such a list is an error that names it."""
    path = tmp_path / "nodes.txt"
    path.write_bytes(content)
    with pytest.raises(OSError, match=f"nodes.txt.*{why}"):
        read_nodes(path)


@pytest.mark.parametrize(
    ("expected", "heard", "missing"),
    [
        pytest.param(["n1", "n2"], ["n1", "n2"], [], id="names=same"),
        pytest.param(["n1", "n2"], ["n1"], ["n2"], id="names=missing"),
        pytest.param(["n1.a.org"], ["n1"], [], id="names=short"),
        pytest.param(["N1"], ["n1.a.org"], [], id="names=full"),
        pytest.param(["n1.a.org"], ["n1.b.org"], ["n1.a.org"], id="names=domains"),
        pytest.param(["n1"], ["n1.a.org", "n1.b.org"], ["n1"], id="names=ambiguous"),
        pytest.param(["10.0.0.1"], ["10.0.0.2"], ["10.0.0.1"], id="names=addresses"),
    ],
)
def test_expected(expected, heard, missing):
    """Who is expected and wasn't heard of is named; a host's short name is its full one where only one can be."""
    fleet = fleet_of(*(node_run(node, device()) for node in heard))
    settings = settings_for(fleet, {node: {} for node in expected})
    _, findings = expected_part(fleet, settings)
    assert [each.node for each in findings if each.area == "missing"] == missing
    assert {each.status for each in findings if each.area == "missing"} <= {"INCONCLUSIVE"}


def test_unexpected():
    """Who isn't expected is named, has no vote, and isn't green by omission."""
    fleet = fleet_of(*six())
    kept, findings = expected_part(fleet, FleetSettings(expected=("n1", "n2", "n3")))
    assert list(kept.runs) == ["n1", "n2", "n3"]
    assert [(each.status, each.node) for each in findings] == [
        ("INCONCLUSIVE", "n4"),
        ("INCONCLUSIVE", "n5"),
        ("INCONCLUSIVE", "n6"),
    ]


def test_columns():
    """A column is of the file given, or of the results; those by which nodes differ are kept, and those asked for."""
    fleet = fleet_of(*six(n3=node_run("n3", device(seed=3), machine={"kernel": "6.9"})))
    listed = {f"n{number}": {"rack": f"r{number % 2}"} for number in range(1, 7)}
    settings = settings_for(fleet, listed, ["rack", "packages.tensorflow"])
    assert settings.by == ("rack", "packages tensorflow")
    assert settings.columns["rack"] == {"n1": "r1", "n2": "r0", "n3": "r1", "n4": "r0", "n5": "r1", "n6": "r0"}
    assert settings.columns["kernel"]["n3"] == "6.9"
    assert set(settings.columns["packages tensorflow"].values()) == {"2.21.0"}
    assert "python" not in settings.columns


def test_unknown_column():
    """A column that there isn't is an error with those by which nodes differ."""
    fleet = fleet_of(*six(n3=node_run("n3", device(seed=3), machine={"kernel": "6.9"})))
    with pytest.raises(ValueError, match=r"no node has a column 'rck'; columns by which nodes differ: kernel$"):
        settings_for(fleet, {}, ["rck"])


def test_sound():
    """Six like nodes have nothing to name."""
    assert judge_inventory(fleet_of(*six())) == []


ODD_DRIVER = device(seed=2, inventory={"driver": "550.54", "firmware": "96.00.89.00.01", "ecc_corrected": "0"})
SAME_AS_FIRST = device(seed=1)


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        pytest.param(
            node_run("n2", device(seed=2), machine={"packages tensorflow": "2.20.0"}),
            ("PASS", "inventory", "packages tensorflow 2.20.0, the others 2.21.0"),
            id="other=package",
        ),
        pytest.param(
            node_run("n2", device(seed=2), version="0.2.0"),
            ("PASS", "inventory", "alexnet-repro 0.2.0, the others 0.1.0"),
            id="other=version",
        ),
        pytest.param(
            node_run("n2", device(seed=2), machine={"firmware bios": ""}),
            ("PASS", "inventory", "firmware bios none, the others 2.4.1"),
            id="other=bios",
        ),
        pytest.param(
            node_run("n2", device(seed=2), days=-30),
            ("INCONCLUSIVE", "missing", "its newest run is of 2026-10-25 10:15, others' of 2026-11-24 10:15 UTC"),
            id="other=day",
        ),
        pytest.param(
            node_run("n2", device(seed=2, inventory={**device().inventory, "driver": "550.54"})),
            ("PASS", "inventory", "driver 550.54, the others 570.86.15"),
            id="other=driver",
        ),
    ],
)
def test_other_than_most(odd, expected):
    """What one node has otherwise is named by its key, with what the others have."""
    findings = judge_inventory(fleet_of(*six(n2=odd)))
    assert [(each.status, each.area, each.message) for each in findings if each.node == "n2"] == [expected]
    assert {each.node for each in findings} == {"n2"}


def test_no_majority_of_software():
    """Where half have one version and half another, neither is other than most."""
    runs = [node_run(f"n{number}", device(seed=number), machine={"kernel": f"6.{number % 2}"}) for number in range(6)]
    assert judge_inventory(fleet_of(*runs)) == []


@pytest.mark.parametrize(
    ("errors", "named"), [pytest.param("99", False, id="errors=few"), pytest.param("1200", True, id="errors=many")]
)
def test_corrected_errors(errors, named):
    """A device with many more corrected memory errors than the others is named; a few are what correction is for."""
    runs = [
        node_run(f"n{number}", device(seed=number, inventory={"ecc_corrected": errors if number == 3 else "1"}))
        for number in range(6)
    ]
    findings = [each for each in judge_inventory(fleet_of(*runs)) if each.area == "health"]
    expected = [("INCONCLUSIVE", "n3", "gpu:0", "1,200 corrected memory errors, the others 1")]
    assert [(each.status, each.node, each.device, each.message) for each in findings] == expected * named


def test_one_device_in_two_nodes():
    """A GPU that two nodes have is named in both: it was moved, or they are one machine."""
    findings = judge_inventory(fleet_of(*six(n2=node_run("n2", device(seed=1)))))
    assert [(each.status, each.node, each.message.partition(" has")[0]) for each in findings] == [
        ("INCONCLUSIVE", "n1", "n2"),
        ("INCONCLUSIVE", "n2", "n1"),
    ]


def test_device_gone():
    """A device that a node had in its run before, and hasn't any more, is named."""
    before = node_run("n2", device("gpu:0", seed=2), device("gpu:1", seed=2), days=-1)
    findings = judge_inventory(fleet_of(before, *six()))
    assert [(each.status, each.node, each.message) for each in findings] == [
        ("INCONCLUSIVE", "n2", "gpu:1 was there on 2026-11-23, and isn't any more")
    ]


def changed_over(days, before, now, others=()):
    """Return status, device and message of what is found where a node's devices were others some days ago."""
    fleet = fleet_of(node_run("n2", *before, days=-days), node_run("n2", *now), *others)
    return [(each.status, each.device, each.message) for each in judge_inventory(fleet)]


def gpus(*serials):
    """Return GPUs of these serials, in their order."""
    return [device(f"gpu:{number}", serial=serial) for number, serial in enumerate(serials)]


@pytest.mark.parametrize(
    ("days", "before", "now", "found"),
    [
        pytest.param(3, "ab", "ba", [], id="gpus=renumbered"),
        pytest.param(
            3,
            "ab",
            "ac",
            [("PASS", "gpu:1", "gpu:1 has serial c, in the run of 2026-11-21 10:15 b: it was replaced")],
            id="gpus=replaced",
        ),
        pytest.param(
            0.05,
            "a",
            "c",
            [("INCONCLUSIVE", "gpu:0", "gpu:0 has serial c, in the run of 2026-11-24 09:03 a")],
            id="gpus=another job's",
        ),
        pytest.param(
            3,
            "abc",
            "ac",
            [("INCONCLUSIVE", "", "gpu:1 was there on 2026-11-21, and isn't any more")],
            id="gpus=gone and renumbered",
        ),
        pytest.param(3, "xx", "xx", [], id="gpus=a board's serial"),
        pytest.param(0.05, ["hashed-1"], ["17"], [], id="gpus=hashed before"),
        pytest.param(0.05, [""], ["17"], [], id="gpus=unknown before"),
        pytest.param(
            3,
            "xx",
            "x",
            [("INCONCLUSIVE", "", "gpu:1 was there on 2026-11-21, and isn't any more")],
            id="gpus=half",
        ),
    ],
)
def test_devices_change(days, before, now, found):
    """A GPU that has gone is named whatever its name is now; a replaced one is history, but not within a day."""
    assert changed_over(days, gpus(*before), gpus(*now)) == found


def test_gone_for_days():
    """A GPU that has gone is named as long as it isn't back."""
    runs = [node_run("n2", *gpus(*serials), days=day) for day, serials in ((-9, "ab"), (-5, "a"), (0, "a"))]
    assert [each.message for each in judge_inventory(fleet_of(*runs))] == [
        "gpu:1 was there on 2026-11-15, and isn't any more"
    ]


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        pytest.param(gpus("o"), "1 × NVIDIA H100 80GB HBM3, the others 2", id="gpus=one"),
        pytest.param([device("cpu:0", kind="CPU")], "0 × NVIDIA H100 80GB HBM3, the others 2", id="gpus=none"),
        pytest.param(gpus("o", "p", "q"), "", id="gpus=more"),
        pytest.param([device(kind="NVIDIA A100")], "", id="gpus=another kind"),
    ],
)
def test_fewer_devices(odd, message):
    """A node with fewer GPUs than most nodes of their kind is named."""
    runs = [node_run(f"n{number}", *gpus(f"a{number}", f"b{number}")) for number in range(6)]
    found = judge_inventory(fleet_of(*runs, node_run("odd", *odd)))
    expected = [("INCONCLUSIVE", "odd", message)] if message else []
    assert [(each.status, each.node, each.message) for each in found if each.area == "health"] == expected


def test_serial_of_all():
    """A serial that very many nodes have is no device's own, which is one finding."""
    found = judge_inventory(fleet_of(*(node_run(f"n{number}", device(serial="123")) for number in range(1000))))
    message = "1,000 nodes have a device of serial 123, which is no device's own"
    assert [(each.status, each.message) for each in found] == [("PASS", message)]


@pytest.mark.parametrize(
    ("silent", "max_age", "behind"),
    [
        pytest.param(1, 1, 1, id="silent=one"),
        pytest.param(4, 1, 4, id="silent=half"),
        pytest.param(1, 3, 0, id="silent=allowed"),
        pytest.param(7, 1, 0, id="silent=all but one that was verified again"),
        pytest.param(8, 1, 0, id="silent=all, as an archive"),
    ],
)
def test_not_heard_of_lately(silent, max_age, behind):
    """A node that only an old file is of isn't taken for heard of; an old folder as a whole can be judged."""
    runs = [node_run(f"n{number}", device(seed=number), days=-3 * (number < silent)) for number in range(8)]
    found = judge_inventory(fleet_of(*runs), FleetSettings(max_age=timedelta(days=max_age)))
    assert [(each.status, each.area) for each in found] == [("INCONCLUSIVE", "missing")] * behind


def test_one_name():
    """Of two machines of one name, the second is named, with how to tell them apart."""
    other = replace(node_run("n2@bbbb", device(seed=9), machine={"id": "bbbb"}), started=DAY + timedelta(hours=1))
    findings = judge_inventory(replace(fleet_of(*six(), other), names={"n2@bbbb": "n2"}))
    assert [(each.status, each.node, each.message) for each in findings] == [
        ("INCONCLUSIVE", "n2@bbbb", "another machine is called n2 as well")
    ]
    assert "ALEXNET_REPRO_NODE" in findings[0].fix
