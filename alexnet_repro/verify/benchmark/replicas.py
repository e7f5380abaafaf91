"""How fast devices are together and each alone: asked in a child process, by TensorFlow's own strategies.

A child is asked one thing. It makes a `MirroredStrategy` over the devices, or a `MultiWorkerMirroredStrategy` with the
children of other workers, which are asked the same at the same time.
"""

import dataclasses
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from alexnet_repro.backend.devices import split_cpu, synchronize
from alexnet_repro.backend.memory import enable_memory_growth
from alexnet_repro.backend.precision import precision as numerics
from alexnet_repro.training.distributed.cluster import Cluster
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.learning import LEARNABLE
from alexnet_repro.verify.checks.registry import crashed
from alexnet_repro.verify.doctor.device_probe import error_lines
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.subprocesses import NoAnswerError, answers

MIN_ROUNDS, MAX_ROUNDS = 5, 50
SIZES = (1 << 12, 1 << 16, 1 << 20, 1 << 24)  # bytes of an all-reduce, beside the gradients' own


@dataclass(frozen=True)
class Question:
    """What a child is asked, and of which devices."""

    ask: Literal["steps", "all-reduce"]
    devices: tuple[str, ...] = ()
    """As `gpu:0`, or `cpu:1` among `cpu_replicas`; not looked at among workers, who take all GPUs."""
    cpu_replicas: int = 0
    """Parts that the CPU is split in, each a device of its own; 0: it isn't."""
    images: int = 0
    """In a step, of each device."""
    precision: str = "float32"
    side: int = 224
    """Of the images that the model sees."""
    seconds: float = 1.0
    """How long to go on, at the least."""
    rounds: int = 0
    """Exactly so many, whatever they take: workers wait for each other; 0: as `seconds` has it."""
    workers: tuple[str, ...] = ()
    """`host:port` of each worker; nothing: this process alone."""
    task: int = 0
    """This worker's number."""


def ask(
    question: Question, deadline: float, environ: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any] | Finding]:
    """Yield what a new process answers, or the one finding that it came to nothing.

    Args:
        question: to `steps` the one answer is `together` and, by device, `alone`, the seconds of each round's update;
            `fault`, what is wrong with what was computed; and `digest`, of the weights at the end. To `all-reduce` each
            answer is `bytes`, `tensors`, `devices`, `seconds` (of each round) and `fault`, the gradients' own last.
        deadline: seconds that an answer may take.
        environ: environment variables to change.
    """
    try:
        for answer in answers(__name__, [json.dumps(asdict(question))], deadline, environ):
            log = error_lines(answer.pop("log"))
            if "status" in answer:
                found = Finding(**answer)
                yield dataclasses.replace(found, evidence="; ".join(filter(None, (found.evidence, log))))
            elif answer:
                yield answer
    except NoAnswerError as error:
        yield crashed(question.ask, str(error), error.log)


def strategy_over(devices: Sequence[str], workers: Sequence[str] = (), task: int = 0) -> Any:
    """Return a strategy of TensorFlow's for these devices, or for all devices of all workers.

    Raises:
        ValueError: one of them isn't there; TensorFlow itself would wait for it for ever.
    """
    import tensorflow as tf

    from alexnet_repro.training.distributed.strategy import strategy_of

    if workers:
        return strategy_of(Cluster(tuple(workers), task))
    there = [each.name.removeprefix("/device:").lower() for each in tf.config.list_logical_devices()]
    missing = [device for device in devices if device not in there]
    if missing:
        raise ValueError(f"no such device: {', '.join(missing)}; there are {', '.join(there)}")
    return tf.distribute.MirroredStrategy([device.upper() for device in devices])


def steps(question: Question) -> Iterator[dict[str, Any]]:
    """Time an update of all devices together, and the same of each alone, whose gradients go nowhere; in turns.

    Among workers together only.
    """
    together = Stepper(question, question.devices) if question.workers or len(question.devices) > 1 else None
    alone = {} if question.workers else {device: Stepper(question, (device,)) for device in question.devices}
    every = [*([together] if together else []), *alone.values()]
    _turns(every)  # compiles
    rounds = question.rounds or rounds_within(question.seconds, _turns(every) / len(every))
    for stepper in every:
        stepper.seconds.clear()
    for _ in range(rounds):
        _turns(every)
    yield {
        "together": together.seconds if together else [],
        "alone": {device: stepper.seconds for device, stepper in alone.items()},
        "fault": next(filter(None, (stepper.fault() for stepper in every)), None),
        "digest": every[0].digest(),
    }


