"""Soak: memory patterns, copies and replays, again and again, on every device at once, with a line a minute."""

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace

import keras

from alexnet_repro.backend.determinism import determinism_variables
from alexnet_repro.backend.memory import free_memory
from alexnet_repro.verify.checks import repeatability as repeat_checks
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.registry import CheckId, crashed, run
from alexnet_repro.verify.doctor.device_probe import error_lines
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.numerics.replay import StepDigest, first_divergence
from alexnet_repro.verify.subprocesses import NoAnswerError, answers

LINE_EVERY = 60.0  # seconds
# JAX leaves a quarter of a GPU's memory alone unless it is told otherwise, by either name but not by both.
JAX_MEMORY = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
JAX_FILLS = ".95"


def burn_in(
    config: CheckConfig,
    precisions: tuple[str, ...],
    seconds: float,
    say: Callable[[str], None],
    *,
    deadline: float,
    environ: dict[str, str],
) -> Finding:
    """Soak one device in a child, and return what was found; `say` gets a line of progress a minute."""
    there = replace(config, device=f"{config.device.partition(':')[0]}:0")
    options = json.dumps({"subject": asdict(there), "precisions": precisions, "seconds": seconds})
    environ = {**environ, **determinism_variables(), **_memory_variables()}
    finding = crashed("burn-in", "it ended without an answer")
    try:
        for answer in answers(__name__, [options], LINE_EVERY + deadline, environ):
            answer.pop("log")
            if "line" in answer:
                say(f"{config.device} burn-in {answer['line']}")
            else:
                finding = Finding(**answer)
    except NoAnswerError as error:
        finding = crashed("burn-in", "; ".join(filter(None, (str(error), error_lines(error.log)))))
    return replace(finding, check="burn-in", device=config.device)


def _memory_variables(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what lets the child fill a GPU's memory, where the user hasn't said how much of it."""
    told = keras.backend.backend() != "jax" or any(name in environ for name in JAX_MEMORY)
    return {} if told else {JAX_MEMORY[0]: JAX_FILLS}


def soak(
    config: CheckConfig, precisions: tuple[str, ...], seconds: float, clock: Callable[[], float] = time.monotonic
) -> Iterator[str | Finding]:
    """Yield a line of progress a minute, then the finding: the first failure, or what was done without one."""
    start = said = clock()
    first: dict[str, list[StepDigest]] = {}
    steps, filled = 0, run(CheckId("memory"), config)
    for turn, precision in enumerate(itertools.cycle(precisions)):
        if turn and turn % len(precisions) == 0:  # between the precisions' replays
            filled = run(CheckId("memory"), config)
        for finding in (filled, run(CheckId("copies"), config)):
            if finding.status == "FAIL":
                yield finding
                return
        free_memory()
        runs = repeat_checks.new_replay(replace(config, precision=precision))
        for number in range(1, config.replays + 1):
            digests = runs.run()
            steps += len(digests)
            if precision not in first:
                first[precision] = digests
            divergence = first_divergence(first[precision], digests, f"run {number} of turn {turn + 1}")
            if divergence:
                yield replace(repeat_checks.differs("replay", divergence), precision=precision)
                return
            now = clock() - start
            if clock() - said >= LINE_EVERY:
                said = clock()
                yield f"{now / 60:.0f} of {seconds / 60:g} minutes: {steps:,} steps the same; {filled.message}"
            if now >= seconds and len(first) == len(precisions):
                message = f"{now / 60:.1f} minutes, {steps:,} steps the same, copies right; {filled.message}"
                yield replace(filled, message=message)
                return


def main(options: str) -> None:
    """Run in the child: a line a minute, then the finding."""
    from alexnet_repro.backend.determinism import enable_determinism
    from alexnet_repro.backend.memory import enable_memory_growth

    enable_memory_growth()
    enable_determinism()
    chosen = json.loads(options)
    config = CheckConfig(**chosen["subject"])
    try:
        for said in soak(config, tuple(chosen["precisions"]), chosen["seconds"]):
            print(json.dumps({"line": said} if isinstance(said, str) else asdict(said)), flush=True)
    except Exception as error:  # noqa: BLE001 - it is the finding
        print(json.dumps(asdict(crashed("burn-in", error))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
