"""The overhead of determinism, each precision and XLA: a train step's time in each combination, in turns.

A combination's step is built once and visited several times. Determinism is a process's, so that there are two, of
which one waits while the other computes; where only one may use the device, one after the other. So are precisions:
the models of one are freed before the next one's are built.
"""

import dataclasses
import json
import math
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np

from alexnet_repro.backend.determinism import enable_determinism
from alexnet_repro.backend.devices import synchronize
from alexnet_repro.backend.memory import enable_memory_growth, free_memory
from alexnet_repro.training.train_step import best_train_step
from alexnet_repro.verify.checks.config import CheckConfig, draw_weights
from alexnet_repro.verify.checks.learning import LEARNABLE
from alexnet_repro.verify.checks.overhead_cell import OverheadCell
from alexnet_repro.verify.checks.registry import DEVICE_PRECISIONS, crashed
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.subprocesses import NoAnswerError, answers

BATCH = {"cpu": 8, "gpu": 256}
MIN_UPDATES = {"cpu": 1, "gpu": 10}  # per visit, waited for once: launching isn't what is measured
VISITS = 5  # after one that builds and warms up
NO_XLA = (
    "not supported: with determinism on Keras turns XLA off, which has no deterministic gradient of max pooling "
    "(github.com/tensorflow/tensorflow/issues/69417)"
)

Children = dict[bool, Generator[tuple[str, dict[str, Any]], None, None]]
Visit = Callable[[], float]


def overhead_cells(
    config: CheckConfig, environ: Mapping[bool, Mapping[str, str]], deadline: float, *, one_process: bool = False
) -> tuple[list[OverheadCell], list[Finding]]:
    """Return each combination's times, and the finding of a process that crashed or timed out, after which none is.

    `environ` are the variables to change of the process without and with determinism; each visit may take `deadline`
    seconds. The device has its name in this process; `one_process`: only one at a time may use it.
    """
    kind = config.device.partition(":")[0]
    visits = [
        (visit, precision, xla)
        for precision in DEVICE_PRECISIONS[kind]
        for visit in range(VISITS + 1)
        for xla in _order([False, True], visit)
    ]
    if one_process:
        turns = [(deterministic, *each) for deterministic in (False, True) for each in visits]
    else:
        turns = [(deterministic, *each) for each in visits for deterministic in _order([False, True], each[0])]
    seconds: dict[tuple[bool, str, bool], list[float]] = {}
    why: dict[tuple[bool, str, bool], str] = {}
    options = json.dumps(dataclasses.asdict(dataclasses.replace(config, device=f"{kind}:0")))
    order = [json.dumps([precision, xla]) for _, precision, xla in visits]
    with ExitStack() as stack:
        children: Children = {}
        for deterministic in (False, True):
            arguments = [options, json.dumps(deterministic), *order]
            children[deterministic] = answers(__name__, arguments, deadline, environ[deterministic], paced=True)
            stack.callback(children[deterministic].close)
        for deterministic, visit, precision, xla in turns:
            if one_process and deterministic:
                children[False].close()
            try:
                _, answer = next(children[deterministic])
            except NoAnswerError as error:
                answer = {"error": str(error), "log": error.log}
            if "error" in answer:
                failed = crashed("overhead", answer["error"], answer["log"], config.device)
                return [], [dataclasses.replace(failed, device=config.device)]
            cell = deterministic, precision, xla
            why[cell] = answer.get("why", "")
            seconds.setdefault(cell, [])
            if visit and not why[cell]:
                seconds[cell].append(answer["seconds"])
    return [
        OverheadCell(
            config.device, precision, deterministic, xla, BATCH[kind], found, why[deterministic, precision, xla]
        )
        for (deterministic, precision, xla), found in seconds.items()
    ], []


def _order(each: list[Any], visit: int) -> list[Any]:
    """Return the order of a visit: what comes first in one is last in the next."""
    return each[::-1] if visit % 2 else each


def main(options: str, deterministic: str, *order: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Visit combinations in this order, and yield the seconds of an update of each; stop after an error."""
    enable_memory_growth()
    if json.loads(deterministic):
        enable_determinism()
    config, built = CheckConfig(**json.loads(options)), dict[bool, Visit | None]()
    for combination in order:
        precision, xla = json.loads(combination)
        if precision != config.precision:
            config = dataclasses.replace(config, precision=precision)
            built.clear()
            free_memory()
        try:
            if xla not in built:
                built[xla] = step_timer(config, xla=xla)
                free_memory()  # what building has left behind
            with config.running():
                answer = _answer(built[xla])
        except Exception as error:  # noqa: BLE001 - it is the answer
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        yield combination, answer
        if "error" in answer:
            return


def _answer(visit: Visit | None) -> dict[str, Any]:
    return {"seconds": visit()} if visit else {"why": NO_XLA}


def step_timer(config: CheckConfig, *, xla: bool) -> Visit | None:
    """Return what makes a visit's updates and returns the seconds of one; None where there is no such step."""
    kind = config.device.partition(":")[0]
    batch, loader = BATCH[kind], config.loader()
    recipe = dataclasses.replace(LEARNABLE, draw_size=batch, batch_size=batch)
    with config.running():
        model = config.model(for_xla=xla)[0]
        if xla:  # the last one of this precision
            draw_weights.cache_clear()
        with warnings.catch_warnings(action="ignore"):  # Keras warns that it won't compile; so does the table
            step = best_train_step(model, loader, recipe, jit_compile=xla)
        if step.classifier.jit_compile != xla:
            return None
        indices = np.tile(loader.draw_train_indices(batch), (step.updates_per_call, 1))
        synchronize(step(indices))
    calls = math.ceil(MIN_UPDATES[kind] / len(indices))

    def visit() -> float:
        synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            losses = step(indices)
        synchronize(losses)
        return (time.perf_counter() - start) / (calls * len(indices))

    return visit
