"""Validity, synchronization, drift, noise and speed of a timing: pure functions from seconds to findings."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from alexnet_repro.verify.benchmark.telemetry import (
    Conditions,
    Samples,
    held_clock,
    throttle_reasons,
    throttling_during,
)
from alexnet_repro.verify.doctor.health import BRAKES, HEAT, POWER_CAP, SLOWDOWN
from alexnet_repro.verify.doctor.resources import QUOTA_FIX
from alexnet_repro.verify.finding import CaseName, Finding, Number, Status

# The two rounds that end in reading a result back overlap by at most one: a timing below half of their seconds per
# round would have been done before the device was.
MIN_READ_BACK_RATIO = 0.5
# How much slower an equal GPU may be: up to the first it passes, over the second it fails. Of five clusters' equal GPUs
# the times of an application spread over 8 % on average and over at most 22 %; outliers took up to 1.5 times the
# median (Sinha et al., "Not All GPUs Are Created Equal", SC'22, arXiv 2208.11035). docs/method/noise.md has more.
MAX_PARITY_GAP = 0.05
SOUND_GAP = 0.22
WITHIN_SOUND = f"sound devices of one model differ by up to {SOUND_GAP:.0%}"
MAX_TREND_CHANCE = 1 / 30_000  # by which a trend is seen in timings without one; of fewer than 8 rounds none is
MAX_DECAY = 1.1
MAX_NOISE = 0.25  # of the median, between the quartiles
MAX_ROUND = 1e9  # seconds
# Of the roofline, at the largest batch, by backend: half of the least that a sound device reached. TensorFlow: on two
# cores of an AMD EPYC, others' work beside it, 0.57 to 1.10 (0.86 to 1.04 in float32); on an H100 0.80, at other rates
# 0.72, and without XLA, which isn't judged, 0.29 (docs/gpu.md). PyTorch on those cores, others' work beside it: 0.27 to
# 0.55; idle, its step of 128 took 3.76 s in float32 and 1.94 in bfloat16, TensorFlow's 3.21 (0.88 to 0.92) and 1.72.
# JAX's took 6.49 s in float32, which is 0.44; in bfloat16 it wasn't timed, and may take four times TensorFlow's: half
# of 0.14, until it is timed. Neither was timed on a GPU through this suite.
MIN_PEAK_FRACTION = {"tensorflow": 0.28, "jax": 0.07, "torch": 0.13}
# Of which NVIDIA's diagnosis expects throttling (DCGM, `Allowlist::UpdateGlobalsForDeviceId`).
THROTTLING_CARDS = r"\bK80\b|\bT4\b|\bV100S\b|Quadro RTX [68]000"
# Of all GPUs: nvidia-smi may number them otherwise than the backend does.
COMPARE_GPUS = "nvidia-smi -q -d CLOCK,POWER,TEMPERATURE,PERFORMANCE # compare it with the others; then reseat it"
ALONE = "run it again with nothing else on the machine"


@dataclass(frozen=True)
class Calibration:
    """The rates that one device reaches, each at its best of a few tries."""

    device: str
    matmul: Mapping[str, Number]  # by precision, FLOP/s: the best of the squares and the layer-shaped products
    memory: Number = 0.0  # bytes/s read and written by an addition to a large array, whose result is new memory
    read: Number = 0.0  # bytes/s of a large array that is only read; 0 where it wasn't measured
    write: Number = 0.0  # bytes/s of a large array that is only written, on a CPU in place
    to_device: Number = 0.0  # bytes/s copied from NumPy
    to_host: Number = 0.0  # bytes/s copied to NumPy
    call_overhead: Number = 0.0  # seconds of a call of a compiled function of one tiny kernel, until it is waited for
    # Seconds of each further tiny kernel in it; on PyTorch, which compiles none, with Keras's own call.
    kernel_launch: Number = 0.0
    clocks: Mapping[str, Number] = field(default_factory=dict)  # MHz, by precision, where a power limit held a GPU's
    pcie_generation: int | None = None  # of a GPU's link, as negotiated while all this was measured
    pcie_width: int | None = None


@dataclass(frozen=True)
class Timing:
    """One benchmark case as it was timed: measured, judged, written to `results.json`, read back and reported."""

    case: CaseName
    device: str
    precision: str
    rounds: Sequence[Number]  # seconds each, in their order; at least one
    read_back: Number = 0.0  # seconds per round of two pipelined rounds whose result was read back, measured separately
    images: int = 0  # per round
    flop: int = 0  # per round; 0 where it isn't arithmetic that is measured
    heat: str = ""  # thermal throttling that the driver reports during it or right after it; empty: none
    fault: str | None = None  # why what was computed isn't valid; None if it is
    peak: Number | None = None  # the device's matmul peak in this precision, FLOP/s
    bottleneck: str = ""  # compute, memory, launch or other
    layer: str = ""  # the layer that takes over half of its roofline's time; empty: none
    largest: bool = False  # whether it is the largest batch, which should come near the peak
    first: Number = 0.0  # seconds of the very first round: tracing, compiling and choosing kernels, mostly
    # Seconds per round of several dispatched at once and waited for once; None where each round waits by itself.
    pipelined: Number | None = None
    peak_memory: int = 0  # bytes: of a GPU's memory in this case, on a CPU of the whole process so far
    conditions: Conditions = field(default_factory=Conditions)  # right after it
    bytes: int = 0  # of memory that a round reads and writes at least; 0 where it isn't known
    samples: Samples = field(default_factory=dict)  # of while it was timed
    roofline: Number | None = None  # seconds of a round at the device's own rates, layer by layer, at least
    measured: int = 1  # times, as `alexnet_repro.verify.benchmark.timer.measure` says

    def __post_init__(self) -> None:
        """Raise ValueError if there is no round, one took over `MAX_ROUND`, or samples aren't equally long columns."""
        if len(self.rounds) == 0:
            raise ValueError(f"{self.case!r} has no rounds")
        if any(MAX_ROUND < abs(each) < math.inf for each in self.rounds):
            raise ValueError(f"a round of {self.case!r} took over {MAX_ROUND:g} s")
        lengths = {len(column) for column in self.samples.values()}
        if lengths and lengths != {len(self.samples.get("seconds", ()))}:
            raise ValueError(f"samples of {self.case!r} aren't columns of equal length")

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.rounds)

    def rate(self, amount: float) -> float:
        """Return how much of an amount that each round handles is done per second; NaN if that is unknown."""
        return amount / self.median if self.median > 0 else math.nan


