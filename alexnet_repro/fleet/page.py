"""The page of a fleet, `fleet.html`: it opens from a file, offline, and has the answer first."""

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
from numpy.typing import NDArray

from alexnet_repro.files import atomic_write
from alexnet_repro.fleet import pictures
from alexnet_repro.fleet.node_names import by_number, names_in_words
from alexnet_repro.fleet.records import Area, FleetAnswer, FleetFinding, FleetRun
from alexnet_repro.verify.finding import Status, worst_status
from alexnet_repro.verify.report import text as wording
from alexnet_repro.verify.report.cards import MAX_ROWS, short
from alexnet_repro.verify.report.page import MAX_TASKS, page_template
from alexnet_repro.verify.report.run_record import UNPRINTABLE
from alexnet_repro.verify.report.tables import TextTable
from alexnet_repro.verify.report.text import NONE

FILE = "fleet.html"
MAX_NODES = 40  # whose numbers are written out
MAX_CASES, MAX_GROUPS, MAX_TRENDS, MAX_VALUES = 100, 300, 24, 6
UNFOLDED_GROUPS, UNFOLDED_STRIPS, UNGROUPED = 60, 6, 40
# Characters that turn or hide what stands beside them.
DIRECTIONS = re.compile("[\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
WORDS = ("verdict", "answer", "nodes", "device", "devices", "case", "finding", "evidence", "most", "others", "paths")
AREAS: Mapping[Area, tuple[str, str]] = {  # what a question is named, and what a finding of it is about
    "own": ("Each by itself", "own run"),
    "bits": ("Same bits", "bits"),
    "speed": ("Same speed", "speed"),
    "history": ("Same as before", "history"),
    "health": ("Health", "health"),
    "inventory": ("Same software and firmware", "inventory"),
    "missing": ("All heard of", "missing"),
    "files": ("All files read", "files"),
}


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
        "rows": [_Row.of(answer, grid, kinds, row) for row in _worst_rows(grid, answer)[:MAX_NODES]],
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
    template = page_template("fleet.html", jinja2.ChoiceLoader(list(map(jinja2.PackageLoader, packages))), "fleet.json", WORDS=WORDS)
    template.globals.update(
        wording=wording, pictures=pictures, AREAS=AREAS, finding_table=finding_table, MAX_NODES=MAX_NODES,
        MAX_TASKS=MAX_TASKS, MAX_ROWS=MAX_ROWS, MAX_CASES=MAX_CASES, MAX_TRENDS=MAX_TRENDS, MAX_GROUPS=MAX_GROUPS,
        UNFOLDED_GROUPS=UNFOLDED_GROUPS, UNFOLDED_STRIPS=UNFOLDED_STRIPS, names_in_words=names_in_words, NONE=NONE,
    )  # fmt: skip
    return template


def headline(answer: FleetAnswer) -> str:
    """Return what the verdict says, in one or two sentences that claim no more than what was compared."""
    if not answer.nodes:
        return "No node was heard of: no results file could be read."
    by_status = {status: [node for node, own in answer.nodes.items() if own == status] for status in pictures.STATUSES}
    count = len(answer.nodes)
    groups = dict.fromkeys(each.group for each in answer.findings if _of_a_group(each) and each.status == "FAIL")
    parts = [f"as a whole, {names_in_words(groups, 3)} isn't like the others"] if groups else []
    words: Mapping[Status, str] = {"FAIL": "failed", "INCONCLUSIVE": "inconclusive"}
    for status, word in words.items():
        if own := by_status[status]:
            parts.append(f"{len(own):,} of {count:,} nodes {word} ({names_in_words(own, 4)})")
    passed = len(by_status["PASS"])
    if not parts:
        parts = [f"all {count:,} nodes passed" if count > 1 else f"{answer_node(answer)} passed"]
    elif passed:
        parts.append(f"{passed:,} passed")
    first, *rest = "; ".join(parts)
    compared = "; ".join(f"{name} among {devices:,} devices" if devices else f"{name} of none" for name, devices in _compared(answer).items())
    return f"{first.upper()}{''.join(rest)}. Compared: {compared}."


def answer_node(answer: FleetAnswer) -> str:
    """Return the name of the only node."""
    return next(iter(answer.nodes))


def _of_a_group(finding: FleetFinding) -> bool:
    return bool(finding.group and not finding.node and finding.area == "speed")


def _compared(answer: FleetAnswer) -> dict[str, int]:
    """Return among how many devices bits and speed were compared: those of cohorts of at least two."""
    return {
        what: len({member for each in answer.cohorts if each.what == what and len(each.members) > 1 for member in each.members})
        for what in ("bits", "speed")
    }


def fleet_facts(answer: FleetAnswer) -> list[tuple[str, str]]:
    """Return what the fleet is made of, when it ran, and how it was judged."""
    runs, settings = answer.fleet.current, answer.settings
    kinds = Counter(each.kind for run in runs for each in run.devices)
    days = sorted(run.started for run in runs)
    versions = Counter(run.version for run in runs if run.version)
    known = {
        "Devices": ", ".join(f"{count:,} × {kind}" for kind, count in kinds.most_common(MAX_VALUES)),
        "Runs": f"{days[0]:%Y-%m-%d %H:%M} to {days[-1]:%Y-%m-%d %H:%M} UTC" if days else "",
        "Software": ", ".join(f"alexnet-repro {version}" for version, _ in versions.most_common(MAX_VALUES)),
        "Judged": f"a slowdown of {settings.tolerance:.3g} or less is none; of sound fleets, {settings.false_alarms:.3g} fail",
    }
    known["Judged"] = (
        f"slow is what takes over {wording.percent(settings.tolerance, 1)} longer than the others, beyond noise; of sound fleets, "
        f"at most {wording.percent(settings.false_alarms, 1)} fail by chance"
    )
    return [(name, short(value, "fleet.json")) for name, value in known.items() if value]


def verdict_table(answer: FleetAnswer) -> TextTable:
    """Return a row per verdict with its nodes; the worst first."""
    rows = []
    for status in reversed(pictures.STATUSES):
        if own := [node for node, each in answer.nodes.items() if each == status]:
            rows.append((f"{len(own):,}", str(status), names_in_words(own)))
    return TextTable(("count", "verdict", "nodes"), rows)


def question_table(answer: FleetAnswer) -> TextTable:
    """Return a row per question that a fleet answers; what wasn't asked, or compared, has no verdict."""
    return TextTable(("question", "verdict", "answer"), [(AREAS[area][0], *_answered(answer, area)) for area in AREAS])


def _answered(answer: FleetAnswer, area: Area) -> tuple[str, str]:
    found = [each for each in answer.findings if each.area == area]
    cohorts = [each for each in answer.cohorts if each.what == area]
    status = worst_status(["PASS", *(each.status for each in (*found, *cohorts))])
    counts = Counter(each.status for each in found if each.status != "PASS")
    runs = answer.fleet.runs.values()
    asked: Mapping[Area, tuple[int, str]] = {
        "own": (len(runs), f"{len(runs):,} nodes, by their own verdicts"),
        "bits": (len(cohorts), _of_cohorts(cohorts)),
        "speed": (len(cohorts), _of_cohorts(cohorts)),
        "history": (sum(len(each) > 1 for each in runs), f"{sum(len(each) > 1 for each in runs):,} nodes have earlier runs"),
        "health": (len(runs), f"{len(runs):,} nodes"),
        "inventory": (len(runs), f"{len(runs):,} nodes"),
        "missing": (len(answer.settings.expected), f"{len(answer.settings.expected):,} nodes are expected"),
        "files": (len(runs) + len(answer.fleet.refused), f"{sum(map(len, runs)):,} read, {len(answer.fleet.refused):,} left out"),
    }
    count, text = asked[area]
    if not count and not found:
        none = {"missing": "nobody is expected; --expect=FILE names them", "history": "there are no earlier runs"}
        return NONE, none.get(area, "nothing was compared")
    words: Mapping[Status, str] = {"FAIL": "failed", "INCONCLUSIVE": "inconclusive"}
    parts = [f"{counts[state]:,} {word}" for state, word in words.items() if counts[state]]
    return status, "; ".join(filter(None, (text, ", ".join(parts))))


def _of_cohorts(cohorts: Sequence[object]) -> str:
    return f"{len(cohorts):,} group{'s' * (len(cohorts) != 1)} of devices that must be equal"


class Todo(NamedTuple):
    """One thing to do, or to know, and the findings that it stands for."""

    findings: Sequence[FleetFinding]

    @property
    def status(self) -> Status:
        """The worst of the findings'."""
        return worst_status(each.status for each in self.findings)

    @property
    def title(self) -> str:
        """What it is about: areas, and the device, the group, or the number of nodes."""
        areas = ", ".join(dict.fromkeys(AREAS[each.area][1] for each in self.findings))
        wheres = list(dict.fromkeys(_where(each) for each in self.findings))
        if len(wheres) == 1:
            return f"{wheres[0]}: {areas}" if wheres[0] else areas[:1].upper() + areas[1:]
        nodes = {each.node for each in self.findings if each.node}
        return f"{len(nodes):,} nodes: {areas}" if len(nodes) > 1 else f"{', '.join(nodes)} {areas}: {len(self.findings)} findings".lstrip()

    @property
    def nodes(self) -> str:
        """The nodes, folded; empty where the title names them."""
        nodes = {each.node for each in self.findings if each.node}
        return names_in_words(nodes, 40) if len(nodes) > 1 else ""


def _where(finding: FleetFinding) -> str:
    return f"{finding.node} {finding.device}".strip() or finding.group


def todo(answer: FleetAnswer) -> list[Todo]:
    """Return what isn't well, the worst first, each distinct thing once: findings by their fix, or else their message."""
    kept: defaultdict[tuple[str, ...], list[FleetFinding]] = defaultdict(list)
    for each in answer.findings:
        if each.status != "PASS":
            key = ("", _anywhere(each.fix, each)) if each.fix else (each.area, _anywhere(each.message, each))
            kept[(*key, each.group if _of_a_group(each) else "")].append(each)
    return sorted(map(Todo, kept.values()), key=lambda each: (each.status != "FAIL", not _of_a_group(each.findings[0])))


def _anywhere(text: str, finding: FleetFinding) -> str:
    """Return a text without the node's and the device's name: what differs in these alone is the same."""
    for name in filter(None, (finding.node, finding.device)):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "", text)
    return text


