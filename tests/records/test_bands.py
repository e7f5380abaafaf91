"""Is a printed figure reproduced? Bands and verdicts, as tables."""

import pytest

from benchmarks.records.tools.bands import Band, band, binomial, verdict


@pytest.mark.parametrize(
    ("share", "images", "expected"), [(0.5, 100, 0.05), (0.84, 2_000, 0.0081975606), (1.0, 2_000, 0.0), (0.0, 128, 0.0)]
)
def test_binomial(share, images, expected):
    """A share's standard deviation is sqrt(p (1 - p) / n)."""
    assert binomial(share, images) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("values", "spread", "degrees", "middle", "half"),
    [
        pytest.param([0.84], 0.01, float("inf"), 0.84, 0.0196, id="runs=1"),
        pytest.param([2.3], 0.01, 3, 2.3, 0.0318245, id="runs=1-degrees=3"),
        pytest.param([0.8, 0.82], 0.0, float("inf"), 0.81, 12.7062 * 0.0141421 * 1.5**0.5, id="runs=2"),
        pytest.param([1, 2, 3, 4, 5], 0.0, 3, 3, 2.776445 * (2.5 * 1.2) ** 0.5, id="runs=5-degrees=3"),
        # 64 = (3 + 9)² / (3² / 4) degrees of freedom
        pytest.param([1, 2, 3, 4, 5], 3.0, float("inf"), 3, 1.997730 * (2.5 * 1.2 + 9) ** 0.5, id="runs=5-spread=3"),
        # 8 = (7.5 + 7.5)² / (7.5² / 4 + 7.5² / 4)
        pytest.param([0, 0, 5, 5, 2.5], 6.25**0.5 * 1.2**0.5, 4, 2.5, 2.306004 * 15**0.5, id="runs=5-spread=same"),
    ],
)
def test_band(values, spread, degrees, middle, half):
    """A band is 1.96 spreads of one run; of several, Student's for one more run, by the tables of quantiles."""
    found = band(values, spread, degrees)
    assert (found.middle, found.half) == (pytest.approx(middle), pytest.approx(half, rel=1e-5))
    assert found.ends == (pytest.approx(middle - half, rel=1e-5), pytest.approx(middle + half, rel=1e-5))
    assert (found.runs, found.alone) == (len(values), pytest.approx(1.96 * spread))


@pytest.mark.parametrize(
    ("printed", "middle", "half", "runs", "expected"),
    [
        (0.84, 0.84, 0.016, 1, "reproduced"),
        (0.84, 0.855, 0.016, 1, "reproduced"),
        (0.84, 0.825, 0.016, 1, "reproduced"),
        (0.84, 0.86, 0.016, 1, "inconclusive"),
        (0.84, 0.80, 0.016, 1, "inconclusive"),
        (0.84, 0.79, 0.016, 1, "not reproduced"),
        (0.84, 0.89, 0.016, 1, "not reproduced"),
        (0.84, 0.855, 0.016, 5, "reproduced"),
        (0.84, 0.86, 0.016, 5, "not reproduced"),
        (0.84, 0.86, 0.048, 2, "reproduced"),
        (0.84, 0.86, 0.049, 2, "inconclusive"),
        (0.84, 0.90, 0.049, 2, "not reproduced"),
        (0.84, 0.84, 0.0, 1, "reproduced"),
        (0.84, 0.85, 0.0, 1, "not reproduced"),
    ],
)
def test_verdict(printed, middle, half, runs, expected):
    """Inside its band a figure is reproduced, outside it isn't; of one seed within three bands, or inside a band that a
    few seeds make three times as wide, it is inconclusive.
    """
    found, why = verdict(printed, Band(middle, half, runs, alone=0.016))
    assert found == expected
    assert "seed" in why
