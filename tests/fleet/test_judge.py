"""The verdict of a fleet's nodes: no better than what is found of them, or of a group that they are in."""

import pytest

from alexnet_repro.fleet import judge
from alexnet_repro.fleet.judge import judge_fleet
from alexnet_repro.fleet.records import FleetFinding, FleetSettings, SpeedAnswer
from tests.helpers.fleets import fleet_answer, node_run


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"nodes": ("n1", "n3")}, {"n1": "FAIL", "n2": "PASS"}),
        ({"node": "n2"}, {"n2": "FAIL", "n1": "PASS"}),
        ({"group": "a GPU, XLA_FLAGS --xla_x=true"}, {"n1": "PASS", "n2": "PASS"}),
    ],
    ids=["finding=of a group", "finding=of a node", "finding=of a cohort"],
)
def test_node_is_no_better_than_its_group(monkeypatch, fields, expected):
    """A node of a slow group isn't PASS, and the worst come first; what is found of a cohort touches no node."""
    found = [FleetFinding("speed", "FAIL", "slow", **fields)]
    monkeypatch.setattr(judge, "judge_speed", lambda *_: SpeedAnswer(findings=found))
    answer = judge_fleet(fleet_answer([node_run("n1"), node_run("n2")]).fleet, FleetSettings())
    assert list(answer.nodes.items()) == list(expected.items())
    assert answer.verdict == "FAIL"
