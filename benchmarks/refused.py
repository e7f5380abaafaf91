"""What of pytest's surroundings the verification doesn't go with: missing plugins, those that run it elsewhere.

And options of pytest-benchmark's, which shows the rounds that our own timer timed, in a process of their device. Two of
its options decide how many those are: its maximum time, and its minimum number of rounds.
"""

import importlib.util
import math
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import pytest
from _pytest.mark import deselect_by_keyword, deselect_by_mark  # pytest has no public way to try -k and -m

from alexnet_repro.cli.suite_options import REFERENCES as VARIABLE
from alexnet_repro.layout import WITHIN
from benchmarks.speed_references import reference_folders

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
        how = "benchmarks are timed one at a time"
        return f"{how}: leave out -n and --forked, or run `pytest tests -n …`"
    if option("level") == "quick" and option("update_reference") and not option("benchmark_only", False):
        return "--level=quick computes no digests to write: add --benchmark-only, or leave out --level=quick"
    if why := _no_references(config):
        return why
    if option("level") == "quick" and option("profile"):
        return "--level=quick profiles no layers: leave out --profile, or --level=quick"
    from pytest_benchmark.utils import load_timer

    return no_timing(load_timer(option("benchmark_timer")).target, float(option("benchmark_max_time")))


def _no_references(config: pytest.Config) -> str:
    """Return why there is no folder of references to read, or to write, where one is named; else empty."""
    folder, *suite = reference_folders(config)
    if config.getoption("update_reference") and not config.option.collectonly:
        if not suite and folder.is_relative_to(WITHIN):
            return f"an installed package keeps no new references: name a folder by --references=DIR or {VARIABLE}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return ""
        except OSError as error:
            return f"references can't be written to {folder}: {error.strerror}; name another folder: --references=DIR"
    return f"no such folder of references: {folder}" if suite and not folder.is_dir() else ""


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


def no_timing(timer: Callable[[], Any], max_time: float) -> str:
    """Return why nothing is timed by this timer, for `max_time` seconds per case; empty if it is.

    Others than `time.perf_counter` may stand still in a sleep, be adjusted, or tick in other units.
    """
    if not 0 <= max_time < math.inf:
        return f"--benchmark-max-time={max_time}: expected seconds, 0 or more"
    if timer is not time.perf_counter:
        name = f"{getattr(timer, '__module__', '')}.{getattr(timer, '__qualname__', timer)}"
        return f"--benchmark-timer={name}: timings are by time.perf_counter; leave the option out"
    return ""
