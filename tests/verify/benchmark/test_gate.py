"""Is a run slower than its reference by more than noise? On levels that are made up, and seeded simulations."""

import math
from dataclasses import replace

import numpy as np
import pytest

from alexnet_repro.verify.benchmark.gate import GateCase, cases_to_remeasure, critical_t, judge_speeds, no_reference
from alexnet_repro.verify.benchmark.noise import Level, Spread, moderated
from alexnet_repro.verify.benchmark.tolerances import Override, Tolerances

DEFAULT = Tolerances()
UPDATE = "python -m alexnet_repro verify --benchmark-only --update-reference"


def case(deviation, *shifts, name="resize", device="cpu:0", error=0.0):
    """Return a case of eight reference processes around 1 s, and measurements slower by these, in logarithms."""
    half = 0.5**0.5  # so that their variance is 1
    reference = [Level(deviation * each, error) for each in (-1, -1, -1, -half, half, 1, 1, 1)]
    return GateCase(name, device, "float32", reference, [Level(shift, error) for shift in shifts], "2026-11-24")


def find(*cases, tolerances=DEFAULT):
    """Return what is found of the first case."""
    return judge_speeds(cases, tolerances)[0]


@pytest.mark.parametrize(
    ("deviation", "measurements", "status", "bound"),
    [
        # t of three at 0.005 with 7 degrees is 1.355132; se = 0.03 × sqrt(1.125) = 0.0318198: 0.0431200 in all.
        pytest.param(0.03, (0.0433, 0.05, 0.06), "FAIL", 1.044063, id="measurements=all slower"),
        pytest.param(0.03, (0.06, 0.0433, 0.05), "FAIL", 1.044063, id="measurements=all slower, in another order"),
        pytest.param(0.03, (0.0430, 0.5, 0.5), "INCONCLUSIVE", 1.044063, id="measurements=one isn't"),
        pytest.param(0.005, (0.0296, 0.03, 0.03), "FAIL", 1.03, id="measurements=3 % slower"),  # log 1.03 = 0.0295588
        pytest.param(0.005, (0.0295, 0.03, 0.03), "PASS", 1.03, id="measurements=less than is worth an alarm"),
        pytest.param(0.005, (0.0,), "PASS", 1.03, id="measurements=the same"),
        pytest.param(0.005, (0.5,), "INCONCLUSIVE", 1.03, id="measurements=one, slower"),
        pytest.param(0.005, (0.5, 0.5), "INCONCLUSIVE", 1.03, id="measurements=two, slower"),
        pytest.param(0.0, (0.5, 0.5, 0.5), "FAIL", 1.03, id="reference=equal to the digit"),
    ],
)
def test_slower_beyond_noise(deviation, measurements, status, bound):
    """A case fails that is slower than the bound in each of three measurements, the fastest of which is the number."""
    found = find(case(deviation, *measurements))
    assert (found.check, found.status, found.device, found.precision) == ("speed", status, "cpu:0", "float32")
    assert found.number == pytest.approx(math.exp(min(measurements)))
    assert found.bound == pytest.approx(bound, rel=1e-5)


def weak(*shifts, deviation=0.005, **changes):
    """Return a case whose reference has seven processes."""
    few = case(deviation, *shifts)
    return replace(few, **{"reference": few.reference[1:], **changes})


FEW = "the reference has 7 processes, too few to fail by"
OTHER = "the reference is of another virtual machine, or of before this one's last boot, and hosts differ"


