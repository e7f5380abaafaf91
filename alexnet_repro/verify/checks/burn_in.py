"""Burn-in: memory patterns, copies and replays, over and over, with a line of progress per minute."""

import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import keras

from alexnet_repro.backend.determinism import determinism_variables, enable_determinism
from alexnet_repro.backend.memory import enable_memory_growth, free_memory
from alexnet_repro.verify.checks import repeatability
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.registry import CheckId, crashed, in_names_of, run_check, with_log
from alexnet_repro.verify.doctor.after_load import LoadWatch
from alexnet_repro.verify.doctor.environment import Environment, read_gpus
from alexnet_repro.verify.finding import Finding, worst
from alexnet_repro.verify.numerics.replay import StepDigest, first_divergence
from alexnet_repro.verify.subprocesses import NoAnswerError, answers

PROGRESS_SECONDS = 60.0
# JAX leaves a quarter of a GPU's memory alone unless either of these sets a share; it refuses both.
JAX_MEMORY = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")


def burn_in(
    config: CheckConfig,
    precisions: tuple[str, ...],
    seconds: float,
    say: Callable[[str], None],
    *,
    deadline: float,
    here: Environment,
    environ: dict[str, str],
    stop: threading.Event | None = None,
) -> Finding:
    """Burn in one device in a child, as `run_in_child` takes it, until another thread sets `stop`, if it does.

    `say` gets a line of progress per minute. `here` is the machine as the doctor left it, whose devices have their
    names from the user's CUDA_VISIBLE_DEVICES: this process may have another by now.
    """
    there = replace(config, device=f"{config.device.partition(':')[0]}:0")
    options = json.dumps({"config": asdict(there), "precisions": precisions, "seconds": seconds})
    environ = environ | determinism_variables()
    if keras.backend.backend() == "jax" and not any(name in os.environ for name in JAX_MEMORY):
        environ[JAX_MEMORY[0]] = ".95"
    finding = crashed("burn-in", "it ended without an answer")
    watch = None if config.device.startswith("cpu") else LoadWatch(read_gpus(here), config.device)
    try:
        for name, answer in answers(__name__, [options], PROGRESS_SECONDS + deadline, environ, stop):
            log = answer.pop("log")
            if name == "progress":
                say(f"{config.device} burn-in {answer['line']}")
            else:
                finding = in_names_of([config.device], with_log(Finding(**answer), log, config.device))
    except NoAnswerError as error:
        finding = crashed("burn-in", str(error), error.log, config.device)
    if watch:
        finding = _with_counts(finding, watch.findings())
    return replace(finding, check="burn-in", device=config.device)


def _with_counts(finding: Finding, counted: Sequence[Finding]) -> Finding:
    """Return a burn-in's finding, with what the driver counted meanwhile: that may be worse."""
    said = [each for each in counted if each.fix]
    ill = [each.fix for each in said if each.status != "PASS"]
    return replace(
        finding,
        status=worst([finding, *said]),
        message="; ".join([finding.message, *(each.message for each in said)]),
        fix="; ".join(filter(None, [finding.fix, *ill])),
    )


def soak(
    config: CheckConfig, precisions: tuple[str, ...], seconds: float, clock: Callable[[], float] = time.monotonic
) -> Iterator[str | Finding]:
    """Yield a line of progress per minute, then the finding: the first failure, or a summary without one."""
    start = last_line = clock()
    first: dict[str, list[StepDigest]] = {}
    steps, filled = 0, run_check(CheckId("memory"), config)
    for turn, precision in enumerate(itertools.cycle(precisions)):
        if turn and turn % len(precisions) == 0:  # between the precisions' replays
            filled = run_check(CheckId("memory"), config)
        for finding in (filled, run_check(CheckId("copies"), config)):
            if finding.status == "FAIL":
                yield finding
                return
        free_memory()
        replays = repeatability.new_replay(replace(config, precision=precision))
        for number in range(1, config.replays + 1):
            digests = replays.run()
            steps += len(digests)
            name = f"run {number} of turn {turn + 1}"
            if divergence := first_divergence(first.setdefault(precision, digests), digests, name):
                yield replace(repeatability.divergence_finding("replay", divergence), precision=precision)
                return
            now = clock()
            minutes = (now - start) / 60
            if now - last_line >= PROGRESS_SECONDS:
                last_line = now
                yield f"{minutes:.0f} of {seconds / 60:g} minutes: {steps:,} steps the same; {filled.message}"
            if now - start >= seconds and len(first) == len(precisions):
                message = f"{minutes:.1f} minutes, {steps:,} steps the same, copies right; {filled.message}"
                yield replace(filled, message=message)
                return


def main(options: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield, in the child, a line per minute, then the finding."""
    enable_memory_growth()
    enable_determinism()
    given = json.loads(options)
    config = CheckConfig(**given["config"])
    try:
        for progress in soak(config, tuple(given["precisions"]), given["seconds"]):
            yield ("progress", {"line": progress}) if isinstance(progress, str) else ("finding", asdict(progress))
    except Exception as error:  # noqa: BLE001 - it is the finding
        yield "finding", asdict(crashed("burn-in", error, device=config.device))
