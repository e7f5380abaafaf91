"""The published JSON Schema of fleet.json: what is written is valid by it, and what isn't so isn't."""

import copy
import json

import pytest
from jsonschema import Draft202012Validator

from alexnet_repro.fleet.fleet_file import fleet_data
from tests.helpers.fleets import EMPTY, faulty_fleet, harmful_fleet, healthy_fleet
from tests.helpers.paths import ROOT

SCHEMA = json.loads((ROOT / "docs/fleet.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(healthy_fleet(), id="fleet=healthy"),
        pytest.param(faulty_fleet(), id="fleet=faulty"),
        pytest.param(harmful_fleet(), id="fleet=harmful"),
        pytest.param(EMPTY, id="fleet=empty"),
    ],
)
def test_valid(answer):
    """What any fleet's file holds is JSON without words for numbers, and valid."""
    data = json.loads(json.dumps(fleet_data(answer), allow_nan=False))
    assert [each.message for each in VALIDATOR.iter_errors(data)] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param(("verdict",), "OK", id="wrong=verdict"),
        pytest.param(("nodes", 0, "verdict"), None, id="wrong=node"),
        pytest.param(("findings", 0, "area"), "weather", id="wrong=area"),
        pytest.param(("cohorts", 0, "devices"), "two", id="wrong=devices"),
        pytest.param(("nodes", 0, "devices", 0, "cases"), [], id="wrong=cases"),
    ],
)
def test_invalid(path, value):
    """What isn't so is refused by the schema."""
    data = copy.deepcopy(fleet_data(faulty_fleet()))
    *parents, last = path
    place = data
    for name in parents:
        place = place[name]
    place[last] = value
    assert not VALIDATOR.is_valid(data)


def test_content():
    """A node has its verdict, its device's times beside the others', and a finding its node and step of the fix."""
    data = fleet_data(faulty_fleet())
    node = next(each for each in data["nodes"] if each["node"] == "n03")
    assert (data["verdict"], node["verdict"], node["complete"], node["earlier"]) == ("FAIL", "FAIL", True, 0)
    slow = node["devices"][1]
    assert slow["cases"]["train_step[batch=128-precision=float32]"] == pytest.approx(1.12, abs=0.02)
    assert next(each for each in data["nodes"] if each["node"] == "n12") == {"node": "n12", "verdict": "INCONCLUSIVE"}