@pytest.mark.parametrize(
    ("one", "message", "result"),
    [
        pytest.param(weak(0.0), f"resize is as fast as its reference; {FEW}", "same", id="few=same"),
        pytest.param(
            weak(*[math.log(3.68)] * 3, deviation=0.0),
            f"resize is 268.0% slower than its reference, in 3 of 3 measurements; {FEW}",
            "slower",
            id="few=slower",
        ),
        pytest.param(weak(math.log(0.5)), f"resize is 50.0% faster than its reference; {FEW}", "faster", id="few=fast"),
        pytest.param(
            weak(0.0, deviation=0.05),
            f"resize: too noisy: smallest detectable slowdown 25% (required at most 10%); {FEW}",
            "noisy",
            id="few=noisy",
        ),
        pytest.param(
            replace(case(0.005, 0.0), elsewhere=True),
            f"resize is as fast as its reference; {OTHER}",
            "same",
            id="elsewhere=same",
        ),
        pytest.param(
            weak(0.0, elsewhere=True), f"resize is as fast as its reference; {FEW}; {OTHER}", "same", id="both=same"
        ),
    ],
)
def test_reference_that_cant_fail_passes_nothing(one, message, result):
    """Neither one of fewer than eight processes nor another virtual machine's passes a case that it couldn't fail."""
    found = find(one)
    assert (found.status, found.message) == ("INCONCLUSIVE", message)
    assert (found.data["result"], found.data["can_fail"]) == (result, False)
    assert f"of this machine, of 8 processes or more: {UPDATE}" in found.fix
    assert ("python -m alexnet_repro doctor" in found.fix) == (result == "slower")


@pytest.mark.parametrize(
    ("shifts", "deviation", "result"),
    [
        pytest.param([0.0], 0.005, "same", id="result=same"),
        pytest.param([0.5] * 3, 0.005, "slower", id="result=slower"),
        pytest.param([-0.5], 0.005, "faster", id="result=faster"),
        pytest.param([0.0], 0.5, "noisy", id="result=noisy"),
    ],
)
def test_result_is_typed(shifts, deviation, result):
    """What was found of a case is in its data, and so is that it could have failed."""
    found = find(case(deviation, *shifts))
    assert (found.data["result"], found.data["can_fail"]) == (result, True)


def test_failure_says_by_how_much():
    """What is slower, by how much, against what, and what to type."""
    found = find(case(0.03, *[math.log(1.2)] * 3))
    assert found.message == "resize is 20.0% slower than its reference, in 3 of 3 measurements"
    assert found.evidence == (
        "20.0% slower than 8 processes of 2026-11-24; noise explains 4.4%, and 95% of slowdowns by 13.5% are caught"
    )
    assert "python -m alexnet_repro doctor" in found.fix


@pytest.mark.parametrize(
    ("deviation", "status"),
    [
        # Seen: exp(max(log 1.03, 1.355132 se) + 2.630157 se) - 1, se = deviation × sqrt(1.125)
        pytest.param(0.0224, "PASS", id="noise=9.9 %"),
        pytest.param(0.0227, "INCONCLUSIVE", id="noise=10.1 %"),
        pytest.param(0.5, "INCONCLUSIVE", id="noise=large"),
    ],
)
def test_noise_that_hides_a_tenth(deviation, status):
    """Where a slowdown of a tenth isn't detectable, nothing passes, and the smallest that is detectable is named."""
    found = find(case(deviation, 0.0))
    assert found.status == status
    if status != "PASS":
        seen = math.expm1((1.355132 + 2.630157) * deviation * math.sqrt(1.125))
        assert found.data["detectable"] == pytest.approx(seen, rel=1e-4)
        assert found.message == f"resize: too noisy: smallest detectable slowdown {seen:.0%} (required at most 10%)"
        assert "--processes" not in found.message
        assert UPDATE in found.fix


@pytest.mark.parametrize(("shift", "noted"), [(-0.06, True), (-0.035, False), (0.0, False)])
def test_faster_is_noted(shift, noted):
    """What is faster beyond noise passes, and is offered to be kept: 3.499483 × 0.01 × sqrt(1.125) = 0.0371."""
    found = find(case(0.01, shift))
    assert (found.status, bool(found.fix)) == ("PASS", noted)
    assert ("5.8% faster" in found.message) == noted


def test_interval_around_the_ratio():
    """Its data names the case and holds what noise leaves of the ratio at 95 %: t of 7 degrees is 2.364624."""
    found = find(case(0.01, 0.02))
    half = 2.364624 * 0.01 * math.sqrt(1.125)
    assert found.case == "resize"
    assert (found.data["low"], found.data["high"]) == pytest.approx(
        (math.exp(0.02 - half), math.exp(0.02 + half)), rel=1e-6
    )


