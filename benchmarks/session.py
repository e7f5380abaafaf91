"""The verification of this machine as a pytest plugin: devices, findings, timings, and the verdict at the end."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import pytest

from alexnet_repro.training.distributed.cluster import ClusterError
from alexnet_repro.verify.benchmark.scaling_run import GATHER_DEADLINES, lost_worker
from alexnet_repro.verify.benchmark.timing import gpu_speed_parity
from alexnet_repro.verify.checks.devices import (
    MachineNotReadyError,
    choose_devices,
    diagnose_machine,
    working_devices,
)
from alexnet_repro.verify.doctor import fingerprint
from alexnet_repro.verify.doctor.after_load import LoadWatch
from alexnet_repro.verify.doctor.environment import read_gpus, read_machine
from alexnet_repro.verify.doctor.inventory import machine_identity, machine_serials
from alexnet_repro.verify.doctor.serials import serial_hasher, unhashed
from alexnet_repro.verify.finding import REFERENCE, Finding, worst
from alexnet_repro.verify.report.page import report_line
from alexnet_repro.verify.report.run_record import RunRecord
from alexnet_repro.verify.report.tables import TextTable
from alexnet_repro.verify.verdict import Planned, pytest_exit_status
from benchmarks.folder import RESULTS, claim, own_name, run_identity
from benchmarks.junit_file import add_case, add_verdict, write_again, write_none
from benchmarks.keeper import PlanKeeper
from benchmarks.level import burn_in_seconds
from benchmarks.plan import FOLDER, Asked, plan, turn, why_not
from benchmarks.refused import refused
from benchmarks.signals import ended_by_signals
from benchmarks.speed_references import compare_with_references
from benchmarks.terminal import Terminal
from benchmarks.timed import timing_runner
from benchmarks.watcher import Watcher
from benchmarks.workers import WorkerGroup

NAME = "verification"  # of the plugin
# The exit status, by what ends a run.
STATUSES = {KeyboardInterrupt: 2, pytest.UsageError: 4, BrokenPipeError: 128 + signal.SIGPIPE}


class VerificationSession:
    """One verification: its devices, and what was found and measured so far.

    The root's `conftest.py` registers it when pytest is to collect this folder. Tests outside this folder run first,
    whatever the doctor finds.
    """

    def __init__(self, config: pytest.Config) -> None:
        """Decide where results go, before JUnit's plugin is configured; a UsageError where nothing can be timed."""
        self.config, self.collect_only = config, bool(config.option.collectonly)
        if why := refused(config):
            raise pytest.UsageError(why)
        self.machine = read_machine()
        self.devices: tuple[str, ...] = ("cpu:0",)
        """Those that are chosen."""
        self.unusable: frozenset[str] = frozenset()
        """Those that can't be used, and are left out by `--ignore-doctor`."""
        self.asked = Asked(
            level=config.getoption("level"),
            burn_in=bool(burn_in_seconds(config)),
            profile=config.getoption("profile"),
            cpu_replicas=config.getoption("cpu_replicas"),
            workers=config.getoption("distribute") is not None,
        )
        self.not_ready = ""
        """Why this machine can't be verified; empty if it can."""
        self.node_ids: dict[str, str] = {}  # by benchmark case
        self.lines: list[str | TextTable] = []  # printed at the end
        self.report = ""
        self.claimed = False  # its folder: something is to be written, and printed
        self.watcher: Watcher | None = None
        self.load: LoadWatch | None = None
        self._ending = contextlib.ExitStack()
        run = run_identity(config.rootpath, config.invocation_params.args)
        run |= {"level": self.asked.level, "fail_inconclusive": self.fail_inconclusive}
        self.hasher = serial_hasher() if config.getoption("hash_serials") else None
        """What hides serials in all that is written and printed; None without `--hash-serials`."""
        if self.hasher:
            self.hasher.learn(*machine_serials())
            run = self.hasher(run | {"hashed": True})
        named = config.getoption("report") or config.rootpath / "reports" / own_name(run["started"])
        folder = Path(named).absolute()  # a test may change the working folder
        together = config.getoption("distribute") is not None and not self.collect_only
        self.workers = WorkerGroup(config, folder) if together else None
        own = self.workers.own_folder if self.workers else folder
        self._folders = [folder, own] if self.workers and self.workers.cluster.chief else [own]
        hide = self.hasher or unhashed
        self.record = self.whole = RunRecord(own / RESULTS, run=run, began=time.monotonic(), hide=hide)
        self.keeper = PlanKeeper(self.record)
        self.terminal = Terminal(self)
        if not self.collect_only and getattr(config.option, "xmlpath", "") is None:
            config.option.xmlpath = str(own / "junit.xml")

    def say(self, line: str) -> None:
        """Print a line at once."""
        self.terminal.say(self.record.hide(line), indent=14)

    def say_at_end(self, line: str) -> None:
        """Print a line at the end, once."""
        self.lines += [line] if line not in self.lines else []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """Diagnose the machine, choose devices, and meet the other workers; a UsageError where that can't be.

        Not earlier: pytest doesn't finish a session that is interrupted at its start.
        """
        wanted = self.config.getoption("device") or ()
        if self.collect_only:
            self.machine = read_machine()  # once more: tests hid the GPUs until pytest was configured
            here = ("cpu:0", *self.machine.cuda_names)
            self.devices = tuple(device for device in here if not wanted or device in wanted)
            self.asked = self.asked.of(self.devices, {})
            return
        try:
            self._claim()
            self._watch()
            self._choose_devices(wanted, require_gpu=self.config.getoption("require_gpu"))
            if self.workers:
                self.workers.meet(self.machine)
        except MachineNotReadyError as error:
            self.not_ready = self.record.hide(str(error))
            if worst(self.record.findings["doctor"]) != "FAIL":
                self.record.add("doctor", Finding("devices", "FAIL", self.not_ready))
        except ClusterError as error:
            self._lose_worker(error)
        except (ValueError, OSError) as error:
            write_none(self.config)  # the folder may be another run's
            if self.claimed:
                self.record.run["ended"] = f"it was started wrongly: {error}"
                self.record.write()
            self.claimed = False  # no more is written, or printed
            raise pytest.UsageError(self.record.hide(str(error))) from error
        self.record.plan = plan(self.asked)
        self.record.write()

    def _claim(self) -> None:
        for folder in self._folders:
            claim(folder, self.record.run)
        self.claimed = True
        self.record.machine = machine_identity()
        self.record.write()

    def _watch(self) -> None:
        """Let a second process finish the record if this one can't, and let signals end the run."""
        junit = Path(getattr(self.config.option, "xmlpath", None) or self.record.path.with_name("junit.xml"))
        try:
            self.watcher = Watcher(self.record.path, junit)
        except OSError as error:
            self.say(f"nothing watches this run, should it crash or hang: {error}")
        if self.watcher:
            self._ending.callback(self.watcher.close)
            self.keeper.on_begin, self.keeper.on_end = self._begin, self.watcher.end
        wakeup = self.watcher.signal_fd if self.watcher else None
        self._ending.enter_context(ended_by_signals(self.keeper.signalled, wakeup))

    def _begin(self, planned: Planned, item: pytest.Item) -> None:
        """Let the watcher know what runs, and for how long at most.

        Children have deadlines of their own. A timed test waits for one answer, others perhaps for all that is planned.
        """
        option = self.config.getoption
        several = option("deadline") * (GATHER_DEADLINES + len(self.record.plan)) + burn_in_seconds(self.config)
        one = 2 * max(option("deadline"), 2 * float(option("benchmark_max_time")))
        if self.watcher:
            limit = one if "measure" in item.fixturenames else several
            self.watcher.begin(planned.name, None if option("usepdb", False) else limit)

    def _choose_devices(self, wanted: Sequence[str], *, require_gpu: bool) -> None:
        ignore = bool(self.config.getoption("ignore_doctor"))
        given = {"require_gpu": require_gpu, "ignore_doctor": ignore}
        if self.hasher:
            self.hasher.learn_gpus(read_gpus())  # before the doctor says anything
        try:
            limit = max(180.0, 0.3 * self.config.getoption("deadline"))  # a probe takes less than a check
            with self.terminal.live.showing("doctor"):
                self.machine, found = diagnose_machine(wanted, self.say, deadline=limit, **given)
        except MachineNotReadyError as error:
            if error.here:
                self.record.machine |= fingerprint.machine_record(error.here)
            self.record.add("doctor", *error.findings)
            raise
        finally:
            # For this process, and for tests beside the benchmarks: children are shown what they are to use.
            os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        self.record.machine |= fingerprint.machine_record(self.machine)
        self.record.add("doctor", *found)
        self.load = LoadWatch(self.machine)
        every = dict.fromkeys((*self.machine.seen_devices, *self.machine.cuda_names))
        self.asked = self.asked.of(every, self.machine.seen_gpus)
        self.devices = choose_devices(self.machine, wanted, **given)
        self.unusable = frozenset(every).difference(working_devices(self.machine)) if ignore else frozenset()
        self.record.machine["devices"] = list(self.devices)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self) -> Iterator[None]:
        """Hide in pytest's report of a test what isn't to be printed, or written for JUnit."""
        report = yield
        if self.hasher:
            if (text := self.hasher(report.longreprtext)) != report.longreprtext:
                place = report.longrepr
                report.longrepr = (*place[:2], self.hasher(place[2])) if isinstance(place, tuple) else text
            report.sections = self.hasher(report.sections)
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Iterator[None]:
        """Leave out what isn't chosen or asked. Order: tests outside this folder, checks, and last what is timed.

        Of this folder as collected, whatever other plugins make of it: some shuffle.
        """
        collected = {item: number for number, item in enumerate(items)}
        yield
        left_out = [item for item in items if item.path.parent == FOLDER and self._left_out(item)]
        self.config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]

        def key(item: pytest.Item) -> tuple[int, ...]:
            own = item.path.parent == FOLDER
            device = _parameters(item).get("device", "cpu:0")
            return (*turn(item.path.stem, device, self.asked), collected.get(item, 0)) if own else (-1,)

        items.sort(key=key)

    def _left_out(self, item: pytest.Item) -> bool:
        device = _parameters(item).get("device", "")
        if device and device not in self.devices:
            return True
        name = getattr(item, "originalname", item.name)
        return not self.asked.has(name, _parameters(item))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Compare what runs with the plan; among workers, make sure that all run the same tests."""
        if self.collect_only:
            return
        names = {item.nodeid: f"{item.path.name}::{item.name}" for item in session.items if item.path.parent == FOLDER}
        self.keeper.collected(session.items, self.devices, names, self.unusable)
        self.timings = timing_runner(self, session.items)
        self._ending.callback(self.timings.close)
        if self.workers and not self.not_ready:
            try:
                self.workers.check_collected([item.nodeid for item in session.items])
            except ClusterError as error:
                self._lose_worker(error)

    def _lose_worker(self, error: ClusterError) -> None:
        """End the run before its first benchmark, as a failure: the exit status is one's."""
        self.not_ready = str(error)
        self.record.add("fast", lost_worker(error))

    def why_not(self, item: pytest.Item) -> str:
        """Return why a test doesn't apply to the chosen devices; empty if it does."""
        asked = self.asked.of(self.devices, self.asked.models or {})
        name = getattr(item, "originalname", item.name)
        return why_not(item.path.stem, name, _parameters(item), asked)

    def report_findings(self, group: str, *findings: Finding) -> None:
        """Record findings of a group, then fail or skip the test as they say."""
        findings = self.record.hide(findings)
        self.keeper.report(group, *findings)
        failed, inconclusive = (
            [str(each) for each in findings if each.status == status] for status in ("FAIL", "INCONCLUSIVE")
        )
        if failed or (inconclusive and self.fail_inconclusive and group != REFERENCE):
            self.keeper.fail("\n".join(failed + inconclusive))
        if inconclusive:
            pytest.skip("\n".join(inconclusive))

    @property
    def fail_inconclusive(self) -> bool:
        """Whether an inconclusive check fails; a reference never does, which a new machine doesn't have."""
        return bool(self.config.getoption("fail_inconclusive"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> Iterator[None]:
        """Finish the record; what pytest and plugins do then, such as the last tear-downs, may fail, too."""
        if not self.claimed:
            return (yield)  # nothing is to be run, or the folder is another run's
        try:
            decided = self._finish(session, int(exitstatus))
            result = yield
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is no end as it should be
            session.exitstatus = self._end_by(error, int(exitstatus))
            if not isinstance(error, Exception) or isinstance(error, pytest.exit.Exception):
                pytest.exit(self.keeper.ended, returncode=session.exitstatus)
            return None
        session.exitstatus = decided  # whatever another plugin has made of it
        return result

    def _end_by(self, error: BaseException, status: int = 0) -> int:
        """Write what the run has come to by an error after its last test; return its exit status, `status` without."""
        self.keeper.ended_by(error)
        self.terminal.begin_again()
        status = self._state(getattr(error, "returncode", None) or STATUSES.get(type(error), status))
        write_again(self.config, self.whole)
        return status

    def _finish(self, session: pytest.Session, status: int) -> int:
        """Compare GPUs and references, write the record and its report; return the exit status by the verdict."""
        if self.watcher:
            self.watcher.end()
        if self.load and not self.keeper.ended:
            self.record.add("doctor", *self.load.findings())
        if self.record.timings and not self.keeper.ended:
            self.record.add("fast", *gpu_speed_parity(self.record.timings, self.machine.seen_gpus))
            self.record.add("reference", *compare_with_references(self))
        self.keeper.finish(self.not_ready or str(session.shouldfail or session.shouldstop or ""), status)
        status = session.exitstatus = self._state(self.keeper.signal[1] if self.keeper.signal else status)
        if not self.record.run.get("ended"):
            self.keeper.end_by_signal()
        if node := self.keeper.interrupted_test():
            add_case(self.config, node, "skipped", self.keeper.ended, {})
        add_verdict(self.config, self.whole, fail_inconclusive=self.fail_inconclusive)
        return status

    def _state(self, status: int) -> int:
        """Write what the run has come to; return its exit status, where pytest's own would be `status`."""
        if self.keeper.ended:
            self.record.run["ended"] = self.keeper.ended
        self._write()
        return pytest_exit_status(self.whole.verdict, status, fail_inconclusive=self.fail_inconclusive)

    def _write(self) -> None:
        """Write the record, with other workers the whole one, and the report; what can't be written is a failure."""
        complete = not self.keeper.ended
        try:
            self.record.write(complete=complete)
            if self.workers:
                self.whole = self.workers.finish(self.record, all_ran=complete)
        except OSError as error:
            self.record.findings["doctor"].append(Finding("disk", "FAIL", "results can't be written", str(error)))
        self.report = report_line(self.record if self.whole.path == self.record.path else self.whole)

    @pytest.hookimpl(optionalhook=True)
    def pytest_benchmark_update_machine_info(self, machine_info: dict[str, Any]) -> None:
        """Add what timings depend on; remove the momentary clock, by which a machine would differ from itself."""
        for name in ("hz_actual", "hz_actual_friendly"):
            machine_info["cpu"].pop(name, None)
        speed = {each: fingerprint.speed_environment(each, self.machine) for each in self.machine.seen_devices}
        machine_info |= {"backend": keras.backend.backend(), "devices": speed}

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """Print the verdict as the last line; all of it where pytest prints no summary, as after a signal."""
        self._ending.close()
        if self.claimed:
            self.terminal.last_words()

    def broke(self, error: BaseException) -> None:
        """Write, and print, what an error has made of the run that came when all was over, as another plugin's."""
        if self.claimed and not isinstance(error, pytest.UsageError):
            self._end_by(error)
            self.pytest_unconfigure()


def _parameters(item: pytest.Item) -> dict[str, Any]:
    callspec = getattr(item, "callspec", None)
    return dict(callspec.params) if callspec else {}
