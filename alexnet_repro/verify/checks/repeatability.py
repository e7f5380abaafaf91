"""Does the device answer the same twice: in one process, in another, with all devices busy, on its siblings?"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.numerics.replay import Divergence, Replay, StepDigest, first_divergence

REPLAY_BATCH = 8
SUSPECT = (
    "run it again: if it differs again, suspect the hardware (python -m alexnet_repro doctor; memory errors, heat, "
    "power), or an operation without a deterministic kernel"
)


def new_replay(config: CheckConfig) -> Replay:
    """Return a replay of some steps on generated images."""
    loader = config.loader()
    return Replay(
        [loader.draw_train(REPLAY_BATCH) for _ in range(config.steps)],
        device=config.device,
        precision=config.precision,
        side=config.side,
        seed=config.seed,
    )


def replay(config: CheckConfig) -> Finding:
    """Steps repeated from one state give the same bits of loss, gradients and weights, dropout on."""
    runs = new_replay(config)
    first = runs.run()
    for number in range(2, config.replays + 1):
        divergence = first_divergence(first, runs.run(), f"replay {number}")
        if divergence:
            return differs("replay", divergence)
    return same("replay", first, f"{config.replays} runs of {_steps(config)}")


def digest(config: CheckConfig) -> Finding:
    """One run of the same steps, for others to be compared with."""
    return same("digest", new_replay(config).run(), f"one run of {_steps(config)}")


def first_of_model(device: str, devices: Sequence[str], models: Mapping[str, str]) -> str:
    """Return the first of some devices that is of the same model as one of them, which may be itself.

    Args:
        device: the one.
        devices: that are asked, as `gpu:1`, in their order.
        models: the product name of each GPU of the machine, asked or not.
    """
    return next((each for each in devices if each in models and models[each] == models.get(device)), device)


def agreement(check: str, first: Finding, other: Finding, run: str) -> Finding:
    """Return whether another run has the bits of the first; both are findings of `replay` or `digest`.

    Args:
        check: what to call it.
        first: the run that is compared with.
        other: the one that is compared.
        run: what it is, as `another process`.
    """
    return dataclasses.replace(_agreement(check, first, other, run), device=other.device, precision=other.precision)


def _agreement(check: str, first: Finding, other: Finding, run: str) -> Finding:
    if other.status == "FAIL":
        return dataclasses.replace(other, check=check)
    if not first.data.get("steps"):
        message = f"caused by failed check '{first.check}': there is no first run to compare with"
        return Finding(check, "INCONCLUSIVE", message, first.message, "fix that check first")
    divergence = first_divergence(steps(first.data), steps(other.data), run)
    return differs(check, divergence) if divergence else same(check, steps(other.data), f"{run} has the same bits")


def steps(data: Mapping[str, Any]) -> list[StepDigest]:
    """Return the digests that a finding's `data` holds."""
    return [StepDigest(**step) for step in data["steps"]]


def differs(check: str, divergence: Divergence) -> Finding:
    """Return the finding of runs that aren't the same."""
    message = f"{divergence.run} differs from the first run in the {divergence.what} at step {divergence.step}"
    return Finding(check, "FAIL", message, fix=SUSPECT, number=divergence.step, bound=0)


def same(check: str, run: Sequence[StepDigest], message: str) -> Finding:
    """Return the finding of runs that are the same."""
    losses = ", ".join(f"{float.fromhex(step.loss):.6f}" for step in run)
    data = {"steps": [dataclasses.asdict(step) for step in run]}
    return Finding(check, "PASS", message, f"losses {losses}", number=0, bound=0, data=data)


def _steps(config: CheckConfig) -> str:
    return "1 step" if config.steps == 1 else f"{config.steps} steps"
