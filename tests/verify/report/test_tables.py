"""The tables of throughput and of prices: what was measured, readable at a glance."""

import pytest

from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.tables import Row, price_table, throughput_table

ROWS = (
    Row(
        "step[batch=128]",
        median=2.0,
        iqr=0.008,
        images=128,
        flop=700_000_000_000,
        peak=4e11,
        bottleneck="compute",
        pipelined=1.9,
        first=2.5,
        peak_memory=3_200_000_000,
    ),
    Row("forward[batch=1]", median=0.016, iqr=0.0016, images=1, flop=2_000_000_000),
    Row("draw_train", median=0.000128, iqr=0.0, images=128),
)


def test_rows_are_aligned_in_their_own_order() -> None:
    """Seconds get a fitting unit, rates follow from the median, and what has no FLOP has no GFLOP/s."""
    assert throughput_table(ROWS) == (
        "case                  median     IQR     images/s  GFLOP/s  % peak  bottleneck  in a row    first  memory\n"
        "step[batch=128]      2.000 s   0.4 %         64.0    350.0      88     compute   1.900 s  2.500 s  3.2 GB\n"
        "forward[batch=1]   16.000 ms  10.0 %         62.5    125.0                                               \n"
        "draw_train        128.000 µs   0.0 %  1,000,000.0                                                        "
    )


def test_failed_case_has_no_throughput() -> None:
    """How fast a wrong answer came is shown as void."""
    assert throughput_table([Row("forward", median=1.0, iqr=0.25, images=32, flop=10**9, void=True)]) == (
        "case      median     IQR  images/s  GFLOP/s  % peak  bottleneck  in a row  first  memory\n"
        "forward  1.000 s  25.0 %      void     void                                             "
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


def step(seconds: float | None, message: str = "") -> Finding:
    """Return a finding on the time of a step."""
    return Finding("price", "PASS" if seconds else "INCONCLUSIVE", message, number=seconds)


def test_price_is_told_against_the_cheapest() -> None:
    """A row a precision, a column each for determinism and XLA, milliseconds and how many times the least."""
    cells = {
        ("off", "float32", "off"): step(0.3),
        ("off", "float32", "on"): step(0.2),
        ("off", "mixed_bfloat16", "off"): step(0.1),
        ("off", "mixed_bfloat16", "on"): step(0.125),
        ("on", "float32", "off"): step(1.5),
        ("on", "float32", "on"): step(0.25),
        ("on", "mixed_bfloat16", "off"): step(0.15),
        ("on", "mixed_bfloat16", "on"): step(0.2),
    }
    assert price_table("cpu:0", cells) == (
        "\n"
        "price of determinism, precision and XLA, cpu:0\n"
        "ms a step on cpu:0  determinism off, XLA off  determinism off, XLA on"
        "  determinism on, XLA off  determinism on, XLA on\n"
        "float32                        300.0 (3.00×)            200.0 (2.00×)"
        "         1,500.0 (15.00×)           250.0 (2.50×)\n"
        "mixed_bfloat16                 100.0 (1.00×)            125.0 (1.25×)"
        "            150.0 (1.50×)           200.0 (2.00×)"
    )


def test_price_that_cant_be_told_says_why() -> None:
    """A cell without a number is `none`, and each reason is given once, below."""
    cells = {
        ("off", "tf32", "off"): step(0.1),
        ("off", "tf32", "on"): step(None, "XLA can't be used here"),
        ("off", "float32", "off"): step(0.2),
        ("off", "float32", "on"): step(None, "XLA can't be used here"),
    }
    assert price_table("gpu:1", cells).splitlines() == [
        "",
        "price of determinism, precision and XLA, gpu:1",
        "ms a step on gpu:1  determinism off, XLA off  determinism off, XLA on",
        "tf32                           100.0 (1.00×)                     none",
        "float32                        200.0 (2.00×)                     none",
        "none: XLA can't be used here",
    ]


def test_no_price_at_all_is_shown() -> None:
    """Where nothing could be measured, the table and every reason are there all the same."""
    cells = {("off", "float32", "off"): step(None, "one"), ("on", "float32", "off"): step(None, "another")}
    assert price_table("cpu:0", cells).splitlines()[3:] == [
        "float32                                 none                     none",
        "none: one",
        "none: another",
    ]
