"""Checks of repeatability: the same bits in one process, in another, with all devices busy, on GPUs of one model."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.finding import DIVERGENCE_FIX, Finding
from alexnet_repro.verify.numerics.replay import Divergence, Replay, StepDigest, first_divergence

REPLAY_BATCH = 8


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
            return divergence_finding("replay", divergence)
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
    """Return whether two runs, of `replay` or `digest`, have the same bits; `run` is the other's name."""
    if other.status == "FAIL":
        finding = dataclasses.replace(other, check=check)
    elif not first.data.get("steps"):
        message = f"caused by failed check '{first.check}': there are no digests of the first run to compare with"
        finding = Finding(check, "INCONCLUSIVE", message, first.message, "fix that check first")
    elif divergence := first_divergence(step_digests(first), step_digests(other), run):
        finding = divergence_finding(check, divergence)
    else:
        finding = _identical(check, step_digests(other), f"{run} has the same bits")
    return dataclasses.replace(finding, device=other.device, precision=other.precision)


def step_digests(finding: Finding) -> list[StepDigest]:
    """Return the digests that a finding of `replay` or `digest` holds."""
    return [StepDigest(**step) for step in finding.data["steps"]]


def divergence_finding(check: str, divergence: Divergence, reference: str = "the first run") -> Finding:
    """Return the failure of a run whose bits differ from those of the reference."""
    message = f"{divergence.run} differs from {reference} in the {divergence.what} at step {divergence.step}"
    return Finding(check, "FAIL", message, fix=DIVERGENCE_FIX, number=divergence.step, bound=0)


def _identical(check: str, run: Sequence[StepDigest], message: str) -> Finding:
    losses = ", ".join(f"{float.fromhex(step.loss):.6f}" for step in run)
    data = {"steps": [dataclasses.asdict(step) for step in run]}
    return Finding(check, "PASS", message, f"losses {losses}", number=0, bound=0, data=data)
