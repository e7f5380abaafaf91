"""Who wasn't heard of, who is behind, and what is other than on most nodes: software, firmware, GPUs and their errors.

What is other is no fault by itself, and is PASS: where it keeps bits or speed from being compared, they say so.
"""

import csv
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from alexnet_repro.fleet.node_names import MAX_NAMES, unfolded_names
from alexnet_repro.fleet.presence import judge_presence
from alexnet_repro.fleet.records import Fleet, FleetFinding, FleetRun, FleetSettings
from alexnet_repro.fleet.texts import printable
from alexnet_repro.verify.report.run_record import LARGEST_RESULTS

NODE_COLUMNS = {"node", "nodes", "nodename", "host", "hostname", "name"}  # what the first column of a table is called
NEWEST = 4  # a quarter of the nodes ran as late: what the others are beside
MOST = 2 / 3  # of the nodes: what they have is what the others don't
MAJORITY_NODES = 3
MANY_ERRORS = 100  # corrected ones: a few are what the correction is for
TIMES_OTHERS = 10
IDS = {"id", "id_source", "machine_id"}
OWN_FACTS = {*IDS, "system", "cpu"}  # each node's own, or in other words what `kernel` and the device say
DEVICE_FACTS = ("driver", "firmware", "board", "memory", "power_limit", "pcie_generation_max", "pcie_width_max", "mig")
SAY_WHERE = "name it there by ALEXNET_REPRO_NODE, and move the other machine's files out of the folder"
LIST_IT = "add it to the list of expected nodes, or move its results elsewhere"
RUN_THERE = "see whether it runs, and verify it: python -m alexnet_repro verify"


class NoColumnError(ValueError):
    """No node has a column of this name."""


def read_nodes(path: Path) -> dict[str, dict[str, str]]:
    """Return the columns of each node in a file: one node a line, or a table whose first column is the node.

    `#` begins a comment. A table is CSV, and its first line has the columns' names, as `node,rack,switch`, of which the
    first is one of `NODE_COLUMNS`. Nodes may be folded, as `n[01-12,15]`. OSError: it can't be read, or names no node,
    one twice, a column twice, or no columns.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_RESULTS + 1)
        if len(content) > LARGEST_RESULTS:
            raise ValueError(f"it has more than {LARGEST_RESULTS:,} bytes")  # noqa: TRY301 - as for what is in it
        lines = [line for each in content.decode("utf-8-sig").splitlines() if (line := each.partition("#")[0].strip())]
        return _nodes_of(lines)
    except UnicodeDecodeError as error:
        raise OSError(f"{path} isn't text in UTF-8") from error
    except (ValueError, csv.Error) as error:
        raise OSError(f"{path}: {error}") from error
    except OSError as error:
        raise OSError(f"{path} can't be read: {error.strerror}") from error


def _nodes_of(lines: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the columns of each node; ValueError: why there are none."""
    head, *rows = list(csv.reader(lines)) or [[]]
    head = [printable(cell) for cell in head]
    if not head or head[0].lower() not in NODE_COLUMNS:
        if len(lines) > 1 and any("," in line for line in lines) and not any("[" in line for line in lines):
            raise ValueError(f"its first line must name the columns, as node,rack, and is {','.join(head)}")
        head, rows = ["node"], [[line] for line in lines]  # as Slurm lists them: n1,n2 in one line, or n[1-2]
    if len(set(head)) < len(head):
        raise ValueError(f"a column is in it twice: {', '.join(head)}")
    nodes: dict[str, dict[str, str]] = {}
    for row in rows:
        names = _names_in(row[0]) if row else []
        if not names or len(row) > len(head):
            raise ValueError(f"{', '.join(names) or 'a node'} has more cells than there are columns, or no name")
        for node in names:
            if not node or node in nodes:
                raise ValueError(f"{node} is in it twice" if node else "a node has no name")
            nodes[node] = {
                name: text for name, cell in zip(head[1:], row[1:], strict=False) if (text := printable(cell))
            }
        if len(nodes) > MAX_NAMES:
            raise ValueError(f"it names more than {MAX_NAMES:,} nodes")
    if not nodes:
        raise ValueError("it names no node; write one a line")
    return nodes


