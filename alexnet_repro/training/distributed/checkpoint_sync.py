"""What workers settle by TensorFlow's collectives: when to stop, and from which checkpoint to go on.

Everything that goes through here is summed up over all replicas, of which all but one give zeros: exact, and no file
system has to be shared.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from alexnet_repro.training.checkpoint import Checkpoints, Store
from alexnet_repro.training.history import History

CHUNKS = (1 << 12, 1 << 22)
"""Numbers in one collective, 16 kB or 16 MB: TensorFlow compiles these two, whatever is sent."""


class Exchange:
    """Sends bytes from the chief to all workers, and adds up what each of them has to say."""

    def __init__(
        self,
        strategy: Any,
        task: int,
        workers: int,
        around: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        """Compile nothing yet; `around` returns what each collective is done in."""
        self.strategy, self.task, self.workers, self.around = strategy, task, workers, around
        self._sums: dict[int, Any] = {}

    def gathered(self, number: int) -> list[int]:
        """Return the number, below 2**16, that each worker calls this with; all have to call it at the same time."""
        own = [number * (task == self.task) for task in range(self.workers)]
        return [int(each) for each in self._summed(np.array(own, np.float32))]

    def from_chief(self, content: bytes) -> bytes:
        """Return the `content` that the chief calls this with; all have to call it at the same time.

        Every two bytes travel as a float32: those are summed exactly, and by the very collective that gradients go by.
        """
        own = content if self.task == 0 else b""
        high, low = self._summed(np.array([len(own) >> 16, len(own) & 0xFFFF], np.float32))
        size = (int(high) << 16) + int(low)
        numbers = np.zeros(-(-size // 2), np.uint16)
        numbers.view(np.uint8)[: len(own)] = np.frombuffer(own, np.uint8)
        rest = numbers
        while len(rest):
            sent = np.zeros(next((each for each in CHUNKS if each >= len(rest)), CHUNKS[-1]), np.float32)
            part, rest = rest[: len(sent)], rest[len(sent) :]
            sent[: len(part)] = part
            part[:] = self._summed(sent)[: len(part)]
        return numbers.view(np.uint8)[:size].tobytes()

    def _summed(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of what all workers call this with; only the first replica of each adds to it."""
        if len(values) not in self._sums:
            self._sums[len(values)] = _sum_of(self.strategy, self.strategy.num_replicas_in_sync // self.workers)
        with self.around():
            return np.asarray(self._sums[len(values)](tf.constant(values)))


def _sum_of(strategy: Any, local_replicas: int) -> Any:
    def own(values: Any) -> Any:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return values if local_replicas == 1 else tf.where(replica % local_replicas == 0, values, tf.zeros_like(values))

    def summed(values: Any) -> Any:
        return strategy.reduce("SUM", strategy.run(own, (values,)), axis=None)

    return tf.function(summed, autograph=False)


@dataclass(frozen=True)
class SharedCheckpoints(Checkpoints):
    """Checkpoints that the chief alone saves and reads; the others are told what is in them."""

    exchange: Exchange | None = None

    @contextlib.contextmanager
    def opened(self, variables: Sequence[Any], identity: Mapping[str, Any]) -> Iterator["SharedStore"]:
        """Take the folder on the chief; as `Checkpoints.opened` otherwise."""
        if self.exchange is None:
            raise ValueError("shared checkpoints need an exchange")
        with contextlib.ExitStack() as stack:
            if self.exchange.task == 0:
                stack.enter_context(super().opened(variables, identity))
            yield SharedStore(self, variables, identity, self.exchange)


@dataclass(frozen=True)
class SharedStore(Store):
    """The checkpoints of one training by many workers."""

    exchange: Exchange

    def save(self, history: History, *, needed: bool = True) -> Any:
        """Save on the chief, as `Store.save` does; None on the others."""
        return super().save(history, needed=needed) if self.exchange.task == 0 else None

    def restore(self) -> History:
        """Restore on the chief, as `Store.restore` does, and on the others what it has then, bit for bit."""
        history = super().restore() if self.exchange.task == 0 else History.empty()
        history = _unpacked(self.exchange.from_chief(_packed(history)))
        if history.draws:
            for variable in self.variables:
                value = np.asarray(ops.convert_to_numpy(variable))
                sent = self.exchange.from_chief(np.ascontiguousarray(value).tobytes())
                if self.exchange.task != 0:
                    variable.assign(np.frombuffer(sent, value.dtype).reshape(value.shape))
        return history


def _packed(history: History) -> bytes:
    """Return a history as JSON, every float64 as its bits."""
    arrays = {name: getattr(history, name).tobytes().hex() for name in ("losses", "accuracies")}
    return json.dumps({**history.as_data(), **arrays}).encode()


def _unpacked(content: bytes) -> History:
    data = json.loads(content)
    losses, accuracies = (np.frombuffer(bytes.fromhex(data[name]), np.float64) for name in ("losses", "accuracies"))
    return History.from_data(data, losses, accuracies)
