"""Timed tests, in pytest's own process: each is timed in a process of its device, then recorded and judged here."""

import json
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import keras
import pytest

from alexnet_repro.verify.benchmark.layer_timing import LayerTiming
from alexnet_repro.verify.benchmark.telemetry import Conditions
from alexnet_repro.verify.benchmark.timing import Calibration, Timing, judge
from alexnet_repro.verify.checks.registry import crashed
from alexnet_repro.verify.doctor.environment import Environment
from alexnet_repro.verify.doctor.software import beside_settings
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.subprocesses import answer_each
from benchmarks.level import PRECISION, QUICK_IMAGES
from benchmarks.plan import FOLDER
from benchmarks.timing_process import CALIBRATION, PROFILE, TimedCase

if TYPE_CHECKING:
    from benchmarks.session import VerificationSession

PROFILE_SECONDS = 60.0  # of all devices and precisions together

Answer = dict[str, Any]
Answers = Generator[tuple[str, Answer], None, None]


class TimingRunner:
    """Times cases in a child process that sees their device alone; one child at a time, as all share this machine."""

    def __init__(
        self,
        here: Environment,
        planned: Mapping[str, Mapping[str, TimedCase | None]],
        *,
        deadline: float,
        min_rounds: int,
        seconds: float,
        disabled: bool = False,
        quick: bool = False,
        profile_seconds: float = 0.0,
    ) -> None:
        """Start nothing yet. `planned` are cases by device and name, in their order; None: what is no test's.

        Each may take `deadline` seconds, and is timed for `seconds`. The `quick` level calibrates one precision, and
        has fewer images to draw from.
        """
        self._here, self._planned, self._deadline = here, planned, max(deadline, 2 * seconds)
        self._options = {"min_rounds": min_rounds, "seconds": seconds, "disabled": disabled}
        self._options["profile_seconds"] = profile_seconds
        self._quick = quick
        self._child: Answers | None = None
        self._left: list[tuple[str, str]] = []  # what the child is yet to answer, by device and name

    def answer(self, device: str, name: str) -> Answer:
        """Return what became of a case, as `TimingProcess.answer` has it, or its `error`.

        Cases in their order are timed by one process; a case that comes again is timed again.
        """
        if self._child is None or self._left[:1] != [(device, name)]:
            self.close()
            names = list(self._planned[device])
            self._left = [(device, each) for each in names[names.index(name) :]]
            self._child = self._run(device, [each for _, each in self._left])
        _, answer = next(self._child)
        del self._left[0]
        if not self._left:
            self.close()
        return answer

    def close(self) -> None:
        """End the child, which has the device until then."""
        if self._child:
            self._child.close()
        self._child = None

    def fresh(self, device: str, names: Sequence[str]) -> dict[str, Timing]:
        """Return the timings of a device's cases by a new process; ValueError: one isn't timed, or its result wrong."""
        self.close()
        found = {}
        with closing(self._run(device, names)) as child:
            for name, answer in child:
                if "timing" not in answer:
                    why = answer.get("error") or " ".join(map(str, answer.values()))
                    raise ValueError(f"{name} wasn't timed: {why}")
                timing = _timing(answer)
                if timing.fault:
                    raise ValueError(f"{name} is invalid: {timing.fault}")
                found[timing.case] = timing
        return found

    def _run(self, device: str, names: Sequence[str]) -> Answers:
        cases = {name: asdict(case) for name in names if (case := self._planned[device][name])}
        given = {**self._options, "device": device, "cases": cases}
        if self._quick:
            given |= {"precisions": [PRECISION[device.partition(":")[0]]], "images": QUICK_IMAGES, "one_batch": True}
        options = json.dumps(given)
        environ = {"TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0"), **self._here.only(device)}
        return answer_each("benchmarks.timing_process", [options], names, self._deadline, environ)


def timing_runner(session: "VerificationSession", items: Iterable[pytest.Item]) -> TimingRunner:
    """Return what times those of the items that are to be, and the rates of their devices first."""
    option, planned = session.config.getoption, dict[str, dict[str, TimedCase | None]]()
    profiles = 0
    for item in items:
        if item.path.parent != FOLDER:  # a test of the same name
            continue
        if item.path.stem == "test_calibration" and isinstance(item, pytest.Function):
            planned.setdefault(item.callspec.params["device"], {})[CALIBRATION] = None
        elif item.path.stem == "test_profile" and isinstance(item, pytest.Function) and not session.why_not(item):
            params, profiles = item.callspec.params, profiles + 1
            planned.setdefault(params["device"], {})[PROFILE + params["precision"]] = None
        elif "measure" in getattr(item, "fixturenames", ()) and not session.why_not(item):
            case = _case_of(item)
            planned.setdefault(_device_of(case), {})[item.nodeid] = case
    return TimingRunner(
        session.machine,
        planned,
        deadline=option("deadline"),
        min_rounds=option("benchmark_min_rounds"),
        seconds=float(option("benchmark_max_time")),
        disabled=bool(option("benchmark_disable")),
        quick=session.asked.level == "quick",
        profile_seconds=PROFILE_SECONDS / max(1, profiles),
    )


