"""Whose each run is: machines of one name kept apart, and runs that one machine had at the same time put together.

Pods and workers that share a machine each have their own GPUs, and write a file each: none may stand for all.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from alexnet_repro.fleet.content import MAX_FOUND, WORST_FIRST
from alexnet_repro.fleet.records import FleetDevice, FleetRun
from alexnet_repro.verify.finding import worst_status

ONE_NAME = timedelta(days=1)  # within which a node isn't another machine than before, but two have one name
STILL_RUNS = timedelta(days=1)  # after its last write, at most
ROUNDED = timedelta(seconds=2)  # a start is written in whole seconds
HASHED = "hashed-"
Ids = Mapping[str, str]  # by what they are comparable with


def runs_by_node(runs: Iterable[FleetRun], now: datetime) -> tuple[dict[str, list[FleetRun]], dict[str, str]]:
    """Return the runs by node, the oldest first, and by node the name of those that share one with another machine.

    Where machines of one name ran within a day, each is a node of its own: `n1` and `n1@ID`. Otherwise one has replaced
    the other, or was installed anew.
    """
    nodes: defaultdict[str, list[FleetRun]] = defaultdict(list)
    for run in sorted(runs, key=_in_time):
        nodes[run.node].append(run)
    names = {}
    for name in list(nodes):
        last, *others = _machines(nodes[name])
        for other in others:
            if other.runs[-1].started > last.runs[-1].started - ONE_NAME and _differ(last, other):
                node = f"{name}@{other.name[:12]}"
                while node in nodes:  # a file may say that this is its node's name
                    node = f"{node}'"
                names[node] = name
                nodes[node] = [replace(run, node=node) for run in other.runs]
            else:
                last.runs = [*last.runs, *other.runs]
        nodes[name] = sorted(last.runs, key=_in_time)
    return {node: _with_current(own, now) for node, own in nodes.items()}, names


@dataclass
class _Machine:
    """The runs of one machine, in their order, and its ids."""

    runs: list[FleetRun] = field(default_factory=list)
    ids: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    @property
    def name(self) -> str:
        return next((each for own in self.ids.values() for each in sorted(own)), "")

    def add(self, other: "_Machine") -> None:
        self.runs += other.runs
        for source, own in other.ids.items():
            self.ids[source] |= own


def _machines(runs: Sequence[FleetRun]) -> list[_Machine]:
    """Return the machines that had these runs, the one of the newest run first.

    Runs are of one machine that have an id of one source, or a device, in common. A machine-id alone may be that of an
    image: it makes two one only where no other id tells them apart.
    """
    kept: list[_Machine] = []
    by_image: dict[tuple[str, str], _Machine] = {}
    for machine in _with_something_in_common(runs):
        keys = [(source, each) for source, own in machine.ids.items() if _of_image(source) for each in own]
        same = next((by_image[key] for key in keys if key in by_image and not _differ(by_image[key], machine)), None)
        if same:
            same.add(machine)
        else:
            kept.append(machine)
        for key in keys:
            by_image.setdefault(key, same or machine)
    for machine in kept:
        machine.runs.sort(key=_in_time)
    return kept


def _with_something_in_common(runs: Sequence[FleetRun]) -> list[_Machine]:
    """Return runs, by the oldest first, that have a device or an id, in groups; that of the newest run first."""
    owner: dict[tuple[str, str], int] = {}  # the first run that had it
    first = list(range(len(runs)))

    def root(number: int) -> int:
        while first[number] != number:
            first[number] = number = first[first[number]]
        return number

    for number, run in enumerate(runs):
        serials = [("device", each.serial) for each in run.devices if each.serial]
        for key in [*serials, *((source, own) for source, own in _ids(run).items() if not _of_image(source))]:
            first[root(owner.setdefault(key, number))] = root(number)
    found: defaultdict[int, _Machine] = defaultdict(_Machine)
    for number, run in enumerate(runs):
        machine = found[root(number)]
        machine.runs.append(run)
        for source, own in _ids(run).items():
            machine.ids[source].add(own)
    return sorted(found.values(), key=lambda each: _in_time(each.runs[-1]), reverse=True)


def _in_time(run: FleetRun) -> tuple[datetime, str]:
    return run.started, run.identity


def _ids(run: FleetRun) -> dict[str, str]:
    """Return a machine's ids by source; root reads a serial, others don't, and one that is hashed is no other's."""
    known = run.machine
    source = known.get("id_source", "").removeprefix("hashed ")
    own = {source: known.get("id", ""), "machine-id": known.get("machine_id", "")}
    own["machine-id"] = own["machine-id"] or (known.get("id", "") if source == "machine-id" else "")
    return {f"hashed {name}" if each.startswith(HASHED) else name: each for name, each in own.items() if each}


