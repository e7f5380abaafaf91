"""The bits of a fleet's train steps: who differs from a majority, and who from its own earlier runs.

A node has one vote, split among its devices. A majority holds at least two thirds of the votes, with at least three
devices: of fewer, nobody knows which of two is wrong.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from alexnet_repro.fleet.records import Cohort, Fleet, FleetDevice, FleetFinding, FleetRun, FleetSettings
from alexnet_repro.fleet.texts import printable
from alexnet_repro.verify.finding import DIVERGENCE_FIX

MAJORITY = 2 / 3
MIN_DEVICES = 3
ROUNDING = 1e-9
MORE = "verify at least three machines of this kind with the same software; then run fleet again"
REPAIRED = (
    "if it was repaired, move its earlier results elsewhere; if not, stress it for hours: "
    "python -m alexnet_repro verify --burn-in=8h"
)
MAX_DIFFERENCES = 3  # that are written out


class _Member(NamedTuple):
    """A device in a cohort."""

    node: str
    device: str
    steps: tuple[str, ...]
    votes: bool  # not of a run that ended early
    voter: str  # whose vote it is a share of: the node's, or that of several of one name


class _Key(NamedTuple):
    """What devices have in common that must compute the same bits."""

    kind: str
    environment: str
    version: str  # of this package
    check: str  # and its precision


class _Difference(NamedTuple):
    """Where a device first differs: in which step, from 1, from which one, and how many devices agree on that."""

    step: int
    own: str
    other: str
    agree: int
    of: int


@dataclass(frozen=True)
class _Judged:
    """What became of a cohort."""

    different: Mapping[_Member, _Difference]
    undecided: Mapping[_Member, str]  # and why


def judge_bits(fleet: Fleet, settings: FleetSettings) -> tuple[list[Cohort], list[FleetFinding]]:
    """Return the cohorts of the current runs, and a finding of each device that differs or can't be judged."""
    del settings  # bits have no tolerance
    cohorts, found = [], _Found()
    majorities: dict[_Key, set[tuple[str, str]]] = {}
    members = _members(fleet)
    largest = _largest(members)
    for key, own in members.items():
        judged = _judge(own)
        other = next((each for each in largest[key.kind, key.check] if each != key), None)
        name = _name(key, other, members, fleet)
        alone = len({each.node for each in own}) == 1 and not judged.different
        why_alone = _alone(key, other, fleet) if alone else ""
        for each in own:
            if difference := judged.different.get(each):
                found.failed(each, key, name, _differs(key.check, difference, fleet), difference)
            elif alone:
                found.undecided(each, name, why_alone)
            elif why := judged.undecided.get(each):
                found.undecided(each, name, why)
            else:
                majorities.setdefault(key, set()).add((each.node, each.device))
        cohorts.append(_cohort(key, own, name, judged, alone=alone))
    findings = [*found.findings(), *_against_earlier(fleet, majorities), *_unrecorded(fleet)]
    return cohorts, findings


def _members(fleet: Fleet) -> dict[_Key, list[_Member]]:
    members: defaultdict[_Key, list[_Member]] = defaultdict(list)
    for run in fleet.current:
        voter = fleet.names.get(run.node, run.node)
        for device in run.devices:
            for key, steps in _replays(run, device):
                members[key].append(_Member(run.node, device.name, steps, run.complete, voter))
    return members


def _replays(run: FleetRun, device: FleetDevice) -> Iterator[tuple[_Key, tuple[str, ...]]]:
    if device.bits:
        for check, steps in device.replays.items():
            if steps:
                yield _Key(device.kind, device.bits, run.version, check), steps


def _judge(members: Sequence[_Member]) -> _Judged:
    """Compare the members step by step; what a replay has beyond another's steps is compared among those that have it.

    A later step is made from what an earlier one has changed: where devices agree on all steps that both have, the
    votes of the first step stand for them.
    """
    voters = Counter(each.voter for each in members if each.votes)
    different: dict[_Member, _Difference] = {}
    undecided: dict[_Member, str] = {}
    for step in range(max(len(each.steps) for each in members)):
        those = [each for each in members if len(each.steps) > step]
        hashes = {each.steps[step] for each in those}
        if step and len(hashes) == 1:
            continue
        shares: defaultdict[str, float] = defaultdict(float)
        devices: Counter[str] = Counter()
        for each in those:
            if each.votes:
                shares[each.steps[step]] += 1 / voters[each.voter]
                devices[each.steps[step]] += 1
        most, share = max(shares.items(), key=lambda item: item[1], default=("", 0.0))
        total = sum(shares.values())
        if devices[most] >= MIN_DEVICES and share >= MAJORITY * total - ROUNDING:
            agree = sum(each.steps[step] == most for each in those)
            for each in those:
                if each.steps[step] != most and each not in different:
                    different[each] = _Difference(step + 1, each.steps[step], most, agree, len(those))
            continue
        why = _no_majority(len(hashes), devices[most], share, total)
        undecided.update({each: why for each in those if each not in different and each not in undecided})
    return _Judged(different, undecided)


