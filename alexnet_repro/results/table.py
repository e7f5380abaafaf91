"""The throughput table: measured rows in, aligned text out."""

from collections.abc import Sequence
from dataclasses import dataclass

HEADINGS = ("case", "median", "IQR", "images/s", "GFLOP/s")


@dataclass(frozen=True)
class Row:
    """One benchmark case: what a round took, and what it did."""

    case: str
    median: float
    """Seconds a round."""
    iqr: float
    """Seconds between the rounds' first and third quartile."""
    images: int
    """Images a round."""
    flop: int = 0
    """Floating-point operations a round; 0 where they aren't what is measured."""
    void: bool = False
    """Whether the case failed: how fast a wrong answer came is no throughput."""


def throughput_table(rows: Sequence[Row]) -> str:
    """Return one aligned line a row, in the rows' order, under a line of headings; no rows, no text."""
    if not rows:
        return ""
    lines = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join((case.ljust(widths[0]), *(map(str.rjust, numbers, widths[1:])))) for case, *numbers in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    time = (_duration(row.median), f"{row.iqr / row.median:.1%}".replace("%", " %"))
    if row.void:
        return (row.case, *time, "void", "void")
    gflop_rate = f"{row.flop / row.median / 1e9:,.1f}" if row.flop else ""
    return (row.case, *time, f"{row.images / row.median:,.1f}", gflop_rate)


def _duration(seconds: float) -> str:
    """Return three decimals of the largest unit that the duration reaches."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3f} {unit}"
    return f"{seconds * 1e6:.3f} µs"