def test_budget_is_shared():
    """Twenty cases have each a twentieth of the budget: the bound of one of them is that of 0.00025."""
    cases = [case(0.03, 0.0, name=str(i)) for i in range(20)]
    alone, among = find(cases[0]), find(*cases)
    assert alone.bound == pytest.approx(math.exp(critical_t(0.005, 8, 7, 3) * 0.03 * math.sqrt(1.125)))
    shared = moderated([Spread(9e-4, 7.0)] * 20)[0]
    assert among.bound == pytest.approx(math.exp(critical_t(0.00025, 8, 23, 3) * math.sqrt(1.125 * shared.variance)))


def test_case_that_wasnt_timed():
    """It has no finding and no share of the budget, but still shows how much processes differ."""
    others = [case(0.001, name=str(i)) for i in range(20)]
    timed = case(0.0005, 0.0, 0.0)
    assert len(judge_speeds([timed, *others], Tolerances())) == 1
    assert find(timed, *others).data["error"] > 1.5 * find(timed).data["error"]


def test_cases_that_are_measured_again():
    """As long as they are slower in each measurement, and at most twice."""
    cases = [
        case(0.005, 0.1, name="slower"),
        case(0.005, 0.1, 0.1, name="slower twice"),
        case(0.005, 0.1, 0.1, 0.1, name="failed"),
        case(0.005, 0.1, 0.0, name="was chance"),
        case(0.005, 0.0, name="same"),
        case(0.005, name="not timed"),
    ]
    assert [each.name for each in cases_to_remeasure(cases, Tolerances())] == ["slower", "slower twice"]


def test_noisy_measurement_counts_less():
    """A run whose rounds scatter more than the references' has a wider bound; one that scatters less has none."""
    calm = case(0.01, 0.0, error=0.002)
    busy = replace(calm, measurements=[Level(0.0, 0.05)])
    # se² = 0.01² × 1.125 + 0.05² - 0.002²
    assert find(busy).data["error"] == pytest.approx(math.sqrt(1.125e-4 + 0.0025 - 4e-6))
    assert find(replace(calm, measurements=[Level(0.0, 0.0)])).data["error"] == pytest.approx(math.sqrt(1.125e-4))


def test_processes_agree_no_better_than_each_is_known():
    """References that agree by chance are taken to differ by their own errors."""
    assert find(case(0.0, 0.0, error=0.03)).data["error"] == pytest.approx(0.03 * math.sqrt(1.125))


@pytest.mark.parametrize(
    ("others", "noted"), [(0.1, True), (0.06, True), (0.04, False), (0.0, False)], ids="others={}".format
)
def test_all_moved_together(others, noted):
    """Where the others of a device moved at least half as much, it is the machine, and the finding says so."""
    slow = case(0.001, *[0.1] * 3)
    rest = [case(0.001, *[others] * 3, name=str(i)) for i in range(4)]
    far = [case(0.001, 0.0, name=f"far {i}", device="gpu:0") for i in range(9)]
    found = find(slow, *rest, *far)
    assert found.status == "FAIL"
    assert ("as are the others of cpu:0" in found.message) == noted
    assert ("the machine is slower, or busy, rather than this case" in found.message) == noted


def test_another_virtual_machine():
    """What is slower than another virtual machine's reference is inconclusive, since hosts differ; else it fails."""
    slow = case(0.001, *[0.5] * 3)
    assert find(slow).status == "FAIL"
    assert find(replace(slow, elsewhere=True)).status == "INCONCLUSIVE"


@pytest.mark.parametrize(("busy", "status"), [(0.0, "FAIL"), (0.05, "FAIL"), (0.06, "INCONCLUSIVE")])
def test_busy_machine_is_no_failure(busy, status):
    """What is slower while something else takes processors is inconclusive, and says how many it took."""
    found = find(replace(case(0.001, *[0.1] * 3), busy=busy))
    assert found.status == status
    assert ("while something else took 6% of the processors" in found.message) == (busy > 0.05)


