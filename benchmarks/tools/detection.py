"""Which faults would a verification miss? Bits flipped in real train steps, and errors beside the checks' own bounds.

docs/method/detection.md has the tables that this prints, and what follows from them.

    python -m benchmarks.tools.detection flips --into=FILE [--each=12] [--precision=float32]
    python -m benchmarks.tools.detection sizes --into=FILE [--precision=float32]
    python -m benchmarks.tools.detection persistent --into=FILE [--precision=float32]
    python -m benchmarks.tools.detection show [FILE]

`flips` makes a replay's step of the documented model over and over, with one bit of one element flipped each time, and
has the replay's digests say whether it shows. `sizes` reads off the checks' own comparison how large an error that is
there each time must be; `persistent` puts such errors into real checks. These need TensorFlow, and write what they find
into the file, also a line for each as it comes; `show` prints tables of the file, and of what is counted.
"""

import argparse
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from alexnet_repro.data.loader import DataLoader
from alexnet_repro.files import atomic_write
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.repeatability import REPLAY_BATCH
from alexnet_repro.verify.numerics.replay import Replay
from benchmarks.tools import detection_sizes, detection_tables

BITS = {"float32": 32, "mixed_bfloat16": 16}  # of an activation of a hidden layer
HEAD = "dense_2"


class Site(NamedTuple):
    """An array of a train step, one bit of which flips: what it is, and of which layer."""

    kind: str  # a name in `detection_tables.KINDS`
    layer: str


class Flip(NamedTuple):
    """A flip of one bit, and what it changed."""

    precision: str
    kind: str
    layer: str
    bit: int  # 0 is the lowest
    width: int  # bits of the element
    where: str  # what differs first, as `loss` or `weight alexnet/dense/kernel`; empty: nothing


class FlippingReplay(Replay):
    """A replay's first step with one bit flipped in it, where `aim` says; its layers are those of the real step."""

    def __init__(self, config: CheckConfig, loader: DataLoader, indices: np.ndarray) -> None:
        """Build the replay, and put a switch behind each of its arrays; before the first step its graph isn't made."""
        import tensorflow as tf

        super().__init__(loader, indices, config.side, config.running)
        self._site, self._place, self._mask = (
            tf.Variable(first, trainable=False, dtype=dtype)
            for first, dtype in ((-1, tf.int32), (0, tf.int64), (0, tf.int32))
        )
        self._weight: tuple[Any, int, int] | None = None
        self._clean: list[tuple[str, np.ndarray]] | None = None
        self.sites: list[Site] = []
        self._variables = {layer.name: layer.kernel for layer in self.model.layers if hasattr(layer, "kernel")}
        for layer in self.train_step.classifier.logits.layers[1:]:
            name = HEAD if layer.name == "logits" else layer.name
            if name in self._variables:
                self.sites.append(Site("weight", name))
            if name in self._variables or name.startswith("max"):
                self._switch(layer, name)

    def _switch(self, layer: keras.layers.Layer, name: str) -> None:
        """Have a layer's arrays pass the switch: its input, its sums, its output, and the gradient by its output."""
        sums = name in self._variables
        pixels = self._new(Site("pixels", name)) if name == "conv2d" else None
        of_sums = self._new(Site("sum", name)) if sums else None
        output, gradient = (self._new(Site(kind, name)) if name != HEAD else None for kind in ("output", "gradient"))
        call = layer.call
        if sums and name != HEAD:
            activation = layer.activation
            layer.activation = lambda z: activation(self._forward(z, of_sums))

        def switched(x: Any, *arguments: Any, **options: Any) -> Any:
            y = call(x if pixels is None else self._forward(x, pixels), *arguments, **options)
            if name == HEAD:
                return self._forward(y, of_sums)
            return self._backward(self._forward(y, output), gradient)

        layer.call = switched

    def _new(self, site: Site) -> int:
        self.sites.append(site)
        return len(self.sites) - 1

    def aim(self, site: Site | None, place: int = 0, bit: int = 0) -> None:
        """Flip `bit` of the element `place`, modulo the array's size, in the next runs; without a site nothing."""
        self._weight = None
        self._site.assign(-1)
        if site and site.kind == "weight":
            self._weight = (self._variables[site.layer], place, bit)
        elif site:
            self._site.assign(self.sites.index(site))
            self._place.assign(place)
            self._mask.assign(np.array(1 << bit, np.uint32).astype(np.int32))

    def changed(self) -> str:
        """Make the step with the flip that was aimed, and return the first array that isn't the clean step's.

        As a replay's digests would name it, and in their order, but without the digests, which take most of the time:
        equal bits, equal digests. Empty: each bit is the same.
        """
        arrays = self._arrays()
        if self._clean is None:
            self._clean = [(name, array.copy()) for name, array in arrays]
            return ""
        pairs = zip(arrays, self._clean, strict=True)
        return next((name for (name, array), (_, clean) in pairs if not np.array_equal(array, clean)), "")

    def _arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """Make the step from the state before it, and yield what a replay makes digests of, as integers."""
        with self.running():
            for variable, value in self._state:
                variable.assign(value)
            if self._weight:
                variable, place, bit = self._weight
                values = np.array(ops.convert_to_numpy(variable.value), np.float32)
                values.reshape(-1).view(np.uint32)[place % values.size] ^= np.uint32(1 << bit)
                variable.assign(values)
            losses, _ = self.train_step(self.indices)
        yield "loss", np.array(losses, np.float32).view(np.int32)
        variables = self.model.trainable_variables[::-1]
        for what, held in (("gradient of", self.optimizer.momentums[::-1]), ("weight", variables)):
            for variable, each in zip(variables, held, strict=True):
                array = np.ascontiguousarray(ops.convert_to_numpy(each.value), np.float32)
                yield f"{what} {variable.path}", array.view(np.int32)

    def _forward(self, x: Any, number: int) -> Any:
        """Return `x` with its flip; gradients pass as they are."""
        import tensorflow as tf

        chosen = self._chosen()
        return tf.custom_gradient(lambda x: (_flipped(x, number, *chosen), lambda dy: dy))(x)

    def _backward(self, x: Any, number: int) -> Any:
        """Return `x`, whose gradient has the flip."""
        import tensorflow as tf

        chosen = self._chosen()
        return tf.custom_gradient(lambda x: (tf.identity(x), lambda dy: _flipped(dy, number, *chosen)))(x)

    def _chosen(self) -> tuple[Any, ...]:
        return tuple(each.read_value() for each in (self._site, self._place, self._mask))


