"""Checks of repeatability: the same bits in one process, in another, with all devices busy, on GPUs of one model."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.numerics.replay import Divergence, Replay, StepDigest, first_divergence

REPLAY_BATCH = 8
DIVERGENCE_FIX = (
    "run it again: if it differs again, suspect the hardware (python -m alexnet_repro doctor; memory errors, heat, "
    "power), or an operation without a deterministic kernel"
)


def new_replay(config: CheckConfig) -> Replay:
    """Return a replay of `config.steps` train steps on generated images."""
    loader = config.loader()
    indices = np.stack([loader.draw_train_indices(REPLAY_BATCH) for _ in range(config.steps)])
    return Replay(loader, indices, config.side, config.running)


def replay(config: CheckConfig) -> Finding:
    """Train steps repeated from one state give the same bits of loss, gradients and weights, dropout on."""
    replays = new_replay(config)
    first = replays.run()
    for number in range(2, config.replays + 1):
        if divergence := first_divergence(first, replays.run(), f"replay {number}"):
            return divergence_finding("replay", divergence, run=first)
    return _identical("replay", first, f"{config.replays} runs of {len(first)} step{'s' * (len(first) > 1)}")


def digest(config: CheckConfig) -> Finding:
    """One run of the same steps, for others to be compared with."""
    return _identical("digest", new_replay(config).run(), f"one run of {config.steps} step{'s' * (config.steps > 1)}")


def reference_gpu(device: str, devices: Sequence[str], models: Mapping[str, str]) -> str:
    """Return the GPU that one is compared with: the first of its model among the `devices` that are checked, or itself.

    `models` has the product name of each GPU of the machine, checked or not.
    """
    return next((each for each in devices if each in models and models[each] == models.get(device)), device)


def agreement(check: str, first: Finding, other: Finding, run: str) -> Finding:
    """Return whether two runs, of `replay` or `digest`, have the same bits; `run` is the other's name.

    Where they have, the digests are those of `replay`, and aren't kept once more.
    """
    if other.status == "FAIL":
        finding = dataclasses.replace(other, check=check)
    elif first.status != "PASS" or not first.data.get("steps"):
        message = f"caused by failed check '{first.check}': there are no digests of the first run to compare with"
        data = _steps(step_digests(other))
        finding = Finding(check, "INCONCLUSIVE", message, first.message, "fix that check first", data=data)
    elif divergence := first_divergence(step_digests(first), step_digests(other), run):
        finding = divergence_finding(check, divergence, run=step_digests(other))
    else:
        finding = dataclasses.replace(_identical(check, step_digests(other), f"{run} has the same bits"), data={})
    return dataclasses.replace(finding, device=other.device, precision=other.precision)


def step_digests(finding: Finding) -> list[StepDigest]:
    """Return the digests that a finding of `replay` or `digest` holds."""
    return [StepDigest(**step) for step in finding.data["steps"]]


def divergence_finding(
    check: str, divergence: Divergence, reference: str = "the first run", *, run: Sequence[StepDigest] = ()
) -> Finding:
    """Return the failure of a run whose bits differ from those of the reference; `run` are the digests that it keeps.

    They are those of the run that differs, or, where one process gives several, of the first.
    """
    message = f"{divergence.run} differs from {reference} in the {divergence.what} at step {divergence.step}"
    data = _steps(run) if run else {}
    return Finding(check, "FAIL", message, fix=DIVERGENCE_FIX, number=divergence.step, bound=0, data=data)


def _identical(check: str, run: Sequence[StepDigest], message: str) -> Finding:
    losses = ", ".join(f"{float.fromhex(step.loss):.6f}" for step in run)
    return Finding(check, "PASS", message, f"losses {losses}", number=0, bound=0, data=_steps(run))


def _steps(run: Sequence[StepDigest]) -> dict[str, list[dict[str, Any]]]:
    return {"steps": [dataclasses.asdict(step) for step in run]}
