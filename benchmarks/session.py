"""The verification of this machine as a pytest plugin: devices, findings, timings, and the verdict at the end."""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import keras
import pytest

from alexnet_repro import enable_memory_growth
from alexnet_repro.backend.devices import gpu_models, thread_counts, usable_devices
from alexnet_repro.backend.memory import peak_memory, reset_peak_memory
from alexnet_repro.training.distributed.cluster import ClusterError
from alexnet_repro.verify.benchmark import reference
from alexnet_repro.verify.benchmark.calibration import calibrate
from alexnet_repro.verify.benchmark.gate import MIN_PROCESSES_TO_FAIL
from alexnet_repro.verify.benchmark.regression import places_of, speed_findings
from alexnet_repro.verify.benchmark.roofline import Work, bottleneck
from alexnet_repro.verify.benchmark.telemetry import Sampler, conditions_of, cpu_time, heat_during, share_of_others
from alexnet_repro.verify.benchmark.timer import measure
from alexnet_repro.verify.benchmark.timing import Timing, gpu_speed_parity, judge
from alexnet_repro.verify.checks.devices import MachineNotReadyError, choose_devices, diagnose_machine
from alexnet_repro.verify.doctor import fingerprint
from alexnet_repro.verify.doctor.environment import read_machine
from alexnet_repro.verify.finding import Finding, overall, summary
from alexnet_repro.verify.report.page import report_line
from alexnet_repro.verify.report.run_record import RunRecord
from alexnet_repro.verify.report.tables import LEGEND, cost_table, device_table, scaling_table, throughput_table
from benchmarks.level import in_quick_level
from benchmarks.workers import WorkerGroup

NAME = "verification"  # of the plugin
FOLDER = Path(__file__).parent
# Tests' modules; those that aren't named come last.
ORDER = ("correct", "repeatable", "reference", "burn_in", "overhead", "scaling", "workers", "calibration")


