"""The verification of this machine as a pytest plugin: devices, findings, timings, and the verdict at the end."""

import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
import pytest

from alexnet_repro import enable_memory_growth
from alexnet_repro.backend.devices import gpu_models, gpu_names, thread_counts, usable_devices
from alexnet_repro.backend.memory import peak_memory, reset_peak_memory
from alexnet_repro.training.distributed.cluster import ClusterError
from alexnet_repro.verify.benchmark import reference
from alexnet_repro.verify.benchmark.calibration import calibrate
from alexnet_repro.verify.benchmark.gate import MIN_PROCESSES_TO_FAIL
from alexnet_repro.verify.benchmark.regression import Place, speed_findings
from alexnet_repro.verify.benchmark.roofline import Work, bottleneck
from alexnet_repro.verify.benchmark.telemetry import conditions_of, cpu_time, heat_during, sampling, share_of_others
from alexnet_repro.verify.benchmark.timer import measure
from alexnet_repro.verify.benchmark.timing import Timing, gpu_speed_parity, judge
from alexnet_repro.verify.checks.devices import MachineNotReadyError, choose_devices, diagnose_machine
from alexnet_repro.verify.checks.registry import DEVICE_PRECISIONS
from alexnet_repro.verify.doctor import fingerprint
from alexnet_repro.verify.doctor.environment import read_machine
from alexnet_repro.verify.finding import Finding, overall, summary
from alexnet_repro.verify.report.page import report_line
from alexnet_repro.verify.report.run_record import RunRecord
from alexnet_repro.verify.report.tables import LEGEND, cost_table, device_table, scaling_table, throughput_table
from benchmarks.workers import WorkerGroup

NAME = "verification"  # of the plugin
FOLDER = Path(__file__).parent
REFERENCES = FOLDER / "references"
# Tests' modules; those that aren't named come last.
ORDER = ("correct", "repeatable", "reference", "burn_in", "overhead", "scaling", "workers", "calibration")
# Settings that change timings; recorded beside them where they are set.
TIMING_VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS", "NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA"),
    *("TF_DETERMINISTIC_OPS", "TF_ENABLE_ONEDNN_OPTS", "TF_NUM_INTEROP_THREADS", "TF_NUM_INTRAOP_THREADS"),
    *("TF_XLA_FLAGS", "XLA_FLAGS"),
)


