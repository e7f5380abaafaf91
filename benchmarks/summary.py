"""What is kept of the machine, and what is printed at the end: throughput, then the verdict."""

import os
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import keras
import pytest

from alexnet_repro import enable_memory_growth
from alexnet_repro.backend.devices import gpu_names, thread_counts, usable_devices
from alexnet_repro.verify.benchmark.timing import Timing
from alexnet_repro.verify.doctor.environment import Environment
from alexnet_repro.verify.finding import summary
from alexnet_repro.verify.report.run_record import RunRecord
from alexnet_repro.verify.report.tables import LEGEND, cost_table, device_table, scaling_table, throughput_table

# Settings that change timings; recorded beside them where they are set.
TIMING_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "JAX_PLATFORMS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "ONEDNN_MAX_CPU_ISA",
    "TF_DETERMINISTIC_OPS",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_XLA_FLAGS",
    "XLA_FLAGS",
)

DEVICES = pytest.StashKey[tuple[str, ...]]()
HERE = pytest.StashKey[Environment]()
RECORD = pytest.StashKey[RunRecord]()
TIMINGS = pytest.StashKey[list[Timing]]()
LINES = pytest.StashKey[list[str]]()
REPORT = pytest.StashKey[str]()
WHOLE = pytest.StashKey[RunRecord]()  # of all machines, among workers


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Add what timings depend on, and drop the momentary clock, which would tell a machine from itself."""
    for name in ("hz_actual", "hz_actual_friendly"):
        machine_info["cpu"].pop(name, None)
    enable_memory_growth()
    backend = keras.backend.backend()
    machine_info |= {
        "backend": backend,
        "versions": {name: import_module(name).__version__ for name in (backend, "keras", "numpy")},
        "devices": list(usable_devices()),
        "gpu_names": gpu_names(),
        "threads": thread_counts(),
        "environment": {name: os.environ[name] for name in TIMING_VARIABLES if name in os.environ},
    }


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    """Print throughput and the verdict below the plugin's table, which may end in an error when it compares."""
    try:
        return (yield)
    finally:
        timings, invalid = config.stash[TIMINGS], config.stash[RECORD].invalid
        if timings:
            terminalreporter.section("throughput, on synthetic images")
            tables = (throughput_table(timings, invalid), cost_table(timings, conditions=False))
            for text in (*filter(None, map(str, tables)), LEGEND):
                terminalreporter.write_line(text)
        for line in config.stash[LINES]:
            terminalreporter.write_line(line)
        record = config.stash.get(WHOLE, config.stash[RECORD])
        together = [str(table(record.findings["fast"])) for table in (device_table, scaling_table)]
        if any(together):
            terminalreporter.section("devices together")
        for text in filter(None, together):
            terminalreporter.write_line(text)
        if any(record.findings.values()):
            terminalreporter.section("verdict")
            for line in summary(record.findings, len(record.machine.get("machines", ("this one",)))):
                terminalreporter.write_line(line)
            if config.stash.get(DEVICES, ()) == ("cpu:0",):
                terminalreporter.write_line("GPU: not run; this machine has none that is asked for")
            terminalreporter.write_line(f"results: {record.path}")
            if REPORT in config.stash:
                terminalreporter.write_line(config.stash[REPORT])
