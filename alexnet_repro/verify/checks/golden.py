"""Golden digests: the bits of a replay, as recorded in an environment, one entry per task and environment."""

import dataclasses
import datetime as dt
import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import keras
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from alexnet_repro.files import atomic_write, nested_differences
from alexnet_repro.layout import restoration, update_command
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.repeatability import REPLAY_BATCH, divergence_finding, step_digests
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.numerics import error_bounds
from alexnet_repro.verify.numerics.replay import StepDigest, first_divergence

UPDATE_FIX = f"{update_command()} # and keep the file, once this machine is known to be right"


@dataclasses.dataclass(frozen=True)
class Golden:
    """The digests of one replay as they were recorded."""

    task: Mapping[str, Any]  # what was computed; only the same is compared at all
    environment: Mapping[str, Any]  # what decides bits; only in the same may bits be expected
    recorded: str  # the day, as `2026-11-24`
    steps: Sequence[StepDigest]


Digests = Annotated[dict[Literal["digests"], list[Golden]], Field(min_length=1)]
GOLDEN_FILE = TypeAdapter(Digests, config=ConfigDict(extra="forbid"))  # in the entries and their steps, too


def task_of(config: CheckConfig) -> dict[str, Any]:
    """Return what a replay computes."""
    own = {name: getattr(config, name) for name in ("precision", "side", "steps", "seed")}
    return {"backend": keras.backend.backend(), "batch": REPLAY_BATCH, "determinism": True, **own}


def compare_digests(
    replayed: Finding, config: CheckConfig, environment: Mapping[str, Any], stored: Sequence[Golden]
) -> Finding:
    """Return whether a `replay` has the bits recorded in its environment; elsewhere its first loss is compared.

    `environment` is the device's by `alexnet_repro.verify.doctor.fingerprint.environment_of`.
    """
    finding = functools.partial(Finding, "golden", device=replayed.device, precision=replayed.precision)
    if replayed.status != "PASS" or not replayed.data.get("steps"):
        return finding("INCONCLUSIVE", "the replay gave no digests to compare", fix="fix that check first")
    same_task = [golden for golden in stored if golden.task == task_of(config)]
    if not same_task:
        return finding("INCONCLUSIVE", "no digests are on file for this task", fix=UPDATE_FIX)
    found = step_digests(replayed)
    if golden := next((golden for golden in same_task if golden.environment == environment), None):
        if divergence := first_divergence(golden.steps, found, "this run"):
            failure = divergence_finding("golden", divergence, f"the one recorded on {golden.recorded}")
            both = ", ".join(f"{name}={value}" for name, value in environment.get("settings", {}).items())
            evidence = f"both with {both}" if both else failure.evidence
            failure = dataclasses.replace(failure, evidence=evidence)
            return dataclasses.replace(failure, device=replayed.device, precision=replayed.precision)
        return finding("PASS", f"the bits recorded on {golden.recorded}", number=0, bound=0)
    # Elsewhere only the first loss is compared: rounding grows from step to step.
    kind = "gpu" if "gpu" in environment else "cpu"
    like = [each for each in same_task if kind in each.environment] or same_task
    differing = {id(each): _differing(each.environment, environment) for each in like}
    golden = min(reversed(like), key=lambda each: len(differing[id(each)]))
    ours, theirs = (float.fromhex(steps[0].loss) for steps in (found, golden.steps))
    error = abs(ours - theirs)
    bound = 2 * error_bounds.drift(config.precision, config.device) * (abs(theirs) + math.log(10))
    matches = "matches" if error <= bound else "doesn't match"
    message = f"first loss {matches} another environment's within rounding"
    message += "; bitwise comparison needs the same environment"
    changed = ", ".join(differing[id(golden)])
    evidence = f"{ours:.6f}, {theirs:.6f} on {golden.recorded} with other {changed}; later steps aren't compared"
    return finding("INCONCLUSIVE", message, evidence, UPDATE_FIX, number=error, bound=bound)


def _differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return what differs between two environments, as `threads (intra_op 0, here 1)`; settings and threads in full."""
    found: dict[str, list[str]] = {}
    for path, old, new in nested_differences(there, here):
        name, _, part = path.partition(" ")
        parts = found.setdefault(name, [])
        if part and name in ("settings", "threads"):
            parts.append(f"{part} {'unset' if old is None else old}, here {'unset' if new is None else new}")
    return [f"{name} ({'; '.join(parts)})" if parts else name for name, parts in found.items()]


def read_digests(path: Path) -> list[Golden]:
    """Return the digests in a file; none if there is no file.

    Raises:
        ValueError: the file isn't one of golden digests, or is damaged.
    """
    try:
        stored = GOLDEN_FILE.validate_json(path.read_bytes())["digests"]
    except FileNotFoundError:
        return []
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    else:
        if all(len(golden.steps) == golden.task.get("steps", 0) > 0 for golden in stored):
            return stored
        reason = "steps are missing"
    raise ValueError(f"{path} holds no golden digests ({reason}): {restoration(path)}")


def update_digests(path: Path, replayed: Finding, config: CheckConfig, environment: Mapping[str, Any]) -> None:
    """Write a replay's digests to a file, in place of those of the same task and environment; atomic."""
    new = Golden(task_of(config), environment, dt.date.today().isoformat(), step_digests(replayed))
    kept = [each for each in read_digests(path) if (each.task, each.environment) != (new.task, new.environment)]
    digests = [dataclasses.asdict(each) for each in (*kept, new)]
    atomic_write(path, json.dumps({"digests": digests}, indent=1) + "\n")
