"""Which timings are on file for a device? One JSON file a kind of device, read whole or refused by name.

A file is one JSON object: `schema` (1), `device` (the kind's name, which the file's follows), `environment` (all that
is known to decide speed; a run in another is never compared), `machine` (what else is worth knowing of where it was
recorded), and `cases`: by name, `device`, `precision`, `processes` (at least five, eight to fail by; of each, up to
fifty rounds in seconds, evenly through the run) and `provenance` (`recorded`, the day; `command`, `revision` of the
code, `seed`).
"""

import json
import math
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alexnet_repro.files import atomic_write, nested_differences
from alexnet_repro.verify.benchmark.gate import MIN_PROCESSES
from alexnet_repro.verify.benchmark.noise import MAX_ROUNDS

SCHEMA = 1


@dataclass(frozen=True)
class Baseline:
    """One case, as its reference processes timed it."""

    device: str
    precision: str
    processes: Sequence[Sequence[float]]
    """Each one's rounds, in seconds."""
    provenance: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reference:
    """A file's content."""

    device: str
    environment: Mapping[str, Any]
    machine: Mapping[str, Any]
    cases: Mapping[str, Baseline]


def path_of(folder: Path, kind: str) -> Path:
    """Return where a kind of device's reference is."""
    return folder / f"speed-{re.sub(r'[^a-z0-9]+', '-', kind.lower()).strip('-')}.json"


def environment_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return what differs between two environments, each as `packages numpy 2.4.6 (was 2.4.5)`."""
    return [
        f"{name} {'none' if here is None else here} (was {'none' if there is None else there})"
        for name, there, here in nested_differences(theirs, ours)
    ]


def revision(root: Path) -> str:
    """Return the code's revision as git tells it, with `-dirty` if files were changed; empty where it isn't git's.

    An environment may lie in the checkout of something else, which has a revision, too.
    """
    git = ["git", "-C", str(root)]
    ours = [*git, "ls-files", "--error-unmatch", "alexnet_repro/__init__.py"]
    told = ""
    try:
        for command in (ours, [*git, "describe", "--always", "--dirty", "--abbrev=12"]):
            told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return told


def merged(old: Reference | None, new: Reference) -> Reference:
    """Return the new reference, with the old one's other cases if it is of the same device and environment."""
    if old is None or (old.device, old.environment) != (new.device, new.environment):
        return new
    return Reference(new.device, new.environment, new.machine, {**old.cases, **new.cases})


def read(path: Path) -> Reference | None:
    """Return the reference in a file; None if there is no file.

    Raises:
        ValueError: the file isn't one of ours; the message names it.
    """
    try:
        content = json.loads(path.read_text())
        schema = content.pop("schema")
        cases = {name: Baseline(**fields) for name, fields in content.pop("cases").items()}
        reference = Reference(**content, cases=cases)
        _check(reference, schema)
    except FileNotFoundError:
        return None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no timings to compare with ({error}): git checkout {path}") from error
    return reference


def write(path: Path, reference: Reference) -> None:
    """Write the reference in one step.

    Raises:
        ValueError: it has too few processes, or rounds that are none.
    """
    _check(reference, SCHEMA)
    atomic_write(path, json.dumps({"schema": SCHEMA, **asdict(reference)}, indent=1) + "\n")


def _check(reference: Reference, schema: int) -> None:
    if schema != SCHEMA:
        raise ValueError(f"schema {schema}, not {SCHEMA}")
    if not isinstance(reference.device, str) or not isinstance(reference.environment, Mapping):
        raise TypeError("device or environment is none")
    for name, case in reference.cases.items():
        if len(case.processes) < MIN_PROCESSES:
            raise ValueError(f"{name} has {len(case.processes)} processes, and needs {MIN_PROCESSES}")
        for rounds in case.processes:
            if not 1 <= len(rounds) <= MAX_ROUNDS or not all(_is_time(seconds) for seconds in rounds):
                raise ValueError(f"{name} has a process without 1 to {MAX_ROUNDS} rounds of so many seconds")


def _is_time(seconds: Any) -> bool:
    return isinstance(seconds, float | int) and not isinstance(seconds, bool) and 0 < seconds < math.inf