def rounds_within(seconds: float, one: float) -> int:
    """Return how many rounds of `one` second fill so many, within bounds."""
    return min(MAX_ROUNDS, max(MIN_ROUNDS, math.ceil(seconds / one)))


def _turns(steppers: "Sequence[Stepper]") -> float:
    """Have each make a round's updates, and return the seconds of all."""
    start = time.perf_counter()
    for stepper in steppers:
        stepper.timed()
    return time.perf_counter() - start


class Stepper:
    """The step that `train` makes, of some devices, and what its rounds took."""

    def __init__(self, question: Question, devices: Sequence[str]) -> None:
        """Build the model on the devices."""
        from alexnet_repro.training.tensorflow_step import TensorFlowTrainStep

        self._among_workers = bool(question.workers)
        self._strategy = strategy_over(devices, question.workers, question.task)
        batch = question.images * self._strategy.num_replicas_in_sync
        config = CheckConfig(precision=question.precision, side=question.side)
        loader = config.loader()
        with self._strategy.scope():
            self._model, self._before = config.model()
            recipe = dataclasses.replace(LEARNABLE, draw_size=batch, batch_size=batch)
            self._step = TensorFlowTrainStep(self._model, loader, recipe)
        updates = self._step.updates_per_call
        self._indices = (np.arange(updates * batch) % loader.num_train).reshape(updates, batch)
        self._losses: list[float] = []
        self.seconds: list[float] = []
        """Of an update, by round."""

    def timed(self) -> None:
        """Make a round's updates, and keep the seconds of one."""
        self._finish()
        start = time.perf_counter()
        losses, _ = self._step(self._indices)
        self._finish()
        self.seconds.append((time.perf_counter() - start) / len(self._indices))
        self._losses += np.asarray(losses, float).tolist()

    def _finish(self) -> None:
        """Wait until all is done; among workers by reading what comes last, as TensorFlow has no other way there."""
        if self._among_workers:
            for each in self._strategy.experimental_local_results(self._model.trainable_variables[-1].value):
                np.asarray(each)
        else:
            synchronize()

    def fault(self) -> str | None:
        """Return what is wrong with what was computed: losses, and the weights of each replica."""
        for update, loss in enumerate(self._losses, 1):
            if not math.isfinite(loss):
                return f"the loss is {loss} at update {update}"
        for variable, before in zip(self._model.trainable_variables, self._before, strict=True):
            first, *others = map(np.asarray, self._strategy.experimental_local_results(variable.value))
            if not np.isfinite(first).all():
                return f"{variable.path} isn't finite after {len(self._losses)} updates"
            if np.array_equal(first, before):
                return f"{variable.path} didn't change in {len(self._losses)} updates"
            if not all(np.array_equal(first, other) for other in others):
                return f"{variable.path} isn't the same on all devices after {len(self._losses)} updates"
        return None

    def digest(self) -> str:
        """Return the SHA-256 of the weights on the first device."""
        found = hashlib.sha256()
        for variable in self._model.trainable_variables:
            found.update(np.asarray(self._strategy.experimental_local_results(variable.value)[0]).tobytes())
        return found.hexdigest()


def all_reduces(question: Question) -> Iterator[dict[str, Any]]:
    """Time all-reduces of several sizes, then of the model's gradients, tensor by tensor as the optimizer has them."""
    from alexnet_repro.verify.benchmark.all_reduce import all_reduce

    strategy = strategy_over(question.devices, question.workers, question.task)
    for size in SIZES:
        yield all_reduce(strategy, [(size // 4,)])
    with strategy.scope():
        model, _ = CheckConfig(side=question.side).model()
    yield all_reduce(strategy, [tuple(variable.shape) for variable in model.trainable_variables])


ASKED: dict[str, Callable[[Question], Iterator[dict[str, Any]]]] = {"steps": steps, "all-reduce": all_reduces}


def main(text: str) -> None:
    """Run in the child: one line an answer; an error is a finding."""
    import keras

    told = json.loads(text)
    question = Question(**{**told, "devices": tuple(told["devices"]), "workers": tuple(told["workers"])})
    if question.cpu_replicas:
        split_cpu(question.cpu_replicas)
    else:
        enable_memory_growth()
    keras.utils.set_random_seed(0)
    try:
        with numerics(question.precision):
            for answer in ASKED[question.ask](question):
                print(json.dumps(answer), flush=True)
    except Exception as error:  # noqa: BLE001 - it is the answer
        print(json.dumps(asdict(crashed(question.ask, error))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
