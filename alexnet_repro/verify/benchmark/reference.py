"""References: timings on file, a JSON file per kind of device and framework, and how processes' timings become one.

A file is one JSON object: `schema` (1), `device` (the kind's name, as in the file's name), `environment` (all that is
known to decide speed; a run in another is never compared), `machine` (where it was recorded), and `cases`: by name,
`device`, `precision`, `processes` (at least five, eight to fail by; of each, up to fifty rounds in seconds, evenly
through the run) and `provenance` (`recorded`, the day; `command`, `revision` of the code, `seed`).
"""

import datetime as dt
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from alexnet_repro.files import atomic_write, nested_differences
from alexnet_repro.layout import restoration
from alexnet_repro.verify.benchmark.gate import MIN_PROCESSES
from alexnet_repro.verify.benchmark.noise import MAX_ROUNDS, thinned
from alexnet_repro.verify.benchmark.timing import Timing
from alexnet_repro.verify.benchmark.tolerances import first_error
from alexnet_repro.verify.doctor.environment import Environment
from alexnet_repro.verify.doctor.fingerprint import boot_of, kind_of, speed_environment
from alexnet_repro.verify.doctor.installation import revision


class Place(NamedTuple):
    """A device, as its references are found."""

    kind: str
    environment: Mapping[str, Any]
    boot: str = ""  # from `alexnet_repro.verify.doctor.fingerprint.boot_of`


_Seconds = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]
_Rounds = Annotated[Sequence[_Seconds], Field(min_length=1, max_length=MAX_ROUNDS)]


@dataclass(frozen=True)
class Baseline:
    """One case, as its reference processes timed it."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    device: str
    precision: str
    processes: Annotated[Sequence[_Rounds], Field(min_length=MIN_PROCESSES)]  # rounds of each, in seconds
    provenance: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reference:
    """A file's content."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    schema: Literal[1] = field(kw_only=True)
    device: str
    environment: Mapping[str, Any]
    machine: Mapping[str, Any]
    cases: Mapping[str, Baseline]


_REFERENCE = TypeAdapter(Reference)


def places_of(devices: Iterable[str], here: Environment) -> dict[str, Place]:
    """Return what references are looked up by, for each device of this machine."""
    return {
        each: Place(kind_of(each, here.seen_gpus), speed_environment(each, here), boot_of(each)) for each in devices
    }


def framework_of(environment: Mapping[str, Any]) -> str:
    """Return the framework that computes in an environment, with its version, as `tensorflow 2.21.0`."""
    backend = environment["settings"].get("KERAS_BACKEND", "tensorflow")
    return f"{backend} {environment['packages'].get(backend, '')}".rstrip()


def path_of(folder: Path, kind: str, environment: Mapping[str, Any]) -> Path:
    """Return the path of the reference of a kind of device under the environment's framework."""
    name = re.sub(r"[^a-z0-9.]+", "-", f"{kind} {framework_of(environment)}".lower()).strip("-")
    return folder / f"speed-{name}.json"


def environment_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return what differs between two environments, each as `packages numpy 2.4.6 (was 2.4.5)`."""
    return [
        f"{name} {'none' if here is None else here} (was {'none' if there is None else there})"
        for name, there, here in nested_differences(theirs, ours)
    ]


def merge_references(old: Reference | None, new: Reference) -> Reference:
    """Return the new reference, with the old one's other cases if it is of the same device and environment."""
    if old is None or (old.device, old.environment) != (new.device, new.environment):
        return new
    return replace(new, cases={**old.cases, **new.cases})


def read_reference(path: Path) -> Reference | None:
    """Return the reference in a file; None if there is no file. A ValueError names a file that isn't one of ours."""
    try:
        return _REFERENCE.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        why = first_error(error)
        raise ValueError(f"{path} holds no timings to compare with ({why}): {restoration(path)}") from error


def write_reference(path: Path, reference: Reference) -> None:
    """Write the reference atomically; ValueError: it has too few processes, or a process no rounds or invalid ones."""
    content = asdict(reference)
    try:
        _REFERENCE.validate_python(content)
    except ValidationError as error:
        raise ValueError(f"no reference is made of these timings: {first_error(error)}") from error
    atomic_write(path, json.dumps(content, indent=1) + "\n")


def references_of(
    runs: Sequence[Mapping[str, Timing]],
    places: Mapping[str, Place],
    machine: Mapping[str, Any],
    provenance: Mapping[str, str],
) -> list[Reference]:
    """Return one reference per kind of device, of processes' timings by case.

    `places` are by device. ValueError: nothing was timed, a timing is invalid, or the processes' cases differ.
    """
    first = runs[0]
    if not first:
        raise ValueError("nothing was timed")
    if invalid := sorted({case for run in runs for case, timing in run.items() if timing.fault}):
        raise ValueError(f"nothing is kept of invalid timings: {', '.join(invalid)}")
    if partly := {case for run in runs for case in run.keys() ^ first.keys()}:
        raise ValueError(f"not timed in each process: {', '.join(sorted(partly))}")
    cases: dict[str, dict[str, Baseline]] = {}
    for case, timing in first.items():
        rounds = [thinned(run[case].rounds) for run in runs]
        processes = [[float(f"{seconds:.6g}") for seconds in process] for process in rounds]
        place = places[timing.device]
        origin = {**provenance, "boot": place.boot} if place.boot else provenance
        cases.setdefault(place.kind, {})[case] = Baseline(timing.device, timing.precision, processes, origin)
    environments = {place.kind: place.environment for place in places.values()}
    return [Reference(kind, environments[kind], machine, found, schema=1) for kind, found in cases.items()]


def keep_references(folder: Path, references: Sequence[Reference]) -> None:
    """Write a file per device and framework; ValueError: they can't be kept."""
    for each in references:
        path = path_of(folder, each.device, each.environment)
        write_reference(path, merge_references(read_reference(path), each))


def provenance(root: Path, command: str) -> dict[str, str]:
    """Return where timings come from: day, command, revision of the code, and the seed, which is always 0."""
    return {"recorded": dt.date.today().isoformat(), "command": command, "revision": revision(root), "seed": "0"}