class VerificationSession:
    """One verification: its devices, and what was found and measured so far.

    The root's `conftest.py` registers it when pytest is to collect this folder. Tests outside this folder run first,
    whatever the doctor finds.
    """

    def __init__(self, config: pytest.Config) -> None:
        """Decide where results go, before JUnit's plugin is configured; a UsageError where nothing can be timed."""
        self.config, self.collect_only = config, bool(config.option.collectonly)
        if not config.pluginmanager.has_plugin("benchmark"):
            raise pytest.UsageError("benchmarks need the plugin pytest-benchmark: install it, without -p no:benchmark")
        if config.getoption("dist", "no") != "no" and not self.collect_only:
            raise pytest.UsageError("benchmarks are timed one at a time: leave out -n, or run `pytest tests -n …`")
        if config.getoption("full") and config.getoption("level") == "quick":
            raise pytest.UsageError("--full is of the standard level: leave out --level=quick")
        self.machine, self.devices = read_machine(), ("cpu:0",)
        self.not_ready = ""
        """Why this machine can't be verified; empty if it can."""
        self.node_ids: dict[str, str] = {}  # by benchmark case
        self.too_large: dict[tuple[str, ...], int] = {}
        """The batch size that didn't fit into memory, by series of benchmark cases."""
        self.lines: list[str] = []  # printed at the end
        self.report = ""
        folder = Path(config.getoption("report") or config.rootpath / "reports" / time.strftime("%Y-%m-%dT%H-%M-%S"))
        together = config.getoption("distribute") is not None and not self.collect_only
        self.workers = WorkerGroup(config, folder) if together else None
        folder = self.workers.own_folder if self.workers else folder
        self.record = self.whole = RunRecord(folder / "results.json")
        if not self.collect_only and config.option.xmlpath is None:
            config.option.xmlpath = str(folder / "junit.xml")

    def say(self, line: str) -> None:
        """Print a line at once."""
        self.config.get_terminal_writer().line(line)

    def pytest_sessionstart(self) -> None:
        """Diagnose the machine, choose devices, and meet the other workers; a UsageError where that can't be."""
        wanted = self.config.getoption("device") or ()
        if self.collect_only:
            enable_memory_growth()
            self.devices = tuple(device for device in usable_devices() if not wanted or device in wanted)
            return
        try:
            self._choose_devices(wanted, require_gpu=self.config.getoption("require_gpu"))
            if self.workers:
                self.workers.meet(self.record, self.machine)
        except (MachineNotReadyError, ClusterError) as error:
            self.not_ready = str(error)
        except (ValueError, OSError) as error:
            raise pytest.UsageError(str(error)) from error

    def _choose_devices(self, wanted: Sequence[str], *, require_gpu: bool) -> None:
        try:
            # First: JAX takes hold of GPUs when it counts them, which the doctor would take for another process.
            self.machine, found = diagnose_machine(wanted, self.say, require_gpu=require_gpu)
        except MachineNotReadyError as error:
            self.record.add("doctor", *error.findings)
            raise
        self.record.add("doctor", *found)
        enable_memory_growth()
        self.devices = choose_devices(self.machine, wanted, usable_devices(), require_gpu=require_gpu)
        software = fingerprint.speed_environment("cpu:0", self.machine)
        self.record.machine = {
            "level": self.config.getoption("level"),
            "devices": list(self.devices),
            **fingerprint.machine_of(self.machine),
            "threads": thread_counts(),
            "driver": self.machine.nvidia.driver,
            **{name: each for name, each in software.items() if name in ("packages", "settings")},
        }

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what the level doesn't ask. Order: tests outside this folder, checks, and last what is timed."""
        if self.config.getoption("level") == "quick":
            left_out = [item for item in items if item.path.parent == FOLDER and not in_quick_level(item)]
            self.config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if item not in left_out]
        places = {f"test_{name}": place for place, name in enumerate(ORDER)}
        items.sort(key=lambda item: places.get(item.path.stem, len(ORDER)) if item.path.parent == FOLDER else -1)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Among workers, make sure that all run the same tests."""
        if self.workers and not self.not_ready:
            try:
                self.workers.check_collected([item.nodeid for item in session.items])
            except ClusterError as error:
                self.not_ready = str(error)

    def report_findings(self, group: str, *findings: Finding) -> None:
        """Record findings of a group, then fail or skip the test as they say."""
        self.record.add(group, *findings)
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

        A round is a call of `work`, on `images` images; `fault` returns what is wrong with its result, or None.
        `todo` is its arithmetic and memory traffic, None where they aren't what is measured; the `largest` batch should
        come near the roofline.
        """
        params = item.callspec.params
        device, precision = params.get("device", "cpu:0"), params.get("precision", "")
        benchmark.group = item.originalname
        rates = None
        if todo and not benchmark.disabled:
            rates = calibrate(device)
            self.record.add_calibration(rates)
        reset_peak_memory(device)
        option = self.config.getoption
        with closing(Sampler(device)) as sampler:
            seconds = float(option("benchmark_max_time"))
            done = measure(benchmark, work, min_rounds=option("benchmark_min_rounds"), seconds=seconds)
        wrong = fault(done.result)
        if not done.rounds:
            assert wrong is None
            return
        conditions = conditions_of(device)
        samples = sampler.between(done.began, done.began + sum(done.rounds))
        limits: dict[str, Any] = {}
        if todo and rates:
            limits = {"flop": todo.flop, "bytes": todo.bytes, "peak": rates.matmul[precision]}
            most = bottleneck(todo, statistics.median(done.rounds), precision, rates)
            limits |= {"bandwidth": rates.memory, "bottleneck": most}
        timing = Timing(
            item.name.removeprefix("test_"),
            device,
            precision,
            **{name: getattr(done, name) for name in ("rounds", "read_back", "first", "pipelined")},
            **limits,
            images=images,
            heat=heat_during(samples) or conditions.heat,
            fault=wrong,
            largest=largest,
            peak_memory=peak_memory(device),
            conditions=conditions,
            samples=samples,
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
            self.record.add("fast", *gpu_speed_parity(self.record.timings, gpu_models()))
            self.record.add("reference", *self._compare_with_references())
        failed = exitstatus == pytest.ExitCode.TESTS_FAILED
        ended = (failed or exitstatus == pytest.ExitCode.OK) and not self.not_ready
        self.record.write(complete=ended)
        if self.workers:
            all_ran = ended and not (session.shouldfail or session.shouldstop)
            self.whole = self.workers.finish(self.record, all_ran=all_ran, failed=failed)
        failing = ("FAIL", "INCONCLUSIVE") if self.config.getoption("fail_inconclusive") else ("FAIL",)
        if exitstatus == pytest.ExitCode.OK and overall(self.whole.findings) in failing:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        self.report = report_line(self.record if self.whole.path == self.record.path else self.whole)

    def _compare_with_references(self) -> list[Finding]:
        """Return how timings compare with the references on file; with --update-reference, write new ones first."""
        devices = dict.fromkeys((*self.devices, *(timing.device for timing in self.record.timings)))
        places = places_of(devices, self.machine)
        if reference.COLLECTING in os.environ:
            speed = {device: {"kind": each.kind, "environment": each.environment} for device, each in places.items()}
            self.record.machine["speed"] = {"devices": speed, "machine": fingerprint.machine_of(self.machine)}
            return []
        root, option = self.config.rootpath, self.config.getoption
        times = (f"{name}={option(name)}" for name in ("--benchmark-max-time", "--benchmark-min-rounds"))
        options = [*(f"--device={each}" for each in self.devices), *times, *(["--full"] if option("full") else [])]

        def remeasure(cases: Sequence[str]) -> tuple[Mapping[str, Sequence[float]], float]:
            self.say(f"\nre-measuring in a fresh process: {', '.join(cases)}")
            before = cpu_time()
            (run,) = reference.run_processes(root, 1, [*options, *(self.node_ids[case] for case in cases)])
            return reference.rounds_by_case(run), share_of_others(before, cpu_time(), os.cpu_count() or 1)

        if option("update_reference"):
            self.say(f"\n{MIN_PROCESSES_TO_FAIL} processes for the reference:")
            command = f"pytest {' '.join(map(str, self.config.invocation_params.args))}"
            chosen = [*options, *self.node_ids.values()]
            try:
                runs = reference.run_processes(root, MIN_PROCESSES_TO_FAIL, chosen, self.say)
                reference.keep_references(root, runs, command)
            except ValueError as error:
                return [Finding("speed", "FAIL", "no reference is made of a device that isn't right", str(error))]
        return speed_findings(self.record.timings, places, FOLDER / "references", remeasure)

    @pytest.hookimpl(optionalhook=True)
    def pytest_benchmark_update_machine_info(self, machine_info: dict[str, Any]) -> None:
        """Add what timings depend on; remove the momentary clock, by which a machine would differ from itself."""
        for name in ("hz_actual", "hz_actual_friendly"):
            machine_info["cpu"].pop(name, None)
        enable_memory_growth()
        speed = {each: fingerprint.speed_environment(each, self.machine) for each in usable_devices()}
        machine_info |= {"backend": keras.backend.backend(), "devices": speed}

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
        timings, found = self.record.timings, self.whole.findings
        if timings:
            tables = (throughput_table(timings, self.record.invalid), cost_table(timings, conditions=False))
            yield "throughput, on synthetic images", ["\n\n".join([*filter(None, map(str, tables)), LEGEND])]
        yield "", self.lines
        together = (str(table(found["fast"])) for table in (device_table, scaling_table))
        yield "devices together", list(filter(None, together))
        if any(found.values()):
            machines = len(self.whole.machine.get("machines", ("this one",)))
            yield "verdict", summary(found, machines, self.whole.level)
            if self.devices == ("cpu:0",) and not self.not_ready:
                yield "", ["GPU: not run; this machine has none, or none was selected"]
            yield "", [f"results: {self.whole.path}", *filter(None, [self.report])]
