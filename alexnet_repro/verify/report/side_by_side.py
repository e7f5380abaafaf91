"""What findings say of several devices, as tables of text: each device beside the others, and all of them together."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alexnet_repro.verify.finding import Finding, Status
from alexnet_repro.verify.report.text import percent


@dataclass(frozen=True)
class DeviceRow:
    """A device at the work that each of them does, by itself."""

    device: str
    images: str
    """Images/s."""
    relative: str
    """To the best."""
    status: Status
    note: str
    """Whether it is the slowest."""


@dataclass(frozen=True)
class TogetherRow:
    """Devices making updates together."""

    kind: str
    devices: str
    batch: str
    """Images of each."""
    images: str
    """Images/s of all."""
    efficiency: str
    """Against linear."""
    bound: str
    communicating: str
    """Share of the time."""
    status: Status


def device_rows(found: Sequence[Finding]) -> list[DeviceRow]:
    """Return a row a device of what `stragglers` found; what can't be told of one has no row."""
    rows = []
    for data, finding in _told(found, "stragglers"):
        seconds, images, slow = _numbers(data.get("seconds")), _number(data.get("images")) or 0, data.get("slow")
        best, worst = min(seconds.values(), default=0), max(seconds, key=lambda device: seconds[device], default="")
        for device, each in seconds.items():
            well = finding.status == "FAIL" and not (isinstance(slow, list) and device in slow)
            note = "slowest" if device == worst and each > best else ""
            status: Status = "PASS" if well else finding.status
            rows.append(DeviceRow(device, f"{images / each:,.1f}", percent(best / each, 1), status, note))
    return rows


def together_rows(found: Sequence[Finding]) -> list[TogetherRow]:
    """Return a row a point of what `scaling` found."""
    rows = []
    for data, finding in _told(found, "scaling"):
        devices, images, seconds = (_number(data.get(name)) or 0 for name in ("devices", "images", "seconds"))
        if finding.number is None or min(devices, images, seconds) <= 0:
            continue
        rows.append(
            TogetherRow(
                " ".join(filter(None, (finding.device, str(data.get("kind"))))),
                f"{devices:.0f}",
                f"{images:.0f}",
                f"{devices * images / seconds:,.1f}",
                percent(finding.number, 1),
                percent(finding.bound, 1),
                percent(_number(data.get("communicating")), 1),
                finding.status,
            )
        )
    return rows


def lines(found: Sequence[Finding]) -> list[str]:
    """Return both tables for the terminal; no lines where nothing was found."""
    devices = [(row.device, row.images, row.relative, f"{row.status} {row.note}".strip()) for row in device_rows(found)]
    together = [
        (row.kind, row.devices, row.batch, row.images, row.efficiency, row.bound, row.communicating, row.status)
        for row in together_rows(found)
    ]
    headings = ("scaling", "devices", "images each", "images/s", "efficiency", "at least", "communicating", "verdict")
    return [
        *_aligned([("device alone", "images/s", "of the best", "verdict"), *devices] if devices else []),
        *_aligned([headings, *together] if together else []),
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:-1]), row[-1]]).rstrip() for row in rows
    ]


def _told(found: Sequence[Finding], check: str) -> Iterator[tuple[Mapping[str, Any], Finding]]:
    return ((each.data, each) for each in found if each.check == check and isinstance(each.data, Mapping))


def _number(value: Any) -> float | None:
    """Return a finite number, as it is read from a file; None where it is anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _numbers(value: Any) -> dict[str, float]:
    """Return the names that have a number above zero."""
    told = {str(name): _number(each) for name, each in value.items()} if isinstance(value, Mapping) else {}
    return {name: each for name, each in told.items() if each is not None and each > 0}
