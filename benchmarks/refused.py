"""What of other plugins and their options the verification doesn't go with."""

import pytest
from pytest_benchmark.utils import load_timer

from alexnet_repro.verify.benchmark.options import refusal


def refused(config: pytest.Config) -> str:
    """Return why nothing can be verified with these options, in one line; empty if it can."""
    option = config.getoption
    if not any(map(config.pluginmanager.has_plugin, ("benchmark", "pytest_benchmark.plugin"))):
        return "benchmarks need the plugin pytest-benchmark: install it, without -p no:benchmark"
    elsewhere = option("dist", "no") != "no" or option("forked", False)
    if elsewhere and not config.option.collectonly:
        how = "benchmarks are timed one at a time, in this process"
        return f"{how}: leave out -n and --forked, or run `pytest tests -n …`"
    if option("full") and option("level") == "quick":
        return "--full is of the standard level: leave out --level=quick"
    return refusal(load_timer(option("benchmark_timer")).target, float(option("benchmark_max_time")))
