"""Pictures of a fleet: nodes by cases as pixels, nodes as tiles in their groups, and a device's time over months.

Shapes tell the states apart, colours only help. The same answer gives the same bytes. None needs a script.
"""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from alexnet_repro.fleet.node_names import by_number
from alexnet_repro.fleet.records import CASE_NUMBERS, NOT_TIMED, STATUS_CODES, FleetAnswer, FleetFinding
from alexnet_repro.fleet.summary import STATUS_WORDS
from alexnet_repro.verify.finding import Status, worst_status
from alexnet_repro.verify.report.drawing import Floats

STRIP = 50  # nodes in a strip of pixels
TENTH = 10  # nodes from one name to the next beside a strip
TILES = 10  # side by side
HUNDRED = 100  # nodes, where there are no groups
PITCH = 14  # CSS pixels from one tile to the next
NOT_STATED = "not stated"

# By what a cell is: its pixels, `#` in its colour. Each colour has a contrast of 3 on white and on the dark page.
GLYPHS: Mapping[str, tuple[tuple[int, int, int], Sequence[str]]] = {
    "none": ((0, 0, 0), ("......",) * 6),
    "PASS": ((118, 131, 144), ("......", "......", "..##..", "..##..", "......", "......")),
    "faster": ((47, 129, 247), ("......", "......", ".#####", ".#####", "......", "......")),
    "slower": ((201, 111, 20), ("......", ".####.", ".####.", ".####.", ".####.", "......")),
    "INCONCLUSIVE": ((168, 117, 0), ("#####.", "#...#.", "#...#.", "#...#.", "#####.", "......")),
    "FAIL": ((224, 49, 49), ("######",) * 6),
}
CELL, LETTER = 6, 16  # pixels


class Grid(NamedTuple):
    """Each node's worst device in each case; a node or case without any measurement is there, too."""

    nodes: list[str]
    cases: list[str]  # those that fail first
    ratios: Floats  # (nodes, cases); NaN: no measurement
    statuses: NDArray[np.int8]  # (nodes, cases) of `STATUS_CODES`; `NOT_TIMED`: none
    devices: NDArray[np.int64]  # (nodes, cases): the place in `names` of the device that these are of
    names: list[str]
    times: Floats  # (nodes,): of the slowest device, over all its cases; NaN: unknown

    def status_of(self, row: int) -> Status:
        """Return a node's worst status."""
        return STATUS_CODES[max(0, int(self.statuses[row].max(initial=0)))]

    def largest(self, row: int) -> float:
        """Return a node's largest ratio; NaN: none."""
        known = self.ratios[row][np.isfinite(self.ratios[row])]
        return float(known.max()) if len(known) else np.nan


class Strip(NamedTuple):
    """Some nodes by all cases, as pixels."""

    title: str
    names: list[tuple[str, int]]  # every tenth node, and the height until the next, in CSS pixels
    uri: str
    width: int
    height: int
    description: str


class Group(NamedTuple):
    """Nodes that have one value of a column of the inventory."""

    name: str
    status: Status
    text: str
    nodes: list[str]
    tiles: Markup


def grid_of(answer: FleetAnswer) -> Grid:
    """Return each node's worst device by case; nodes in their order, the cases that fail first, then as recorded."""
    nodes, names = list(answer.nodes), list(dict.fromkeys(name for each in answer.tables for _, name in each.members))
    cases = list(dict.fromkeys(case for each in answer.tables for case in each.cases))
    row_of, column_of, device_of = ({name: place for place, name in enumerate(each)} for each in (nodes, cases, names))
    ratios = np.full((len(nodes), len(cases)), np.nan)
    statuses = np.full((len(nodes), len(cases)), NOT_TIMED, np.int8)
    devices = np.zeros((len(nodes), len(cases)), np.int64)
    times = np.full(len(nodes), np.nan)
    for table in answer.tables:
        columns = np.array([column_of[case] for case in table.cases], np.int64)
        there = np.where((table.ratios > 0) & np.isfinite(table.ratios), table.ratios, np.nan).astype(np.float64)
        for place, (node, name) in enumerate(table.members):
            if (row := row_of.get(node)) is None:
                continue
            own, state = there[place], table.statuses[place]
            slower = (own > ratios[row, columns]) | (np.isnan(ratios[row, columns]) & np.isfinite(own))
            worse = (state > statuses[row, columns]) | ((state == statuses[row, columns]) & slower)
            chosen = columns[worse]
            ratios[row, chosen], statuses[row, chosen] = own[worse], state[worse]
            devices[row, chosen] = device_of[name]
            if np.isfinite(table.shifts[place]):
                times[row] = np.fmax(times[row], table.shifts[place])
    failed, unsure = ((statuses == STATUS_CODES.index(state)).sum(0) for state in ("FAIL", "INCONCLUSIVE"))
    order = np.lexsort((np.arange(len(cases)), -unsure, -failed))
    ordered = (ratios[:, order], statuses[:, order], devices[:, order])
    return Grid(nodes, [cases[each] for each in order], *ordered, names, times)


