"""The devices that train together: one, all GPUs of a machine, or those of many workers.

Make a `Distribution` before any model, tensor or device list: TensorFlow has to be configured first.
"""

import hashlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np

from alexnet_repro.backend.devices import split_cpu, usable_devices
from alexnet_repro.data.loader import DataLoader
from alexnet_repro.packages import package_version
from alexnet_repro.training.checkpoint import Checkpoints
from alexnet_repro.training.distributed.checkpoint_sync import Collectives, SharedCheckpoints
from alexnet_repro.training.distributed.cluster import Cluster, ClusterError
from alexnet_repro.training.distributed.coordination import COLLECTIVE, HOST, IO, TICK, Watchdog
from alexnet_repro.training.distributed.rendezvous import rendezvous
from alexnet_repro.training.loop import TrainingStoppedError
from alexnet_repro.training.recipe import Recipe
from alexnet_repro.training.stop_signal import StopRequest
from alexnet_repro.training.train_step import TrainStep, best_train_step


class Distribution:
    """The devices that train together, and what `train` needs of them; this class itself is the one Keras takes."""

    chief = True  # whether this process prints and saves
    stopped_by = 0  # the signal that stopped training, on whichever worker; 0 if none did

    def scope(self) -> AbstractContextManager[Any]:
        """Return the context to build models in."""
        return nullcontext()

    def step(self, model: keras.Sequential, loader: DataLoader, recipe: Recipe) -> TrainStep:
        """Return the train step."""
        with self.scope():
            return best_train_step(model, loader, recipe)

    def checkpoints(self, checkpoints: Checkpoints | None) -> Checkpoints | None:
        """Return what saves and restores for all workers."""
        return checkpoints

    def stopping(self, stop_request: StopRequest) -> Callable[[], bool]:
        """Return what `train` calls after each call of the step: whether to stop, given whether this process should."""
        return stop_request

    def pausing(self) -> AbstractContextManager[None]:
        """Return the context that saving and evaluation run in."""
        return nullcontext()


class Mirrored(Distribution):
    """The GPUs of this machine, in this process."""

    def __init__(self, recipe: Recipe, replicas: int | None = None) -> None:
        """Take all GPUs; or split the CPU into `replicas`, for tests.

        Raises:
            ClusterError: there is no GPU, or the recipe's batch can't be shared.
        """
        import tensorflow as tf

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
        """Return the strategy's."""
        scope: AbstractContextManager[Any] = self.strategy.scope()
        return scope


