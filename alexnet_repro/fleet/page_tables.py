"""The tables of a fleet's page."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from alexnet_repro.fleet.node_names import names_in_words
from alexnet_repro.fleet.records import STATUS_CODES, Area, Cohort, FleetAnswer, FleetFinding, FleetRun
from alexnet_repro.fleet.summary import AREAS, STATUS_WORDS
from alexnet_repro.verify.finding import worst_status
from alexnet_repro.verify.report import text as wording
from alexnet_repro.verify.report.cards import MAX_ROWS
from alexnet_repro.verify.report.cards import short as shortened
from alexnet_repro.verify.report.tables import TextTable
from alexnet_repro.verify.report.text import NONE, percent

HEALTH = {"ecc_corrected", "ecc_uncorrected", "remapped_rows", "retired_pages"}
MAX_VALUES = 12  # of a kind that are named


def _short(text: str) -> str:
    return shortened(text, "fleet.json")


def fleet_facts(answer: FleetAnswer) -> list[tuple[str, str]]:
    """Return what the fleet is made of, when it ran, and how it was judged."""
    runs, settings = answer.fleet.current, answer.settings
    kinds = Counter(each.kind for run in runs for each in run.devices)
    days = sorted(run.started for run in runs)
    versions = Counter(run.version for run in runs if run.version)
    known = {
        "Devices": ", ".join(f"{count:,} × {kind}" for kind, count in kinds.most_common(MAX_VALUES)),
        "Runs": " to ".join(dict.fromkeys(each.isoformat(" ", "minutes") for each in days[:: max(1, len(days) - 1)])),
        "Software": ", ".join(f"alexnet-repro {version}" for version, _ in versions.most_common(MAX_VALUES)),
        "Judged": f"slow is what takes over {percent(settings.tolerance, 1)} longer than the others, beyond noise; of "
        f"sound fleets, at most {percent(settings.false_alarms, 1)} fail by chance",
    }
    return [(name, _short(value)) for name, value in known.items() if value]


def verdict_table(answer: FleetAnswer) -> TextTable:
    """Return a row per verdict with its nodes; the worst first."""
    verdicts = answer.nodes
    by_status = {status: [node for node, each in verdicts.items() if each == status] for status in STATUS_WORDS}
    rows = [
        (str(status), f"{len(own):,}", names_in_words(own, MAX_VALUES if status == "PASS" else MAX_ROWS))
        for status, own in by_status.items()
        if own
    ]
    return TextTable(("verdict", "count", "nodes"), rows)


def questions(answer: FleetAnswer) -> list[tuple[str, str, str]]:
    """Return the questions to a fleet, each with verdict and answer; what wasn't asked, or compared, has no verdict."""
    return [(AREAS[area][0], *_answered(answer, area)) for area in AREAS]


def _answered(answer: FleetAnswer, area: Area) -> tuple[str, str]:
    """Return verdict and answer to a question."""
    found = Counter(each.status for each in answer.findings if each.area == area)
    cohorts = sorted((each for each in answer.cohorts if each.what == area), key=_worst_first)
    counts = ", ".join(
        f"{found[status]:,} {word}" for status, word in STATUS_WORDS.items() if found[status] and status != "PASS"
    )
    runs, refused = answer.fleet.runs, len(answer.fleet.refused)
    earlier, expected = sum(len(each) > 1 for each in runs.values()), len(answer.settings.expected)
    of_nodes = f"{len(runs):,} node{'s' * (len(runs) != 1)}"
    newest = f"; newest run {max(run.started for run in answer.fleet.current):%Y-%m-%d %H:%M} UTC" if runs else ""
    others = len(cohorts) - 1
    more = f"; {others:,} other group{'s' * (others > 1)}" if others > 0 else ""
    counted = sum(any(HEALTH & set(each.inventory) for each in own[-1].devices) for own in runs.values())
    answers: Mapping[Area, str] = {  # empty: nothing to ask
        "own": f"{of_nodes}{newest}" if runs else "",
        "bits": f"{cohorts[0].message}{more}" if cohorts else "",
        "speed": f"{cohorts[0].message}{more}" if cohorts else "",
        "history": f"{earlier:,} of {of_nodes} with earlier runs" if earlier else "",
        "health": f"{counted:,} of {of_nodes} with devices that count errors" if counted else "",
        "missing": f"{expected:,} expected" if expected else "",
        "files": f"{sum(map(len, runs.values())):,} read, {refused:,} left out" if runs or refused else "",
    }
    text = answers.get(area, of_nodes if runs else "")
    if not text and not found:
        none: Mapping[Area, str] = {
            "health": "no device counts errors",
            "history": "no node has an earlier run",
            "missing": "nobody is expected; --expect=FILE names them",
        }
        return NONE, none.get(area, "nothing to compare")
    status = worst_status(["PASS", *found, *(each.status for each in cohorts)])
    return status, _short("; ".join(filter(None, (text, counts))))