def kinds_of(grid: Grid, tolerance: float) -> NDArray[np.int8]:
    """Return what each cell of the grid is, as its place in `GLYPHS`."""
    names = list(GLYPHS)
    kinds = np.full(grid.ratios.shape, names.index("PASS"), np.int8)
    kinds[grid.ratios > 1 + tolerance] = names.index("slower")
    kinds[grid.ratios < 1 / (1 + tolerance)] = names.index("faster")
    kinds[np.isnan(grid.ratios)] = names.index("none")
    for state in ("INCONCLUSIVE", "FAIL"):
        kinds[grid.statuses == STATUS_CODES.index(state)] = names.index(state)
    return kinds


def groups_of(answer: FleetAnswer, grid: Grid, column: str = "") -> list[Group]:
    """Return the nodes by a column's value, the worst group first; without a column, by their names, in hundreds."""
    members: dict[str, list[str]] = {}
    for node in sorted(grid.nodes, key=by_number):
        members.setdefault(answer.settings.columns.get(column, {}).get(node, NOT_STATED), []).append(node)
    if not column:
        every = sorted(grid.nodes, key=by_number)
        parts = [every[start : start + HUNDRED] for start in range(0, len(every), HUNDRED)]
        members = {f"{part[0]} to {part[-1]}" if len(part) > 1 else part[0]: part for part in parts}
    rows, verdicts = {node: row for row, node in enumerate(grid.nodes)}, answer.nodes
    whole = {each.group: each for each in reversed(answer.findings) if each.nodes}
    groups = []
    for name, nodes in members.items():
        own = {node: verdicts[node] for node in nodes}
        finding = whole.get(f"{column}={name}")
        places = [rows[node] for node in nodes]
        text = _group_text(list(own.values()), grid.times[places], finding)
        status = worst_status([*own.values(), *([finding.status] if finding else [])])
        groups.append(Group(name, status, text, nodes, _tiles(answer, own, grid, rows)))
    if not column:
        return groups
    share = {each.name: sum(verdicts[node] != "PASS" for node in each.nodes) / len(each.nodes) for each in groups}
    return sorted(groups, key=lambda each: (-STATUS_CODES.index(each.status), -share[each.name], by_number(each.name)))


def _group_text(statuses: Sequence[Status], times: Floats, finding: FleetFinding | None) -> str:
    """Return how a group is: as a whole, where that was found, and how many of its nodes aren't well."""
    parts = [f"{statuses.count(state):,} {word}" for state, word in STATUS_WORDS.items() if state in statuses]
    if finding and finding.area == "speed":
        parts = [f"slow as a whole: {len(statuses):,} nodes"]
    known = times[np.isfinite(times)]
    return f"{', '.join(parts)}{f' · {np.median(known):.2f} ×' if len(known) else ''}"


