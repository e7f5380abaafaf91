"""Tables for the terminal: what was measured in, aligned text out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alexnet_repro.verify.finding import Finding

HEADINGS = ("case", "median", "IQR", "images/s", "GFLOP/s", "% peak", "bottleneck", "in a row", "first", "memory")
LEGEND = (
    "median: of single rounds, each waited for; images/s, GFLOP/s and % peak are by it. "
    "in a row: a round of several that are waited for once."
)


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
    peak: float | None = None
    """The device's own best rate on a product, FLOP/s."""
    bottleneck: str = ""
    """What limits it most."""
    pipelined: float | None = None
    """Seconds a round of several in a row."""
    first: float = 0.0
    """Seconds of the very first round."""
    peak_memory: int = 0
    """Bytes."""
    void: bool = False
    """Whether the case failed: how fast a wrong answer came is no throughput."""


def throughput_table(rows: Sequence[Row]) -> str:
    """Return one aligned line a row, in the rows' order, under a line of headings; no rows, no text."""
    if not rows:
        return ""
    return _aligned([HEADINGS, *(_cells(row) for row in rows)])


def price_table(device: str, cells: Mapping[tuple[str, str, str], Finding]) -> str:
    """Return what each precision costs with determinism and XLA off and on, in steps/s and against the cheapest.

    Args:
        device: where it was measured.
        cells: by determinism, precision and XLA; `number` is the seconds of a step, None where there is none.
    """
    precisions = list(dict.fromkeys(precision for _, precision, _ in cells))
    columns = list(dict.fromkeys((determinism, xla) for determinism, _, xla in cells))
    times = [finding.number for finding in cells.values() if finding.number]
    lines = [(f"ms a step on {device}", *(f"determinism {determinism}, XLA {xla}" for determinism, xla in columns))]
    for precision in precisions:
        row = (cells[determinism, precision, xla].number for determinism, xla in columns)
        lines.append(
            (precision, *(f"{each * 1e3:,.1f} ({each / min(times):.2f}×)" if each else "none" for each in row))
        )
    reasons = dict.fromkeys(finding.message for finding in cells.values() if not finding.number)
    return "\n".join(
        [
            "",
            f"price of determinism, precision and XLA, {device}",
            _aligned(lines),
            *(f"none: {each}" for each in reasons),
        ]
    )


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join((case.ljust(widths[0]), *(map(str.rjust, numbers, widths[1:])))) for case, *numbers in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    time = (_duration(row.median), f"{row.iqr / row.median:.1%}".replace("%", " %"))
    in_a_row = _duration(row.pipelined) if row.pipelined else ""
    costs = (_duration(row.first) if row.first else "", f"{row.peak_memory / 1e9:.1f} GB" if row.peak_memory else "")
    if row.void:
        return (row.case, *time, "void", "void", "", "", "", *costs)
    rate = row.flop / row.median
    gflop_rate = f"{rate / 1e9:,.1f}" if row.flop else ""
    share = f"{100 * rate / row.peak:.0f}" if row.flop and row.peak else ""
    return (row.case, *time, f"{row.images / row.median:,.1f}", gflop_rate, share, row.bottleneck, in_a_row, *costs)


def _duration(seconds: float) -> str:
    """Return three decimals of the largest unit that the duration reaches."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3f} {unit}"
    return f"{seconds * 1e6:.3f} µs"
