"""Train steps and all-reduces of several devices, timed in a child process under TensorFlow's own strategies.

A child gets one request. It makes a `MirroredStrategy` over the devices, or a `MultiWorkerMirroredStrategy` with the
children of other workers, which get the same request at the same time.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from alexnet_repro.backend.devices import split_cpu, synchronize
from alexnet_repro.backend.memory import enable_memory_growth
from alexnet_repro.backend.precision import precision as numerics
from alexnet_repro.training.distributed.cluster import Cluster
from alexnet_repro.training.weights import weights_digest
from alexnet_repro.verify.benchmark.calibration import copy_rates
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.learning import LEARNABLE
from alexnet_repro.verify.checks.registry import crashed, with_log
from alexnet_repro.verify.doctor.endings import has_nvidia
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.subprocesses import NoAnswerError, answers

SIZES = (1 << 12, 1 << 16, 1 << 20, 1 << 24)  # bytes of an all-reduce, beside the gradients' own
ALL_REDUCE_ROUNDS = 5  # as many on each worker: they wait for each other
RequestKind = Literal["steps", "all-reduce", "copies"]


@dataclass(frozen=True)
class Request:
    """A measurement that a child is to make, and of which devices."""

    kind: RequestKind
    devices: Sequence[str] = ()  # as `gpu:0`, or `cpu:1` among `cpu_replicas`; workers take all their GPUs
    cpu_replicas: int = 0  # number of parts that the CPU is split in, each a device of its own; 0: it isn't
    images: int = 0  # per step and device
    precision: str = "float32"
    side: int = 224  # of the images that the model sees
    seconds: float = 1.0  # minimum duration
    rounds: int = 0  # exact number of rounds, since workers wait for each other; 0: as `seconds` has it
    workers: Sequence[str] = ()  # `host:port` of each worker; none: this process alone
    task: int = 0  # this worker's index

    @property
    def device(self) -> str:
        """The device by which a failure is explained: workers name none."""
        return next(iter(self.devices), "gpu:0" if has_nvidia("") else "cpu:0")


def answers_to(
    request: Request, deadline: float, environ: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any] | Finding]:
    """Yield the answers of a new child process, or one finding that it crashed or timed out.

    Each may take `deadline` seconds; `environ` are variables to change. To `steps` the one answer is `together` and, by
    device, `alone`, the seconds per update of each round; `fault`, what is wrong with what was computed; and `digest`,
    of the weights at the end. To `all-reduce` each answer is `bytes`, `tensors`, `devices`, `seconds` (of each round)
    and `fault`, the gradients' own last. To `copies` the one answer is `rates`, by device, to it and from it in
    bytes/s; and `fault`, which is None.
    """
    try:
        for name, answer in answers(__name__, [json.dumps(asdict(request))], deadline, environ):
            log = answer.pop("log")
            if name == "crash":
                yield with_log(Finding(**answer), log, request.device)
            else:
                yield answer
    except NoAnswerError as error:
        yield crashed(request.kind, str(error), error.log, request.device)


def _strategy(request: Request, devices: Sequence[str]) -> Any:
    """Return TensorFlow's strategy over these devices, or over all devices of all workers."""
    import tensorflow as tf

    from alexnet_repro.training.distributed.strategy import multi_worker_strategy

    if request.workers:
        return multi_worker_strategy(Cluster(tuple(request.workers), request.task))
    there = [each.name.removeprefix("/device:").lower() for each in tf.config.list_logical_devices()]
    if missing := [device for device in devices if device not in there]:  # TensorFlow would wait for it for ever
        raise ValueError(f"no such device: {', '.join(missing)}; there are {', '.join(there)}")
    return tf.distribute.MirroredStrategy([device.upper() for device in devices])


def _time_steps(request: Request) -> Iterator[dict[str, Any]]:
    """Time an update of all devices together and, but among workers, in turns with it one of each alone."""
    together = [_Stepper(request, request.devices)] if request.workers or len(request.devices) > 1 else []
    alone = {} if request.workers else {device: _Stepper(request, (device,)) for device in request.devices}
    every = [*together, *alone.values()]

    def take_turns() -> float:
        """Return the seconds in which each makes a round's updates."""
        start = time.perf_counter()
        for stepper in every:
            stepper.run_round()
        return time.perf_counter() - start

    take_turns()  # compiles
    rounds = request.rounds or rounds_within(request.seconds, take_turns() / len(every))
    for stepper in every:
        stepper.seconds.clear()
    for _ in range(rounds):
        take_turns()
    yield {
        "together": together[0].seconds if together else [],
        "alone": {device: stepper.seconds for device, stepper in alone.items()},
        "fault": next(filter(None, (stepper.fault() for stepper in every)), None),
        "digest": weights_digest(every[0].model),
    }


def rounds_within(seconds: float, one: float) -> int:
    """Return how many rounds of `one` second each fill `seconds`: at least 5 and at most 50."""
    return min(50, max(5, math.ceil(seconds / one)))


