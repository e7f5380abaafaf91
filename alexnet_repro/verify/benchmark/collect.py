"""How fast is it in fresh processes? `pytest benchmarks --benchmark-only`, as often as is asked, and what was timed."""

import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alexnet_repro.verify.benchmark.noise import thinned
from alexnet_repro.verify.benchmark.reference import Baseline, Reference, revision
from alexnet_repro.verify.doctor.fingerprint import boot_of

COLLECTING = "ALEXNET_REPRO_COLLECTING"  # set in such a process: it compares nothing, and starts no others
DIGITS = 6  # of seconds that are kept


def collected(
    root: Path, processes: int, options: Sequence[str], say: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Return what so many fresh processes recorded (`run_record.Record`), one after the other.

    Args:
        root: the checkout, which has the benchmarks.
        processes: how many.
        options: pytest's, such as `-k` or `--device`, or tests instead of all benchmarks.
        say: told a line a process.

    Raises:
        ValueError: a process failed, or timed nothing, or what it timed was wrong.
    """
    runs = []
    for number in range(1, processes + 1):
        with tempfile.TemporaryDirectory() as folder:
            where = [] if any("::" in each for each in options) else ["benchmarks"]
            command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--benchmark-only", *where, *options]
            done = subprocess.run(  # noqa: S603 - our own benchmarks, with the options of whoever started this
                [*command, f"--report={folder}"],
                cwd=root,
                env={**os.environ, COLLECTING: "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            runs.append(checked(Path(folder) / "results.json", done.returncode, done.stdout))
        say(f"process {number} of {processes}: {len(runs[-1]['timings'])} cases")
    return runs


def checked(results: Path, status: int, said: str) -> dict[str, Any]:
    """Return what a process recorded.

    Args:
        results: its file.
        status: its exit status.
        said: what it printed, of which the end is shown if it is of no use.

    Raises:
        ValueError: it failed, or timed nothing, or what it timed was wrong.
    """
    end = "\n".join(said.strip().splitlines()[-15:])
    if status:
        raise ValueError(f"nothing is kept of a process that fails (exit status {status}):\n{end}")
    try:
        content: dict[str, Any] = json.loads(results.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"the process left no results ({error}):\n{end}") from error
    if not content.get("complete") or not content.get("timings"):
        raise ValueError(f"the process timed nothing to its end:\n{end}")
    void = [each["case"] for each in content["timings"] if each["fault"]]
    if void:
        raise ValueError(f"nothing is kept of what is wrong: {', '.join(void)}")
    return content


def rounds_of(run: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return each case's rounds in one process."""
    return {each["case"]: each["rounds"] for each in run["timings"]}


def references(runs: Sequence[Mapping[str, Any]], provenance: Mapping[str, str]) -> list[Reference]:
    """Return one reference for each kind of device in what processes recorded.

    Raises:
        ValueError: they weren't in one environment, or a case wasn't timed in each.
    """
    first = runs[0]
    speed = first["machine"]["speed"]
    if any(run["machine"]["speed"] != speed for run in runs):
        raise ValueError("the processes ran in different environments")
    partly = {case for run in runs for case in rounds_of(run).keys() ^ rounds_of(first).keys()}
    if partly:
        raise ValueError(f"not timed in each process: {', '.join(sorted(partly))}")
    cases: dict[str, dict[str, Baseline]] = {}
    for each in first["timings"]:
        processes = [[_short(seconds) for seconds in thinned(rounds_of(run)[each["case"]])] for run in runs]
        kind = speed["devices"][each["device"]]["kind"]
        boot = boot_of(each["device"])
        told = {**provenance, "boot": boot} if boot else provenance
        cases.setdefault(kind, {})[each["case"]] = Baseline(each["device"], each["precision"], processes, told)
    environments = {each["kind"]: each["environment"] for each in speed["devices"].values()}
    return [Reference(kind, environments[kind], speed["machine"], found) for kind, found in cases.items()]


def provenance(root: Path, command: str, note: str = "") -> dict[str, str]:
    """Return where timings come from: day, command, revision of the code, and the seed, which is always 0."""
    told = {"recorded": dt.date.today().isoformat(), "command": command, "revision": revision(root), "seed": "0"}
    return {**told, **({"note": note} if note else {})}


def _short(seconds: float) -> float:
    return float(f"{seconds:.{DIGITS}g}")