def relative_iqr(rounds: Sequence[float]) -> float:
    """Return the interquartile range over the median."""
    first, third = np.quantile(rounds, (0.25, 0.75))
    return float(third - first) / statistics.median(rounds)


def levels(rounds: Sequence[float]) -> tuple[float, float]:
    """Return the medians of the first and of the last third of the rounds' blocks, in seconds."""
    blocks = _blocks(rounds)
    third = max(1, len(blocks) // 3)
    return float(np.median(blocks[:third])), float(np.median(blocks[-third:]))


def grows_slower(rounds: Sequence[float]) -> bool:
    """Return whether rounds take longer at last than at first, by more than `MAX_DECAY` and than chance."""
    first, last = levels(rounds)
    if last / first <= MAX_DECAY:
        return False
    from scipy.stats import kendalltau  # importing it takes a second

    # The chance that values in random order rise as much (Mann, Econometrica 13, 1945; tau-b); NaN where all are equal.
    blocks = _blocks(rounds)
    return bool(kendalltau(np.arange(len(blocks)), blocks, alternative="greater").pvalue < MAX_TREND_CHANCE)


def _blocks(rounds: Sequence[float]) -> Sequence[float]:
    """Return medians of rounds in their order, at most 48, among which a trend is sought."""
    return [float(np.median(part)) for part in np.array_split(np.asarray(rounds), min(48, len(rounds)))]


def judge(timing: Timing, backend: str = "tensorflow") -> list[Finding]:
    """Return one case's findings: is it valid, synchronized, without drift, noise or brakes, and near its peak?

    `backend` is the one of Keras that timed it.
    """
    found = [valid(timing), synchronized(timing), no_thermal_drift(timing), low_noise(timing)]
    if "throttle_reasons" in timing.samples:
        found.append(no_throttling(timing))
    if timing.peak and timing.roofline and timing.flop and timing.largest:
        found.append(peak_fraction(timing, timing.peak, timing.roofline, MIN_PEAK_FRACTION[backend]))
    return [replace(finding, device=timing.device, precision=timing.precision, case=timing.case) for finding in found]


def valid(timing: Timing) -> Finding:
    """The result is right; the speed of a wrong one means nothing."""
    if not timing.fault:
        return Finding("valid", "PASS", timing.case)
    fix = "python -m alexnet_repro doctor; then see the checks of correctness of this device"
    return Finding("valid", "FAIL", f"{timing.case} is invalid: {timing.fault}", fix=fix)


def synchronized(timing: Timing) -> Finding:
    """The clock was stopped after the device was done."""
    ratio = timing.median / timing.read_back
    found = Finding("synchronized", "PASS", timing.case, number=ratio, bound=MIN_READ_BACK_RATIO)
    if ratio >= MIN_READ_BACK_RATIO:
        return found
    return replace(
        found,
        status="FAIL",
        message=f"{timing.case} was timed without waiting for the device",
        evidence=f"{timing.median:.3g} s per round, but {timing.read_back:.3g} s until its result could be read",
        fix="end the timed region with alexnet_repro.backend.devices.synchronize; else suspect the driver's wait",
    )


def no_thermal_drift(timing: Timing) -> Finding:
    """Speed doesn't fall from round to round, as it does with heat."""
    first, last = levels(timing.rounds)
    decay, rounds = last / first, f"{len(timing.rounds)} rounds{_times(timing)}"
    found = Finding("no_thermal_drift", "PASS", timing.case, rounds, number=decay, bound=MAX_DECAY)
    if not grows_slower(timing.rounds):
        return found
    message = f"{timing.case} grew slower by {decay - 1:.0%} while it was timed"
    found = replace(found, evidence=f"{first:.3g} s per round at first, {last:.3g} s at last, of {rounds}")
    if decay <= MAX_DECAY * (fall := _fall_for_power(timing)):
        message += f", as its power limit lowered its clock by {1 - 1 / fall:.0%}"
        return replace(found, message=message, fix="nvidia-smi -q -d POWER,CLOCK")
    if not timing.heat:
        message = f"{message}; no throttling was reported{_quota(timing)}"
        return replace(found, status="INCONCLUSIVE", message=message, fix=_alone(timing))
    fix = "check fans, air flow and power limit: nvidia-smi -q -d TEMPERATURE,POWER,PERFORMANCE"
    return replace(found, status="FAIL", message=f"{message}: {timing.heat}", fix=fix)


def _fall_for_power(timing: Timing) -> float:
    """Return the clock of the first third of the samples over the last's, if a power limit held that; else 1."""
    clocks, reasons = timing.samples.get("gpu_mhz", ()), throttle_reasons(timing.samples)
    third = max(1, len(clocks) // 3)
    first, last = ([mhz for mhz in part if mhz] for part in (clocks[:third], clocks[-third:]))
    held = any(each & POWER_CAP for each in reasons[-third:]) and not timing.heat
    return max(1.0, statistics.median(first) / statistics.median(last)) if held and first and last else 1.0


def no_throttling(timing: Timing) -> Finding:
    """Nothing but its power limit lowered the GPU's clocks while it was timed.

    NVIDIA's diagnosis fails a GPU for the same reasons in any sample (DCGM, `DcgmRecorder::CheckForThrottling`), except
    for the cards in `THROTTLING_CARDS`. Yet a hardware slowdown "may be also reported during PState or clock change"
    (`nvml.h`), and heat that the driver sees to by itself makes speed uncertain, not the GPU ill.
    """
    reasons = throttle_reasons(timing.samples)
    found = Finding("no_throttling", "PASS", timing.case)
    words = throttling_during(timing.samples, BRAKES | SLOWDOWN | HEAT)
    if not words:
        note = throttling_during(timing.samples, POWER_CAP)
        return replace(found, evidence=f"{note}, at {held_clock(timing.samples) or 0:g} MHz" if note else "")
    fault = any(each & BRAKES for each in reasons) or sum(bool(each & SLOWDOWN) for each in reasons) > 1
    fault = fault and not re.search(THROTTLING_CARDS, timing.conditions.gpu)
    return replace(
        found,
        status="FAIL" if fault else "INCONCLUSIVE",
        message=f"{timing.case} was timed at lowered clocks: {words}",
        evidence=f"clocks in MHz: {', '.join(f'{each or 0:g}' for each in timing.samples.get('gpu_mhz', ())[:8])}",
        fix="nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER; then see to fans, air, and the supply's cables and power",
    )


def low_noise(timing: Timing) -> Finding:
    """The interquartile range is small enough to judge by."""
    noise = relative_iqr(timing.rounds)
    rounds = f"{len(timing.rounds)} rounds{_times(timing)}"
    found = Finding("low_noise", "PASS", timing.case, rounds, number=noise, bound=MAX_NOISE)
    if noise <= MAX_NOISE:
        return found
    message = f"{timing.case} is too noisy to judge: its middle half spreads over {noise:.0%} of the median"
    evidence = f"{rounds}; load {timing.conditions.load}{_quota(timing)}"
    return replace(found, status="INCONCLUSIVE", message=message, evidence=evidence, fix=_alone(timing))


def peak_fraction(timing: Timing, peak: float, roofline: float, floor: float) -> Finding:
    """The best round reaches a fraction of the roofline: what its layers' arithmetic and memory take, in seconds.

    The device's own rate on products is `peak`, in FLOP/s.
    """
    best = min(timing.rounds)
    reached, rate = roofline / best, timing.flop / best
    found = Finding(
        "peak_fraction",
        "PASS",
        f"{timing.case}: {reached:.0%} of the roofline",
        f"{rate / 1e12:.3g} of {peak / 1e12:.3g} TFLOP/s at best: an MFU of {rate / peak:.0%}",
        number=reached,
        bound=floor,
    )
    if reached >= floor:
        return found
    message = f"{timing.case} reaches {reached:.0%} of the device's own roofline, layer by layer"
    if clock := held_clock(timing.samples):
        message += f", at {clock:g} MHz, where its power limit held it"
    fix = f"{_alone(timing)}; then compare with one of its kind"
    return replace(found, status="INCONCLUSIVE", message=message, fix=fix)


def _times(timing: Timing) -> str:
    """Return how often a timing was measured, in words; empty if once."""
    return f", measured {timing.measured} times" if timing.measured > 1 else ""


def _quota(timing: Timing) -> str:
    """Return the quota that throttles a timing's process, in words; empty where there is none."""
    quota = timing.conditions.cpu_quota
    return f"; a quota of {quota:g} processors' time throttles it" if quota else ""


def _alone(timing: Timing) -> str:
    return f"{QUOTA_FIX}; then {ALONE}" if timing.conditions.cpu_quota else ALONE


def gpu_speed_parity(timings: Sequence[Timing], models: Mapping[str, str]) -> list[Finding]:
    """Return for each case timed on several GPUs of one model whether they are equally fast; `models` are by device."""
    groups: dict[tuple[str, str], list[Timing]] = {}
    for timing in timings:
        if timing.device in models:
            case = timing.case.replace(f"device={timing.device}", "device=gpu")
            groups.setdefault((case, models[timing.device]), []).append(timing)
    return [_equally_fast(case, model, group) for (case, model), group in groups.items() if len(group) > 1]


def _equally_fast(case: str, model: str, group: Sequence[Timing]) -> Finding:
    best, worst = min(group, key=lambda timing: timing.median), max(group, key=lambda timing: timing.median)
    slower = worst.median / best.median - 1
    if slower <= MAX_PARITY_GAP:
        numbers = f"{len(group)} × {model}, the slowest {slower:.1%} behind"
        return Finding("gpu_speed_parity", "PASS", case, numbers, number=slower, bound=MAX_PARITY_GAP)
    message = f"{worst.device} is {slower:.1%} slower than {best.device}, the best {model}, in {case}"
    noise = max(relative_iqr(timing.rounds) for timing in (best, worst))
    status: Status = "FAIL"
    if noise > slower / 2:
        status, message = "INCONCLUSIVE", f"{message}, but the middle half of its rounds spreads over {noise:.0%}"
    elif best.bottleneck not in {"compute", "memory"}:  # the slow one's own time may be explained by nothing
        why = "isn't limited by the GPU itself" if best.bottleneck else "may not be limited by the GPU itself"
        status, message = "INCONCLUSIVE", f"{message}, which {why}: its host's socket may be why"
    elif slower <= SOUND_GAP:
        status, message = "INCONCLUSIVE", f"{message}; {WITHIN_SOUND}"
    return Finding(
        "gpu_speed_parity",
        status,
        message,
        f"{worst.median:.4g} and {best.median:.4g} s per round",
        COMPARE_GPUS,
        device=worst.device,
        precision=worst.precision,
        number=slower,
        bound=MAX_PARITY_GAP,
    )
