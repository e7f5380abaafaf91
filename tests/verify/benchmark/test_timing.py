"""Validity, synchronization, drift, noise and speed of a timing, on seconds that are made up."""

import math

import numpy as np
import pytest

from alexnet_repro.verify.benchmark.telemetry import Conditions
from alexnet_repro.verify.benchmark.timing import (
    Timing,
    gpu_speed_parity,
    judge,
    low_noise,
    no_thermal_drift,
    no_throttling,
    peak_fraction,
    synchronized,
    valid,
)

HOT = "its clocks are throttled by heat (software slowdown), 91 °C"
A100, T4 = "NVIDIA A100-SXM4-80GB", "Tesla T4"


def timing(rounds=(1.0,) * 5, read_back=1.0, device="gpu:0", precision="float32", **more):
    """Return a case's timing on a device."""
    return Timing(f"forward[device={device}-precision={precision}]", device, precision, rounds, read_back, **more)


def rising(count, factor):
    """Return `count` rounds, each slower than the one before, the last by `factor` slower than the first."""
    return [0.1 + 0.1 * (factor - 1) * i / (count - 1) for i in range(count)]


@pytest.mark.parametrize(
    ("peak", "roofline", "flop", "largest", "checks"),
    [
        (None, None, 10**12, True, "valid synchronized no_thermal_drift low_noise"),
        (2e12, None, 10**12, True, "valid synchronized no_thermal_drift low_noise"),
        (2e12, 1.0, 0, True, "valid synchronized no_thermal_drift low_noise"),
        (2e12, 1.0, 10**12, False, "valid synchronized no_thermal_drift low_noise"),
        (2e12, 1.0, 10**12, True, "valid synchronized no_thermal_drift low_noise peak_fraction"),
    ],
)
def test_each_case_is_judged(peak, roofline, flop, largest, checks):
    """A case is valid, synchronized, without drift and noise; the largest batch, with a peak, has its fraction too."""
    found = judge(timing(device="gpu:1", precision="tf32", flop=flop, peak=peak, roofline=roofline, largest=largest))
    assert " ".join(finding.check for finding in found) == checks
    assert {(finding.status, finding.device, finding.precision) for finding in found} == {("PASS", "gpu:1", "tf32")}


@pytest.mark.parametrize(
    ("rounds", "status"),
    [
        ([1.0, 1.0, 1.1, 1.25, 1.3], "PASS"),  # quartiles 1.0 and 1.25, of a median of 1.1
        ([0.8, 0.8, 1.0, 1.1, 1.2], "INCONCLUSIVE"),  # 0.8 and 1.1, of 1.0
    ],
    ids=["noise=23 %", "noise=30 %"],
)
def test_noise_is_inconclusive(rounds, status):
    """A case whose middle half spreads over more than a quarter of its median can't be judged."""
    assert low_noise(timing(rounds)).status == status


def test_quota_is_named():
    """Under a quota of processors' time noise has that reason, with what lifts it; without, others' work may be it."""
    noisy = [0.8, 0.8, 1.0, 1.1, 1.2]
    throttled = low_noise(timing(noisy, device="cpu:0", conditions=Conditions(load=1.0, cpu_quota=0.5)))
    assert throttled.evidence == "5 rounds; load 1.0; a quota of 0.5 processors' time throttles it"
    assert throttled.fix.startswith("docker run --cpus=N")
    free = low_noise(timing(noisy, device="cpu:0", conditions=Conditions(load=1.0)))
    assert (free.evidence, free.fix) == ("5 rounds; load 1.0", "run it again with nothing else on the machine")


@pytest.mark.parametrize(("measured", "words"), [(1, ""), (3, ", measured 3 times")])
def test_measuring_again_is_told(measured, words):
    """Where rounds were measured more than once, every finding about their noise says so, a PASS too."""
    calm, heating = timing(measured=measured), timing(rising(48, 1.5), measured=measured)
    assert low_noise(calm).evidence == no_thermal_drift(calm).evidence == f"{len(calm.rounds)} rounds{words}"
    assert no_thermal_drift(heating).evidence.endswith(f" s at last, of 48 rounds{words}")


