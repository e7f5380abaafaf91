"""A case of its own in the file that pytest writes for JUnit."""

from collections.abc import Mapping
from typing import Any, Literal

import pytest
from _pytest.junitxml import xml_key  # pytest has no public way to add a case


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


def write_none(config: pytest.Config) -> None:
    """Let pytest write no file for JUnit."""
    if (junit := config.stash.get(xml_key, None)) is not None:
        del config.stash[xml_key]
        config.pluginmanager.unregister(junit)
