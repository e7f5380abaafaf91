"""A fleet in a few words: the sentence of the whole, and what is to do."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from alexnet_repro.fleet.node_names import names_in_words
from alexnet_repro.fleet.records import Area, FleetAnswer, FleetFinding
from alexnet_repro.verify.finding import Status, worst_status

STATUS_WORDS: Mapping[Status, str] = {"FAIL": "failed", "INCONCLUSIVE": "inconclusive", "PASS": "passed"}
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


def fleet_headline(answer: FleetAnswer) -> str:
    """Return what the verdict says, in two sentences that claim no more than what was compared."""
    verdicts = answer.nodes
    if not verdicts:
        return "No node was heard of: no results file could be read."
    groups = dict.fromkeys(each.group for each in answer.findings if each.nodes and each.status == "FAIL")
    parts = [f"{names_in_words(groups, 3)} is slow as a whole"] if groups else []
    for status, word in STATUS_WORDS.items():
        if own := [node for node, each in verdicts.items() if each == status]:
            which = "" if status == "PASS" else f" ({names_in_words(own, 4)})"
            count = "all" if len(own) == len(verdicts) > 1 else f"{len(own):,} of"
            parts.append(f"{count} {len(verdicts):,} node{'s' * (len(verdicts) > 1)} {word}{which}")
    strangers = [each for each in answer.findings if each.node and each.node not in verdicts]
    if strangers:
        parts.append(f"{names_in_words((each.node for each in strangers), 4)} not expected, and not judged")
    whole = [each for each in answer.findings if not each.node and not each.nodes]
    areas = {
        status: dict.fromkeys(AREAS[each.area][1] for each in whole if each.status == status) for status in STATUS_WORDS
    }
    about = [f"{' and '.join(own)} {STATUS_WORDS[status]}" for status, own in areas.items() if own and status != "PASS"]
    parts += [f"of the fleet as a whole, {', '.join(about)}"] if about else []
    compared = {what: compared_devices(answer, what) for what in ("bits", "speed")}
    among = [f"{what} among {devices:,} devices" for what, devices in compared.items() if devices]
    among += [f"{what} of none" for what, devices in compared.items() if not devices]
    text = "; ".join(parts)
    return f"{text if groups else text[:1].upper() + text[1:]}. Compared: {', '.join(among)}."


def compared_devices(answer: FleetAnswer, what: str) -> int:
    """Return how many devices are in a cohort with others, of bits or of speed."""
    several = [each.members for each in answer.cohorts if each.what == what and len(each.members) > 1]
    return len({member for members in several for member in members})


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
        return (
            f"{len(nodes):,} nodes: {areas}"
            if len(nodes) > 1
            else f"{', '.join(nodes)} {areas}: {len(self.findings)} findings".lstrip()
        )

    @property
    def nodes(self) -> str:
        """The nodes, folded; empty where the title names them."""
        nodes = {each.node for each in self.findings if each.node}
        return names_in_words(nodes, 100) if len(nodes) > 1 else ""


def _where(finding: FleetFinding) -> str:
    return f"{finding.node} {finding.device}".strip() or finding.group


def todo(answer: FleetAnswer) -> list[Todo]:
    """Return failures and inconclusive findings, each thing once: findings by their fix, or else their message."""
    kept: defaultdict[tuple[str, ...], list[FleetFinding]] = defaultdict(list)
    for each in answer.findings:
        if each.status != "PASS":
            key = ("", _anywhere(each.fix, each)) if each.fix else (each.area, _anywhere(each.message, each))
            kept[(*key, each.group if each.nodes else "")].append(each)
    return sorted(map(Todo, kept.values()), key=lambda each: (each.status != "FAIL", not each.findings[0].nodes))


def _anywhere(text: str, finding: FleetFinding) -> str:
    """Return a text without the node's and the device's name: what differs in these alone is the same."""
    for name in filter(None, (finding.node, finding.device)):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "", text)
    return text
