"""A run as JUnit's XML, of its plan and verdict, for CI systems: where pytest didn't come to write its own."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
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
    properties = {name: run.get(name, "") for name in PROPERTIES}
    about = {"seconds": run.get("seconds", "0"), "host": run.get("host", ""), "started": run.get("started", "")}
    suite = new_suite("pytest", properties, **about)
    for planned in record.plan:
        found = _findings_of(planned, record)
        first = next((each.message for each in found if each.status == planned.status), "it has no finding")
        node = f"benchmarks.{planned.name.replace('.py', '', 1)}"
        add_case(suite, node, _status(planned), planned.why or first, list(map(str, found)))
    lines = summary(record)
    fails = fails_the_run(record.verdict, fail_inconclusive=bool(record.run.get("fail_inconclusive")))
    add_case(suite, "benchmarks::verdict", "FAIL" if fails else record.verdict, verdict_line(record), lines)
    write_suite(suite, path, "name another file: --junit-xml=FILE")


def new_suite(name: str, properties: Mapping[str, str], *, seconds: str, host: str, started: str) -> ET.Element:
    """Return a test suite without cases."""
    suite = ET.Element("testsuite", name=name, errors="0", time=seconds, hostname=host, timestamp=started)
    own = ET.SubElement(suite, "properties")
    for key, value in properties.items():
        ET.SubElement(own, "property", name=key, value=value)
    return suite


def add_case(
    suite: ET.Element, node: str, status: Status, message: str, lines: Sequence[str], *, seconds: float = 0
) -> None:
    """Add a test case, `CLASS::NAME`; PASS has passed, FAIL failed, INCONCLUSIVE is skipped with message and lines."""
    where, _, name = node.partition("::")
    time = f"{seconds:g}" if 0 <= seconds < math.inf else "0"
    case = ET.SubElement(suite, "testcase", classname=where, name=name, time=time)
    if element := ELEMENTS[status]:
        ET.SubElement(case, element, message=message).text = "\n".join(lines)


def write_suite(suite: ET.Element, path: Path, advice: str) -> None:
    """Write a file of one suite, with its counts; OSError: it can't be written, with the advice."""
    for counted, of in {"tests": "testcase", "failures": "testcase/failure", "skipped": "testcase/skipped"}.items():
        suite.set(counted, str(len(suite.findall(of))))
    suites = ET.Element("testsuites", name="pytest tests")
    suites.append(suite)
    ET.indent(suites)
    text = UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", ET.tostring(suites, encoding="unicode"))
    atomic_write(path, f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n', advice)


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
