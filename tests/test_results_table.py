"""The throughput table: what was measured, readable at a glance."""

import pytest

from alexnet_repro.results.table import Row, throughput_table

ROWS = (
    Row("train_step[batch=128]", median=2.0, iqr=0.008, images=128, flop=700_000_000_000),
    Row("forward[batch=1]", median=0.016, iqr=0.0016, images=1, flop=2_000_000_000),
    Row("draw_train", median=0.000128, iqr=0.0, images=128),
)


def test_rows_are_aligned_in_their_own_order() -> None:
    """Seconds get a fitting unit, rates follow from the median, and what has no FLOP has no GFLOP/s."""
    assert throughput_table(ROWS) == (
        "case                       median     IQR     images/s  GFLOP/s\n"
        "train_step[batch=128]     2.000 s   0.4 %         64.0    350.0\n"
        "forward[batch=1]        16.000 ms  10.0 %         62.5    125.0\n"
        "draw_train             128.000 µs   0.0 %  1,000,000.0         "
    )


def test_failed_case_has_no_throughput() -> None:
    """How fast a wrong answer came is shown as void."""
    assert throughput_table([Row("forward", median=1.0, iqr=0.25, images=32, flop=10**9, void=True)]) == (
        "case      median     IQR  images/s  GFLOP/s\nforward  1.000 s  25.0 %      void     void"
    )


@pytest.mark.parametrize(
    ("seconds", "shown"), [(1.0, "1.000 s"), (0.9994, "999.400 ms"), (0.001, "1.000 ms"), (0.0009994, "999.400 µs")]
)
def test_unit_is_the_largest_that_the_duration_reaches(seconds: float, shown: str) -> None:
    """Seconds from one second, milliseconds from one millisecond, microseconds below."""
    assert f" {shown} " in throughput_table([Row("case", median=seconds, iqr=0.0, images=1)])


def test_nothing_measured_prints_nothing() -> None:
    """No rows, no headings."""
    assert throughput_table([]) == ""