def _flipped(x: Any, number: int, site: Any, place: Any, mask: Any) -> Any:
    """Return `x`, with the bits of `mask` flipped in one element where `site` is this number."""
    import tensorflow as tf

    def hit() -> Any:
        integers = tf.int16 if x.dtype.size == 2 else tf.int32
        flat = tf.reshape(tf.bitcast(x, integers), (-1,))
        at = place % tf.size(flat, tf.int64)
        new = tf.bitwise.bitwise_xor(flat[at], tf.cast(mask, integers))
        return tf.bitcast(tf.reshape(tf.tensor_scatter_nd_update(flat, [[at]], [new]), tf.shape(x)), x.dtype)

    return tf.cond(tf.equal(site, number), hit, lambda: tf.identity(x))


def flipping_replay(config: CheckConfig) -> FlippingReplay:
    """Return the first step of the check `replay`, with switches."""
    loader = config.loader()
    return FlippingReplay(config, loader, loader.draw_train_indices(REPLAY_BATCH)[np.newaxis])


def flip(replay: FlippingReplay, site: Site, place: int, bit: int, precision: str) -> Flip:
    """Flip one bit in a step, and return what it changes beside the clean one."""
    replay.aim(site, place, bit)
    where = replay.changed()
    replay.aim(None)
    return Flip(precision, *site, bit, _width(site, precision), where)


def _width(site: Site, precision: str) -> int:
    """Return the bits of an element: the head, weights and pixels are float32 in every precision."""
    wide = site.kind in {"weight", "pixels"} or site.layer == HEAD
    return 32 if wide else BITS[precision]


def random_flips(precision: str, each: int, seed: int, kinds: Sequence[str]) -> Iterator[Flip]:
    """Yield the outcomes of `each` random flips in each array of these kinds: any element and any bit alike."""
    replay = flipping_replay(CheckConfig(precision=precision))
    if replay.changed() or replay.changed():
        raise ValueError("the clean step isn't the same twice: nothing can be seen beside it")
    random = np.random.default_rng(zlib.crc32(f"{precision}{seed or ''}".encode()))
    for _ in range(each):
        for site in (site for site in replay.sites if site.kind in kinds):
            bit = int(random.integers(_width(site, precision)))
            yield flip(replay, site, int(random.integers(1 << 40)), bit, precision)


def _add(path: Path, name: str, precision: str, rows: list[Any]) -> None:
    """Put what was found in one precision into a file: flips beside those there, all else in its place."""
    stored = json.loads(path.read_bytes()) if path.exists() else {}
    found = stored.setdefault(name, {})
    found[precision] = found.get(precision, []) * (name == "flips") + rows
    atomic_write(path, json.dumps(stored).replace("], [", "],\n  [") + "\n")


MAKES: dict[str, Callable[[str, argparse.Namespace], Iterable[Any]]] = {
    "flips": lambda precision, given: (row[1:] for row in random_flips(precision, given.each, given.seed, given.kinds)),
    "sizes": lambda precision, _: detection_sizes.sizes(precision),
    "persistent": lambda precision, _: detection_sizes.persistent(precision),
}


def main() -> int:
    """Inject and record, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*MAKES, "show"])
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="to show; by default what is on file")
    parser.add_argument("--into", type=Path, metavar="FILE")
    parser.add_argument("--precision", nargs="+", default=list(BITS), choices=list(BITS))
    kinds = [kind for kind in detection_tables.KINDS if kind != "read"]
    parser.add_argument("--kinds", nargs="+", default=kinds, choices=kinds, help="of the arrays (all)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another one adds other flips (%(default)s)")
    parser.add_argument("--each", type=int, default=12, metavar="N", help="flips in each array (%(default)s)")
    arguments = parser.parse_args()
    if arguments.what == "show":
        stored = json.loads((arguments.file or detection_tables.RECORDED).read_bytes())
        for name, make in detection_tables.tables(stored).items():
            print(f"{name}\n\n{make()}\n")
        return 0
    for precision in arguments.precision:
        rows: list[Any] = []
        for row in MAKES[arguments.what](precision, arguments):
            print(json.dumps([precision, *row]), flush=True)
            rows.append(row)
        if arguments.into:
            _add(arguments.into, arguments.what, precision, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
