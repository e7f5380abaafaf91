"""A fleet's state as OpenMetrics text, for the textfile collector of Prometheus's node_exporter.

Every series is a gauge, and no value has a time of its own, so that the older text format (0.0.4) reads the same file.
There are at most two series for each node and two for each device, of which the slowest `MAX_DEVICES` are given; a
series for each kind of finding that a node has; and fewer than forty others, however large the fleet is.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from alexnet_repro.files import atomic_write
from alexnet_repro.fleet.records import STATUS_CODES, FleetAnswer
from alexnet_repro.fleet.summary import AREAS, compared_devices
from alexnet_repro.verify.finding import exit_status
from alexnet_repro.verify.report.run_record import UNPRINTABLE

PREFIX = "alexnet_repro_fleet"
MAX_DEVICES, MAX_LABEL = 20_000, 200
Series = Iterable[tuple[Sequence[str], float]]  # values of labels, and the number


class _Answer(Collector):
    def __init__(self, answer: FleetAnswer, now: float) -> None:
        self.answer, self.now = answer, now

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        answer, verdicts = self.answer, self.answer.nodes
        counts, runs = Counter(verdicts.values()), answer.fleet.runs
        of_area = Counter((each.area, each.status) for each in answer.findings)
        not_well = (status for status in STATUS_CODES if status != "PASS")
        areas = [([area, status], of_area[area, status]) for status in not_well for area in AREAS]
        of_nodes = Counter((each.node, each.area, each.status) for each in answer.findings if each.node)
        listed = [(key, count) for key, count in of_nodes.items() if key[2] != "PASS"]
        missing = [node for node in answer.nodes if node not in runs]
        unfinished = sum(not own[-1].complete for own in runs.values())
        devices = _slowest(answer)
        left_out = max(0, sum(int(np.isfinite(each.shifts).sum()) for each in answer.tables) - len(devices))
        status = "0 PASS, 1 FAIL, 3 INCONCLUSIVE"
        yield _gauge("timestamp_seconds", "When this file was written.", [([], self.now)])
        yield _gauge("status", f"The fleet's verdict: {status}.", [([], exit_status(answer.verdict))])
        yield _gauge("nodes", "Nodes by verdict.", [([each], counts[each]) for each in STATUS_CODES], "status")
        yield _gauge("nodes_missing", "Expected nodes that were not heard of.", [([], len(missing))])
        yield _gauge("nodes_unfinished", "Nodes whose newest run did not complete.", [([], unfinished)])
        yield _gauge("files_left_out", "Files that are no readable results.", [([], len(answer.fleet.refused))])
        yield _gauge("findings", "Findings by area and status.", areas, "area", "status")
        compared = [([what], compared_devices(answer, what)) for what in ("bits", "speed")]
        yield _gauge("devices_compared", "Devices that were compared with others.", compared, "what")
        yield _gauge("devices_left_out", "Devices without series, for there are too many.", [([], left_out)])
        each_node = [([node], exit_status(own)) for node, own in verdicts.items()]
        yield _gauge("node_status", f"A node's verdict: {status}.", each_node, "node")
        started = [([node], own[-1].started.timestamp()) for node, own in runs.items()]
        yield _gauge("node_run_timestamp_seconds", "When a node's newest run began.", started, "node")
        yield _gauge("node_findings", "A node's findings that are no PASS.", listed, "node", "area", "status")
        over_all = [([node, device], over_all) for node, device, over_all, _ in devices if np.isfinite(over_all)]
        worst = [([node, device], worst) for node, device, _, worst in devices]
        text = "A device's time as a multiple of the others'"
        yield _gauge("device_time_ratio", f"{text}, over all cases.", over_all, "node", "device")
        yield _gauge("device_worst_case_time_ratio", f"{text}, in its slowest case.", worst, "node", "device")


def write_metrics(answer: FleetAnswer, path: Path, now: float | None = None) -> None:
    """Write the gauges in one step; `now`: seconds since 1970. OSError: it can't be written."""
    registry = CollectorRegistry()
    registry.register(_Answer(answer, time.time() if now is None else now))
    atomic_write(path, generate_latest(registry).decode())


def _gauge(name: str, text: str, series: Series, *labels: str) -> GaugeMetricFamily:
    """Return a gauge; of several series with the same labels, as cut or cleaned, the largest."""
    known: dict[tuple[str, ...], float] = {}
    for values, number in series:
        key = tuple(UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", each)[:MAX_LABEL] for each in values)
        known[key] = max(number, known.get(key, number))
    unit = next((each for each in ("seconds", "ratio") if name.endswith(f"_{each}")), "")
    gauge = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=labels, unit=unit)
    for key, number in known.items():
        gauge.add_metric(key, number)
    return gauge


def _slowest(answer: FleetAnswer) -> list[tuple[str, str, float, float]]:
    """Return node, device, and its ratios over all cases and in its slowest one; the slowest first."""
    found = []
    for table in answer.tables:
        known = np.where(np.isfinite(table.ratios), table.ratios, -np.inf).max(axis=1, initial=-np.inf)
        rows = zip(table.members, table.shifts.tolist(), known.tolist(), strict=True)
        found += [(node, device, round(time, 4), round(worst, 4)) for (node, device), time, worst in rows if worst > 0]
    return sorted(found, key=lambda each: -each[3])[:MAX_DEVICES]
