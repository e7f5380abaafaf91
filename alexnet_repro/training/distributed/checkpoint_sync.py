"""Agreement on checkpoints and stops among workers: the chief saves and restores, the others get what it restored.

Everything goes through TensorFlow's collectives as a sum over all replicas, of which all but one add zeros: exact, and
without a file system that the workers share.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from alexnet_repro.training.checkpoint import Checkpoints, Store
from alexnet_repro.training.history import History

CHUNKS = (1 << 12, 1 << 22)
"""Float32 values per collective, 16 kB or 16 MB: TensorFlow compiles these two sizes, whatever is sent."""


class Collectives:
    """Integers from every worker, and bytes from the chief, by the strategy's all-reduce; every worker has to call."""

    def __init__(
        self, strategy: Any, task: int, workers: int, around: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        """Compile nothing yet; `around` returns the context that each collective runs in."""
        self.strategy, self.task, self.workers, self.around = strategy, task, workers, around
        self._sums: dict[int, Any] = {}

    def all_gather_int(self, number: int) -> list[int]:
        """Return every worker's `number`, each below 2**16, by index."""
        own = [number * (task == self.task) for task in range(self.workers)]
        return [int(each) for each in self._sum(np.array(own, np.float32))]

    def broadcast_from_chief(self, content: bytes) -> bytes:
        """Return the chief's `content`. Two bytes travel as one float32: exact, and as gradients do."""
        own = content if self.task == 0 else b""
        high, low = self._sum(np.array([len(own) >> 16, len(own) & 0xFFFF], np.float32))
        size = (int(high) << 16) + int(low)
        numbers = np.zeros(-(-size // 2), np.uint16)
        numbers.view(np.uint8)[: len(own)] = np.frombuffer(own, np.uint8)
        rest = numbers
        while len(rest):
            chunk = np.zeros(next((each for each in CHUNKS if each >= len(rest)), CHUNKS[-1]), np.float32)
            part, rest = rest[: len(chunk)], rest[len(chunk) :]
            chunk[: len(part)] = part
            part[:] = self._sum(chunk)[: len(part)]
        return numbers.view(np.uint8)[:size].tobytes()

    def _sum(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of all workers' values, compiled once per size; the first replica of each worker adds them."""
        import tensorflow as tf

        local_replicas = self.strategy.num_replicas_in_sync // self.workers

        def own(values: Any) -> Any:
            first = tf.distribute.get_replica_context().replica_id_in_sync_group % local_replicas == 0
            return values if local_replicas == 1 else tf.where(first, values, tf.zeros_like(values))

        def summed(values: Any) -> Any:
            return self.strategy.reduce("SUM", self.strategy.run(own, (values,)), axis=None)

        if len(values) not in self._sums:
            self._sums[len(values)] = tf.function(summed, autograph=False)
        with self.around():
            return np.asarray(self._sums[len(values)](tf.constant(values)))


@dataclass(frozen=True)
class SharedCheckpoints(Checkpoints):
    """Checkpoints on the chief's disk alone."""

    collectives: Collectives = field(kw_only=True)

    @contextmanager
    def opened(self, variables: Sequence[Any], identity: Mapping[str, Any]) -> Iterator["SharedStore"]:
        """Lock the folder on the chief; otherwise as `Checkpoints.opened`."""
        with super().opened(variables, identity) if self.collectives.task == 0 else nullcontext():
            yield SharedStore(self, variables, identity, self.collectives)


@dataclass(frozen=True)
class SharedStore(Store):
    """The checkpoints of one training by several workers."""

    collectives: Collectives

    def save(self, history: History, *, needed: bool = True) -> Any:
        """Save on the chief, as `Store.save` does; None on the others."""
        return super().save(history, needed=needed) if self.collectives.task == 0 else None

    def room(self, saves: int, *, again: bool) -> list[tuple[Path, int]]:
        """Return what `Store.room` does on the chief; nothing on the others."""
        return super().room(saves, again=again) if self.collectives.task == 0 else []

    def protect(self, *, resume: bool) -> None:
        """Check the chief's folder, as `Store.protect` does; on the others none is written to."""
        if self.collectives.task == 0:
            super().protect(resume=resume)

    def restore(self) -> History:
        """Restore on the chief, as `Store.restore` does, and on the others the same, bit for bit."""
        chief, broadcast = self.collectives.task == 0, self.collectives.broadcast_from_chief
        history = super().restore() if chief else History()
        bits = {name: getattr(history, name).tobytes().hex() for name in ("losses", "accuracies")}
        data = json.loads(broadcast(json.dumps({**history.as_data(), **bits}).encode()))
        history = History.from_data(data, *(np.frombuffer(bytes.fromhex(data[name]), np.float64) for name in bits))
        for variable in self.variables if history.draws else ():
            value = np.asarray(ops.convert_to_numpy(variable))
            sent = broadcast(np.ascontiguousarray(value).tobytes())
            if not chief:
                variable.assign(np.frombuffer(sent, value.dtype).reshape(value.shape))
        return history