def test_wrong_result_is_invalid():
    """The speed of a wrong answer means nothing, and the finding says what was wrong."""
    assert valid(timing()).status == "PASS"
    finding = valid(timing(fault="probabilities sum to 0.5"))
    assert (finding.check, finding.status) == ("valid", "FAIL")
    assert finding.message == "forward[device=gpu:0-precision=float32] is invalid: probabilities sum to 0.5"
    assert "python -m alexnet_repro doctor" in finding.fix


@pytest.mark.parametrize(
    ("median", "status"), [(2.0, "PASS"), (1.0, "PASS"), (0.5, "PASS"), (0.499, "FAIL"), (0.001, "FAIL")]
)
def test_clock_is_stopped_when_the_device_is_done(median, status):
    """A round takes at least half the time that its result takes to be read; the median decides, not one round."""
    finding = synchronized(timing([0.0, median, median, median, 9.0], read_back=1.0))
    assert (finding.check, finding.status, finding.number, finding.bound) == ("synchronized", status, median, 0.5)


def test_unfinished_work_is_named():
    """Both times are shown, and what to type into the benchmark."""
    finding = synchronized(timing([0.001] * 5, read_back=0.2))
    assert "timed without waiting for the device" in finding.message
    assert finding.evidence == "0.001 s per round, but 0.2 s until its result could be read"
    assert "devices.synchronize" in finding.fix


@pytest.mark.parametrize(
    ("heat", "status", "message"),
    [(HOT, "FAIL", HOT), ("", "INCONCLUSIVE", "no throttling was reported")],
    ids=["heat=yes", "heat=no"],
)
@pytest.mark.parametrize("count", [11, 48, 500])
def test_falling_speed_is_seen(count, heat, status, message):
    """Rounds that grow slower by half: a failure where the driver reports heat, inconclusive where it doesn't."""
    finding = no_thermal_drift(timing(rising(count, 1.5), heat=heat))
    assert (finding.check, finding.status, finding.bound) == ("no_thermal_drift", status, 1.1)
    assert 1.25 < finding.number < 1.5
    assert "grew slower by" in finding.message
    assert message in finding.message
    assert ("nvidia-smi" in finding.fix) == bool(heat)


@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param([0.1] * 200, id="rounds=equal"),
        pytest.param(rising(200, 1.1), id="rounds=slower by a tenth"),
        pytest.param(rising(200, 3.0)[::-1], id="rounds=faster and faster"),
        pytest.param([0.1] * 199 + [30.0], id="rounds=one outlier, the last"),
        pytest.param([0.1] * 70 + [0.2] * 60 + [0.1] * 70, id="rounds=a busy while"),
        pytest.param([0.1, 0.2] * 100, id="rounds=by turns"),
        pytest.param(rising(5, 9.0), id="rounds=5"),
        pytest.param(rising(7, 9.0), id="rounds=7"),
    ],
)
def test_other_courses_are_no_fall(rounds):
    """Little, the other way, once, for a while, or too few: none is taken for heat."""
    assert no_thermal_drift(timing(rounds, heat=HOT)).status == "PASS"


def sampled(*reasons, mhz=None):
    """Return samples of a GPU with these throttle reasons, and clocks."""
    count = len(reasons)
    return {"seconds": list(range(count)), "throttle_reasons": reasons, "gpu_mhz": mhz or [1410] * count}