def finding_table(findings: Sequence[FleetFinding]) -> TextTable:
    """Return a row per finding of the first `MAX_ROWS`; a column that has nothing to add is left out."""
    shown = findings[:MAX_ROWS]
    columns: dict[str, list[str]] = {
        "node": [each.node or each.group or NONE for each in shown],
        "device": [each.device or NONE for each in shown],
        "case": [wording.label(each.case) if each.case else NONE for each in shown],
        "finding": [short(each.message, "fleet.json") for each in shown],
        "evidence": [short(each.evidence, "fleet.json") or NONE for each in shown],
    }
    known = {name: column for name, column in columns.items() if name == "node" or set(column) - {NONE}}
    return TextTable(tuple(known), list(zip(*known.values(), strict=True)))


class _Cell(NamedTuple):
    kind: str  # of `pictures.GLYPHS`
    status: Status | None
    text: str
    device: str


class _Row(NamedTuple):
    node: str
    status: Status
    bits: str
    cells: list[_Cell]

    @classmethod
    def of(cls, answer: FleetAnswer, grid: pictures.Grid, kinds: NDArray[np.int8], row: int) -> "_Row":
        node = grid.nodes[row]
        cells = []
        for column, kind in enumerate(list(pictures.GLYPHS)[place] for place in kinds[row, :MAX_CASES]):
            state, ratio = int(grid.statuses[row, column]), grid.ratios[row, column]
            status = pictures.STATUSES[state] if state > 0 else None
            text = NONE if ratio != ratio else f"{ratio:.2f}" if ratio < MAX_VALUES * 1000 else f"{ratio:.0e}"
            device = grid.devices[row][column] if status and _several(answer, node) else ""
            cells.append(_Cell(kind, status, text, device))
        return cls(node, answer.nodes[node], _bits_of(answer, node), cells)


