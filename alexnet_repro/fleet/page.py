"""The page of a fleet, `fleet.html`: it opens from a file, offline, and has the answer first."""

import functools
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
from numpy.typing import NDArray

from alexnet_repro.files import atomic_write
from alexnet_repro.fleet import pictures
from alexnet_repro.fleet.node_names import by_number
from alexnet_repro.fleet.page_tables import (
    cohort_table,
    finding_table,
    fleet_facts,
    inventory_table,
    notes_table,
    questions,
    refused_table,
    verdict_table,
)
from alexnet_repro.fleet.records import STATUS_CODES, FleetAnswer
from alexnet_repro.fleet.summary import fleet_headline, todo
from alexnet_repro.verify.finding import Status, worst_status
from alexnet_repro.verify.report import text as wording
from alexnet_repro.verify.report.cards import MAX_ROWS
from alexnet_repro.verify.report.page import MAX_TASKS, page_template
from alexnet_repro.verify.report.run_record import UNPRINTABLE
from alexnet_repro.verify.report.text import NONE

FILE = "fleet.html"
MAX_NODES, MAX_OF_GROUP = 40, 3  # whose numbers are written out: of all, and of a slow group
MAX_COLUMNS, MAX_GROUPS, MAX_TRENDS = 100, 300, 24
LARGEST_RATIO = 1000  # in digits
UNFOLDED_GROUPS, UNFOLDED_STRIPS = 60, 3
MIN_PICTURED = 5  # nodes, on average: smaller ones are no pictures
# Characters that turn or hide what stands beside them.
DIRECTIONS = re.compile("[\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
LONG_COLUMNS = ("answer", "evidence", "finding", "nodes", "others", "paths")
TEXT_COLUMNS = (*LONG_COLUMNS, "case", "device", "most", "verdict", "what")


def write_page(answer: FleetAnswer, folder: Path) -> Path:
    """Write `fleet.html` into a folder, and return its path; OSError names it where it can't be written."""
    grid = pictures.grid_of(answer)
    kinds, verdicts = pictures.kinds_of(grid, answer.settings.tolerance), answer.nodes
    columns = [column for column in answer.settings.by if column in answer.settings.columns]
    maps = {column: pictures.groups_of(answer, grid, column) for column in columns}
    many = len(grid.nodes) > MAX_NODES  # a picture shows what the table hasn't room for
    if many and not maps:
        maps = {"": pictures.groups_of(answer, grid)}
    parts = next((each for each in maps.values() if len(each) * MIN_PICTURED <= len(grid.nodes)), None)
    strips = pictures.strips_of(parts or pictures.groups_of(answer, grid), grid, kinds) if many else []
    trends = [
        (each, trend)
        for each in answer.findings
        if each.area == "history" and (trend := pictures.trend_of(answer, each))
    ]
    content = {
        "answer": answer,
        "headline": fleet_headline(answer),
        "facts": fleet_facts(answer),
        "verdicts": verdict_table(answer),
        "questions": questions(answer),
        "todo": todo(answer),
        "grid": grid,
        "rows": [_row(answer, grid, row, kinds[row], verdicts) for row in _worst_rows(answer, grid, verdicts)],
        "maps": {column: groups[:MAX_GROUPS] for column, groups in maps.items()},
        "groups_left": {column: len(groups) - MAX_GROUPS for column, groups in maps.items()},
        "strips": strips,
        "cohorts": cohort_table(answer),
        "notes": notes_table(answer),
        "inventory": inventory_table(answer),
        "trends": trends,
        "refused": refused_table(answer),
    }
    text = UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", _template().render(content))
    path = folder / FILE
    atomic_write(path, DIRECTIONS.sub("\N{REPLACEMENT CHARACTER}", text))
    return path


@functools.cache
def _template() -> jinja2.Template:
    packages = ("alexnet_repro.fleet", "alexnet_repro.verify.report")
    loader = jinja2.ChoiceLoader([jinja2.PackageLoader(package) for package in packages])
    known = {"wording": wording, "pictures": pictures, "finding_table": finding_table, "NONE": NONE}
    known |= {"WORDS": TEXT_COLUMNS, "LONG_WORDS": LONG_COLUMNS, "MAX_OF_GROUP": MAX_OF_GROUP, "MAX_TASKS": MAX_TASKS}
    known |= {"MAX_ROWS": MAX_ROWS, "MAX_COLUMNS": MAX_COLUMNS, "MAX_TRENDS": MAX_TRENDS}
    known |= {"UNFOLDED_GROUPS": UNFOLDED_GROUPS, "UNFOLDED_STRIPS": UNFOLDED_STRIPS}
    return page_template("fleet.html", loader, "fleet.json", **known)


class _Cell(NamedTuple):
    kind: str  # of `pictures.GLYPHS`
    status: Status | None  # None: PASS, or not timed
    text: str


class _Row(NamedTuple):
    """A node's numbers."""

    node: str
    status: Status
    bits: str  # a status, or a dash
    device: str  # whose numbers these are, where it has several and one stands out
    cells: list[_Cell]  # over all cases, and of each


def _worst_rows(answer: FleetAnswer, grid: pictures.Grid, verdicts: Mapping[str, Status]) -> list[int]:
    """Return the places of the worst nodes: those with findings of their own first, then some of each slow group."""
    rank = STATUS_CODES.index
    own = dict.fromkeys(grid.nodes, 0)
    for each in answer.findings:
        if each.node in own:
            own[each.node] = max(own[each.node], rank(each.status))
    found = [each for each in answer.findings if each.nodes and each.status != "PASS"]
    group_of = {node: each.group for each in found for node in each.nodes if not own.get(node)}

    def key(row: int) -> tuple[int, int, int, float, list[tuple[int, str]]]:
        node = grid.nodes[row]
        largest = float(np.nan_to_num(grid.largest(row)))
        return -own[node], -rank(verdicts[node]), -rank(grid.status_of(row)), -largest, by_number(node)

    rows, shown = [], Counter[str]()
    for row in sorted(range(len(grid.nodes)), key=key):
        group = group_of.get(grid.nodes[row], "")
        shown[group] += 1
        if not group or shown[group] <= MAX_OF_GROUP or len(grid.nodes) <= MAX_NODES:
            rows.append(row)
    return rows[:MAX_NODES]


def _row(
    answer: FleetAnswer, grid: pictures.Grid, row: int, kinds: NDArray[np.int8], verdicts: Mapping[str, Status]
) -> _Row:
    """Return a node's numbers; `kinds` of its cells."""
    node, names = grid.nodes[row], list(pictures.GLYPHS)
    found = [each.status for each in answer.of_node(node) if each.area == "bits"]
    compared = any(node == each for cohort in answer.cohorts if cohort.what == "bits" for each, _ in cohort.members)
    bits = worst_status(["PASS", *found]) if found or compared else NONE
    cells = [
        _Cell(names[kind], STATUS_CODES[state] if state > 0 else None, _ratio(ratio))
        for kind, state, ratio in zip(kinds[:MAX_COLUMNS], grid.statuses[row], grid.ratios[row], strict=False)
    ]
    over_all = _Cell("", None, _ratio(grid.times[row]))
    return _Row(node, verdicts[node], bits, _device_of(answer, grid, row), [over_all, *cells])


def _ratio(ratio: float) -> str:
    return NONE if not np.isfinite(ratio) else f"{ratio:.2f}" if ratio < LARGEST_RATIO else f"{ratio:.0e}"


def _device_of(answer: FleetAnswer, grid: pictures.Grid, row: int) -> str:
    """Return the devices of a node's cells that aren't well; empty where the node has one device, or all are well."""
    runs = answer.fleet.runs.get(grid.nodes[row])
    if not runs or len(runs[-1].devices) < 2:  # noqa: PLR2004 - of one, its name says nothing
        return ""
    named = Counter(grid.names[place] for place in grid.devices[row][grid.statuses[row] > 0])
    return ", ".join(name for name, _ in named.most_common(2))