def _names_in(folded: str) -> list[str]:
    try:
        return [printable(name) for name in unfolded_names(folded)]
    except ValueError as error:
        raise ValueError(f"{printable(folded)} {error}") from error


def settings_for(
    fleet: Fleet, listed: Mapping[str, Mapping[str, str]], by: Sequence[str] = (), **usual: Any
) -> FleetSettings:
    """Return the settings of a fleet of which a file lists nodes and columns; NoColumnError: `by` isn't a column.

    `usual` are other fields of `FleetSettings`; None is what they usually are.
    """
    names = _by_expected(list(listed), list(fleet.runs))
    columns: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for run in fleet.current:
        for column, value in _facts_of(run):
            columns[column][run.node] = value
    for node, own in listed.items():
        for column, value in own.items():
            columns[column][names.get(node, node)] = value
    asked = tuple(each.replace(".", " ") if each.replace(".", " ") in columns else each for each in by)
    if unknown := [each for each in asked if each not in columns]:
        known = ", ".join(sorted(name for name, values in columns.items() if len(set(values.values())) > 1))
        raise NoColumnError(f"no node has a column {unknown[0]!r}; columns by which nodes differ: {known or 'none'}")
    kept = {name: each for name, each in columns.items() if name in asked or len(set(each.values())) > 1}
    expected = tuple(names.get(node, node) for node in listed)
    return FleetSettings(expected, kept, asked, **{name: each for name, each in usual.items() if each is not None})


def _by_expected(expected: Sequence[str], heard: Sequence[str]) -> dict[str, str]:
    """Return the name under which each expected node was heard of: its own, or one with or without the domain."""
    own = set(heard)
    found = {node: node for node in expected if node in own}
    short: defaultdict[str, list[str]] = defaultdict(list)
    for node in own.difference(found):
        short[_short(node)].append(node)
    wanted = Counter(map(_short, expected))
    for node in expected:
        several = short.get(_short(node), [])
        if node not in found and len(several) == 1 and wanted[_short(node)] == 1 and _same_host(node, several[0]):
            found[node] = several[0]
    return found


def _short(node: str) -> str:
    host = node.partition(".")[0]
    return node if host.isdigit() else host.lower()  # an address has no short form


def _same_host(node: str, other: str) -> bool:
    """Return whether the names differ by a domain that one of them leaves out, or by capitals."""
    return node.lower() == other.lower() or "." not in node or "." not in other


def _facts_of(run: FleetRun) -> Iterator[tuple[str, str]]:
    """Yield what is known of a node, as column and value; of its devices, where all have the same."""
    yield from ((name, value) for name, value in run.machine.items() if name not in IDS)
    yield "version", run.version
    yield "level", run.level
    for name in DEVICE_FACTS:
        if len(values := {each.inventory[name] for each in run.devices if name in each.inventory}) == 1:
            yield name, values.pop()


def expected_part(fleet: Fleet, settings: FleetSettings) -> tuple[Fleet, list[FleetFinding]]:
    """Return the fleet without nodes that aren't expected, with findings of these, and of those that are missing."""
    if not settings.expected:
        return fleet, []
    wanted = set(settings.expected)
    nodes = {node: runs for node, runs in fleet.runs.items() if fleet.names.get(node, node) in wanted}
    unexpected = [
        FleetFinding("inventory", "INCONCLUSIVE", "has results, isn't expected, and wasn't judged", node, fix=LIST_IT)
        for node in fleet.runs
        if node not in nodes
    ]
    missing = [
        FleetFinding("missing", "INCONCLUSIVE", "expected, and not heard of", node, fix=RUN_THERE)
        for node in settings.expected
        if node not in nodes
    ]
    return replace(fleet, runs=nodes), [*missing, *unexpected]


def judge_inventory(fleet: Fleet, settings: FleetSettings | None = None) -> list[FleetFinding]:
    """Return what is other than on most nodes, which runs are old, which GPUs have gone, and which have errors."""
    old = _behind(fleet, (settings or FleetSettings()).max_age)
    return [*old, *_rivals(fleet), *_other_facts(fleet), *_errors(fleet), *judge_presence(fleet)]