def _of_image(source: str) -> bool:
    return source.endswith("machine-id")


def _differ(one: _Machine, other: _Machine) -> bool:
    """Return whether an id tells them apart."""
    return any(one.ids[source].isdisjoint(own) for source, own in other.ids.items() if one.ids.get(source))


def _with_current(runs: Sequence[FleetRun], now: datetime) -> list[FleetRun]:
    """Return the runs, the last one of which is all that ran at the same time on the machine.

    Of a run that had the newest one's devices, too, these stay in an earlier run; what it has found is the last one's.
    """
    *earlier, last = runs
    together, kept, known = [last], [], _Devices()
    known.add(last.devices, last.started)
    for run in reversed(earlier):
        starts = {each.name: known.start(each) for each in run.devices}
        end = run.started + timedelta(seconds=run.seconds)
        others = tuple(each for each in run.devices if starts[each.name] is None)
        running = min(now, end + STILL_RUNS) if not (run.complete or run.ended) else end
        beside = _overlap(run, running, together[-1].started) and bool(others)
        dead = not run.devices and _overlap(run, end, together[-1].started)
        if beside or dead or any(start and _overlap(run, end, start) for start in starts.values()):
            together.append(replace(run, devices=others))
            known.add(run.devices, run.started)
            if shared := tuple(each for each in run.devices if starts[each.name]):
                kept.append(replace(run, devices=shared))
        else:
            kept.append(run)
    return [*reversed(kept), _joined(together) if len(together) > 1 else last]


def _overlap(run: FleetRun, end: datetime, start: datetime) -> bool:
    """Return whether a run that ends then overlaps one that started then, which isn't earlier."""
    return run.started == start or end > start + ROUNDED


class _Devices:
    """Devices, and when the earliest run with each started: known by serial; by name where one of two has none."""

    def __init__(self) -> None:
        """Know none."""
        self._starts: dict[tuple[str, str], datetime] = {}

    def add(self, devices: Iterable[FleetDevice], start: datetime) -> None:
        for each in devices:
            self._starts[each.serial, ""] = start
            self._starts[self._form(each), each.name] = start

    def start(self, device: FleetDevice) -> datetime | None:
        """Return when that run started; None: it is another device."""
        form = self._form(device)
        comparable = ("plain", "hashed", "") if not form else [each for each in ("plain", "hashed", "") if each != form]
        keys = [(device.serial, "")] if form else []
        keys += [(each, device.name) for each in comparable]
        return min((self._starts[key] for key in keys if key in self._starts), default=None)

    @staticmethod
    def _form(device: FleetDevice) -> str:
        return "" if not device.serial else "hashed" if HASHED in device.serial else "plain"


def _joined(runs: Sequence[FleetRun]) -> FleetRun:
    """Return one run of several, the newest first: devices of all, the worst verdict, and what each has found."""
    several = Counter(each.name for run in runs for each in run.devices)
    devices: list[FleetDevice] = []
    found = []
    for run in runs:
        names = {e.name: f"{e.name} ({e.serial})" if several[e.name] > 1 else e.name for e in run.devices}
        devices += [replace(each, name=names[each.name]) for each in run.devices]
        found += [replace(each, device=names.get(each.device, each.device)) for each in run.found]
    return replace(
        runs[0],
        verdict=worst_status(run.verdict for run in runs),
        complete=all(run.complete for run in runs),
        ended="; ".join(dict.fromkeys(run.ended for run in runs if run.ended)),
        devices=tuple(sorted(devices, key=lambda each: each.name)),
        found=tuple(sorted(found, key=lambda each: WORST_FIRST.index(each.status))[:MAX_FOUND]),
    )
