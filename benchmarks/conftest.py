"""What the benchmarks share: their devices, the one way to time, what is recorded, the throughput table."""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from math import ceil
from typing import Any

import keras
import pytest

from alexnet_repro import DataLoader, enable_memory_growth, synthetic_fashion
from alexnet_repro.hardware.devices import (
    gpu_names,
    synchronise,
    thread_counts,
    unusable_gpus,
    usable_devices,
)
from alexnet_repro.hardware.doctor import examine
from alexnet_repro.hardware.environment import read_machine
from alexnet_repro.hardware.finding import verdict
from alexnet_repro.results.table import Row, throughput_table

PRECISIONS = {
    "cpu": ("float32", "mixed_bfloat16"),
    "gpu": ("float32", "tf32", "mixed_bfloat16", "mixed_float16"),
}
MINIMUM_ROUNDS = 5
DOCTORS_DEADLINE = 180.0  # seconds a check
WARM_UP_SECONDS = 0.5  # a GPU's clocks take that long to rise

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
MEASURED = pytest.StashKey[list[dict[str, Any]]]()


def chosen_devices(config: pytest.Config) -> tuple[str, ...]:
    """Return the devices to measure; end the run where one that should be measured can't be."""
    if DEVICES not in config.stash:
        enable_memory_growth()
        usable = usable_devices()
        wanted = config.getoption("device") or usable
        if not config.option.collectonly:
            _refuse_unusable_gpus(config, usable)
        absent = [device for device in wanted if device not in usable]
        if absent:
            raise pytest.UsageError(
                f"--device={absent[0]}: no such device; {keras.backend.backend()} can use {', '.join(usable)}"
            )
        config.stash[DEVICES] = tuple(device for device in usable if device in wanted)
    return config.stash[DEVICES]


def _refuse_unusable_gpus(config: pytest.Config, usable: tuple[str, ...]) -> None:
    usable_gpus = len(usable) - 1
    reason = None
    if set(config.getoption("device") or ()) != {"cpu:0"}:
        reason = unusable_gpus(read_machine(), usable_gpus, keras.backend.backend())
    if reason is None and config.getoption("require_gpu") and not usable_gpus:
        reason = f"--require-gpu: {keras.backend.backend()} can use {', '.join(usable)} only"
    if reason is not None:
        pytest.exit(reason, returncode=1)


def pytest_sessionstart(session: pytest.Session) -> None:
    if not session.config.option.collectonly and keras.backend.backend() == "tensorflow":
        _ask_the_doctor(session.config)
    chosen_devices(session.config)


def _ask_the_doctor(config: pytest.Config) -> None:
    """Show what is not well, and end the run where something is wrong, unless the CPU alone was asked for."""
    writer = config.get_terminal_writer()
    findings = []
    for _, finding in examine(DOCTORS_DEADLINE, require_gpu=config.getoption("require_gpu")):
        findings.append(finding)
        if finding.status != "PASS":
            writer.line(str(finding))
    overall = verdict(findings)
    writer.line(f"doctor: {overall}, {len(findings)} checks (python -m alexnet_repro doctor shows them all)")
    if overall == "FAIL" and set(config.getoption("device") or ()) != {"cpu:0"}:
        pytest.exit("mend the machine first, or measure the CPU on purpose: --device=cpu:0", returncode=1)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what takes a `device` on each, with the module's `BATCHES` and the `PRECISIONS` of its kind."""
    if "device" not in metafunc.fixturenames:
        return
    names = [name for name in ("device", "batch", "precision") if name in metafunc.fixturenames]
    cases = []
    for device in chosen_devices(metafunc.config):
        kind = device.partition(":")[0]
        values = {"device": (device,), "batch": metafunc.module.BATCHES[kind], "precision": PRECISIONS[kind]}
        marks = (pytest.mark.gpu,) if kind == "gpu" else ()
        cases += [pytest.param(*case, marks=marks) for case in itertools.product(*(values[name] for name in names))]
    metafunc.parametrize(names, cases)


@pytest.fixture(scope="session")
def loader() -> DataLoader:
    """As many images as Fashion-MNIST has; generated ones, so that every machine computes the same."""
    return DataLoader.from_arrays(*synthetic_fashion(), seed=0)


@pytest.fixture(autouse=True)
def _free_memory() -> Iterator[None]:
    """No case finds the models of those before it in memory."""
    yield
    keras.utils.clear_session()


@pytest.fixture
def measure(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Time `work`, which handles `images` with `flop` operations a call, and return its last result."""

    def one_round(work: Callable[[], Any]) -> Any:
        result = work()
        synchronise(result)
        return result

    def measure(work: Callable[[], Any], *, images: int, flop: int = 0) -> Any:
        benchmark.group = request.node.originalname
        benchmark.extra_info.update(request.node.callspec.params, images=images, flop=flop)
        rounds = warm_up = 1
        if not benchmark.disabled:
            one_round(work)  # traces and compiles
            start = time.perf_counter()
            one_round(work)
            seconds = time.perf_counter() - start
            warm_up = ceil(WARM_UP_SECONDS / seconds)
            minimum = max(MINIMUM_ROUNDS, request.config.getoption("benchmark_min_rounds"))
            rounds = max(minimum, ceil(float(request.config.getoption("benchmark_max_time")) / seconds))
        # `setup` is outside the timed region: nothing is under way when a round starts, nor when it ends.
        return benchmark.pedantic(one_round, (work,), setup=synchronise, rounds=rounds, warmup_rounds=warm_up)

    return measure


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


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_group_stats(config: pytest.Config, benchmarks: list[dict[str, Any]]) -> None:
    """Only look: the plugin groups. Rows of an earlier run that is compared with carry its path."""
    config.stash[MEASURED] = [row for row in benchmarks if row["path"] is None and "images" in row["extra_info"]]


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    """Print throughput below the plugin's table, which may end in an error when it compares."""
    try:
        return (yield)
    finally:
        failed = {report.nodeid for report in terminalreporter.stats.get("failed", ())}
        rows = [
            Row(
                case=measured["name"].removeprefix("test_"),
                median=measured["median"],
                iqr=measured["iqr"],
                images=measured["extra_info"]["images"],
                flop=measured["extra_info"]["flop"],
                void=measured["fullname"] in failed,
            )
            for measured in config.stash.get(MEASURED, [])
        ]
        if rows:
            terminalreporter.section("throughput, on synthetic images")
            terminalreporter.write_line(throughput_table(rows))
