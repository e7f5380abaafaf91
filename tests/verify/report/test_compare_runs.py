"""Two runs compared: the ratio, an interval that holds the truth as often as it should, and what is inconclusive."""

import math

import numpy as np
import pytest

from alexnet_repro.verify.benchmark.timing import Timing
from alexnet_repro.verify.report.compare_runs import compare_case


def case(rounds):
    """Return a case of these rounds."""
    return Timing("forward", "cpu:0", "float32", rounds)


@pytest.mark.parametrize(
    ("first", "second", "ratio", "word"),
    [
        pytest.param([1, 2, 3, 4, 5], [2, 4, 6, 8, 10], 2.0, "no difference seen", id="second=twice, overlapping"),
        pytest.param([1.0, 1.1, 1.2, 1.3, 1.4], [2.4, 2.4, 2.4, 2.4, 2.4], 2.0, "slower", id="second=twice"),
        pytest.param([2.4] * 6, [1.0, 1.1, 1.2, 1.2, 1.3, 1.4], 0.5, "faster", id="second=half"),
        pytest.param([1.0] * 5, [1.0] * 5, 1.0, "no difference seen", id="second=same"),
        pytest.param([1.0] * 4, [2.0] * 5, 2.0, "too few rounds", id="rounds=4 and 5"),
        pytest.param([1.0] * 5, [2.0] * 5, 2.0, "slower", id="rounds=5 and 5"),
    ],
)
def test_ratio_of_medians(first, second, ratio, word):
    """The second's median over the first's; it is slower or faster only where the interval excludes 1."""
    compared = compare_case(case(first), case(second))
    assert compared.ratio == pytest.approx(ratio)
    assert compared.result == word
    if word == "too few rounds":
        assert math.isnan(compared.low)
        assert math.isnan(compared.high)
    else:
        assert compared.low <= compared.ratio <= compared.high


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(case([1.0, 1.0, 1.0, 1.0, math.nan]), id="second=nan"),
        pytest.param(case([1.0, 1.0, 1.0, 1.0, 0.0]), id="second=0"),
    ],
)
def test_invalid_case_has_no_ratio(second):
    """A time that isn't finite and positive has no ratio, in either run; nor has a timing known to be invalid."""
    assert compare_case(case([1.0] * 5), case([1.0] * 5), invalid=True).result == "invalid"
    for pair in ((second, case([1.0] * 5)), (case([1.0] * 5), second)):
        compared = compare_case(*pair)
        assert compared.result == "invalid"
        assert math.isnan(compared.ratio)


@pytest.mark.parametrize("count", [pytest.param(9, id="rounds=9"), pytest.param(10, id="rounds=10")])
def test_interval_is_that_of_the_bootstrap(count):
    """The interval is that of resampled medians, which are drawn here one by one."""
    random = np.random.default_rng(1)
    first, second = random.lognormal(0, 0.1, (2, count))
    drawn = [np.median(random.choice(rounds, (40_000, count)), axis=1) for rounds in (first, second)]
    low, high = np.quantile(drawn[1] / drawn[0], (0.025, 0.975))
    compared = compare_case(case(first), case(second))
    assert (compared.low, compared.high) == (pytest.approx(low, abs=0.005), pytest.approx(high, abs=0.005))


@pytest.mark.parametrize(
    ("count", "least"),
    [
        pytest.param(5, 0.92, id="rounds=5"),
        pytest.param(20, 0.92, id="rounds=20"),
        pytest.param(99, 0.92, id="rounds=99"),
    ],
)
def test_interval_holds_the_truth(count, least):
    """Of 400 pairs of runs whose second is slower by a fifth, the interval holds 1.2 in about 95 of 100."""
    random = np.random.default_rng(2)
    held = 0
    for _ in range(400):
        first, second = random.lognormal(0, 0.05, (2, count)) * [[1.0], [1.2]]
        compared = compare_case(case(first), case(second))
        held += compared.low <= 1.2 <= compared.high
    assert least <= held / 400 < 1


def test_comparison_is_repeatable():
    """The same rounds have the same interval."""
    first, second = case([1.0, 1.1, 1.3, 1.2, 1.25]), case([1.4, 1.1, 1.3, 1.2, 1.26])
    assert compare_case(first, second) == compare_case(first, second)
