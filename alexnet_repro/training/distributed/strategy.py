"""Which devices train together: all GPUs of a machine, or many machines; and what `train` needs for it.

TensorFlow wants to be told before it starts: one of these is made before any model, tensor or device list.
"""

import hashlib
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from alexnet_repro.backend.devices import split_cpu
from alexnet_repro.data.loader import DataLoader
from alexnet_repro.training.checkpoint import Checkpoints
from alexnet_repro.training.distributed.checkpoint_sync import Exchange, SharedCheckpoints
from alexnet_repro.training.distributed.cluster import Cluster, ClusterError
from alexnet_repro.training.distributed.handshake import meet
from alexnet_repro.training.distributed.one_device import OneDevice
from alexnet_repro.training.distributed.watchdog import APART, BUSY, TICK, TOGETHER, Watch
from alexnet_repro.training.loop import TrainingStoppedError
from alexnet_repro.training.recipe import Recipe
from alexnet_repro.training.tensorflow_step import TensorFlowTrainStep
from alexnet_repro.training.train_step import TrainStep


class Mirrored(OneDevice):
    """The GPUs of this machine, in one process."""

    def __init__(self, recipe: Recipe, replicas: int | None = None) -> None:
        """Take all GPUs, or split the CPU in so many `replicas`, to try it.

        Raises:
            ClusterError: there is no GPU, or the recipe's batch can't be shared.
        """
        gpus = num_gpus()
        if replicas is None and not gpus:
            raise ClusterError(
                "--distribute=mirrored is for GPUs, and TensorFlow can use none here; why:\n"
                "  python -m alexnet_repro doctor\nor, to try it on a CPU in two parts, add --replicas=2"
            )
        check_shared(recipe, replicas or gpus)
        if replicas is not None:
            split_cpu(replicas)
        devices = None if replicas is None else [f"CPU:{number}" for number in range(replicas)]
        self.strategy = tf.distribute.MirroredStrategy(devices)

    def scope(self) -> AbstractContextManager[Any]:
        """Return what models are built in."""
        scope: AbstractContextManager[Any] = self.strategy.scope()
        return scope

    def step(self, model: keras.Sequential, loader: DataLoader, recipe: Recipe) -> TrainStep:
        """Return what makes the updates."""
        with self.scope():
            return TensorFlowTrainStep(model, loader, recipe)


def check_shared(recipe: Recipe, replicas: int) -> None:
    """Refuse a batch that so many replicas can't share equally.

    Raises:
        ClusterError: says what to type.
    """
    if recipe.batch_size % replicas:
        draw = recipe.draw_size
        sizes = [str(size) for size in range(replicas, draw + 1, replicas) if draw % size == 0]
        what = f"a batch of {recipe.batch_size} can't be shared equally among {replicas} replicas"
        if not sizes:
            raise ClusterError(f"{what}, nor any other part of a draw of {draw}: take as many as divide {draw}")
        raise ClusterError(f"{what}: take --batch-size={' or '.join(sizes)}")


def plan(loader: DataLoader, recipe: Recipe, precision: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what workers have to agree in before they begin, as `handshake.meet` takes it.

    `options` is what else decides which collectives a worker takes part in, and when.
    """
    return {
        "versions": worker_versions(),
        "recipe": recipe.as_data(),
        "seed": loader.seed,
        "data": {"sha256": loader.train_digest()},
        "precision": precision,
        "devices": {"GPUs": num_gpus()},
        "options": dict(options),
    }


def worker_versions() -> dict[str, str]:
    """Return what software workers have to have in common."""
    packages = {name: version(name) for name in ("tensorflow", "keras", "alexnet-repro")}
    return {
        "python": sys.version.split()[0],
        **packages,
        "alexnet-repro's source": source_digest(Path(__file__).parents[2]),
    }


def source_digest(folder: Path) -> str:
    """Return a digest of the Python files in a folder, names and content: in a checkout a version doesn't tell them."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\n{path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def num_gpus() -> int:
    """Return how many GPUs this process can use."""
    return len(tf.config.list_physical_devices("GPU"))


def local_replicas() -> int:
    """Return how many replicas a worker here has: one a GPU, or one on the CPU."""
    return num_gpus() or 1


def strategy_of(cluster: Cluster) -> Any:
    """Start TensorFlow's server, and wait until all others have; nothing of TensorFlow's may have run before."""
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
        task_type="worker",
        task_id=cluster.task,
        num_accelerators={"GPU": num_gpus()},
        rpc_layer="grpc",
    )
    return tf.distribute.MultiWorkerMirroredStrategy(resolver)


