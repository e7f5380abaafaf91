"""What the benchmarks share: devices, the doctor first, one way to ask and to time, the record and the verdict."""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alexnet_repro import DataLoader, enable_memory_growth, synthetic_fashion
from alexnet_repro.backend.devices import gpu_models, thread_counts, usable_devices
from alexnet_repro.backend.memory import free_memory, peak_memory, reset_peak_memory
from alexnet_repro.training.distributed.cluster import ClusterError
from alexnet_repro.verify.benchmark.calibration import calibrate
from alexnet_repro.verify.benchmark.roofline import Work, bottleneck
from alexnet_repro.verify.benchmark.telemetry import conditions_of, heat_during, sampling
from alexnet_repro.verify.benchmark.timer import measure as measured
from alexnet_repro.verify.benchmark.timing import Timing, gpu_speed_parity, judge
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.devices import MachineNotReadyError, choose_devices, diagnose_machine
from alexnet_repro.verify.checks.registry import DEVICE_PRECISIONS, CheckId
from alexnet_repro.verify.checks.runner import CheckRunner
from alexnet_repro.verify.doctor.environment import read_machine
from alexnet_repro.verify.doctor.fingerprint import machine_of, speed_environment
from alexnet_repro.verify.finding import Finding, overall
from alexnet_repro.verify.report.page import report_line
from alexnet_repro.verify.report.run_record import RunRecord
from benchmarks import summary as bench_summary
from benchmarks.cases import UNFIT, pytest_generate_tests, pytest_pyfunc_call  # noqa: F401 - hooks, for these tests alone
from benchmarks.references_gate import against_references
from benchmarks.summary import DEVICES, HERE, LINES, RECORD, REPORT, TIMINGS
from benchmarks.workers import CLUSTER, GATHER, check_collected, finish_together, folder_of, leave_others, meet_others

# In the order in which they run: there is no use in timing what is wrong.
ORDER = (
    "test_correct",
    "test_repeatable",
    "test_reference",
    "test_burn_in",
    "test_overhead",
    "test_scaling",
    "test_workers",
    "test_calibration",
)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Decide where results go, before the plugin that writes JUnit's XML asks."""
    config.pluginmanager.register(bench_summary)
    folder = Path(config.getoption("report") or config.rootpath / "reports" / time.strftime("%Y-%m-%dT%H-%M-%S"))
    folder = folder_of(config, folder)
    config.stash[RECORD], config.stash[TIMINGS], config.stash[LINES] = RunRecord(folder / "results.json"), [], []
    config.stash[UNFIT] = {}
    if not config.option.collectonly and config.option.xmlpath is None:
        config.option.xmlpath = str(folder / "junit.xml")


