"""A run as JUnit's XML, of its plan and verdict, for CI systems: where pytest didn't come to write its own."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from alexnet_repro.files import atomic_write
from alexnet_repro.verify.finding import Finding, Status
from alexnet_repro.verify.report.run_record import UNPRINTABLE, RunRecord
from alexnet_repro.verify.report.text import summary, verdict_line
from alexnet_repro.verify.verdict import Planned, fails_the_run

PROPERTIES = ("host", "version", "command", "started")
ELEMENTS: dict[Status, str | None] = {"PASS": None, "INCONCLUSIVE": "skipped", "FAIL": "failure"}


def write_junit(record: RunRecord, path: Path) -> None:
    """Write a test case for each part of the plan, named as pytest names it, and one named `verdict`.

    What passed has passed, what failed or was lost is a failure, the rest is skipped. OSError: it can't be written.
    """
    run = {name: str(value) for name, value in record.run.items()}
    suite = ET.Element("testsuite", name="pytest", errors="0", time=run.get("seconds", "0"))
    suite.attrib |= {"hostname": run.get("host", ""), "timestamp": run.get("started", "")}
    properties = ET.SubElement(suite, "properties")
    for name in PROPERTIES:
        ET.SubElement(properties, "property", name=name, value=run.get(name, ""))
    for planned in record.plan:
        found = _findings_of(planned, record)
        first = next((each.message for each in found if each.status == planned.status), "it has no finding")
        node = f"benchmarks.{planned.name.replace('.py', '', 1)}"
        _add_case(suite, node, _status(planned), planned.why or first, list(map(str, found)))
    lines = summary(record)
    fails = fails_the_run(record.verdict, fail_inconclusive=bool(record.run.get("fail_inconclusive")))
    _add_case(suite, "benchmarks::verdict", "FAIL" if fails else record.verdict, verdict_line(record), lines)
    for counted, of in {"tests": "testcase", "failures": "testcase/failure", "skipped": "testcase/skipped"}.items():
        suite.set(counted, str(len(suite.findall(of))))
    suites = ET.Element("testsuites", name="pytest tests")
    suites.append(suite)
    ET.indent(suites)
    text = UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", ET.tostring(suites, encoding="unicode"))
    atomic_write(path, f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n', "name another file: --junit-xml=FILE")


def _status(planned: Planned) -> Status:
    if planned.status == "FAIL" or planned.state in {"lost", "running"}:
        return "FAIL"
    return "PASS" if planned.state == "answered" and planned.status == "PASS" else "INCONCLUSIVE"


def _findings_of(planned: Planned, record: RunRecord) -> list[Finding]:
    """Return the findings of a case, or else those of a check on its device."""
    case = planned.name.partition("::test_")[2]
    return [
        each
        for each in record.findings.get(planned.group, ())
        if each.case == case or (not each.case and (each.check, each.device) == (planned.short, planned.device))
    ]


def _add_case(suite: ET.Element, node: str, status: Status, message: str, lines: Sequence[str]) -> None:
    where, _, name = node.partition("::")
    case = ET.SubElement(suite, "testcase", classname=where, name=name, time="0")
    if element := ELEMENTS[status]:
        ET.SubElement(case, element, message=message).text = "\n".join(lines)
