"""The file that pytest writes for JUnit: cases of our own in it, and what is written where pytest doesn't."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from _pytest.junitxml import xml_key  # pytest has no public way to add a case

from alexnet_repro.verify.report.junit import write_junit
from alexnet_repro.verify.report.run_record import RunRecord
from alexnet_repro.verify.report.text import summary
from alexnet_repro.verify.verdict import fails_the_run


def add_case(
    config: pytest.Config,
    node: str,
    outcome: Literal["passed", "failed", "skipped"],
    text: str,
    properties: Mapping[str, Any],
) -> None:
    """Add a case to JUnit's file, named as a test's node id, or end one that has begun; without such a file nothing."""
    if (junit := config.stash.get(xml_key, None)) is None:
        return
    file, _, name = node.partition("::")
    detail = (file, 0, text) if outcome == "skipped" else text if outcome == "failed" else None
    recorded = [(key, str(value)) for key, value in properties.items()]
    location = (file, 0, name)
    junit.pytest_runtest_logreport(
        pytest.TestReport(node, location, {}, outcome, detail, "call", user_properties=recorded)
    )


def add_verdict(config: pytest.Config, record: RunRecord, *, fail_inconclusive: bool) -> None:
    """Add a case `verdict`: what isn't one test's fails there, too."""
    fails = fails_the_run(record.verdict, fail_inconclusive=fail_inconclusive)
    outcome = "failed" if fails else "passed" if record.verdict == "PASS" else "skipped"
    add_case(config, "benchmarks/verdict.py::verdict", outcome, "\n".join(summary(record)), record.run)


def write_again(config: pytest.Config, record: RunRecord) -> None:
    """Write the file where pytest doesn't, or did before the end."""
    if path := getattr(config.option, "xmlpath", None):
        with contextlib.suppress(OSError):
            write_junit(record, Path(path))


def write_none(config: pytest.Config) -> None:
    """Let pytest write no file for JUnit."""
    if (junit := config.stash.get(xml_key, None)) is not None:
        del config.stash[xml_key]
        config.pluginmanager.unregister(junit)
