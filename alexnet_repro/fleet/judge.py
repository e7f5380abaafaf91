"""The verdict of a fleet: of each node and of all, from bits, speed, history, inventory and what each found itself."""

from collections.abc import Iterator
from pathlib import Path

from alexnet_repro.fleet.bits import judge_bits
from alexnet_repro.fleet.content import WORST_FIRST
from alexnet_repro.fleet.history import judge_history
from alexnet_repro.fleet.inventory import expected_part, judge_inventory
from alexnet_repro.fleet.node_names import by_number
from alexnet_repro.fleet.records import Fleet, FleetAnswer, FleetFinding, FleetSettings, RefusedFile
from alexnet_repro.fleet.speed import judge_speed
from alexnet_repro.verify.finding import Status

AREAS = ("bits", "own", "missing", "files", "health", "speed", "history", "inventory")  # of equal status, in this order


def judge_fleet(fleet: Fleet, settings: FleetSettings, out: Path | None = None) -> FleetAnswer:
    """Return what is found in a fleet, the worst first, and each node's verdict."""
    asked, findings = expected_part(fleet, settings)
    cohorts, of_bits = judge_bits(asked, settings)
    speed = judge_speed(asked, settings)
    findings += [
        *_own(asked),
        *of_bits,
        *speed.findings,
        *judge_history(asked, settings),
        *judge_inventory(asked, settings),
    ]
    findings += [_left_out(each) for each in asked.refused]
    findings.sort(key=lambda each: (WORST_FIRST.index(each.status), AREAS.index(each.area), by_number(each.node)))
    nodes: dict[str, Status] = dict.fromkeys([*asked.runs, *settings.expected], "PASS")
    for run in asked.current:
        nodes[run.node] = run.verdict if run.complete else _worse(run.verdict, "INCONCLUSIVE")
    for each in findings:
        for node in {each.node, *each.nodes} & nodes.keys():
            nodes[node] = _worse(nodes[node], each.status)
    worst_first = dict(sorted(nodes.items(), key=lambda item: (WORST_FIRST.index(item[1]), by_number(item[0]))))
    every = [*cohorts, *speed.cohorts]
    return FleetAnswer(asked, settings, every, speed.tables, findings, worst_first, out)


def _left_out(file: RefusedFile) -> FleetFinding:
    fix = "" if file.status == "PASS" else "remove it, or verify that machine again"
    return FleetFinding("files", file.status, f"a file is left out: {file.why}", evidence=file.path, fix=fix)


def _own(fleet: Fleet) -> Iterator[FleetFinding]:
    """Yield what the nodes' runs found by themselves."""
    for run in fleet.current:
        for each in run.found:
            yield FleetFinding("own", each.status, f"{each.check}: {each.message}", run.node, each.device, fix=each.fix)


def _worse(one: Status, other: Status) -> Status:
    return min(one, other, key=WORST_FIRST.index)
