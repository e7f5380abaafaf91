"""Which GPUs a node has: fewer than the others, fewer than before, others than before, or another node's."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta

from alexnet_repro.fleet.records import Fleet, FleetFinding, FleetRun

MOST_OF_A_KIND = 2 / 3  # of the nodes with a kind of GPU
NODES_OF_A_KIND = 3
OWNERS = 8  # nodes: what more of them have is no device's own serial
SAME_DAY = timedelta(days=1)  # within which another serial may be another job's GPU, not a new card
HASHED_SERIALS = ("hashed-", "GPU-hashed-", "MIG-hashed-")  # what a serial or UUID begins with that --hash-serials hid
_Key = tuple[str, str]  # a serial, and a name where that isn't enough
ASK_DRIVER = "see what the driver says: python -m alexnet_repro doctor"


def judge_presence(fleet: Fleet) -> list[FleetFinding]:
    """Return which GPUs aren't there, have been replaced, or are in two nodes."""
    return [*_fewer(fleet), *_shared(fleet), *_changed(fleet)]


def _fewer(fleet: Fleet) -> Iterator[FleetFinding]:
    """Yield the nodes that have fewer GPUs of a kind than two thirds of those with it; none at all is fewer, too."""
    by_run = [(run, Counter(each.kind for each in run.devices if _is_gpu(each.name))) for run in fleet.current]
    for kind in dict.fromkeys(kind for _, kinds in by_run for kind in kinds):
        having = [(run, kinds[kind]) for run, kinds in by_run if run.devices and (kind in kinds or not kinds)]
        usual, nodes = Counter(count for _, count in having).most_common(1)[0]
        if nodes >= NODES_OF_A_KIND and nodes >= MOST_OF_A_KIND * len(having):
            for run, count in having:
                if count < usual:
                    message = f"{count:,} × {kind}, the others {usual:,}"
                    yield FleetFinding("health", "INCONCLUSIVE", message, run.node, fix=ASK_DRIVER)


def _shared(fleet: Fleet) -> Iterator[FleetFinding]:
    """Yield the GPUs that two nodes have, and once what too many have for it to be a serial."""
    owners: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for run in fleet.current:
        for each in run.devices:
            if each.serial:
                owners[each.serial].append((run.node, each.name))
    for serial, both in owners.items():
        nodes = list(dict.fromkeys(node for node, _ in both))
        if len(nodes) > OWNERS:
            message = f"{len(nodes):,} nodes have a device of serial {serial}, which is no device's own"
            yield FleetFinding("inventory", "PASS", message)
            continue
        for node, device in both if len(nodes) > 1 else ():
            others = ", ".join([each for each in nodes if each != node][:3])
            message = f"{others} has this device as well, serial {serial}; it was moved, or they are one machine"
            fix = "verify both again, with one name for each machine"
            yield FleetFinding("inventory", "INCONCLUSIVE", message, node, device, fix=fix)


def _changed(fleet: Fleet) -> Iterator[FleetFinding]:
    """Yield what a node's earlier runs had of GPUs, and its newest hasn't."""
    for runs in fleet.runs.values():
        *earlier, run = runs
        boards = {serial for each in runs for serial, count in _serials(each).items() if count > 1}
        complete = [(each, _gpus(each, boards)) for each in reversed(earlier) if each.complete and each.devices]
        if not complete or not run.devices:
            continue
        now = _gpus(run, boards)
        for before, then in complete:  # the newest that had more: who has gone is named until it is back
            if len(then) > len(now):
                gone = ", ".join(name for key, name in then.items() if key not in now)
                message = f"{gone} was there on {before.started:%Y-%m-%d}, and isn't any more"
                yield FleetFinding("health", "INCONCLUSIVE", message, run.node, fix=ASK_DRIVER)
                break
        else:
            yield from _replaced(run, now, complete)


def _replaced(
    run: FleetRun, now: Mapping[_Key, str], complete: Sequence[tuple[FleetRun, Mapping[_Key, str]]]
) -> Iterator[FleetFinding]:
    """Yield the GPUs that have another serial than before; within a day it may be another job's GPU."""
    serials = {name: serial for (serial, _), name in now.items()}
    for place, (before, then) in enumerate(complete):
        lately = run.started - before.started < SAME_DAY
        gone = {name: key[0] for key, name in then.items() if key not in now and (lately or not place)}
        for name, old in gone.items():
            new = serials.get(name, "")
            if not old or not new or old.startswith(HASHED_SERIALS) != new.startswith(HASHED_SERIALS):
                continue  # not known of both
            message = f"{name} has serial {new}, in the run of {before.started:%Y-%m-%d %H:%M} {old}"
            if lately:
                fix = "name each machine, and each job that has GPUs of its own, by ALEXNET_REPRO_NODE; if the GPU was "
                fix += "replaced, move the earlier file out of the folder"
                yield FleetFinding("inventory", "INCONCLUSIVE", message, run.node, name, fix=fix)
            else:
                yield FleetFinding("inventory", "PASS", f"{message}: it was replaced", run.node, name)


def _serials(run: FleetRun) -> Counter[str]:
    return Counter(each.serial for each in run.devices if each.serial)


def _gpus(run: FleetRun, boards: Collection[str]) -> dict[_Key, str]:
    """Return the names of a run's GPUs by serial; without one of its own, by serial and name."""
    return {
        (each.serial, each.name if not each.serial or each.serial in boards else ""): each.name
        for each in run.devices
        if _is_gpu(each.name)
    }


def _is_gpu(name: str) -> bool:
    return name.startswith("gpu")
