"""References: timings on file, a JSON file per kind of device and framework, and how fresh processes make them.

A file is one JSON object: `schema` (1), `device` (the kind's name, as in the file's name), `environment` (all that is
known to decide speed; a run in another is never compared), `machine` (where it was recorded), and `cases`: by name,
`device`, `precision`, `processes` (at least five, eight to fail by; of each, up to fifty rounds in seconds, evenly
through the run) and `provenance` (`recorded`, the day; `command`, `revision` of the code, `seed`).
"""

import contextlib
import datetime as dt
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import psutil
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from alexnet_repro.files import atomic_write, nested_differences
from alexnet_repro.verify.benchmark.gate import MIN_PROCESSES
from alexnet_repro.verify.benchmark.noise import MAX_ROUNDS, thinned
from alexnet_repro.verify.benchmark.tolerances import first_error
from alexnet_repro.verify.doctor.fingerprint import boot_of
from alexnet_repro.verify.doctor.installation import revision

COLLECTING = "ALEXNET_REPRO_COLLECTING"  # set in a process that records timings: it compares nothing, starts no others
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
        raise ValueError(f"{path} holds no timings to compare with ({why}): git checkout {path}") from error


def write_reference(path: Path, reference: Reference) -> None:
    """Write the reference atomically; ValueError: it has too few processes, or a process no rounds or invalid ones."""
    content = asdict(reference)
    try:
        _REFERENCE.validate_python(content)
    except ValidationError as error:
        raise ValueError(f"no reference is made of these timings: {first_error(error)}") from error
    atomic_write(path, json.dumps(content, indent=1) + "\n")


def run_processes(
    root: Path,
    processes: int,
    options: Sequence[str],
    say: Callable[[str], None] = lambda _: None,
    limit: float | None = None,
) -> list[dict[str, Any]]:
    """Run `pytest benchmarks --benchmark-only` in fresh processes one after the other; return their results files.

    `root` is the checkout; `options` are pytest's, such as `-k`, or tests instead of all benchmarks; `say` logs a line
    per process, each of which has `limit` seconds. Errors are those of `run_to_end` and `process_results`.
    """
    runs = []
    for number in range(1, processes + 1):
        with tempfile.TemporaryDirectory() as folder:
            where = [] if any("::" in each for each in options) else ["benchmarks"]
            pytest = [sys.executable, "-Xfaulthandler", "-m", "pytest", "-p", "no:cacheprovider", "--benchmark-only"]
            command = [*pytest, *where, *options, f"--report={folder}"]
            status, output = run_to_end(command, root, limit)
            runs.append(process_results(Path(folder) / "results.json", status, output))
        say(f"process {number} of {processes}: {len(runs[-1]['timings'])} cases")
    return runs


def run_to_end(command: Sequence[str], root: Path, limit: float | None = None) -> tuple[int, str]:
    """Run a process that records timings; return its exit status and its output.

    It ends within `limit` seconds, or else with its children, and a ValueError has the stack of where it hangs.
    """
    with tempfile.TemporaryFile() as log:  # not a pipe, which a child that hangs would keep open
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, cwd=root, env={**os.environ, COLLECTING: "1"}, **streams)  # noqa: S603
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            _end(process)
            why = f"nothing is kept of a process that isn't done within {limit:g} s"
            raise ValueError(f"{why}:\n{_last_lines(_written(log), 40)}") from None
        except BaseException:
            _end(process)
            raise
        return status, _written(log)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process, which first writes its stack, and its children, which may lead process groups of their own."""
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(process.pid).children(recursive=True)
        for each in (signal.SIGABRT, signal.SIGKILL):  # by the first, faulthandler writes the stack
            process.send_signal(each)
            with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the driver, where no signal reaches it
                process.wait(5)
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()


def _written(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")


def _last_lines(output: str, count: int) -> str:
    return "\n".join(output.strip().splitlines()[-count:])


def process_results(results: Path, status: int, output: str) -> dict[str, Any]:
    """Return a process's results file; ValueError, with the end of its output: it failed, or timed nothing right."""
    end = _last_lines(output, 15)
    if status:
        raise ValueError(f"nothing is kept of a process that fails (exit status {status}):\n{end}")
    try:
        content: dict[str, Any] = json.loads(results.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"the process left no results ({error}):\n{end}") from error
    if not content.get("complete") or not content.get("timings"):
        raise ValueError(f"the process didn't complete its timings:\n{end}")
    if invalid := [each["case"] for each in content["timings"] if each["fault"]]:
        raise ValueError(f"nothing is kept of invalid timings: {', '.join(invalid)}")
    return content


def rounds_by_case(run: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return each case's rounds in one process."""
    return {each["case"]: each["rounds"] for each in run["timings"]}


def references_of(runs: Sequence[Mapping[str, Any]], provenance: Mapping[str, str]) -> list[Reference]:
    """Return one reference per kind of device; ValueError: the processes' environments or cases differ."""
    first, speed = runs[0], runs[0]["machine"]["speed"]
    if any(run["machine"]["speed"] != speed for run in runs):
        raise ValueError("the processes ran in different environments")
    if partly := {case for run in runs for case in rounds_by_case(run).keys() ^ rounds_by_case(first).keys()}:
        raise ValueError(f"not timed in each process: {', '.join(sorted(partly))}")
    cases: dict[str, dict[str, Baseline]] = {}
    for each in first["timings"]:
        rounds = [thinned(rounds_by_case(run)[each["case"]]) for run in runs]
        processes = [[float(f"{seconds:.6g}") for seconds in process] for process in rounds]
        kind, boot = speed["devices"][each["device"]]["kind"], boot_of(each["device"])
        origin = {**provenance, "boot": boot} if boot else provenance
        cases.setdefault(kind, {})[each["case"]] = Baseline(each["device"], each["precision"], processes, origin)
    environments = {each["kind"]: each["environment"] for each in speed["devices"].values()}
    return [Reference(kind, environments[kind], speed["machine"], found, schema=1) for kind, found in cases.items()]


def keep_references(
    root: Path, runs: Sequence[Mapping[str, Any]], command: str, note: str = "", into: Path | None = None
) -> list[Path]:
    """Write runs as references, a file per device and framework, or `into` one; ValueError: they can't be kept."""
    found = references_of(runs, provenance(root, command, note))
    if into and len(found) > 1:
        kinds = ", ".join(each.device for each in found)
        raise ValueError(f"--into: {into} would hold one device of several ({kinds}); choose one: --device=gpu:0")
    paths = [into or path_of(root / "benchmarks" / "references", each.device, each.environment) for each in found]
    for path, each in zip(paths, found, strict=True):
        write_reference(path, merge_references(read_reference(path), each))
    return paths


def provenance(root: Path, command: str, note: str = "") -> dict[str, str]:
    """Return where timings come from: day, command, revision of the code, and the seed, which is always 0."""
    origin = {"recorded": dt.date.today().isoformat(), "command": command, "revision": revision(root), "seed": "0"}
    return {**origin, **({"note": note} if note else {})}