def _several(answer: FleetAnswer, node: str) -> bool:
    return len(answer.fleet.runs[node][-1].devices) > 1 if node in answer.fleet.runs else False


def _bits_of(answer: FleetAnswer, node: str) -> str:
    found = [each.status for each in answer.of_node(node) if each.area == "bits"]
    there = any(node == member for each in answer.cohorts if each.what == "bits" for member, _ in each.members)
    return worst_status(["PASS", *found]) if found or there else NONE


def _worst_rows(grid: pictures.Grid, answer: FleetAnswer) -> list[int]:
    """Return the nodes' places, the worst first: by verdict, then by the largest ratio, then by name."""

    def key(row: int) -> tuple[int, int, float, list[tuple[int, str]]]:
        state, ratio = grid.worst_of(row)
        rank = pictures.STATUSES.index
        return -rank(answer.nodes[grid.nodes[row]]), -rank(state), -ratio if ratio == ratio else 0.0, by_number(grid.nodes[row])

    return sorted(range(len(grid.nodes)), key=key)


def cohort_table(answer: FleetAnswer) -> TextTable:
    """Return a row per cohort, the worst first."""
    rank = pictures.STATUSES.index
    cohorts = sorted(answer.cohorts, key=lambda each: (-rank(each.status), each.what, -len(each.members)))
    rows = [
        (each.name, each.what, f"{len(each.members):,}", str(each.status), short(each.message, "fleet.json"))
        for each in cohorts
    ]
    return TextTable(("compared with each other", "verdict of", "count", "verdict", "answer"), rows)


