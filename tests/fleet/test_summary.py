"""A fleet in a few words: they claim no more than what was compared, and name each thing once."""

from dataclasses import replace

import pytest

from alexnet_repro.fleet.records import FleetFinding
from alexnet_repro.fleet.summary import fleet_headline, todo
from tests.helpers.fleets import EMPTY, SLOW, device, faulty_fleet, fleet_answer, healthy_fleet, large_fleet, node_run

ALONE = fleet_answer([node_run("n1", device())])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(
            healthy_fleet(),
            "All 8 nodes passed. Compared: bits among 8 devices, speed among 8 devices.",
            id="fleet=healthy",
        ),
        pytest.param(
            faulty_fleet(),
            "2 of 12 nodes failed (n[03,05]); 4 of 12 nodes inconclusive (n[02,07,09,12]); 6 of 12 nodes passed. "
            "Compared: bits among 21 devices, speed among 19 devices.",
            id="fleet=faulty",
        ),
        pytest.param(
            large_fleet(),
            "rack=r07 is slow as a whole; 43 of 1,000 nodes failed (r03n05, r07n[01-40], r12n20, r19n31); 957 of 1,000 "
            "nodes passed. Compared: bits among 1,000 devices, speed among 1,000 devices.",
            id="fleet=a slow rack",
        ),
        pytest.param(
            replace(
                healthy_fleet(),
                findings=[
                    FleetFinding(area, status, "a message")
                    for area, status in (
                        *(("files", "INCONCLUSIVE"), ("speed", "INCONCLUSIVE"), ("bits", "FAIL")),
                        *(("inventory", "PASS"), ("files", "INCONCLUSIVE")),
                    )
                ],
            ),
            "All 8 nodes passed; of the fleet as a whole, bits failed, files and speed inconclusive. "
            "Compared: bits among 8 devices, speed among 8 devices.",
            id="fleet=as a whole",
        ),
        pytest.param(
            replace(
                healthy_fleet(), findings=[FleetFinding("speed", "FAIL", "slow", group="a GPU, XLA_FLAGS --xla_x=true")]
            ),
            "All 8 nodes passed; of the fleet as a whole, speed failed. "
            "Compared: bits among 8 devices, speed among 8 devices.",
            id="fleet=a cohort's name with a sign",
        ),
        pytest.param(ALONE, "1 of 1 node passed. Compared: bits of none, speed of none.", id="fleet=one node"),
        pytest.param(EMPTY, "No node was heard of: no results file could be read.", id="fleet=none"),
    ],
)
def test_headline(answer, expected):
    """The sentence names slow groups, then nodes by verdict, and what was compared: of one node nothing."""
    assert fleet_headline(answer) == expected


def test_each_thing_to_do_is_named_once():
    """Findings with one fix are one thing, whichever nodes and areas they are of; failures come first."""
    found = [(each.status, each.title, each.nodes) for each in todo(faulty_fleet())]
    assert found == [
        ("FAIL", "n03 gpu:1: speed", ""),
        ("FAIL", "n05 gpu:0: bits", ""),
        ("FAIL", "n03 gpu:0: health", ""),
        ("INCONCLUSIVE", "n07: own run", ""),
        ("INCONCLUSIVE", "n09 bits, inventory: 2 findings", ""),
        ("INCONCLUSIVE", "n12: missing", ""),
        ("INCONCLUSIVE", "n02 gpu:1: history", ""),
    ]
    found = [(each.title, each.nodes) for each in todo(large_fleet())]
    assert found == [
        ("rack=r07: speed", ""),
        ("3 nodes: speed", "r03n05, r12n20, r19n31"),
        ("r07n09 gpu:0: bits", ""),
    ]


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [
        ({"fix": "ssh n1 reboot"}, {"fix": "ssh n2 reboot"}, 1),
        ({"fix": "nvidia-smi -i gpu:0", "device": "gpu:0"}, {"fix": "nvidia-smi -i gpu:1", "device": "gpu:1"}, 1),
        ({"fix": "ssh n11 reboot"}, {"fix": "ssh n21 reboot"}, 2),
        ({"fix": "", "message": "n1 is cold"}, {"fix": "", "message": "n2 is cold"}, 1),
        ({"fix": "", "message": "cold"}, {"fix": "", "message": "warm"}, 2),
        ({"fix": "", "message": "cold"}, {"fix": "", "message": "cold", "area": "health"}, 2),
        ({"fix": "see to it"}, {"fix": "see to it", "area": "health"}, 1),
        ({"fix": "see to it", "status": "PASS"}, {"fix": "see to it"}, 1),
    ],
    ids=[
        f"differs={each}"
        for each in (
            *("node in the fix", "device in the fix", "part of a name", "node in the message"),
            *("message", "area", "area with a fix", "one passed"),
        )
    ],
)
def test_what_is_one_thing(one, other, count):
    """Texts that differ in the node's or device's own name alone are the same; what passed is nothing to do."""
    findings = [replace(SLOW, node=node, **fields) for node, fields in (("n1", one), ("n2", other))]
    answer = fleet_answer([node_run("n1", device()), node_run("n2", device())], findings)
    assert len(todo(answer)) == count