@pytest.mark.parametrize("count", [0, 4])
def test_fewer_than_five_processes_are_refused(count):
    """No reference is too short to be noticed."""
    short = replace(case(0.01, 0.0, name="short"), reference=[Level(0.0, 0.0)] * count)
    with pytest.raises(ValueError, match="at least 5 processes, not so short"):
        judge_speeds([short, case(0.01, 0.0)], Tolerances())


def test_overrides_hold_for_their_cases():
    """A case's own tolerances decide what is worth an alarm, and what noise is tolerated."""
    tolerances = Tolerances(case=(Override("res*", min_slowdown=0.5, max_noise=0.9),))
    assert find(case(0.02, *[0.3] * 3), tolerances=tolerances).status == "PASS"
    assert find(case(0.02, *[0.3] * 3, name="forward"), tolerances=tolerances).status == "FAIL"


def test_no_reference():
    """Without a reference it is inconclusive, with the reason and how to make one."""
    found = no_reference(["resize"], "gpu:0", "no reference is on file for T4")
    assert (found.status, found.message) == ("INCONCLUSIVE", "resize: no reference is on file for T4")
    assert found.data == {"cases": ["resize"]}
    assert found.fix.startswith(UPDATE)


SHAPES = {
    "normal": lambda random, shape: random.normal(size=shape),
    "heavy tails": lambda random, shape: random.standard_t(3, size=shape) / math.sqrt(3),
    "skewed": lambda random, shape: (random.lognormal(sigma=0.7, size=shape) - 1.2776) / 1.0191,
    "processes shift as one": lambda random, shape: (
        0.8 * random.normal(size=(1, shape[1])) + 0.6 * random.normal(size=shape)
    ),
    "unequal cases": lambda random, shape: random.normal(size=shape) * np.exp(0.7 * random.normal(size=(shape[0], 1))),
}


def runs(name, count, deviation, slowdown=0.0):
    """Yield what is found in whole runs of twenty cases with eight reference processes, whose first case is slower."""
    random = np.random.default_rng(20261124)  # one for each test: what others draw changes nothing here
    for _ in range(count):
        levels = 0.001 * random.normal(size=(20, 8 + 3)) + deviation * SHAPES[name](random, (20, 8 + 3))
        levels[0, 8:] += math.log1p(slowdown)
        yield judge_speeds(
            [
                GateCase(
                    str(i),
                    "cpu:0",
                    "",
                    [Level(each, 0.001) for each in row[:8]],
                    [Level(each, 0.001) for each in row[8:]],
                )
                for i, row in enumerate(levels.tolist())
            ],
            Tolerances(),
        )


@pytest.mark.parametrize("name", SHAPES)
def test_false_alarms_of_whole_runs(name):
    """Of 400 seeded whole runs of 20 unchanged cases, in each of five shapes of noise, at most 1 % raise an alarm."""
    alarms = sum(any(each.status == "FAIL" for each in found) for found in runs(name, 400, 0.02))
    assert alarms <= 4


@pytest.mark.parametrize("name", ["normal", "heavy tails", "processes shift as one"])
@pytest.mark.parametrize(("slowdown", "deviation", "least"), [(0.10, 0.015, 0.95), (0.05, 0.008, 0.80)])
def test_slowdowns_are_caught(name, slowdown, deviation, least):
    """One of 20 cases slower by 10 % is caught 95 times in 100 at 1.5 % of noise; 5 %, 80 times at 0.8 %."""
    caught = sum(found[0].status == "FAIL" for found in runs(name, 400, deviation, slowdown))
    assert caught >= 400 * least


def test_many_without_a_reference_are_one_line():
    """Cases that have none for the same reason are counted and named in one finding."""
    found = no_reference(["resize", "forward"], "gpu:0", "no reference is on file for T4")
    assert (found.message, found.evidence) == ("2 cases: no reference is on file for T4", "resize, forward")
    assert found.data == {"cases": ["resize", "forward"]}