def pytest_sessionstart(session: pytest.Session) -> None:
    config, record = session.config, session.config.stash[RECORD]
    wanted, require_gpu = config.getoption("device") or (), config.getoption("require_gpu")
    config.stash[HERE] = read_machine()
    if config.option.collectonly:
        enable_memory_growth()
        config.stash[DEVICES] = tuple(device for device in usable_devices() if not wanted or device in wanted)
        return
    try:
        # JAX takes hold of the GPUs as soon as they are counted, which the doctor would take for another process.
        here, found = diagnose_machine(wanted, config.get_terminal_writer().line, require_gpu=require_gpu)
        enable_memory_growth()
        config.stash[HERE] = here
        for finding in found:
            record.add("doctor", finding)
        config.stash[DEVICES] = choose_devices(here, wanted, usable_devices(), require_gpu=require_gpu)
    except MachineNotReadyError as error:
        pytest.exit(str(error), returncode=1)
    except (ValueError, OSError) as error:
        raise pytest.UsageError(str(error)) from error
    record.machine = {
        "devices": list(config.stash[DEVICES]),
        **machine_of(here),
        "threads": thread_counts(),
        "driver": here.nvidia.driver,
        **{name: each for name, each in speed_environment("cpu:0", here).items() if name in ("packages", "settings")},
    }
    if CLUSTER in config.stash:
        try:
            meet_others(config)
        except ClusterError as error:
            pytest.exit(str(error), returncode=1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Right first, then the same twice, then fast."""
    places = {name: place for place, name in enumerate(ORDER)}
    items.sort(key=lambda item: places.get(item.path.stem, len(ORDER)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Among workers, all have to run the same tests."""
    if GATHER in session.config.stash:
        try:
            check_collected(session.config, [item.nodeid for item in session.items])
        except ClusterError as error:
            pytest.exit(str(error), returncode=1)


@pytest.fixture(scope="session")
def loader() -> DataLoader:
    """As many images as Fashion-MNIST has; generated ones, so that every machine computes the same."""
    return DataLoader.from_arrays(*synthetic_fashion(), seed=0)


@pytest.fixture(scope="session")
def devices(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The devices under examination."""
    return request.config.stash[DEVICES]


@pytest.fixture(scope="session")
def runner(request: pytest.FixtureRequest) -> CheckRunner:
    """Everything that is asked in child processes, with the answers so far."""
    planned: dict[str, list[CheckId]] = {}
    for item in request.session.items:
        chosen = getattr(item, "callspec", None)
        if chosen and "check" in chosen.params:
            planned.setdefault(chosen.params["device"], []).append(chosen.params["check"])
    config = CheckConfig(replays=request.config.getoption("replays"))
    return CheckRunner(config, planned, request.config.stash[HERE], request.config.getoption("deadline"))


@pytest.fixture
def conclude(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Record findings of a group, then end the test as they say."""

    def conclude(group: str, *findings: Finding) -> None:
        for finding in findings:
            request.config.stash[RECORD].add(group, finding)
        said = {
            status: [str(each) for each in findings if each.status == status] for status in ("FAIL", "INCONCLUSIVE")
        }
        if said["FAIL"] or (said["INCONCLUSIVE"] and request.config.getoption("fail_inconclusive")):
            pytest.fail("\n".join(said["FAIL"] + said["INCONCLUSIVE"]), pytrace=False)
        if said["INCONCLUSIVE"]:
            pytest.skip("\n".join(said["INCONCLUSIVE"]))

    return conclude


@pytest.fixture
def show(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Keep a line for the end of the run."""
    return request.config.stash[LINES].append


@pytest.fixture(autouse=True)
def _free_memory() -> Iterator[None]:
    """No case finds the models of those before it in memory."""
    yield
    free_memory()


@pytest.fixture
def measure(benchmark: Any, request: pytest.FixtureRequest, conclude: Callable[..., None]) -> Callable[..., None]:
    """Time `work`, which handles `images` a call; `fault` says what is wrong with a result, `todo` is its work."""

    def measure(
        work: Callable[[], Any],
        fault: Callable[[Any], str | None],
        *,
        images: int,
        todo: Work | None = None,
        largest: bool = False,
    ) -> None:
        config, params = request.config, request.node.callspec.params
        benchmark.group = request.node.originalname
        device, precision = params.get("device", "cpu:0"), params.get("precision", "")
        rates = (
            calibrate(device, DEVICE_PRECISIONS[device.partition(":")[0]]) if todo and not benchmark.disabled else None
        )
        if rates:
            config.stash[RECORD].add_calibration(rates)
        reset_peak_memory(device)
        with sampling(device) as sampler:
            done = measured(
                benchmark,
                work,
                least_rounds=config.getoption("benchmark_min_rounds"),
                seconds=float(config.getoption("benchmark_max_time")),
            )
        wrong = fault(done.result)
        if not done.rounds:
            assert wrong is None
            return
        conditions = conditions_of(device)
        samples = sampler.between(done.began, done.began + sum(done.rounds))
        timing = Timing(
            case=request.node.name.removeprefix("test_"),
            device=device,
            precision=precision,
            rounds=done.rounds,
            read_back=done.read_back,
            images=images,
            flop=todo.flop if todo else 0,
            heat=heat_during(samples) or conditions.heat,
            fault=wrong,
            peak=rates.matmul[precision] if rates else None,
            bottleneck=bottleneck(todo, statistics.median(done.rounds), precision, rates) if todo and rates else "",
            largest=largest,
            first=done.first,
            pipelined=done.pipelined,
            peak_memory=peak_memory(device),
            conditions=conditions,
            bytes=todo.bytes if todo else 0,
            samples=samples,
            bandwidth=rates.memory if rates else None,
        )
        constants = {name: getattr(timing, name) for name in ("images", "flop", "peak", "bottleneck", "pipelined")}
        benchmark.extra_info.update({**params, **constants})
        config.stash[TIMINGS].append(timing)
        config.stash[RECORD].add_timing(timing)
        conclude("fast", *judge(timing))

    return measure


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Compare siblings, write the record and its report, and let the verdict decide the exit status."""
    config, record = session.config, session.config.stash[RECORD]
    if config.option.collectonly or not any(record.findings.values()):
        return
    for finding in gpu_speed_parity(config.stash[TIMINGS], gpu_models()):
        record.add("fast", finding)
    for finding in against_references(session):
        record.add("reference", finding)
    ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    record.write(complete=ended)
    if GATHER in config.stash:
        whole = ended and not (session.shouldfail or session.shouldstop)
        failed = exitstatus == pytest.ExitCode.TESTS_FAILED
        record = finish_together(config, failed=failed) if whole else leave_others(config)
    failing = ("FAIL", "INCONCLUSIVE") if config.getoption("fail_inconclusive") else ("FAIL",)
    if exitstatus == pytest.ExitCode.OK and overall(record.findings) in failing:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    own = config.stash[RECORD]
    config.stash[REPORT] = report_line(own if own.path == record.path else record)  # the first worker's is of all