def _tiles(answer: FleetAnswer, own: Mapping[str, Status], grid: Grid, rows: Mapping[str, int]) -> Markup:
    """Return a group's nodes as SVG: a tile each, with its name and verdict as the tool tip."""
    across = TILES if len(own) <= HUNDRED else 2 * TILES
    height = PITCH * -(-len(own) // across)
    parts = [f'<svg width="{PITCH * min(across, len(own))}" height="{height}" aria-hidden="true">']
    for place, (node, status) in enumerate(own.items()):
        row, column = divmod(place, across)
        ratio = grid.times[rows[node]]
        heard = node in answer.fleet.runs
        text = f"{node}: {status if heard else 'not heard of'}{'' if np.isnan(ratio) else f', {ratio:.2f} ×'}"
        shape = status if heard else "missing"
        at = f'x="{PITCH * column}" y="{PITCH * row}"'
        parts.append(f'<use href="#tile-{shape}" {at}><title>{escape(text[:200])}</title></use>')
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 - names are escaped


def strips_of(groups: Sequence[Group], grid: Grid, kinds: NDArray[np.int8]) -> list[Strip]:
    """Return pictures of at most `STRIP` nodes each, in the groups' order; none where nothing was timed."""
    rows = {node: row for row, node in enumerate(grid.nodes)}
    scale = 2 if len(grid.cases) <= CELL * 2 else 1  # few cases have room
    strips = []
    for group in groups if grid.cases else ():
        for start in range(0, len(group.nodes), STRIP):
            nodes = group.nodes[start : start + STRIP]
            part = kinds[[rows[node] for node in nodes]]
            failed, unsure = ((part == list(GLYPHS).index(each)).any(1).sum() for each in ("FAIL", "INCONCLUSIVE"))
            title = group.name if len(group.nodes) <= STRIP else f"{nodes[0]} to {nodes[-1]}"
            text = (
                f"{title}, {part.shape[1]} cases: {failed} of {len(nodes)} nodes failed one, {unsure} were inconclusive"
            )
            ticks = [(node, min(TENTH, len(nodes) - TENTH * place)) for place, node in enumerate(nodes[::TENTH])]
            names = [(node, max(LETTER, count * CELL * scale)) for node, count in ticks]
            height, width = (size * CELL * scale for size in part.shape)
            strips.append(Strip(title, names, _png(part), width, height, text))
    return strips


def _png(kinds: NDArray[np.int8]) -> str:
    """Return a PNG of a glyph per cell, as an address that holds it; what isn't painted is transparent."""
    glyphs = np.array([[[pixel == "#" for pixel in line] for line in lines] for _, lines in GLYPHS.values()])
    places = np.arange(len(GLYPHS), dtype=np.uint8)[:, None, None] * glyphs
    rows, columns = kinds.shape
    pixels = places[kinds].transpose(0, 2, 1, 3).reshape(rows * CELL, columns * CELL).astype(np.uint8)
    image = Image.fromarray(pixels)  # of grey levels, which the palette turns into its places
    image.putpalette([value for color, _ in GLYPHS.values() for value in color])
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True, transparency=0)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def legend(kind: str) -> str:
    """Return a cell's picture."""
    return _png(np.array([[list(GLYPHS).index(kind)]], np.int8))


class Trend(NamedTuple):
    """A device's time over its runs."""

    text: str
    svg: Markup


def trend_of(answer: FleetAnswer, finding: FleetFinding) -> Trend | None:
    """Return a device's time in a finding's case, or in all that all its runs have; None of fewer than two runs."""
    points = [(when, own) for when, own in _times(answer, finding) if own]
    common = set.intersection(*(set(own) for _, own in points)) if len(points) > 1 else set()
    if not common:
        return None
    (first, *_), (last, *_) = points[0], points[-1]
    levels = np.array([np.mean([own[case] for case in sorted(common)]) for _, own in points])
    ratios = np.exp(np.clip(levels - levels[0], -20, 20))  # what a file states may be absurd
    days = np.array([(when - first).total_seconds() for when, _ in points]) / max(1.0, (last - first).total_seconds())
    low, high = min(ratios.min(), 0.99), max(ratios.max(), 1.01)
    x, y = 6 + days * 308, 54 - (ratios - low) / (high - low) * 48
    path = " ".join(f"{one:.1f},{other:.1f}" for one, other in zip(x, y, strict=True))
    dots = "".join(f'<circle cx="{one:.1f}" cy="{other:.1f}" r="3"/>' for one, other in zip(x, y, strict=True))
    level = 54 - (1 - low) / (high - low) * 48
    svg = (
        f'<svg viewBox="0 0 320 60" aria-hidden="true"><path d="M0 {level:.1f}H320" class="level"/>'
        f'<polyline points="{path}"/>{dots}</svg>'
    )
    dates = f"{first:%Y-%m-%d} to {last:%Y-%m-%d}, {len(points)} runs"
    return Trend(f"{dates}: the last takes {ratios[-1]:.3f} × the first's time", Markup(svg))  # noqa: S704 - numbers


def _times(answer: FleetAnswer, finding: FleetFinding) -> Iterator[tuple[datetime, dict[str, float]]]:
    """Yield when a device was timed, and its levels by case."""
    runs = answer.fleet.runs.get(finding.node, [])
    serial = next((each.serial for run in runs[-1:] for each in run.devices if each.name == finding.device), "")
    level, invalid = (CASE_NUMBERS.index(name) for name in ("level", "invalid"))
    for run in runs:
        for each in run.devices:
            if each.serial == serial if serial and each.serial else each.name == finding.device:
                yield (
                    run.started,
                    {
                        case: float(numbers[level])
                        for case, numbers in zip(each.cases, each.numbers, strict=True)
                        if (not finding.case or case == finding.case)
                        and np.isfinite(numbers[level])
                        and numbers[invalid] != 1
                    },
                )
                break