@pytest.mark.parametrize(
    ("reasons", "status", "words"),
    [
        ((0x0, 0x1, 0x0), "PASS", ""),
        ((0x4, 0x4, 0x4), "PASS", "its power limit in 3 of 3 samples, at 1410 MHz"),
        ((0x80, 0x80, 0x80), "FAIL", "the power supply's brake in 3 of 3"),
        ((0x0, 0x80, 0x0), "FAIL", "the power supply's brake in 1 of 3"),
        ((0x4, 0x48, None), "FAIL", "a hardware slowdown and heat (hardware slowdown) in 1 of 3"),
        ((0x8, 0x8, 0x0), "FAIL", "a hardware slowdown in 2 of 3"),
        ((0x8, 0x4, 0x0), "INCONCLUSIVE", "a hardware slowdown in 1 of 3"),
        ((0x0, 0x24, 0x0), "INCONCLUSIVE", "heat (software slowdown) in 1 of 3"),
    ],
)
def test_throttling_while_it_was_timed(reasons, status, words):
    """Brakes fail from the first round on, though it is steady; a power limit is noted, the rest is inconclusive."""
    case = timing(samples=sampled(*reasons))
    assert no_thermal_drift(case).status == "PASS"
    (found,) = (each for each in judge(case) if each.check == "no_throttling")
    assert found.status == status
    assert words in f"{found.message} {found.evidence}"
    assert bool(found.fix) == (status != "PASS")


@pytest.mark.parametrize(
    ("model", "status"),
    [
        ("Tesla T4", "INCONCLUSIVE"),
        ("NVIDIA T4G", "FAIL"),
        ("Quadro RTX 6000", "INCONCLUSIVE"),
        ("NVIDIA RTX 6000 Ada Generation", "FAIL"),
        ("Tesla V100S-PCIE-32GB", "INCONCLUSIVE"),
        ("NVIDIA H100 80GB HBM3", "FAIL"),
    ],
)
def test_cards_that_throttle_soundly(model, status):
    """On a card of which NVIDIA's diagnosis expects throttling it is no fault, though no measure of speed either."""
    case = timing(samples=sampled(0x80, 0x80), conditions=Conditions(gpu=model))
    assert no_throttling(case).status == status


def test_unknown_throttling_is_not_passed():
    """Where the driver has no throttle reasons, as a CPU, there is no such finding; without clocks there still is."""
    assert "no_throttling" not in [each.check for each in judge(timing(device="cpu:0"))]
    assert no_throttling(timing(samples={"seconds": [0], "throttle_reasons": [0x80]})).status == "FAIL"


@pytest.mark.parametrize(
    ("reasons", "mhz", "heat", "status"),
    [
        pytest.param(0x4, (1980, 1700, 1425), "", "PASS", id="limit=power"),
        pytest.param(0x4, (1980, 1980, 1980), "", "INCONCLUSIVE", id="limit=power, clock as before"),
        pytest.param(0x4, (1980, None, None), "", "INCONCLUSIVE", id="limit=power, clock unknown"),
        pytest.param(0x0, (1980, 1700, 1425), "", "INCONCLUSIVE", id="limit=none"),
        pytest.param(0x24, (1980, 1700, 1425), HOT, "FAIL", id="limit=power and heat"),
    ],
)
def test_clock_that_power_lowers(reasons, mhz, heat, status):
    """Rounds that get slower as much as a power limit lowers the clock, as of an H100's products, are no drift."""
    found = no_thermal_drift(timing(rising(48, 1.4), samples=sampled(*[reasons] * 3, mhz=mhz), heat=heat))
    assert found.status == status
    assert ("power limit lowered its clock by 28%" in found.message) == (status == "PASS")


def test_noise_is_never_taken_for_a_fall():
    """Of 2,000 seeded series without a trend, of any length and scatter, not one alarms."""
    random = np.random.default_rng(0)
    for _ in range(2000):
        rounds = 0.01 * random.lognormal(sigma=random.uniform(0.01, 1.0), size=random.integers(5, 100))
        finding = no_thermal_drift(timing(rounds, heat=HOT))
        assert finding.status == "PASS", str(finding)