def _worst_first(cohort: Cohort) -> tuple[int, str, int, str]:
    return -STATUS_CODES.index(cohort.status), cohort.what, -len(cohort.members), cohort.name


def finding_table(findings: Sequence[FleetFinding]) -> TextTable:
    """Return a row per finding of the first `MAX_ROWS`; a column that has nothing to add is left out."""
    shown = findings[:MAX_ROWS]
    columns: dict[str, list[str]] = {
        "node": [each.node or each.group or NONE for each in shown],
        "device": [each.device or NONE for each in shown],
        "case": [wording.label(each.case) if each.case else NONE for each in shown],
        "finding": [_short(each.message) for each in shown],
        "evidence": [_short(each.evidence) or NONE for each in shown],
    }
    known = {name: column for name, column in columns.items() if name == "node" or set(column) - {NONE}}
    return TextTable(tuple(known), list(zip(*known.values(), strict=True)))


def cohort_table(answer: FleetAnswer) -> TextTable:
    """Return a row per cohort, the worst first."""
    cohorts = sorted(answer.cohorts, key=_worst_first)
    rows = [
        (_short(each.name), str(each.status), each.what, f"{len(each.members):,}", _short(each.message))
        for each in cohorts
    ]
    return TextTable(("group", "verdict", "what", "count", "answer"), rows)


def notes_table(answer: FleetAnswer) -> TextTable:
    """Return a row per thing that is worth knowing and no fault, with its nodes; what most nodes have comes first."""
    nodes: defaultdict[str, set[str]] = defaultdict(set)
    for each in answer.findings:
        if each.status == "PASS":
            nodes[each.message].add(each.node)
    ordered = sorted(nodes.items(), key=lambda item: -len(item[1]))
    rows = [(_short(message), names_in_words(filter(None, whose)) or NONE) for message, whose in ordered]
    return TextTable(("what", "nodes"), rows)


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
        rows.append((name, f"{most or 'none'} ({len(nodes):,} nodes)", _short(listed)))
    return TextTable(("what", "most", "others"), sorted(rows, key=lambda row: row[2] == NONE))


def _facts_of(run: FleetRun) -> dict[str, str]:
    """Return what is known of a node and of its devices, each name once; what is each one's own, as a serial, isn't."""
    found = {"alexnet-repro": run.version, **{name: value for name, value in run.machine.items() if name != "id"}}
    names = dict.fromkeys(
        name for each in run.devices for name in each.inventory if name not in ("serial", "uuid", "pci")
    )
    found["devices"] = _joined(each.kind for each in run.devices)
    for name in names:
        found[f"device {name}".replace("_", " ")] = _joined(
            each.inventory[name] for each in run.devices if name in each.inventory
        )
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
        rows.append((_short(why), f"{len(paths):,}", _short(", ".join(paths[:MAX_VALUES])) + more))
    return TextTable(("why", "count", "paths"), rows)