class MultiWorker(Distribution):
    """The devices of many processes, on many machines; each makes one of these."""

    def __init__(self, cluster: Cluster, watchdog: Watchdog) -> None:
        """Begin with all others, as `multi_worker_strategy`."""
        self.cluster, self.watchdog, self.chief, self.stopped_by = cluster, watchdog, cluster.chief, 0
        with watchdog.inside(COLLECTIVE):
            self.strategy = multi_worker_strategy(cluster)
        workers = len(cluster.addresses)
        self.collectives = Collectives(self.strategy, cluster.task, workers, lambda: watchdog.inside(COLLECTIVE))

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Return the strategy's: models built in it begin with the chief's values."""
        with self.watchdog.inside(COLLECTIVE), self.strategy.scope():
            yield

    def step(self, model: keras.Sequential, loader: DataLoader, recipe: Recipe) -> TrainStep:
        """Return a train step that reports to the watchdog."""
        return WatchedTrainStep(super().step(model, loader, recipe), self.watchdog)

    def checkpoints(self, checkpoints: Checkpoints | None) -> Checkpoints | None:
        """Return those that the chief saves and restores for all."""
        return checkpoints and SharedCheckpoints(**vars(checkpoints), collectives=self.collectives)

    def stopping(self, stop_request: StopRequest) -> Callable[[], bool]:
        """Return what gives all workers the same answer after the same update, if any of them should stop."""

        def agreed() -> bool:
            self.stopped_by = max(self.collectives.all_gather_int(stop_request.signal or 0))
            self.watchdog.enter(HOST)
            return self.stopped_by > 0

        return agreed

    def pausing(self) -> AbstractContextManager[None]:
        """Return a context that may take longer than an update."""
        return self.watchdog.inside(IO)


class WatchedTrainStep:
    """A train step that reports to the watchdog that the main thread is in a collective, and its progress."""

    def __init__(self, step: TrainStep, watchdog: Watchdog) -> None:
        """Watch over `step`."""
        self._step, self._watchdog = step, watchdog
        self.classifier, self.variables, self.updates_per_call = step.classifier, step.variables, step.updates_per_call

    def __call__(self, indices: np.ndarray) -> tuple[Any, Any]:
        """Make the updates; the main thread is in collectives until all workers have agreed whether to stop."""
        self._watchdog.enter(COLLECTIVE, updates=len(indices))
        return self._step(indices)


@contextmanager
def working_together(cluster: Cluster, own: Mapping[str, Any], timeout: float, recipe: Recipe) -> Iterator[MultiWorker]:
    """Meet the other workers, train with them, and leave with them.

    If this worker fails, or another does, the process ends here, by `os._exit`: TensorFlow would wait for the missing.
    `own` is from `plan`; a worker may take `timeout` seconds to start, and be silent as long.

    Raises:
        ClusterError: they don't come together, see `rendezvous.rendezvous`; or can't share a batch.
    """
    connections = rendezvous(cluster, own, timeout)  # before the batch is checked: now all have as many devices
    check_shared(recipe, len(cluster.addresses) * (num_gpus() or 1))  # one replica per GPU, or on the CPU
    watchdog = Watchdog(cluster, connections, timeout)
    watchdog.start()
    try:
        yield MultiWorker(cluster, watchdog)
    except TrainingStoppedError:
        watchdog.finish()
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, the others must not wait for this worker
        _fail(watchdog, error)
    watchdog.finish()


def _fail(watchdog: Watchdog, error: BaseException) -> NoReturn:
    import tensorflow as tf

    status = 1
    if isinstance(error, tf.errors.OpError):
        # Most often by another's death. The watchdog knows whose, or will, and ends this process with the name.
        lost = "ollective" in error.message or isinstance(error, tf.errors.UnavailableError)
        time.sleep(watchdog.timeout + 1 if lost else 10 * TICK)
        text = f"stopped by TensorFlow: {' '.join(error.message.split())[:300]}"
    elif isinstance(error, KeyboardInterrupt):
        text, status = "was interrupted", 128 + signal.SIGINT
    elif isinstance(error, OSError | ArithmeticError):
        text = f"stopped: {error}"
    else:
        traceback.print_exception(error)
        text = f"failed: {error!r}"
    watchdog.fail(f"{watchdog.cluster.name(watchdog.cluster.task)} {text}", status)


def multi_worker_strategy(cluster: Cluster) -> Any:
    """Start TensorFlow's server, and wait until all others have; nothing of TensorFlow's may have run before."""
    import tensorflow as tf

    # Or gRPC looks for the workers behind the proxy of http_proxy or https_proxy, and waits for ever.
    os.environ["grpc_proxy"] = ""  # noqa: SIM112  # gRPC reads the lower case
    spec, gpus = tf.train.ClusterSpec({"worker": list(cluster.addresses)}), {"GPU": num_gpus()}
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        spec, task_type="worker", task_id=cluster.task, num_accelerators=gpus, rpc_layer="grpc"
    )
    return tf.distribute.MultiWorkerMirroredStrategy(resolver)


def check_shared(recipe: Recipe, replicas: int) -> None:
    """Refuse a batch that the replicas can't share equally.

    Raises:
        ClusterError: the message has the option to change.
    """
    if recipe.batch_size % replicas:
        draw = recipe.draw_size
        sizes = [str(size) for size in range(replicas, draw + 1, replicas) if draw % size == 0]
        what = f"a batch of {recipe.batch_size} can't be shared equally among {replicas} replicas"
        if not sizes:
            raise ClusterError(f"{what}, nor any other part of a draw of {draw}: use a number that divides {draw}")
        raise ClusterError(f"{what}: add --batch-size={' or '.join(sizes)}")


def plan(loader: DataLoader, recipe: Recipe, precision: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what all workers have to agree in, for `rendezvous`; `options` also decide which collectives run."""
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
    """Return the software that workers must share: versions, and a digest of this package's source."""
    packages = {name: package_version(name) or "none" for name in ("tensorflow", "keras", "alexnet-repro")}
    source = source_digest(Path(__file__).parents[2])
    return {"python": sys.version.split()[0], **packages, "alexnet-repro's source": source}


def source_digest(folder: Path) -> str:
    """Return a digest of a folder's Python files, names and content: a checkout may differ at the same version."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\n{path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def num_gpus() -> int:
    """Return how many GPUs this process can use."""
    return len(usable_devices()) - 1
