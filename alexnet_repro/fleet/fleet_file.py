"""What `fleet.json` holds, typed: what is written, and what its JSON Schema is made from."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from alexnet_repro.fleet.page_tables import questions
from alexnet_repro.fleet.records import Area, FleetAnswer, FleetFinding, SpeedTable
from alexnet_repro.fleet.summary import fleet_headline
from alexnet_repro.verify.finding import Status
from alexnet_repro.verify.report.results_schema import WithoutTitles

FLEET_SCHEMA = 1


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Settings(_Closed):
    """How the fleet was judged."""

    expected: int = Field(description="nodes that --expect names; 0: none was given")
    by: list[str] = Field(description="the columns by which a group may be slow")
    tolerance: float = Field(description="a smaller slowdown is none, as 0.03")
    false_alarms: float = Field(description="of sound fleets, the share with a FAIL of speed or history, at most")
    max_noise: float = Field(description="where a slowdown of as much may not be seen, speed is INCONCLUSIVE")


class _Question(_Closed):
    """One question, and its answer."""

    question: str
    verdict: str = Field(description="PASS, FAIL or INCONCLUSIVE; a dash where it wasn't asked")
    answer: str


class _CohortRow(_Closed):
    """Devices that are compared with each other."""

    name: str
    what: Literal["bits", "speed"]
    environment: str = Field(description="the hash of all that is known to decide bits, or speed")
    devices: int
    verdict: Status
    message: str


class _FindingRow(_Closed):
    """What is found: of a device, a node, a group of nodes, or a file."""

    area: Area
    status: Status = Field(description="PASS: no fault, and worth knowing")
    message: str
    node: str = Field(description="empty: of several, or of a file")
    device: str
    group: str = Field(description="as rack=r7, or a cohort's name")
    evidence: str
    fix: str
    case: str
    number: float | None = Field(description="of speed, the ratio of times to the cohort's centre")
    bound: float | None
    nodes: list[str] = Field(description="those of a slow group")


class _DeviceRow(_Closed):
    """One device of a node."""

    name: str
    kind: str
    serial: str
    inventory: dict[str, str]
    shift: float | None = Field(description="its time to the cohort's centre, over all cases; null: unknown")
    cases: dict[str, float | None] = Field(description="the same of each case")


class _NodeRow(_Closed):
    """A node and its current run; of a missing one, only name and verdict."""

    node: str
    verdict: Status
    file: str = ""
    started: str = Field("", json_schema_extra={"format": "date-time"})
    complete: bool = False
    level: str = ""
    version: str = Field("", description="of alexnet-repro")
    machine: dict[str, str] = {}
    earlier: int = Field(0, description="runs before the current one")
    devices: list[_DeviceRow] = []


class _Refused(_Closed):
    """A file that is left out: it has no vote."""

    file: str
    why: str


class _FleetFile(BaseModel):
    """A fleet, as `python -m alexnet_repro fleet` has judged it. Later versions add fields."""

    model_config = ConfigDict(title="fleet.json of alexnet-repro")

    fleet_schema: Literal[1] = Field(description="the format's version")
    verdict: Status
    headline: str = Field(description="the verdict in words")
    settings: _Settings
    questions: list[_Question]
    cohorts: list[_CohortRow]
    findings: list[_FindingRow] = Field(description="the worst first")
    nodes: list[_NodeRow] = Field(description="the worst first")
    refused: list[_Refused]


def fleet_schema() -> Mapping[str, Any]:
    """Return the JSON Schema, draft 2020-12, of fleet.json."""
    made = _FleetFile.model_json_schema(schema_generator=WithoutTitles)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def fleet_data(answer: FleetAnswer) -> dict[str, Any]:
    """Return what fleet.json holds, by docs/fleet.schema.json."""
    verdicts = answer.nodes
    runs = {run.node: run for run in answer.fleet.current}
    slow: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for table in answer.tables:
        for (node, device), row in zip(table.members, _rows(table), strict=True):
            slow[node][device] = row
    nodes = []
    for node, verdict in verdicts.items():
        run = runs.get(node)
        known = {} if run is None else {
            "file": run.path,
            "started": run.started.isoformat(),
            "complete": run.complete,
            "level": run.level,
            "version": run.version,
            "machine": dict(run.machine),
            "earlier": len(answer.fleet.runs[node]) - 1,
            "devices": [
                {
                    "name": each.name,
                    "kind": each.kind,
                    "serial": each.serial,
                    "inventory": dict(each.inventory),
                    **slow[node].get(each.name, {"shift": None, "cases": {}}),
                }
                for each in run.devices
            ],
        }  # fmt: skip
        nodes.append({"node": node, "verdict": verdict, **known})
    return {
        "fleet_schema": FLEET_SCHEMA,
        "verdict": answer.verdict,
        "headline": fleet_headline(answer),
        "settings": {
            "expected": len(answer.settings.expected),
            "by": list(answer.settings.by),
            "tolerance": answer.settings.tolerance,
            "false_alarms": answer.settings.false_alarms,
            "max_noise": answer.settings.max_noise,
        },
        "questions": [
            {"question": name, "verdict": status, "answer": text} for name, status, text in questions(answer)
        ],
        "cohorts": [
            {
                "name": each.name,
                "what": each.what,
                "environment": each.environment,
                "devices": len(each.members),
                "verdict": each.status,
                "message": each.message,
            }
            for each in answer.cohorts
        ],
        "findings": [_finding_data(each) for each in answer.findings],
        "nodes": nodes,
        "refused": [{"file": each.path, "why": each.why} for each in answer.fleet.refused],
    }


def _finding_data(finding: FleetFinding) -> dict[str, Any]:
    known = {name: getattr(finding, name) for name in FleetFinding.__dataclass_fields__ if name != "data"}
    numbers = {name: _number(known[name]) for name in ("number", "bound")}
    return {**known, **numbers, "nodes": list(finding.nodes)}


def _rows(table: SpeedTable) -> Iterator[dict[str, Any]]:
    """Yield what is known of each device's speed."""
    for shift, ratios in zip(table.shifts.tolist(), np.round(table.ratios, 4).tolist(), strict=True):
        cases = {case: _number(ratio) for case, ratio in zip(table.cases, ratios, strict=True)}
        yield {"shift": _number(shift), "cases": cases}


def _number(value: float | None) -> float | None:
    """Return a number that JSON has; None for any other."""
    return float(f"{value:.6g}") if value is not None and np.isfinite(value) else None
