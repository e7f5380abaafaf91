"""The page of a fleet, `fleet.html`: it opens from a file, offline, and has the answer first."""

import functools
import re
from collections import Counter
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
    question_table,
    refused_table,
    verdict_table,
)
from alexnet_repro.fleet.records import STATUS_CODES, FleetAnswer
from alexnet_repro.fleet.summary import headline, node_verdicts, todo
from alexnet_repro.verify.finding import Status, worst_status
from alexnet_repro.verify.report import text as wording
from alexnet_repro.verify.report.cards import MAX_ROWS
from alexnet_repro.verify.report.page import MAX_TASKS, page_template
from alexnet_repro.verify.report.run_record import UNPRINTABLE
from alexnet_repro.verify.report.text import NONE

FILE = "fleet.html"
MAX_NODES = 40  # whose numbers are written out
MAX_CASES, MAX_GROUPS, MAX_TRENDS = 100, 300, 24
LARGEST_RATIO = 1000  # in digits
UNFOLDED_GROUPS, UNFOLDED_STRIPS, UNGROUPED = 60, 6, 40
# Characters that turn or hide what stands beside them.
DIRECTIONS = re.compile("[\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
WORDS = ("answer", "case", "device", "evidence", "finding", "most", "nodes", "others", "paths", "verdict", "what")


def write_page(answer: FleetAnswer, folder: Path) -> Path:
    """Write `fleet.html` into a folder, and return its path; OSError names it where it can't be written."""
    grid = pictures.grid_of(answer)
    kinds = pictures.kinds_of(grid, answer.settings.tolerance)
    columns = [column for column in answer.settings.by if column in answer.settings.columns]
    maps = {column: pictures.groups_of(answer, grid, column) for column in columns}
    if not maps and len(grid.nodes) > UNGROUPED:
        maps = {"": pictures.groups_of(answer, grid)}
    trends = [
        (each, trend)
        for each in answer.findings
        if each.area == "history" and (trend := pictures.trend_of(answer, each))
    ]
    content = {
        "answer": answer,
        "headline": headline(answer),
        "facts": fleet_facts(answer),
        "verdicts": verdict_table(answer),
        "questions": question_table(answer),
        "todo": todo(answer),
        "grid": grid,
        "rows": _worst_rows(answer, grid, kinds),
        "maps": {column: groups[:MAX_GROUPS] for column, groups in maps.items()},
        "groups_left": {column: len(groups) - MAX_GROUPS for column, groups in maps.items()},
        "cohorts": cohort_table(answer),
        "inventory": inventory_table(answer),
        "trends": trends,
        "refused": refused_table(answer),
    }
    text = UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", _template().render(content))
    path = folder / FILE
    atomic_write(path, DIRECTIONS.sub("\N{REPLACEMENT CHARACTER}", text), "name another folder: --out=DIR")
    return path


@functools.cache
def _template() -> jinja2.Template:
    packages = ("alexnet_repro.fleet", "alexnet_repro.verify.report")
    template = page_template(
        "fleet.html", jinja2.ChoiceLoader(list(map(jinja2.PackageLoader, packages))), "fleet.json", WORDS=WORDS
    )
    template.globals.update(
        wording=wording, pictures=pictures, finding_table=finding_table, MAX_NODES=MAX_NODES,
        MAX_TASKS=MAX_TASKS, MAX_ROWS=MAX_ROWS, MAX_CASES=MAX_CASES, MAX_TRENDS=MAX_TRENDS, MAX_GROUPS=MAX_GROUPS,
        UNFOLDED_GROUPS=UNFOLDED_GROUPS, UNFOLDED_STRIPS=UNFOLDED_STRIPS, NONE=NONE,
    )  # fmt: skip
    return template


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


def _worst_rows(answer: FleetAnswer, grid: pictures.Grid, kinds: NDArray[np.int8]) -> list[_Row]:
    """Return the worst nodes' numbers: by verdict, then by the largest ratio, then by name."""
    verdicts = node_verdicts(answer)
    rank = STATUS_CODES.index

    def key(row: int) -> tuple[int, int, float, list[tuple[int, str]]]:
        node, largest = grid.nodes[row], grid.largest(row)
        return -rank(verdicts[node]), -rank(grid.status_of(row)), -np.nan_to_num(largest), by_number(node)

    rows = sorted(range(len(grid.nodes)), key=key)[:MAX_NODES]
    compared = {node for each in answer.cohorts if each.what == "bits" for node, _ in each.members}
    found = []
    for row in rows:
        node = grid.nodes[row]
        own = [each.status for each in answer.findings if each.area == "bits" and each.node == node]
        status = worst_status(["PASS", *own]) if own or node in compared else NONE
        states, ratios = grid.statuses[row, :MAX_CASES], grid.ratios[row, :MAX_CASES]
        names = list(pictures.GLYPHS)
        cells = [
            _Cell(names[kind], STATUS_CODES[state] if state > 0 else None, _ratio(ratio))
            for kind, state, ratio in zip(kinds[row], states, ratios, strict=False)
        ]
        found.append(
            _Row(
                node,
                verdicts[node],
                status,
                _device_of(answer, grid, row),
                [_Cell("", None, _ratio(grid.times[row])), *cells],
            )
        )
    return found


def _ratio(ratio: float) -> str:
    return NONE if not np.isfinite(ratio) else f"{ratio:.2f}" if ratio < LARGEST_RATIO else f"{ratio:.0e}"


def _device_of(answer: FleetAnswer, grid: pictures.Grid, row: int) -> str:
    """Return the devices of a node's cells that aren't well; empty where the node has one device, or all are well."""
    runs = answer.fleet.runs.get(grid.nodes[row])
    if not runs or len(runs[-1].devices) < 2:  # noqa: PLR2004 - of one, its name says nothing
        return ""
    named = Counter(grid.names[place] for place in grid.devices[row][grid.statuses[row] > 0])
    return ", ".join(name for name, _ in named.most_common(2))