class Workers(OneDevice):
    """The devices of many processes, on many machines; each makes one of these."""

    def __init__(self, cluster: Cluster, watch: Watch) -> None:
        """Begin with all others, as `strategy_of`."""
        self.cluster, self.watch = cluster, watch
        self.chief = cluster.chief
        with watch.inside(TOGETHER):
            self.strategy = strategy_of(cluster)
        self.exchange = Exchange(self.strategy, cluster.task, len(cluster.addresses), lambda: watch.inside(TOGETHER))

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Build models in this: their first values are the chief's."""
        with self.watch.inside(TOGETHER), self.strategy.scope():
            yield

    def step(self, model: keras.Sequential, loader: DataLoader, recipe: Recipe) -> TrainStep:
        """Return what makes the updates, and tells the watchdog."""
        with self.scope():
            return WatchedTrainStep(TensorFlowTrainStep(model, loader, recipe), self.watch)

    def checkpoints(self, checkpoints: Checkpoints | None) -> Checkpoints | None:
        """Return who saves and restores: the chief, for all."""
        if checkpoints is None:
            return None
        settings = {each.name: getattr(checkpoints, each.name) for each in fields(checkpoints)}
        return SharedCheckpoints(**settings, exchange=self.exchange)

    def stopping(self, stop_request: Callable[[], bool]) -> Callable[[], bool]:
        """Return what says the same to all workers after the same update, if any of them is to stop.

        `stop_request` has it in `signal`, as `alexnet_repro.training.stop_signal.StopRequest` does.
        """

        def agreed() -> bool:
            own = int(getattr(stop_request, "signal", None) or 1) if stop_request() else 0
            self.stopped_by = max(self.exchange.gathered(own))
            self.watch.move(APART)
            return self.stopped_by > 0

        return agreed

    def pausing(self) -> AbstractContextManager[None]:
        """Return what saving and measuring are done in, which take their time."""
        return self.watch.inside(BUSY)


class WatchedTrainStep:
    """A step that tells the watchdog when the main thread is in a collective, and how far it is."""

    def __init__(self, step: TrainStep, watch: Watch) -> None:
        """Watch over `step`."""
        self._step, self._watch = step, watch
        self.classifier, self.variables = step.classifier, step.variables
        self.updates_per_call = step.updates_per_call

    def __call__(self, indices: np.ndarray) -> tuple[Any, Any]:
        """Make the updates; until all workers have agreed whether to stop, the main thread is in collectives."""
        self._watch.move(TOGETHER, updates=len(indices))
        return self._step(indices)


@contextmanager
def working_together(cluster: Cluster, own: Mapping[str, Any], timeout: float, recipe: Recipe) -> Iterator[Workers]:
    """Meet the other workers, train with them, and leave with them.

    Where this worker fails, or is told that another did, the process ends here, by `os._exit`: TensorFlow would wait
    for those that are missing.

    Args:
        cluster: the workers.
        own: from `plan`.
        timeout: how many seconds a worker is waited for, at the start and whenever it falls silent.
        recipe: what they train, whose batch is shared among all their devices.

    Raises:
        ClusterError: they don't come together, see `handshake.meet`; or can't share a batch.
    """
    connections = meet(cluster, own, timeout)  # before the batch is asked for: with as many devices all say the same
    check_shared(recipe, len(cluster.addresses) * local_replicas())
    watch = Watch(cluster, connections, timeout)
    watch.start()
    try:
        yield Workers(cluster, watch)
    except TrainingStoppedError:
        watch.finish()
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, the others must not wait for this worker
        _fail(watch, error)
    watch.finish()


def _fail(watch: Watch, error: BaseException) -> NoReturn:
    name, status = watch.cluster.name(watch.cluster.task), 1
    if isinstance(error, tf.errors.OpError):
        # Most often by another's death. The watchdog knows whose, or will, and ends this process with the name.
        lost = "ollective" in error.message or isinstance(error, tf.errors.UnavailableError)
        time.sleep(watch.timeout + 1 if lost else 10 * TICK)
        text = f"stopped by TensorFlow: {' '.join(error.message.split())[:300]}"
    elif isinstance(error, KeyboardInterrupt):
        text, status = "was interrupted", 128 + signal.SIGINT
    elif isinstance(error, OSError | ArithmeticError):
        text = f"stopped: {error}"
    else:
        traceback.print_exception(error)
        text = f"failed: {error!r}"
    watch.fail(f"{name} {text}", status)
