"""All results files of a fleet: found, read in several processes, and put by node; what can't vote is left out."""

import multiprocessing
import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from alexnet_repro.fleet.content import MergedError, OwnOutputError, Reduced, reduced
from alexnet_repro.fleet.machines import runs_by_node
from alexnet_repro.fleet.records import Fleet, FleetRun, RefusedFile
from alexnet_repro.fleet.texts import RefusedError, printable
from alexnet_repro.verify.report.run_record import LARGEST_RESULTS

RESULTS = "results.json"
OWN_OUTPUT = "fleet.json"
PER_PROCESS = 100  # files: of fewer, another process takes longer to start than to read them
ABOVE = "it is a link to a folder that holds the one to be searched"
CHUNK = 50
SHOWN_WORKERS = 8  # workers of which a file is missing
MAX_KEPT = 20_000  # distinct steps and environments whose content is kept, so that a difference can be named


class _Answer(NamedTuple):
    """What became of one file."""

    path: str
    run: FleetRun | None = None
    digest: bytes = b""  # of the file
    why: str = ""  # it is refused
    own_output: bool = False
    workers: Mapping[str, str] = {}  # of their merged file: what each is called, by the id of its run


class _Answers(NamedTuple):
    """What became of some files; the content of each hash once per process."""

    files: list[_Answer]
    steps: dict[str, Mapping[str, str]]
    environments: dict[str, Mapping[str, Any]]


