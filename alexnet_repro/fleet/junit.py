"""A fleet as JUnit's XML, for CI systems: a test case for each node, and one for the verdict."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from alexnet_repro.fleet.records import FleetAnswer, FleetFinding
from alexnet_repro.fleet.summary import fleet_headline
from alexnet_repro.verify.report.junit import add_case, new_suite, write_suite

FLEET = "fleet"
UNKNOWN = "not heard of"


def write_fleet_junit(answer: FleetAnswer, path: Path) -> None:
    """Write a test case for each node, named as it and of its devices' class, and one named `fleet` with the verdict.

    A node that passed has passed, one that failed is a failure, the rest is skipped. OSError: it can't be written.
    """
    of_node: defaultdict[str, list[FleetFinding]] = defaultdict(list)
    for each in answer.findings:
        if each.status != "PASS":
            for node in filter(None, [each.node, *each.nodes]):
                of_node[node].append(each)
    runs = {node: runs[-1] for node, runs in answer.fleet.runs.items()}
    started = max((each.started.isoformat() for each in runs.values()), default="")
    properties = {"nodes": str(len(answer.nodes)), "files left out": str(len(answer.fleet.refused))}
    suite = new_suite(FLEET, properties, seconds="0", host="", started=started)
    for node, status in answer.nodes.items():
        run, found = runs.get(node), sorted(of_node[node], key=lambda each: each.status != "FAIL")
        kinds = sorted({each.kind for each in run.devices}) if run else []
        where = f"{FLEET}.{', '.join(kinds) or UNKNOWN}".replace("::", "__")
        message = found[0].message if found else "it has no finding"
        add_case(suite, f"{where}::{node}", status, message, _lines(found), seconds=run.seconds if run else 0)
    lines = _lines([each for each in answer.findings if not each.node and each.status != "PASS"])
    add_case(suite, f"{FLEET}::{FLEET}", answer.verdict, f"{answer.verdict}: {fleet_headline(answer)}", lines)
    write_suite(suite, path, "name another folder")


def _lines(findings: Sequence[FleetFinding]) -> list[str]:
    """Return a line per finding, and one each for evidence and fix."""
    lines = []
    for each in findings:
        name = " ".join(filter(None, (each.device, each.group if each.nodes else "", each.area)))
        lines.append(f"{each.status} {name}: {each.message}")
        lines += [f"  {what}: {text}" for what, text in (("evidence", each.evidence), ("fix", each.fix)) if text]
    return lines
