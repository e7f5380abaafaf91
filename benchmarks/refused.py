"""What of pytest's surroundings the verification doesn't go with: missing plugins, and those that run it elsewhere."""

import importlib.util
import os

import pytest
from _pytest.mark import deselect_by_keyword, deselect_by_mark  # pytest has no public way to try -k and -m

from alexnet_repro.verify.benchmark.options import refusal

NO_AUTOLOAD = "PYTEST_DISABLE_PLUGIN_AUTOLOAD"


def refused(config: pytest.Config) -> str:
    """Return why nothing can be verified with these options, in one line; empty if it can.

    Raises:
        pytest.UsageError: of -k or -m, which pytest itself would refuse only once the tests are collected.
    """
    option = config.getoption
    if why := _missing(config):
        return why
    for try_expression in (deselect_by_keyword, deselect_by_mark):
        try_expression([], config)
    elsewhere = option("dist", "no") != "no" or option("forked", False)
    if elsewhere and not config.option.collectonly:
        how = "benchmarks are timed one at a time, in this process"
        return f"{how}: leave out -n and --forked, or run `pytest tests -n …`"
    if option("full") and option("level") == "quick":
        return "--full is of the standard level: leave out --level=quick"
    from pytest_benchmark.utils import load_timer

    return refusal(load_timer(option("benchmark_timer")).target, float(option("benchmark_max_time")))


def _missing(config: pytest.Config) -> str:
    has = config.pluginmanager.has_plugin
    if not has("skipping"):
        return "benchmarks need pytest's plugin skipping: leave out -p no:skipping"
    if has("benchmark") or has("pytest_benchmark.plugin"):
        return ""
    if importlib.util.find_spec("pytest_benchmark") is None:
        fix = "pip install pytest-benchmark"
    elif os.environ.get(NO_AUTOLOAD):
        fix = f"unset {NO_AUTOLOAD}, or add -p pytest_benchmark.plugin"
    else:
        fix = "leave out -p no:benchmark"
    return f"benchmarks need the plugin pytest-benchmark: {fix}"