def inventory_table(answer: FleetAnswer) -> TextTable:
    """Return a row per fact that isn't the same on all nodes: what most have, and who has what else."""
    values: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for run in answer.fleet.current:
        for name, value in _facts_of(run).items():
            values[name][value].append(run.node)
    rows = []
    for name, by_value in values.items():
        (most, nodes), *others = sorted(by_value.items(), key=lambda item: -len(item[1]))
        if not others:
            continue
        if len(by_value) > MAX_VALUES:
            rows.append((name, f"{len(by_value):,} different values", NONE))
            continue
        listed = "; ".join(f"{value or 'none'}: {names_in_words(own)}" for value, own in others)
        rows.append((name, f"{most or 'none'} ({len(nodes):,} nodes)", short(listed, "fleet.json")))
    return TextTable(("what", "most", "others"), sorted(rows, key=lambda row: row[2] == NONE))


def _facts_of(run: FleetRun) -> dict[str, str]:
    """Return what is known of a node and of its devices, each name once; what is each one's own, as a serial, isn't."""
    found = {"alexnet-repro": run.version, **{name: value for name, value in run.machine.items() if name != "id"}}
    names = dict.fromkeys(name for each in run.devices for name in each.inventory if name not in ("serial", "uuid", "pci"))
    found["devices"] = _joined(each.kind for each in run.devices)
    for name in names:
        found[f"device {name}".replace("_", " ")] = _joined(each.inventory[name] for each in run.devices if name in each.inventory)
    return found


def _joined(values: Iterable[str]) -> str:
    counted = Counter(values)
    return ", ".join(value if len(counted) == 1 else f"{count} × {value}" for value, count in sorted(counted.items()))


def refused_table(answer: FleetAnswer) -> TextTable:
    """Return a row per reason, with the files that are left out for it."""
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for each in answer.fleet.refused:
        reasons[each.why.replace(each.path, "it")].append(each.path)
    rows = []
    for why, paths in sorted(reasons.items(), key=lambda item: -len(item[1])):
        more = f", and {len(paths) - MAX_VALUES:,} more" if len(paths) > MAX_VALUES else ""
        rows.append((short(why, "fleet.json"), f"{len(paths):,}", short(", ".join(paths[:MAX_VALUES]), "fleet.json") + more))
    return TextTable(("why", "count", "paths"), rows)