def _behind(fleet: Fleet, max_age: timedelta) -> Iterator[FleetFinding]:
    """Yield the nodes that weren't heard of lately, beside the newest quarter of the nodes, whatever the day is now."""
    newest = sorted((run.started for run in fleet.current), reverse=True)
    for run in fleet.current:
        lately = newest[(len(newest) - 1) // NEWEST]
        if lately - run.started > max_age:
            message = f"its newest run is of {run.started:%Y-%m-%d %H:%M}, others' of {lately:%Y-%m-%d %H:%M} UTC"
            fix = f"{RUN_THERE}, or allow older runs: --max-age=TIME"
            yield FleetFinding("missing", "INCONCLUSIVE", message, run.node, fix=fix)


def _rivals(fleet: Fleet) -> Iterator[FleetFinding]:
    """Yield a finding of each machine that has the name of another one."""
    for node, name in fleet.names.items():
        if node in fleet.runs:
            message = f"another machine is called {name} as well"
            yield FleetFinding("inventory", "INCONCLUSIVE", message, node, fix=SAY_WHERE)


def _other_facts(fleet: Fleet) -> Iterator[FleetFinding]:
    """Yield what a node has otherwise than most nodes, and a device otherwise than most of its kind."""
    of_nodes = {
        (run.node, ""): {k: v for k, v in _node_facts(run).items() if k not in OWN_FACTS} for run in fleet.current
    }
    yield from _others(of_nodes, "nodes")
    of_kinds: defaultdict[str, dict[tuple[str, str], dict[str, str]]] = defaultdict(dict)
    for run in fleet.current:
        for each in run.devices:
            facts = {name: each.inventory[name] for name in DEVICE_FACTS if name in each.inventory}
            of_kinds[each.kind][run.node, each.name] = facts
    for kind, own in of_kinds.items():
        yield from _others(own, f"devices, {kind}")


def _node_facts(run: FleetRun) -> dict[str, str]:
    shared = {name: text for name, text in run.machine.items() if name not in OWN_FACTS}
    return {**shared, "alexnet-repro": run.version}


def _others(facts: Mapping[tuple[str, str], Mapping[str, str]], of: str) -> Iterator[FleetFinding]:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    names = dict.fromkeys(name for own in facts.values() for name in own)
    for own in facts.values():
        for name in names:
            counts[name][own.get(name, "")] += 1
    usual = {
        name: value
        for name, each in counts.items()
        for value, count in each.most_common(1)
        if count < len(facts) and count >= MAJORITY_NODES and count >= MOST * len(facts)
    }
    for (node, device), own in facts.items():
        texts = [
            f"{name.replace('_', ' ')} {own.get(name) or 'none'}, the others {value or 'none'}"
            for name, value in usual.items()
            if own.get(name, "") != value
        ]
        if texts:
            message = f"{'; '.join(texts[:4])}{f'; {len(texts) - 4} more' if len(texts) > 4 else ''}"  # noqa: PLR2004
            yield FleetFinding("inventory", "PASS", message, node, device, evidence=f"beside {len(facts)} {of}")


def _errors(fleet: Fleet) -> Iterator[FleetFinding]:
    """Yield the devices with many more corrected memory errors than others of their kind."""
    of_kinds: defaultdict[str, list[tuple[int, str, str]]] = defaultdict(list)
    for run in fleet.current:
        for each in run.devices:
            if (errors := each.inventory.get("ecc_corrected", "")).isdecimal():
                of_kinds[each.kind].append((int(errors), run.node, each.name))
    for counted in of_kinds.values():
        usual = statistics.median(count for count, *_ in counted)
        for number, node, device in counted:
            if len(counted) >= MAJORITY_NODES and number >= MANY_ERRORS and number > TIMES_OTHERS * usual:
                message = f"{number:,} corrected memory errors, the others {usual:,.0f}"
                fix = "see whether they go on: nvidia-smi -q -d ECC,ROW_REMAPPER; then have it replaced"
                yield FleetFinding("health", "INCONCLUSIVE", message, node, device, fix=fix)
