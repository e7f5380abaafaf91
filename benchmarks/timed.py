"""A benchmark case: timed, recorded, then judged; and what becomes of one that doesn't fit into memory."""

import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from alexnet_repro.backend.memory import peak_memory, reset_peak_memory
from alexnet_repro.verify.benchmark.calibration import calibrate
from alexnet_repro.verify.benchmark.roofline import Work, bottleneck
from alexnet_repro.verify.benchmark.telemetry import Sampler, conditions_of, heat_during
from alexnet_repro.verify.benchmark.timer import measure
from alexnet_repro.verify.benchmark.timing import Timing, judge
from alexnet_repro.verify.checks.memory import is_out_of_memory
from alexnet_repro.verify.doctor.endings import find_ending
from alexnet_repro.verify.finding import Finding
from benchmarks.session import VerificationSession


def measure_case(
    session: VerificationSession,
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

    A round is a call of `work`, on `images` images; `fault` returns what is wrong with its result, or None. `todo` is
    its arithmetic and memory traffic, None where they aren't what is measured; the `largest` batch should come near the
    roofline.
    """
    params = item.callspec.params
    device, precision = params.get("device", "cpu:0"), params.get("precision", "")
    benchmark.group = item.originalname
    rates = None
    if todo and not benchmark.disabled:
        rates = calibrate(device)
        session.record.add_calibration(rates)
    reset_peak_memory(device)
    option = session.config.getoption
    with closing(Sampler(device)) as sampler:
        seconds = float(option("benchmark_max_time"))
        done = measure(benchmark, work, min_rounds=option("benchmark_min_rounds"), seconds=seconds)
    wrong = fault(done.result)
    case = item.name.removeprefix("test_")
    if not done.rounds:
        if wrong is not None:
            message = f"{case}: the result is wrong, so its speed would mean nothing"
            session.report_findings("fast", Finding("valid", "FAIL", message, wrong, device=device, case=case))
        pytest.skip("timing is off: --benchmark-disable")
    conditions = conditions_of(device)
    samples = sampler.between(done.began, done.began + sum(done.rounds))
    limits: dict[str, Any] = {}
    if todo and rates:
        limits = {"flop": todo.flop, "bytes": todo.bytes, "peak": rates.matmul[precision]}
        most = bottleneck(todo, statistics.median(done.rounds), precision, rates)
        limits |= {"bandwidth": rates.memory, "bottleneck": most}
    timing = Timing(
        case,
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
    session.node_ids[timing.case] = item.nodeid
    session.record.add_timing(timing)
    session.report_findings("fast", *judge(timing))


def unless_too_large(item: pytest.Function, session: VerificationSession) -> Iterator[None]:
    """Run a timed test at the `yield`; one that doesn't fit into memory is inconclusive, and larger ones aren't run."""
    params = item.callspec.params
    device, batch = params.get("device", "cpu:0"), params.get("batch", 0)
    series = (item.originalname, *(str(params.get(name)) for name in ("device", "precision", "xla")))
    smaller, ending = session.too_large.get(series, math.inf), None
    if batch > smaller:
        message = f"{item.name} isn't run: a batch of {smaller} didn't fit into the device's memory"
    else:
        try:
            return (yield)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            ending = find_ending(device, f"{type(error).__name__}: {error}")
        session.too_large[series] = batch
        message = f"{item.name} doesn't fit into the device's memory"
    # Not while the error is handled: it holds all that the test had in memory.
    because = ("", f"make {smaller} fit first")
    if ending:
        because = ("; ".join(filter(None, (ending.message, ending.evidence))), ending.fix)
    return session.report_findings("fast", Finding("fits", "INCONCLUSIVE", message, *because, device=device))