def _no_majority(kinds: int, devices: int, share: float, total: float) -> str:
    if kinds == 1:
        return f"{_devices(devices)} with the same bits, and a majority takes {MIN_DEVICES}"
    most = f"the most that agree are {_devices(devices)}, {share / total:.0%} of the votes" if total else "no vote"
    return f"{kinds} different results and no majority of two thirds: {most}"


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count:,} devices"


def _differs(check: str, difference: _Difference, fleet: Fleet) -> str:
    what, _ = _first(difference, fleet)
    return f"{check}: from step {difference.step} the {what} from {difference.agree:,} of {difference.of:,} devices"


def _first(difference: _Difference, fleet: Fleet) -> tuple[str, str]:
    """Return what of a step first differs, the last layer first as gradients flow, and its digest beside the other."""
    own, other = fleet.steps.get(difference.own, {}), fleet.steps.get(difference.other, {})
    for name, digest in other.items():
        if own.get(name) != digest:
            return f"{name} differs", f"{own.get(name, 'none')[:20]} instead of {digest[:20]}"
    return "bits differ", ""


class _Found:
    """Findings by device: the first check that differs, and in which others it is the same."""

    def __init__(self) -> None:
        """Begin with none."""
        self._failed: defaultdict[tuple[str, str], list[tuple[_Key, str, str, _Difference]]] = defaultdict(list)
        self._undecided: dict[tuple[str, str], tuple[str, str]] = {}

    def failed(self, member: _Member, key: _Key, name: str, message: str, difference: _Difference) -> None:
        """Add a device that differs from a majority."""
        self._failed[member.node, member.device].append((key, name, message, difference))

    def undecided(self, member: _Member, name: str, why: str) -> None:
        """Add a device that can't be judged."""
        self._undecided.setdefault((member.node, member.device), (name, why))

    def findings(self) -> Iterator[FleetFinding]:
        """Yield one finding of each device."""
        for (node, device), found in self._failed.items():
            _, name, message, difference = found[0]
            others = [key.check for key, *_ in found[1:]]
            evidence = f"so in {', '.join(others)}" if others else ""
            data = {"step": difference.step, "check": found[0][0].check}
            yield FleetFinding("bits", "FAIL", message, node, device, name, evidence, DIVERGENCE_FIX, data=data)
        for (node, device), (name, why) in self._undecided.items():
            if (node, device) not in self._failed:
                yield FleetFinding("bits", "INCONCLUSIVE", why, node, device, name, fix=MORE)


def _cohort(key: _Key, members: Sequence[_Member], name: str, judged: _Judged, *, alone: bool) -> Cohort:
    whose = tuple((each.node, each.device) for each in members)
    if judged.different:
        first = next(iter(judged.different))
        more = len(judged.different) - 1
        who = (
            f"{first.node} {first.device} differs"
            if not more
            else f"{first.node} {first.device} and {more} more differ"
        )
        message = f"{len(members) - more - 1:,} of {len(members):,} devices have the same bits; {who}"
        return Cohort(name, "bits", key.environment, whose, "FAIL", message)
    if judged.undecided or alone:
        why = "the devices of one node, which nobody is like" if alone else next(iter(judged.undecided.values()))
        return Cohort(name, "bits", key.environment, whose, "INCONCLUSIVE", why)
    return Cohort(name, "bits", key.environment, whose, "PASS", f"{len(members):,} devices have the same bits")


def _name(key: _Key, other: _Key | None, members: Mapping[_Key, Sequence[_Member]], fleet: Fleet) -> str:
    """Return a cohort's name: kind and check, and where a larger one has the same what sets this one apart."""
    name = f"{key.kind}, {key.check}"
    if other is None or len(members[other]) <= len(members[key]):
        return name
    return ", ".join([name, *(f"{what} {own}" for what, own, _ in differences(key, other, fleet)[:2])])


def _largest(members: Mapping[_Key, Sequence[_Member]]) -> dict[tuple[str, str], list[_Key]]:
    """Return the two largest cohorts of each kind and check: for another one to be compared with."""
    largest: defaultdict[tuple[str, str], list[_Key]] = defaultdict(list)
    for key in sorted(members, key=lambda each: -len(members[each])):
        if len(largest[key.kind, key.check]) < 2:  # noqa: PLR2004
            largest[key.kind, key.check].append(key)
    return largest


def _alone(key: _Key, other: _Key | None, fleet: Fleet) -> str:
    if other is None:
        return "no other node has such a device in its environment"
    found = differences(key, other, fleet)
    texts = [f"{what} {own or 'none'}, the others {theirs or 'none'}" for what, own, theirs in found[:MAX_DIFFERENCES]]
    more = [f"{len(found) - MAX_DIFFERENCES} more"] if len(found) > MAX_DIFFERENCES else []
    return f"no other node has its environment: {'; '.join([*texts, *more]) or 'it differs'}"


