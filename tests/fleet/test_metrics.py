"""The metrics of a fleet: few gauges, that both of Prometheus's text formats can be read from."""

from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from alexnet_repro.fleet import metrics
from alexnet_repro.fleet.metrics import write_metrics
from tests.helpers.fleets import (
    EMPTY,
    HARMFUL,
    SLOW,
    device,
    faulty_fleet,
    fleet_answer,
    harmful_fleet,
    healthy_fleet,
    large_fleet,
    node_run,
)

PARSERS = {
    "text 0.0.4": parser.text_string_to_metric_families,
    "OpenMetrics": openmetrics_parser.text_string_to_metric_families,
}
PREFIX = "alexnet_repro_fleet_"


def written(folder, answer, **options):
    """Write a fleet's metrics, and return the text."""
    write_metrics(answer, folder / "fleet.prom", **options)
    return (folder / "fleet.prom").read_bytes().decode()


def samples(text, read=PARSERS["OpenMetrics"]):
    """Return the numbers by name, without the prefix, and labels' values."""
    found = [each for family in read(text) for each in family.samples]
    numbers = {(each.name.removeprefix(PREFIX), *sorted(each.labels.values())): each.value for each in found}
    assert len(numbers) == len(found), "a series is there twice"
    return numbers


@pytest.mark.parametrize("read", PARSERS.values(), ids=[f"format={name}" for name in PARSERS])
@pytest.mark.parametrize(
    "answer",
    [healthy_fleet(), faulty_fleet(), harmful_fleet(), EMPTY],
    ids=["fleet=healthy", "fleet=faulty", "fleet=harmful", "fleet=none"],
)
def test_both_formats_read_it(tmp_path, answer, read):
    """Each series is a gauge with a help text and without a time of its own, and no series is there twice."""
    text = written(tmp_path, answer)
    families = list(read(text))
    assert {each.type for each in families} == {"gauge"}
    assert all(each.documentation and each.name.startswith(PREFIX) for each in families)
    assert all(each.timestamp is None for family in families for each in family.samples)
    assert len(samples(text, read)) == sum(len(each.samples) for each in families)
    assert text.endswith("\n# EOF\n")


def test_formats_agree(tmp_path):
    """Both formats have the same numbers."""
    text = written(tmp_path, faulty_fleet())
    assert samples(text, PARSERS["text 0.0.4"]) == samples(text, PARSERS["OpenMetrics"])


def test_numbers(tmp_path):
    """Verdicts are exit statuses, nodes and findings are counted, and a device has its time beside the others'."""
    found = samples(written(tmp_path, faulty_fleet(), now=1.8e9))
    expected = {
        ("timestamp_seconds",): 1.8e9,
        ("status",): 1,
        ("nodes", "PASS"): 6,
        ("nodes", "FAIL"): 2,
        ("nodes", "INCONCLUSIVE"): 4,
        ("nodes_missing",): 1,
        ("nodes_unfinished",): 1,
        ("files_left_out",): 1,
        ("devices_compared", "bits"): 21,
        ("devices_compared", "speed"): 19,
        ("findings", "FAIL", "bits"): 1,
        ("findings", "FAIL", "own"): 0,
        ("findings", "INCONCLUSIVE", "own"): 1,
        ("node_status", "n03"): 1,
        ("node_status", "n12"): 3,
        ("node_status", "n01"): 0,
        ("node_findings", "FAIL", "bits", "n05"): 1,
        ("node_run_timestamp_seconds", "n01"): 1795515300,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert found["device_time_ratio", "gpu:1", "n03"] == pytest.approx(1.12, abs=0.01)
    assert found["device_worst_case_time_ratio", "gpu:1", "n03"] > found["device_time_ratio", "gpu:1", "n03"]
    assert ("node_run_timestamp_seconds", "n12") not in found
    assert not [key for key in found if key[0] == "node_findings" and "n01" in key]


def test_nodes_of_a_slow_group_fail(tmp_path):
    """A node of a slow rack has the rack's status."""
    found = samples(written(tmp_path, large_fleet(racks=8, per_rack=4)))
    assert [found["node_status", f"r07n0{place}"] for place in (1, 2, 3, 4)] == [1, 1, 1, 1]
    assert (found["nodes", "FAIL"], found["nodes", "PASS"]) == (4, 28)


def test_units_are_stated(tmp_path):
    """What has a unit in its name states it, as OpenMetrics asks."""
    units = {each.name.removeprefix(PREFIX): each.unit for each in PARSERS["OpenMetrics"](written(tmp_path, EMPTY))}
    assert {name: unit for name, unit in units.items() if unit} == {
        "timestamp_seconds": "seconds",
        "node_run_timestamp_seconds": "seconds",
        "device_time_ratio": "ratio",
        "device_worst_case_time_ratio": "ratio",
    }


def test_number_of_series_is_bounded(tmp_path, monkeypatch):
    """There are two series for each node and device, and some forty more; beyond a limit, the slowest devices stay."""
    answer = large_fleet(racks=10, per_rack=10)
    found = samples(written(tmp_path, answer))
    assert len(found) <= 4 * 100 + 40 + len(answer.findings)
    monkeypatch.setattr(metrics, "MAX_DEVICES", 11)
    found = samples(written(tmp_path, answer))
    kept = {key[2] for key in found if key[0] == "device_time_ratio"}
    assert kept == {"r03n05", *(f"r07n{place:02}" for place in range(1, 11))}
    assert found["devices_left_out",] == 89


@pytest.mark.parametrize("text", HARMFUL.values(), ids=[f"text={name}" for name in HARMFUL])
def test_label_holds_any_text(tmp_path, text):
    """A node of any name is one line, and what no file holds is replaced."""
    text_of = written(tmp_path, fleet_answer([node_run(text, device(text))], [replace(SLOW, node=text)]))
    names = [key[1] for key in samples(text_of) if key[0] == "node_status"]
    assert len(names) == 1
    assert not set(names[0]) & set("\x00\x1b\r\ud800")


def test_names_that_become_one(tmp_path):
    """Where two nodes' names are one when cut or cleaned, there is one series, with the worse number."""
    runs = [node_run(name, device()) for name in ("a\x00", "a\x01", "b" * 200 + "1", "b" * 200 + "2")]
    answer = fleet_answer(runs, [replace(SLOW, node="a\x01"), replace(SLOW, node="b" * 200 + "1")])
    found = samples(written(tmp_path, answer))
    assert {key[1]: value for key, value in found.items() if key[0] == "node_status"} == {"a\ufffd": 1, "b" * 200: 1}


def test_absurd_ratios(tmp_path):
    """A ratio that is no number isn't written."""
    answer = healthy_fleet(3)
    table = answer.tables[0]
    ratios = np.array([[np.nan] * 12, [np.inf] * 12, [*[1.0] * 11, 2.0]], np.float32)
    table = replace(table, ratios=ratios, shifts=np.array([np.nan, np.inf, np.nan], np.float32))
    found = samples(written(tmp_path, replace(answer, tables=[table])))
    assert {key: value for key, value in found.items() if "time_ratio" in key[0]} == {
        ("device_worst_case_time_ratio", "gpu:0", "n3"): 2.0
    }


def test_file_is_replaced_whole(tmp_path):
    """The file appears in one step, for it is read at any moment; where it can't, the error says what to do."""
    written(tmp_path, healthy_fleet())
    assert [path.name for path in tmp_path.iterdir()] == ["fleet.prom"]
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="name another folder"):
        write_metrics(healthy_fleet(), tmp_path / "file" / "fleet.prom")