class VerificationSession:
    """One verification: its devices, and what was found and measured so far.

    The root's `conftest.py` registers it when pytest is to collect this folder. Tests outside this folder run first,
    whatever the doctor finds.
    """

    def __init__(self, config: pytest.Config) -> None:
        """Decide where results go; before JUnit's plugin is configured, which writes beside them.

        Raises:
            UsageError: a plugin is missing, or an option is of no use here.
        """
        self.config, self.collect_only = config, bool(config.option.collectonly)
        if not config.pluginmanager.has_plugin("benchmark"):
            raise pytest.UsageError("benchmarks need the plugin pytest-benchmark: install it, without -p no:benchmark")
        if config.getoption("dist", "no") != "no" and not self.collect_only:
            raise pytest.UsageError("benchmarks are timed one at a time: leave out -n, or run `pytest tests -n …`")
        self.machine, self.devices = read_machine(), ("cpu:0",)
        self.not_ready = ""
        """Why this machine can't be verified; empty if it can."""
        self.node_ids: dict[str, str] = {}  # by benchmark case
        self.too_large: dict[tuple[str, ...], int] = {}
        """The batch size that didn't fit into memory, by series of benchmark cases."""
        self.lines: list[str] = []  # printed at the end
        self.report = ""
        folder = Path(config.getoption("report") or config.rootpath / "reports" / time.strftime("%Y-%m-%dT%H-%M-%S"))
        asked = config.getoption("distribute") is not None and not self.collect_only
        self.workers = WorkerGroup(config, folder) if asked else None
        folder = self.workers.own_folder if self.workers else folder
        self.record = self.whole = RunRecord(folder / "results.json")
        if not self.collect_only and config.option.xmlpath is None:
            config.option.xmlpath = str(folder / "junit.xml")

    def say(self, line: str) -> None:
        """Print a line at once."""
        self.config.get_terminal_writer().line(line)

    def pytest_sessionstart(self) -> None:
        """Have the machine diagnosed, choose devices, and meet the other workers.

        Raises:
            UsageError: a device isn't there, or results can't be written.
        """
        wanted = self.config.getoption("device") or ()
        if self.collect_only:
            enable_memory_growth()
            self.devices = tuple(device for device in usable_devices() if not wanted or device in wanted)
            return
        try:
            self._choose_devices(wanted)
            if self.workers:
                self.workers.meet(self.record, self.machine)
        except (MachineNotReadyError, ClusterError) as error:
            self.not_ready = str(error)
        except (ValueError, OSError) as error:
            raise pytest.UsageError(str(error)) from error

    def _choose_devices(self, wanted: Sequence[str]) -> None:
        require_gpu = self.config.getoption("require_gpu")
        try:
            # First: JAX takes hold of GPUs when it counts them, which the doctor would take for another process.
            self.machine, found = diagnose_machine(wanted, self.say, require_gpu=require_gpu)
        except MachineNotReadyError as error:
            self._record("doctor", error.findings)
            raise
        self._record("doctor", found)
        enable_memory_growth()
        self.devices = choose_devices(self.machine, wanted, usable_devices(), require_gpu=require_gpu)
        software = fingerprint.speed_environment("cpu:0", self.machine)
        self.record.machine = {
            "devices": list(self.devices),
            **fingerprint.machine_of(self.machine),
            "threads": thread_counts(),
            "driver": self.machine.nvidia.driver,
            **{name: each for name, each in software.items() if name in ("packages", "settings")},
        }

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Order: tests outside this folder, then correctness, determinism, performance."""
        places = {f"test_{name}": place for place, name in enumerate(ORDER)}
        items.sort(key=lambda item: places.get(item.path.stem, len(ORDER)) if item.path.parent == FOLDER else -1)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Among workers, make sure that all run the same tests."""
        if self.workers and not self.not_ready:
            try:
                self.workers.check_collected([item.nodeid for item in session.items])
            except ClusterError as error:
                self.not_ready = str(error)

    def _record(self, group: str, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.record.add(group, finding)

    def report_findings(self, group: str, *findings: Finding) -> None:
        """Record findings of a group, then fail or skip the test as they say."""
        self._record(group, findings)
        failed, inconclusive = (
            [str(each) for each in findings if each.status == status] for status in ("FAIL", "INCONCLUSIVE")
        )
        if failed or (inconclusive and self.config.getoption("fail_inconclusive")):
            pytest.fail("\n".join(failed + inconclusive), pytrace=False)
        if inconclusive:
            pytest.skip("\n".join(inconclusive))

    def measure(
        self,
        benchmark: Any,
        item: pytest.Function,
        work: Callable[[], Any],
        fault: Callable[[Any], str | None],
        *,
        images: int,
        todo: Work | None = None,
        largest: bool = False,
    ) -> None:
        """Time a benchmark case, record it, and only then judge it.

        Args:
            benchmark: pytest-benchmark's fixture.
            item: the test.
            work: one round.
            fault: returns what is wrong with a round's result, None if nothing is.
            images: per round.
            todo: the arithmetic and the memory traffic of a round; None where they aren't what is measured.
            largest: whether it is the largest batch, which should come near the roofline.
        """
        params = item.callspec.params
        device, precision = params.get("device", "cpu:0"), params.get("precision", "")
        benchmark.group = item.originalname
        rates = None
        if todo and not benchmark.disabled:
            rates = calibrate(device, DEVICE_PRECISIONS[device.partition(":")[0]])
            self.record.add_calibration(rates)
        reset_peak_memory(device)
        min_rounds, seconds = (self.config.getoption(f"benchmark_{name}") for name in ("min_rounds", "max_time"))
        with sampling(device) as sampler:
            done = measure(benchmark, work, min_rounds=min_rounds, seconds=float(seconds))
        wrong = fault(done.result)
        if not done.rounds:
            assert wrong is None
            return
        conditions = conditions_of(device)
        samples = sampler.between(done.began, done.began + sum(done.rounds))
        timing = Timing(
            case=item.name.removeprefix("test_"),
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
        self.node_ids[timing.case] = item.nodeid
        self.record.add_timing(timing)
        self.report_findings("fast", *judge(timing))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Compare GPUs and references, write the record and its report, and let the verdict decide the exit status."""
        if self.collect_only or not any(self.record.findings.values()):
            return
        if self.record.timings:
            self._record("fast", gpu_speed_parity(self.record.timings, gpu_models()))
            self._record("reference", self._compare_with_references())
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not self.not_ready
        self.record.write(complete=ended)
        if self.workers:
            all_ran = ended and not (session.shouldfail or session.shouldstop)
            failed = exitstatus == pytest.ExitCode.TESTS_FAILED
            self.whole = self.workers.finish(self.record, failed=failed) if all_ran else self.workers.leave(self.record)
        failing = ("FAIL", "INCONCLUSIVE") if self.config.getoption("fail_inconclusive") else ("FAIL",)
        if exitstatus == pytest.ExitCode.OK and overall(self.whole.findings) in failing:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        self.report = report_line(self.record if self.whole.path == self.record.path else self.whole)

    def _compare_with_references(self) -> list[Finding]:
        """Return how timings compare with the references on file; with --update-reference, write new ones first."""
        places = self._places()
        if reference.COLLECTING in os.environ:
            devices = {device: {"kind": each.kind, "environment": each.environment} for device, each in places.items()}
            self.record.machine["speed"] = {"devices": devices, "machine": fingerprint.machine_of(self.machine)}
            return []
        root, option = self.config.rootpath, self.config.getoption
        options = [
            *(f"--device={device}" for device in self.devices),
            f"--benchmark-max-time={option('benchmark_max_time')}",
            f"--benchmark-min-rounds={option('benchmark_min_rounds')}",
            *(["--full"] if option("full") else []),
        ]

        def remeasure(cases: Sequence[str]) -> tuple[Mapping[str, Sequence[float]], float]:
            self.say(f"\nre-measuring in a fresh process: {', '.join(cases)}")
            before = cpu_time()
            (run,) = reference.run_processes(root, 1, [*options, *(self.node_ids[case] for case in cases)])
            return reference.rounds_by_case(run), share_of_others(before, cpu_time(), os.cpu_count() or 1)

        if option("update_reference"):
            self.say(f"\n{MIN_PROCESSES_TO_FAIL} processes for the reference:")
            command = f"pytest {' '.join(map(str, self.config.invocation_params.args))}"
            try:
                chosen = [*options, *self.node_ids.values()]
                runs = reference.run_processes(root, MIN_PROCESSES_TO_FAIL, chosen, self.say)
                keep_references(root, runs, command)
            except ValueError as error:
                return [Finding("speed", "FAIL", "no reference is made of a device that isn't right", str(error))]
        return speed_findings(self.record.timings, places, REFERENCES, remeasure)

    def _places(self) -> dict[str, Place]:
        """Return what references are looked up by, for each device."""
        names = gpu_names()
        return {
            device: Place(
                fingerprint.kind_of(device, names),
                fingerprint.speed_environment(device, self.machine),
                fingerprint.boot_of(device),
            )
            for device in dict.fromkeys((*self.devices, *(timing.device for timing in self.record.timings)))
        }

    @pytest.hookimpl(optionalhook=True)
    def pytest_benchmark_update_machine_info(self, machine_info: dict[str, Any]) -> None:
        """Add what timings depend on; remove the momentary clock, by which a machine would differ from itself."""
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
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
        """Print throughput and verdict below pytest-benchmark's table, which may end in an error when it compares."""
        try:
            return (yield)
        finally:
            for title, lines in self._sections():
                if title and lines:
                    terminalreporter.section(title)
                for line in lines:
                    terminalreporter.write_line(line)

    def _sections(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Yield title and lines of what is printed at the end."""
        timings, found = self.record.timings, self.whole.findings
        if timings:
            tables = (throughput_table(timings, self.record.invalid), cost_table(timings, conditions=False))
            yield "throughput, on synthetic images", ["\n\n".join([*filter(None, map(str, tables)), LEGEND])]
        yield "", self.lines
        together = (str(table(found["fast"])) for table in (device_table, scaling_table))
        yield "devices together", list(filter(None, together))
        if any(found.values()):
            yield "verdict", summary(found, len(self.whole.machine.get("machines", ("this one",))))
            if self.devices == ("cpu:0",) and not self.not_ready:
                yield "", ["GPU: not run; this machine has none, or none was selected"]
            yield "", [f"results: {self.whole.path}", *filter(None, [self.report])]


def keep_references(
    root: Path, runs: Sequence[Mapping[str, Any]], command: str, note: str = "", into: Path | None = None
) -> list[Path]:
    """Write what `reference.run_processes` returned as references, one per kind of device, and return the files."""
    found = list(reference.references_of(runs, reference.provenance(root, command, note)))
    if into and len(found) > 1:
        kinds = ", ".join(each.device for each in found)
        raise ValueError(f"--into: {into} would hold one device of several ({kinds}); choose one: --device=gpu:0")
    paths = [into or reference.path_of(REFERENCES, each.device) for each in found]
    for path, each in zip(paths, found, strict=True):
        reference.write_reference(path, reference.merge_references(reference.read_reference(path), each))
    return paths
