"""Levels, moderated variances and critical values, compared with textbooks'."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from alexnet_repro.verify.benchmark import noise
from alexnet_repro.verify.benchmark.gate import critical_t
from alexnet_repro.verify.benchmark.noise import Spread, level, moderated, thinned


@pytest.mark.parametrize("degrees", [4, 7, 20, 200])
@pytest.mark.parametrize("chance", [0.05, 0.005, 0.0001])
def test_one_measurement_is_students(degrees, chance):
    """With one measurement the quantile is Student's, whatever the number of processes."""
    assert critical_t(chance, 5, degrees, 1) == pytest.approx(student.isf(chance, degrees), rel=1e-5)


def test_three_measurements_agree_by_chance_as_often_as_claimed():
    """Of a million seeded references, 0.5 % have all three measurements above the quantile: 5,000 ± 4 sigma."""
    random, count = np.random.default_rng(0), 1_000_000
    reference = random.normal(size=(5, count))
    scale = reference.std(axis=0, ddof=1) * math.sqrt(1.2)
    above = random.normal(size=(3, count)).min(axis=0) - reference.mean(axis=0) > critical_t(0.005, 5, 4, 3) * scale
    assert abs(above.sum() - 5000) < 4 * math.sqrt(5000)


def test_level_is_the_first_decile():
    """Of rounds of 1 to 11 s it is 2 s; its error 0.3 / 0.1755 × (8.5 - 3.5) / (1.349 × 2 × sqrt(11))."""
    found = level([float(each) for each in range(11, 0, -1)])
    assert found.log == pytest.approx(math.log(2.0))
    assert found.error == pytest.approx(0.3 / 0.1755 * 5 / (1.349 * 2 * math.sqrt(11)))


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (5, 5), (50, 50), (51, 50), (5000, 50)])
def test_rounds_are_thinned_evenly(count, kept):
    """At most fifty rounds are used: the first, the last, and evenly between; thinning twice changes nothing."""
    found = thinned([float(each) for each in range(count)])
    assert (len(found), found[0], found[-1]) == (kept, 0.0, count - 1.0)
    assert len(set(found)) == kept
    assert thinned(found) == found


def test_cases_lend_each_other_degrees():
    """Cases that differ no more than by chance borrow all they may; unlike ones next to nothing; two cases nothing."""
    (like, *_) = moderated([Spread(1e-4, 4.0)] * 3)
    assert like.degrees == 4 + noise.MAX_BORROWED == 20
    # s0² = exp(log 1e-4 - digamma(2) + log 2) = 1e-4 × 2 / exp(0.4227843) = 1.310440e-4; (16 s0² + 4 s²) / 20
    assert like.variance == pytest.approx((16 * 1.310440e-4 + 4 * 1e-4) / 20, rel=1e-5)
    unlike = moderated([Spread(1e-4, 4.0), Spread(1e-2, 4.0), Spread(1.0, 4.0)])
    assert all(4 < each.degrees < 4.5 for each in unlike)
    assert [each.variance for each in unlike[1:]] == [1e-2, 1.0]
    assert moderated([Spread(1e-4, 4.0)] * 2) == [Spread(1e-4, 4.0)] * 2


@pytest.mark.parametrize(("y", "trigamma"), [(1.0, math.pi**2 / 6), (0.5, math.pi**2 / 2), (1e-4, 1e8), (1e-10, 1e20)])
def test_inverse_trigamma(y, trigamma):
    """Against values that Abramowitz and Stegun give (6.4.2, 6.4.4), and the pole at 0."""
    assert noise._inverse_trigamma(trigamma) == pytest.approx(y, rel=1e-4)


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=noise.MAX_ROUNDS), st.sampled_from([0.1, 0.25, 0.75]))
def test_quantile(rounds, share):
    """Quantiles of a process's rounds are NumPy's, to the bit."""
    assert noise._quantile(sorted(rounds), share) == float(np.quantile(rounds, share))