def time_case(session: "VerificationSession", item: pytest.Function) -> None:
    """Have a timed test timed, record the timing, and only then judge it."""
    case, benchmark = _case_of(item), item.funcargs["benchmark"]
    device = _device_of(case)
    answer = session.timings.answer(device, item.nodeid)
    if "timing" not in answer:
        session.report_findings("fast", *_untimed(session, case, device, answer))
        pytest.skip(answer.get("skipped", "timing is off: --benchmark-disable"))
    if "calibration" in answer:
        session.record.add_calibration(Calibration(**answer["calibration"]))
    timing = _timing(answer)
    benchmark.group = case.function
    benchmark.extra_info |= case.params
    _fill(benchmark, timing)
    session.node_ids[timing.case] = item.nodeid
    session.record.add_timing(timing)
    session.report_findings("fast", *judge(timing, keras.backend.backend()))


def rates_of(session: "VerificationSession", device: str) -> Calibration:
    """Return a device's own rates, recorded; where they can't be had the test that asks has failed."""
    answer = session.timings.answer(device, CALIBRATION)
    if "error" in answer:
        session.report_findings("fast", _crashed(session, "calibration", device, answer))
    rates = Calibration(**answer["calibration"])
    session.record.add_calibration(rates)
    return rates


def profile_of(session: "VerificationSession", device: str, precision: str) -> tuple[list[LayerTiming], list[str]]:
    """Return a device's layers as they were timed alone, recorded, and those that weren't for want of time.

    Where none can be the test that asks has failed.
    """
    answer = session.timings.answer(device, PROFILE + precision)
    if "error" in answer:
        failed = replace(_crashed(session, "profile", device, answer), precision=precision)
        session.report_findings("fast", failed)
    found = [LayerTiming(**each) for each in answer["layers"]]
    session.record.add_layers(found)
    return found, answer["missing"]


def _case_of(item: pytest.Function) -> TimedCase:
    callspec = getattr(item, "callspec", None)
    given = (dict(callspec.params), callspec.id) if callspec else ()
    return TimedCase(item.path.stem, item.originalname, *given)


def _device_of(case: TimedCase) -> str:
    return str(case.params.get("device", "cpu:0"))


def _timing(answer: Answer) -> Timing:
    found = answer["timing"]
    return Timing(**{**found, "conditions": Conditions(**found["conditions"])})


def _untimed(session: "VerificationSession", case: TimedCase, device: str, answer: Answer) -> Iterator[Finding]:
    """Yield what a process's answer says of a case that wasn't timed, if it says anything."""
    if "error" in answer:
        yield replace(_crashed(session, case.function.removeprefix("test_"), device, answer), case=case.name)
    if "too_large" in answer:
        message, evidence, fix = answer["too_large"]
        yield Finding("fits", "INCONCLUSIVE", message, evidence, fix, device=device, case=case.name)
    if wrong := answer.get("untimed"):
        message = f"{case.name}: the result is wrong, so its speed would mean nothing"
        yield Finding("valid", "FAIL", message, wrong, device=device, case=case.name)


def _crashed(session: "VerificationSession", check: str, device: str, answer: Answer) -> Finding:
    found = replace(crashed(check, answer["error"], answer["log"], device), device=device)
    return beside_settings(found, session.machine)


def _fill(benchmark: Any, timing: Timing) -> None:
    """Give pytest-benchmark's fixture the rounds of a timing, as if it had timed them; it has no public way to."""
    benchmark._mode = "another process"  # or it warns that it wasn't used  # noqa: SLF001
    stats = benchmark._make_stats(1)  # noqa: SLF001
    for seconds in timing.rounds:
        stats.update(seconds)
    named = ("device", "precision", "images", "flop", "peak", "roofline", "bottleneck", "pipelined")
    benchmark.extra_info |= {name: getattr(timing, name) for name in named}