def test_coarse_clock_is_never_taken_for_a_fall():
    """Nor of 1,000 series whose rounds are only one to four ticks of a clock, so that most of them are equal."""
    random = np.random.default_rng(0)
    for _ in range(1000):
        rounds = 0.01 * random.integers(1, random.integers(3, 6), size=random.integers(5, 100))
        assert no_thermal_drift(timing(rounds.tolist(), heat=HOT)).status == "PASS"


def with_inversions(count, inversions):
    """Return the ranks 0, 1, … in an order with this number of inverted pairs."""
    left, ranks = list(range(count)), []
    while left:
        place = min(inversions, len(left) - 1)
        inversions -= place
        ranks.append(left.pop(place))
    return ranks


@pytest.mark.parametrize("count", [8, 12, 20, 33, 48])
def test_fall_by_chance_is_as_rare_as_claimed(count):
    """Of all orders of rounds, at most one in 30,000 alarms, and at least half as many: counted, not approximated."""
    orders = [1]  # by inversions: those of a permutation are the products of 1 + x + … + x^i (Rodrigues 1839)
    for i in range(1, count):
        orders = np.convolve(np.array(orders, dtype=object), np.ones(i + 1, dtype=object))
    falls = [
        no_thermal_drift(timing([1.5**rank for rank in with_inversions(count, wrong)], heat=HOT)).status == "FAIL"
        for wrong in range(count * (count - 1) // 4)
    ]
    assert sorted(falls, reverse=True) == falls
    assert 0.5 < 30_000 * sum(orders[: sum(falls)]) / math.factorial(count) <= 1


def test_fall_is_seen_through_noise():
    """Of 100 seeded series that grow slower by half amid scatter of a tenth, every one alarms."""
    random = np.random.default_rng(0)
    for _ in range(100):
        rounds = rising(100, 1.5) * random.lognormal(sigma=0.1, size=100)
        assert no_thermal_drift(timing(rounds, heat=HOT)).status == "FAIL"


@pytest.mark.parametrize(
    ("backend", "roofline", "bound", "status"),
    [
        ("tensorflow", 1.1, 0.28, "PASS"),  # a kernel is better than those by which the device was calibrated
        ("tensorflow", 0.57, 0.28, "PASS"),  # as on two cores
        ("tensorflow", 0.29, 0.28, "PASS"),  # as on an H100 without XLA
        ("tensorflow", 0.27, 0.28, "INCONCLUSIVE"),
        ("tensorflow", 0.001, 0.28, "INCONCLUSIVE"),
        ("torch", 0.27, 0.13, "PASS"),  # as on two cores
        ("torch", 0.12, 0.13, "INCONCLUSIVE"),
        ("jax", 0.44, 0.07, "PASS"),  # as on two cores in float32
        ("jax", 0.08, 0.07, "PASS"),
        ("jax", 0.06, 0.07, "INCONCLUSIVE"),
    ],
)
def test_fraction_of_the_roofline(backend, roofline, bound, status):
    """What sound devices reached with a backend passes; less than half of it is inconclusive, never a failure."""
    case = timing([3.0, 1.0, 2.0], flop=10**12, peak=2e12, roofline=roofline, largest=True)
    finding = judge(case, backend)[-1]
    assert (finding.check, finding.status, finding.bound) == ("peak_fraction", status, bound)
    assert finding.number == pytest.approx(roofline)


def test_fraction_of_the_peak():
    """What was reached of the roofline, and what of products alone, whether it is enough or not."""
    case = timing([2.0, 1.0], flop=10**12)
    low, high = peak_fraction(case, 5e12, 0.22, 0.25), peak_fraction(case, 5e12, 0.4, 0.25)
    assert low.message == (
        "forward[device=gpu:0-precision=float32] reaches 22% of the device's own roofline, layer by layer"
    )
    assert high.message == "forward[device=gpu:0-precision=float32]: 40% of the roofline"
    assert low.evidence == high.evidence == "1 of 5 TFLOP/s at best: an MFU of 20%"


def gpus(*models):
    """Return GPUs' product names, by device."""
    return {f"gpu:{number}": model for number, model in enumerate(models)}


@pytest.mark.parametrize(
    ("slower", "bottleneck", "status"),
    [
        (1.0, "compute", "PASS"),
        (1.04, "compute", "PASS"),
        (1.06, "compute", "INCONCLUSIVE"),
        (1.21, "compute", "INCONCLUSIVE"),
        (1.23, "compute", "FAIL"),
        (2.0, "memory", "FAIL"),
        (1.04, "launch", "PASS"),
        (1.06, "launch", "INCONCLUSIVE"),
        (1.06, "other", "INCONCLUSIVE"),
        (1.06, "", "INCONCLUSIVE"),
    ],
)
def test_gpus_of_one_model_are_equally_fast(slower, bottleneck, status):
    """Up to 5 % slower in what GPUs limit themselves passes, over 22 % fails, which sound ones don't reach."""
    timings = [timing([1.0] * 5, bottleneck=bottleneck), timing([slower] * 5, device="gpu:1", bottleneck="other")]
    (finding,) = gpu_speed_parity(timings, gpus(A100, A100))
    assert (finding.check, finding.status, finding.bound) == ("gpu_speed_parity", status, 0.05)
    assert finding.number == pytest.approx(slower - 1)


def test_noisy_gpu_is_inconclusive():
    """Where rounds differ by half of what the GPUs differ by, nothing is concluded."""
    noisy = timing([0.9, 1.0, 1.1, 1.2, 1.3], device="gpu:1", bottleneck="compute")
    (finding,) = gpu_speed_parity([timing([1.0] * 5, bottleneck="compute"), noisy], gpus(A100, A100))
    assert finding.status == "INCONCLUSIVE"
    assert "the middle half of its rounds spreads over 18%" in finding.message


def test_slow_gpu_is_named():
    """Of four, it is the slowest that is named, beside the best, with the case and how to ask the driver."""
    seconds = [1.01, 1.0, 1.06, 1.02]
    timings = [
        timing([each] * 5, device=f"gpu:{i}", precision="tf32", bottleneck="compute") for i, each in enumerate(seconds)
    ]
    (finding,) = gpu_speed_parity(timings, gpus(*[A100] * 4))
    assert (finding.status, finding.device, finding.precision) == ("INCONCLUSIVE", "gpu:2", "tf32")
    assert finding.message == (
        "gpu:2 is 6.0% slower than gpu:1, the best NVIDIA A100-SXM4-80GB, in forward[device=gpu-precision=tf32]; "
        "sound devices of one model differ by up to 22%"
    )
    assert finding.fix.startswith("nvidia-smi -q -d ")  # whose numbers may be others


@pytest.mark.parametrize(
    ("timings", "models"),
    [
        pytest.param([timing(), timing([2.0] * 5, device="gpu:1")], [A100, T4], id="other=model"),
        pytest.param(
            [timing(), timing([2.0] * 5, device="gpu:1", precision="tf32")], [A100, A100], id="other=precision"
        ),
        pytest.param([timing(), timing([2.0] * 5, device="cpu:0")], [A100], id="other=CPU"),
        pytest.param([timing()], [A100, A100], id="other=untimed"),
        pytest.param([], [], id="other=none"),
    ],
)
def test_unlike_is_never_compared(timings, models):
    """Another model, another case and the CPU have no finding."""
    assert gpu_speed_parity(timings, gpus(*models)) == []


def test_each_model_is_compared_by_itself():
    """Two of one model and two of another: two comparisons, of which the slower model's is no fault."""
    seconds = [1.0, 5.0, 1.01, 6.5]
    timings = [timing([each] * 5, device=f"gpu:{i}", bottleneck="compute") for i, each in enumerate(seconds)]
    found = gpu_speed_parity(timings, gpus(A100, T4, A100, T4))
    assert [(finding.status, finding.device) for finding in found] == [("PASS", ""), ("FAIL", "gpu:3")]
