"""The process that times one device: it calls the timed tests' functions, which pytest's own process never does.

So that process uses no GPU, and none sees another's models, settings or memory.
"""

import functools
import gc
import importlib
import json
import math
import statistics
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pytest

from alexnet_repro import DataLoader, enable_memory_growth, synthetic_fashion
from alexnet_repro.backend.memory import free_memory, peak_memory, reset_peak_memory
from alexnet_repro.verify.benchmark import timer
from alexnet_repro.verify.benchmark.calibration import calibrate
from alexnet_repro.verify.benchmark.profile import layer_timings
from alexnet_repro.verify.benchmark.roofline import Work, bottleneck, bound
from alexnet_repro.verify.benchmark.telemetry import Sampler, conditions_of, heat_during
from alexnet_repro.verify.benchmark.timing import Calibration, Timing
from alexnet_repro.verify.checks.memory import is_out_of_memory
from alexnet_repro.verify.doctor.endings import find_ending

CALIBRATION = "calibration"  # the name of what is no test's: the device's own rates
TIMES_ON_CPU = 3  # that a noisy or drifting timing is measured, at most
PROFILE = "profile "  # before a precision, the name of its layers' timings


@dataclass(frozen=True)
class TimedCase:
    """A timed test: its module in `benchmarks`, its function, and the parameters that pytest would give it."""

    module: str
    function: str
    params: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""

    @property
    def name(self) -> str:
        """The case's name in records and references."""
        return self.function.removeprefix("test_") + (f"[{self.id}]" if self.id else "")

    @property
    def series(self) -> tuple[str, ...]:
        """What it shares with the same at other batch sizes."""
        return (self.function, *(str(self.params.get(name)) for name in ("precision", "xla")))


@dataclass
class TimingProcess:
    """Times the cases of the only device that this process sees, which its parent calls `device`."""

    device: str
    min_rounds: int
    seconds: float
    disabled: bool  # each result is looked at, and nothing is timed
    precisions: Sequence[str] = ()  # that the device is calibrated in; none: in all of its own
    images: int = 60_000  # that batches are drawn from
    profile_seconds: float = 0.0  # of a profile in one precision
    one_batch: bool = False  # whether each test has but one batch size, its level's largest
    too_large: dict[tuple[str, ...], int] = field(default_factory=dict)
    """The batch size that didn't fit into memory, by series."""

    @property
    def here(self) -> str:
        """The device's name in this process."""
        return f"{self.device.partition(':')[0]}:0"

    def rates(self) -> Calibration:
        """Return the device's rates, measured once."""
        return calibrate(self.here, tuple(self.precisions))

    def calibration(self) -> dict[str, Any]:
        """Return the device's rates, as the parent names it."""
        return asdict(replace(self.rates(), device=self.device))

    def profile(self, precision: str) -> dict[str, Any]:
        """Return each layer's timings, and the layers for which the time didn't suffice."""
        found, missing = layer_timings(self.here, precision, self.profile_seconds)
        return {"layers": [asdict(replace(each, device=self.device)) for each in found], "missing": missing}

    def answer(self, case: TimedCase) -> dict[str, Any]:
        """Return what became of a case, under a name that says it.

        `timing`, with the `calibration` that it was compared with; `untimed`, what is wrong with a result where timing
        is disabled; `skipped`, why it doesn't apply; or `too_large`, a message with its evidence and fix.
        """
        smaller, batch = self.too_large.get(case.series, math.inf), case.params.get("batch", 0)
        if batch > smaller:
            message = f"{case.name} isn't run: a batch of {smaller} didn't fit into the device's memory"
            return {"too_large": [message, "", f"make {smaller} fit first"]}
        try:
            return self._call(case)
        except pytest.skip.Exception as skipped:
            return {"skipped": str(skipped)}
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            ending = find_ending(self.device, f"{type(error).__name__}: {error}")
        self.too_large[case.series] = batch
        because = ("; ".join(filter(None, (ending.message, ending.evidence))), ending.fix) if ending else ("", "")
        return {"too_large": [f"{case.name} doesn't fit into the device's memory", *because]}

    def _call(self, case: TimedCase) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        function = getattr(importlib.import_module(f"benchmarks.{case.module}"), case.function)
        given = {
            "loader": lambda: loader(self.images),
            "measure": lambda: functools.partial(self.measure, case, answer),
        }
        arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
        params = {**case.params, "device": self.here}
        function(**{name: given[name]() if name in given else params[name] for name in arguments})
        return answer

    def measure(
        self,
        case: TimedCase,
        answer: dict[str, Any],
        work: Callable[[], Any],
        fault: Callable[[Any], str | None],
        *,
        images: int,
        todo: Work | None = None,
        largest: bool = False,
    ) -> None:
        """Time a case, and put the timing into the answer.

        A round is a call of `work`, on `images` images; `fault` returns what is wrong with its result, or None. `todo`
        is its arithmetic and memory traffic, None where they aren't what is measured; the `largest` batch, or
        the only one, should come near the roofline.
        """
        device, precision = self.here, str(case.params.get("precision", ""))
        if self.disabled:
            answer["untimed"] = fault(timer.one_round(work)[0])
            return
        rates = self.rates() if todo else None
        reset_peak_memory(device)
        with closing(Sampler(device)) as sampler:
            # A GPU has nobody beside it, and what slows it down at times, such as heat, isn't to be waited out.
            times = TIMES_ON_CPU if device.startswith("cpu") else 1
            done = timer.measure(work, min_rounds=self.min_rounds, seconds=self.seconds, times=times)
        wrong = fault(done.result)
        conditions = conditions_of(device)
        samples = sampler.between(done.began, done.ended)
        limits: dict[str, Any] = {}
        if todo and rates:
            least, median = bound(todo, precision, rates), statistics.median(done.rounds)
            limits = {"flop": todo.flop, "bytes": todo.bytes, "peak": rates.matmul.get(precision)}
            limits |= {"roofline": least.seconds, "layer": least.layer}
            limits["bottleneck"] = bottleneck(todo, median, precision, rates)
            answer["calibration"] = self.calibration()
        timing = Timing(
            case.name,
            self.device,
            precision,
            **{name: getattr(done, name) for name in ("rounds", "read_back", "first", "pipelined")},
            **limits,
            images=images,
            measured=done.measured,
            heat=heat_during(samples) or conditions.heat,
            fault=wrong,
            largest=largest or self.one_batch,
            peak_memory=peak_memory(device),
            conditions=conditions,
            samples=samples,
        )
        answer["timing"] = asdict(timing)


@functools.cache
def loader(images: int) -> DataLoader:
    """Images to train on, generated ones, so that every machine computes the same."""
    return DataLoader.from_arrays(*synthetic_fashion(images, images // 6), seed=0)


def main(options: str, *names: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Time the named cases, and yield what became of each; stop after an error, since one of CUDA's sticks."""
    gc.freeze()  # what was imported stays: collecting garbage before each round doesn't look at it
    enable_memory_growth()
    given = json.loads(options)
    cases = {name: TimedCase(**each) for name, each in given.pop("cases").items()}
    process = TimingProcess(**given)
    for name in names:
        try:
            if name == CALIBRATION:
                answer = {"calibration": process.calibration()}
            elif name.startswith(PROFILE):
                answer = process.profile(name.removeprefix(PROFILE))
            else:
                answer = process.answer(cases[name])
        except Exception as error:  # noqa: BLE001 - it is the answer
            traceback.print_exc()
            yield name, {"error": f"{type(error).__name__}: {error}"}
            return
        yield name, answer
        free_memory()  # no case finds the models of those before it in memory