def differences(key: _Key, other: _Key, fleet: Fleet) -> list[tuple[str, str, str]]:
    """Return in what two environments differ: its name, its value here and there."""
    ours, theirs = (flat(fleet.environments.get(each.environment, {})) for each in (key, other))
    ours["alexnet-repro"], theirs["alexnet-repro"] = key.version, other.version
    names = dict.fromkeys([*ours, *theirs])
    return [
        (name, ours.get(name, ""), theirs.get(name, "")) for name in names if ours.get(name, "") != theirs.get(name, "")
    ]


def flat(values: Mapping[str, Any], under: str = "") -> dict[str, str]:
    """Return nested values by their joined names, as `packages tensorflow`, in short texts."""
    found: dict[str, str] = {}
    for name, value in values.items():
        whole = printable(f"{under} {name}".strip(), 80)
        if isinstance(value, Mapping):
            found |= flat(value, whole)
        else:
            found[whole] = printable(value, 80)
    return found


def _against_earlier(fleet: Fleet, majorities: Mapping[_Key, set[tuple[str, str]]]) -> Iterator[FleetFinding]:
    """Yield a finding of each device whose bits differ from its own, of an earlier run in the same environment.

    Where its newest bits are those of a majority, the earlier ones were wrong, and aren't any more.
    """
    earlier: defaultdict[tuple[str, _Key], list[tuple[FleetRun, tuple[str, ...]]]] = defaultdict(list)
    for runs in fleet.runs.values():
        for run in runs[:-1]:
            for device, identity in _identities(run):
                for key, steps in _replays(run, device):
                    earlier[identity, key].append((run, steps))
    for run in fleet.current:
        for device, identity in _identities(run):
            found: list[FleetFinding] = []
            for key, steps in _replays(run, device):
                before = [each for each in earlier[identity, key] if each[0].started < run.started]
                right = (run.node, device.name) in majorities.get(key, ())
                found += _own_difference(steps, key.check, before, fleet, right=right)
            if found:
                first = min(found, key=lambda each: each.status != "FAIL")
                yield replace(first, node=run.node, device=device.name, group=device.kind)


def _own_difference(
    steps: tuple[str, ...],
    check: str,
    before: Sequence[tuple[FleetRun, tuple[str, ...]]],
    fleet: Fleet,
    *,
    right: bool,
) -> Iterator[FleetFinding]:
    """Yield where the bits differ from those of the newest earlier run that has others; `right`: the newest are."""
    other = [each for each in before if any(own != their for own, their in zip(steps, each[1], strict=False))]
    if not other:
        return
    last, theirs = max(other, key=lambda each: each[0].started)
    pairs = enumerate(zip(steps, theirs, strict=False), 1)
    difference = next(_Difference(step, own, their, 1, 1) for step, (own, their) in pairs if own != their)
    what, digests = _first(difference, fleet)
    day = f"{last.started:%Y-%m-%d %H:%M}"
    evidence = f"{len(other)} of its {len(before)} earlier runs in this environment differ from this one; {digests}"
    data = {"step": difference.step, "check": check}
    message = f"{check}: from step {difference.step} the {what} from its own run of {day}"
    if right:
        message += "; now it agrees with the others: it was repaired, or has a fault that comes and goes"
        yield FleetFinding("bits", "INCONCLUSIVE", message, evidence=evidence, fix=REPAIRED, data=data)
    else:
        yield FleetFinding("bits", "FAIL", message, evidence=evidence, fix=DIVERGENCE_FIX, data=data)


def _identities(run: FleetRun) -> Iterator[tuple[FleetDevice, str]]:
    """Yield a run's devices, and what each is known by over time: its serial, or else its machine and name.

    Devices of one board, and parts of one GPU, share a serial: their names tell them apart.
    """
    owners = Counter(each.serial for each in run.devices)
    for device in run.devices:
        whole = device.serial or f"{run.node} {run.machine.get('id', '')}"
        shared = not device.serial or owners[device.serial] > 1
        yield device, f"{whole} {device.name}" if shared else whole


def _unrecorded(fleet: Fleet) -> Iterator[FleetFinding]:
    """Yield a finding of each device that has no digests, or of which what decides them isn't known."""
    for run in fleet.current:
        for device in run.devices:
            if run.verdict != "FAIL" and not any(True for _ in _replays(run, device)):
                why = "what decides its bits wasn't recorded" if device.replays else "it has no digests of train steps"
                fix = "run it again, with the checks of repeatability"
                yield FleetFinding("bits", "INCONCLUSIVE", why, run.node, device.name, device.kind, fix=fix)