class _Stepper:
    """The step that `train` makes, on some devices, and the seconds of its rounds."""

    def __init__(self, request: Request, devices: Sequence[str]) -> None:
        from alexnet_repro.training.tensorflow_step import TensorFlowTrainStep

        self._among_workers, self._strategy = bool(request.workers), _strategy(request, devices)
        batch = request.images * self._strategy.num_replicas_in_sync
        config = CheckConfig(precision=request.precision, side=request.side)
        loader = config.loader()
        with self._strategy.scope():
            self.model, self._before = config.model()
            recipe = dataclasses.replace(LEARNABLE, draw_size=batch, batch_size=batch)
            self._step = TensorFlowTrainStep(self.model, loader, recipe)
        updates = self._step.updates_per_call
        self._indices = (np.arange(updates * batch) % loader.num_train).reshape(updates, batch)
        self._losses: list[float] = []
        self.seconds: list[float] = []  # per update, by round

    def run_round(self) -> None:
        self._synchronize()
        start = time.perf_counter()
        losses, _ = self._step(self._indices)
        self._synchronize()
        self.seconds.append((time.perf_counter() - start) / len(self._indices))
        self._losses += np.asarray(losses, float).tolist()

    def _replicas(self, variable: Any) -> list[np.ndarray]:
        return [np.asarray(each) for each in self._strategy.experimental_local_results(variable.value)]

    def _synchronize(self) -> None:
        """Wait for the devices; among workers by reading the last variable, as TensorFlow has no other way there."""
        if self._among_workers:
            self._replicas(self.model.trainable_variables[-1])
        else:
            synchronize()

    def fault(self) -> str | None:
        """Return what is wrong with the losses, or the weights of a replica; None if nothing is."""
        for update, loss in enumerate(self._losses, 1):
            if not math.isfinite(loss):
                return f"the loss is {loss} at update {update}"
        for variable, before in zip(self.model.trainable_variables, self._before, strict=True):
            first, *others = self._replicas(variable)
            if not np.isfinite(first).all():
                return f"{variable.path} isn't finite after {len(self._losses)} updates"
            if np.array_equal(first, before):
                return f"{variable.path} didn't change in {len(self._losses)} updates"
            if not all(np.array_equal(first, other) for other in others):
                return f"{variable.path} isn't the same on all devices after {len(self._losses)} updates"
        return None


def _time_all_reduces(request: Request) -> Iterator[dict[str, Any]]:
    """Time all-reduces of several sizes, then of the model's gradients, tensor by tensor as the optimizer has them."""
    strategy = _strategy(request, request.devices)
    for size in SIZES:
        yield _time_all_reduce(strategy, [(size // 4,)])
    with strategy.scope():
        model, _ = CheckConfig(side=request.side).model()
    yield _time_all_reduce(strategy, [tuple(variable.shape) for variable in model.trainable_variables])


def _time_all_reduce(strategy: Any, shapes: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """Time `tf.distribute`'s all-reduce of float32 tensors of these shapes, and check the sums."""
    import tensorflow as tf

    from alexnet_repro.backend.tensorflow_loop import mapped

    replicas = strategy.num_replicas_in_sync
    # Launching a round takes as long as a GPU's whole all-reduce.
    per_round = 10 if tf.config.list_logical_devices("GPU") else 1
    each_its_own, summed = tf.VariableSynchronization.ON_READ, tf.VariableAggregation.SUM
    with strategy.scope():
        made = (tf.zeros(shape) for shape in shapes)
        tensors = [tf.Variable(zeros, synchronization=each_its_own, aggregation=summed) for zeros in made]

    def fill() -> None:
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        for variable in tensors:
            variable.assign(tf.fill(variable.shape, tf.cast(index + 1, tf.float32)))

    def reduced(*parts: Callable[[Any], Any]) -> Any:
        context = tf.distribute.get_replica_context()
        sums = context.all_reduce("SUM", [variable.read_value() for variable in tensors])
        return tf.stack([part(each) for each in sums for part in parts])

    def once(_: Any) -> list[Any]:  # reading more than the first elements would take its time
        first = strategy.run(lambda: reduced(lambda each: tf.reshape(each, [-1])[0]))
        return [tf.stack(strategy.experimental_local_results(first))]

    tf.function(lambda: strategy.run(fill))()
    compiled, seconds, repeats = tf.function(lambda count: mapped(once, count, results=1)), [], tf.constant(per_round)
    np.asarray(compiled(repeats))
    for _ in range(ALL_REDUCE_ROUNDS):
        start = time.perf_counter()
        np.asarray(compiled(repeats))  # read, as TensorFlow can't wait for all devices where there are other workers
        seconds.append((time.perf_counter() - start) / per_round)
    extremes = tf.function(lambda: strategy.run(lambda: reduced(tf.reduce_min, tf.reduce_max)))()
    found = strategy.experimental_local_results(extremes)
    sums, right = np.concatenate([np.asarray(each) for each in found]), replicas * (replicas + 1) / 2
    wrong = None if (sums == right).all() else f"the sum of 1 to {replicas} came out as {sums[sums != right][0]}"
    size = 4 * sum(math.prod(shape) for shape in shapes)
    return {"bytes": size, "tensors": len(shapes), "devices": replicas, "seconds": seconds, "fault": wrong}


def _time_copies(request: Request) -> Iterator[dict[str, Any]]:
    """Time copies between the host and each device, one device after the other."""
    yield {"rates": {device: copy_rates(device) for device in request.devices}, "fault": None}


def main(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the answers in the child; an error is a finding."""
    import keras

    request = Request(**json.loads(text))
    if request.cpu_replicas:
        split_cpu(request.cpu_replicas)
    else:
        enable_memory_growth()
    keras.utils.set_random_seed(0)
    try:
        with numerics(request.precision):
            time_it = {"steps": _time_steps, "all-reduce": _time_all_reduces, "copies": _time_copies}[request.kind]
            for answer in time_it(request):
                yield request.kind, answer
    except Exception as error:  # noqa: BLE001 - it is the answer
        yield "crash", asdict(crashed(request.kind, error, device=request.device))