def read_fleet(paths: Sequence[Path], *, processes: int = 2) -> Fleet:
    """Return what the files hold, and those in the folders that are called `results.json`, at any depth.

    `processes` read them; fewer where there are few files. Raises OSError where such a process is killed.
    """
    files, unreadable = _files(paths)
    fleet, answers, pool = Fleet(refused=unreadable), [], _Pool()
    for part in _read(files, min(processes, len(files) // PER_PROCESS)):
        for known, new in ((fleet.steps, part.steps), (fleet.environments, part.environments)):
            known.update({key: each for key, each in new.items() if len(known) < MAX_KEPT})
        answers += [each if each.run is None else each._replace(run=pool.shared(each.run)) for each in part.files]
    _refuse(fleet, answers)
    fleet.runs, fleet.names = runs_by_node(_once(fleet, answers), datetime.now(UTC))
    fleet.refused.sort()
    return fleet


def _files(paths: Sequence[Path]) -> tuple[list[str], list[RefusedFile]]:
    """Return the files to read, in order, and what can't be searched.

    Links to folders are followed, each folder is searched once, and none that an asked one is in.
    """
    found: dict[str, None] = {}
    refused: list[RefusedFile] = []
    folders = [str(path) for path in paths if path.is_dir()]
    found.update((os.path.abspath(path), None) for path in paths if not path.is_dir())  # noqa: PTH100
    above = {_real(str(each)) for folder in folders for each in Path(folder).resolve().parents}
    above -= {_real(folder) for folder in folders}
    links: list[str] = []  # the last to be followed: a folder is called as it is
    seen: set[object] = set()
    while folders or links:
        folder = folders.pop() if folders else links.pop()
        try:
            if (real := _real(folder)) in seen:
                continue
            if real in above:
                refused.append(RefusedFile(printable(folder, 1000), ABOVE))
                continue
            seen.add(real)
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.name == RESULTS:
                        found[os.path.abspath(entry.path)] = None  # noqa: PTH100
                    elif entry.is_symlink() and (os.path.isdir(entry.path) or not os.path.exists(entry.path)):  # noqa: PTH110, PTH112
                        links.append(entry.path)
        except OSError as error:
            refused.append(RefusedFile(printable(folder, 1000), f"the folder can't be read: {error.strerror}"))
    return sorted(found), refused


def _real(folder: str) -> object:
    """Return what a folder is, by whatever path."""
    known = os.stat(folder)  # noqa: PTH116
    return (known.st_dev, known.st_ino) if known.st_ino else os.path.realpath(folder)


def _read(files: Sequence[str], processes: int) -> Iterator[_Answers]:
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    if processes < 2:  # noqa: PLR2004 - another one
        reader = _Reader()
        yield from map(reader.answers, chunks)
        return
    spawned = multiprocessing.get_context("spawn")  # a fork may inherit locks
    try:
        with ProcessPoolExecutor(processes, spawned, initializer=_start_reader) as pool:
            yield from pool.map(_answers, chunks)
    except BrokenProcessPool as error:
        raise OSError("a process that reads results was killed; is there enough memory? (free -h)") from error


_reader: "_Reader"  # of a process of its own


def _start_reader() -> None:
    global _reader  # noqa: PLW0603 - what is known of it is one process's
    _reader = _Reader()


def _answers(chunk: Sequence[str]) -> _Answers:
    return _reader.answers(chunk)


@dataclass
class _Reader:
    """Reads files; remembers of which hashes it has handed over the content."""

    known: set[str] = field(default_factory=set)

    def answers(self, chunk: Sequence[str]) -> _Answers:
        """Return what became of some files."""
        whole = _Answers([], {}, {})
        for path in chunk:
            try:
                content = read_bytes(path)
                found = reduced(content, path, datetime.now(UTC))
            except RefusedError as error:
                workers = error.workers if isinstance(error, MergedError) else {}
                own = isinstance(error, OwnOutputError) and os.path.basename(path) == OWN_OUTPUT  # noqa: PTH119
                whole.files.append(_Answer(path, why=str(error), own_output=own, workers=workers))
                continue
            whole.files.append(_Answer(path, found.run, blake2b(content, digest_size=16).digest()))
            self._hand_over(found, whole)
        return whole

    def _hand_over(self, found: Reduced, whole: _Answers) -> None:
        for new, content in ((whole.steps, found.steps), (whole.environments, found.environments)):
            for key, each in content.items():
                if key not in self.known and len(self.known) < 2 * MAX_KEPT:
                    self.known.add(key)
                    new[key] = each


def read_bytes(path: str) -> bytes:
    """Return a regular file's bytes; RefusedError: it isn't one, can't be read, or is larger than any run's."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - before it is opened: a pipe waits for its writer
            raise RefusedError("it isn't a regular file")
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123
            content = file.read(LARGEST_RESULTS + 1)
    except OSError as error:
        raise RefusedError(f"it can't be read: {error.strerror}") from error
    if len(content) > LARGEST_RESULTS:
        raise RefusedError(f"it has more than {LARGEST_RESULTS:,} bytes, which no run writes")
    return content


def _refuse(fleet: Fleet, answers: Sequence[_Answer]) -> None:
    """Add the files that have no vote; one of several workers only where not all of their own files are there."""
    read = {each.run.identity for each in answers if each.run}
    for each in answers:
        missing = [name for worker, name in each.workers.items() if worker not in read]
        if each.run or each.own_output or (each.workers and not missing):
            continue
        more = f", and {len(missing) - SHOWN_WORKERS:,} more" if len(missing) > SHOWN_WORKERS else ""
        whose = f"; missing: that of {', '.join(missing[:SHOWN_WORKERS])}{more}" if missing else ""
        fleet.refused.append(RefusedFile(printable(each.path, 1000), f"{each.why}{whose}"))


def _once(fleet: Fleet, answers: Sequence[_Answer]) -> Iterator[FleetRun]:
    """Yield each run once; of two different files of one run neither, but for one from before it was complete."""
    by_identity: defaultdict[str, list[_Answer]] = defaultdict(list)
    for each in answers:
        if each.run:
            by_identity[each.run.identity].append(each)
    for same in by_identity.values():
        whole = [each for each in same if each.run and each.run.complete] or same
        kept, *others = whole
        if len({each.digest for each in whole}) > 1:
            why = "has the identity of another run's file and differs from it; one of the two was changed"
            fleet.refused += [RefusedFile(printable(each.path, 1000), f"it {why}") for each in whole]
            continue
        early = [each for each in same if each not in whole]
        for copies, why in ((others, "a copy of"), (early, "an earlier state of")):
            text = f"it is {why} {printable(kept.path, 1000)}"
            fleet.refused += [RefusedFile(printable(each.path, 1000), text, "PASS") for each in copies]
        if kept.run:
            yield kept.run


@dataclass
class _Pool:
    """One object of each kind of text and tuple that thousands of runs have in common."""

    known: dict[Any, Any] = field(default_factory=dict)

    def _one(self, value: Any) -> Any:
        return self.known.setdefault(value, value)

    def _texts(self, texts: Mapping[str, str]) -> dict[str, str]:
        return {self._one(name): self._one(text) for name, text in texts.items()}

    def shared(self, run: FleetRun) -> FleetRun:
        """Return the run, made of objects that it shares with others."""
        devices = tuple(
            replace(
                each,
                name=self._one(each.name),
                kind=self._one(each.kind),
                bits=self._one(each.bits),
                speed=self._one(each.speed),
                inventory=self._texts(each.inventory),
                replays={
                    self._one(name): self._one(tuple(map(self._one, steps))) for name, steps in each.replays.items()
                },
                cases=self._one(tuple(map(self._one, each.cases))),
            )
            for each in run.devices
        )
        version, level = self._one(run.version), self._one(run.level)
        return replace(run, devices=devices, version=version, level=level, machine=self._texts(run.machine))
