"""Are the bits those that were recorded in the same environment? Golden digests, one a task and environment."""

import dataclasses
import datetime as dt
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras

from alexnet_repro.files import atomic_write
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.repeatability import REPLAY_BATCH, differs, steps
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.numerics import error_bounds
from alexnet_repro.verify.numerics.replay import first_divergence

UPDATE = "pytest benchmarks --update-reference # and commit the file, once this machine is known to be right"
TOO_LATE = "the later steps aren't compared: rounding grows from step to step"


@dataclass(frozen=True)
class Golden:
    """Digests as they were recorded."""

    task: Mapping[str, Any]
    """What was computed; only the same is compared at all."""
    environment: Mapping[str, Any]
    """What decides bits; only in the same may bits be expected."""
    recorded: str
    """The day, as `2026-11-24`."""
    steps: Sequence[Mapping[str, Any]]


def task_of(config: CheckConfig) -> dict[str, Any]:
    """Return what the replays of a subject compute."""
    return {
        "backend": keras.backend.backend(),
        "precision": config.precision,
        "side": config.side,
        "batch": REPLAY_BATCH,
        "steps": config.steps,
        "seed": config.seed,
        "determinism": True,
    }


def compare(found: Finding, config: CheckConfig, environment: Mapping[str, Any], stored: Sequence[Golden]) -> Finding:
    """Return whether a replay has the bits recorded in this environment, or about the figures recorded elsewhere.

    Args:
        found: of `alexnet_repro.verify.checks.repeatability.replay`.
        config: what was replayed.
        environment: of `alexnet_repro.verify.doctor.fingerprint.environment_of`.
        stored: of `read`.
    """
    finding = _compared(found, config, environment, stored)
    return dataclasses.replace(finding, device=found.device, precision=found.precision)


def _compared(found: Finding, config: CheckConfig, environment: Mapping[str, Any], stored: Sequence[Golden]) -> Finding:
    if not found.data.get("steps"):
        return Finding("golden", "INCONCLUSIVE", "the replay gave no digests to compare", fix="fix that check first")
    same_task = [golden for golden in stored if golden.task == task_of(config)]
    if not same_task:
        return Finding("golden", "INCONCLUSIVE", "no digests are on file for this task", fix=UPDATE)
    golden = next((golden for golden in same_task if golden.environment == environment), None)
    if golden is None:
        kind = "gpu" if "gpu" in environment else "cpu"
        alike = [each for each in same_task if kind in each.environment] or same_task
        return _elsewhere(found, config, environment, alike[-1])
    divergence = first_divergence(steps({"steps": golden.steps}), steps(found.data), "this run")
    if divergence is None:
        return Finding("golden", "PASS", f"the bits recorded on {golden.recorded}", number=0, bound=0)
    finding = differs("golden", divergence)
    message = finding.message.replace("the first run", f"the one recorded on {golden.recorded}")
    return dataclasses.replace(finding, message=message)


def _elsewhere(found: Finding, config: CheckConfig, environment: Mapping[str, Any], golden: Golden) -> Finding:
    ours, theirs = (float.fromhex(each[0]["loss"]) for each in (found.data["steps"], golden.steps))
    bound = 2 * error_bounds.drift(config.precision, config.device) * (abs(theirs) + math.log(10))
    near = abs(ours - theirs) <= bound
    changed = sorted(name for name in environment if environment[name] != golden.environment.get(name))
    message = (
        f"the first loss is {'' if near else 'not '}that of another environment, within rounding; bits can't be told"
    )
    evidence = f"{ours:.6f}, {theirs:.6f} on {golden.recorded} with other {', '.join(changed)}; {TOO_LATE}"
    return Finding("golden", "INCONCLUSIVE", message, evidence, UPDATE, number=abs(ours - theirs), bound=bound)


def read(path: Path) -> list[Golden]:
    """Return the digests in a file; none if there is no file.

    Raises:
        ValueError: the file isn't one of ours.
    """
    try:
        return [_golden(each) for each in json.loads(path.read_text())["digests"]]
    except FileNotFoundError:
        return []
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no golden digests ({error}): git checkout {path}") from error


def write(path: Path, stored: Sequence[Golden]) -> None:
    """Write the digests in one step."""
    atomic_write(path, json.dumps({"digests": [asdict(each) for each in stored]}, indent=1) + "\n")


def updated(
    stored: Sequence[Golden], found: Finding, config: CheckConfig, environment: Mapping[str, Any]
) -> list[Golden]:
    """Return the digests with this run's instead of those of the same task and environment."""
    new = Golden(task_of(config), environment, dt.date.today().isoformat(), found.data["steps"])
    return [each for each in stored if (each.task, each.environment) != (new.task, new.environment)] + [new]


def _golden(fields: Mapping[str, Any]) -> Golden:
    golden = Golden(**fields)
    if not len(steps({"steps": golden.steps})) == golden.task["steps"] > 0:
        raise ValueError("steps are missing")
    return golden
