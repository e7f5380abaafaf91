"""The roofline of a case, layer by layer: the time that its arithmetic and memory would take at the calibrated rates.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore
architectures", Communications of the ACM 52(4), 2009; here of each product and each pass over arrays, added up.
docs/method/roofline.md derives it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from math import prod
from typing import Literal, NamedTuple

from alexnet_repro import documented
from alexnet_repro.verify.benchmark.timing import Calibration

Direction = Literal["forward", "backward", "update"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "backward", "update")
BYTES = {"float32": 4, "tf32": 4, "mixed_bfloat16": 2, "mixed_float16": 2}  # of an activation of a hidden layer
SIDE, WINNER = 28, 1  # pixels of an image before it is resized; bytes that keep a maximum's place or a dropped unit
LAUNCHES = {"forward": 20, "update": 100}  # launched at least


class Part(NamedTuple):
    """A product, or one pass over arrays: its operations, and the bytes of memory that it reads and writes at least.

    An array that is updated in place is counted as read twice: where it was read, writing it back takes no more.
    """

    layer: str
    direction: Direction
    flop: int
    read: int
    written: int

    def seconds(self, precision: str, rates: Calibration) -> tuple[float, float]:
        """Return what its arithmetic and its memory take at a device's rates; the larger is its bound."""
        read, write = rates.read or rates.memory, rates.write or rates.memory
        compute = self.flop / rates.matmul[precision] if self.flop else 0.0
        return compute, self.read / read + self.written / write


class Work(NamedTuple):
    """The parts of a round, which are done `times` times, one after the other, and the kernels launched for each."""

    parts: tuple[Part, ...]
    kernels: int = 1
    times: int = 1

    @property
    def flop(self) -> int:
        """Of a round."""
        return self.times * sum(part.flop for part in self.parts)

    @property
    def bytes(self) -> int:
        """Read and written by a round."""
        return self.times * sum(part.read + part.written for part in self.parts)


class Bound(NamedTuple):
    """The least time of a round, in seconds, by what limits it; and the layer that takes over half of it, or none."""

    compute: float
    memory: float
    layer: str

    @property
    def seconds(self) -> float:
        """Of both."""
        return self.compute + self.memory


def forward(batch: int, precision: str, *, resized: bool = False) -> Work:
    """Return the work of inference; `resized` from images of 28x28 pixels."""
    return Work((*resizing(batch).parts * resized, *_layers(batch, precision, training=False)), LAUNCHES["forward"])


def train_step(batch: int, precision: str, updates: int = 1) -> Work:
    """Return the work of some updates by SGD, without momentum, of images that are resized."""
    return Work((*resizing(batch).parts, *_layers(batch, precision, training=True)), LAUNCHES["update"], updates)


def resizing(batch: int, side: int = SIDE) -> Work:
    """Return the work of resizing uint8 images of `side` pixels to the model's input, in float32."""
    return Work((Part("resize", "forward", 0, batch * side**2, 4 * batch * prod(documented.INPUT_SHAPE)),))


def bound(work: Work, precision: str, rates: Calibration) -> Bound:
    """Return the least time of a round at a device's rates: of each part the larger of compute and memory, added up."""
    by_limit, by_layer = dict.fromkeys(("compute", "memory"), 0.0), defaultdict[str, float](float)
    for part in work.parts:
        compute, memory = part.seconds(precision, rates)
        by_limit["compute" if compute > memory else "memory"] += work.times * max(compute, memory)
        by_layer[part.layer] += work.times * max(compute, memory)
    most = max(by_layer, key=lambda layer: by_layer[layer])
    return Bound(**by_limit, layer=most if by_layer[most] > sum(by_limit.values()) / 2 else "")


def bottleneck(work: Work, seconds: float, precision: str, rates: Calibration) -> str:
    """Return what takes most of a round's time: `compute`, `memory` or `launch`; `other` if they don't explain half.

    Launching, with the call that waits, goes on beside the device's work.
    """
    found = bound(work, precision, rates)
    launch = rates.call_overhead + work.times * work.kernels * rates.kernel_launch
    if max(found.seconds, launch) < seconds / 2:
        return "other"
    times = {"compute": found.compute, "memory": found.memory, "launch": launch}
    return max(times, key=lambda name: times[name])


def _layers(batch: int, precision: str, *, training: bool) -> Iterator[Part]:
    """Yield each layer's parts, in the order of the model: forward, and in training backward and update.

    A library's product is one part; passes over arrays are joined with each other, not with products.
    """
    before: tuple[int, ...] = documented.INPUT_SHAPE
    size_before = 4  # images are float32
    for layer in documented.LAYERS:
        size = BYTES[precision] if layer is not documented.LAYERS[-1] else 4
        inputs, outputs = batch * prod(before), batch * prod(layer.output_shape)
        kind, own = layer.name.partition("_")[0], (inputs, outputs, size)
        if layer.macs:
            cast = inputs if size != size_before else 0
            first = layer is documented.LAYERS[0]
            yield from _product(batch, layer, own, cast * size_before, first=first, training=training)
        elif kind == "max" or (kind == "dropout" and training):
            kept = WINNER * outputs if training else 0
            yield Part(layer.name, "forward", 0, size * inputs, size * outputs + kept)
            if training:
                yield Part(layer.name, "backward", 0, size * outputs + kept, size * inputs)
        before, size_before = layer.output_shape, size


def _product(
    batch: int,
    layer: documented.DocumentedLayer,
    own: tuple[int, int, int],
    cast: int,
    *,
    first: bool,
    training: bool,
) -> Iterator[Part]:
    """Yield the parts of a layer with weights; `own` are its inputs, its outputs, and the bytes of each value.

    Weights are float32 between updates: a layer of another type casts them in each call, and its input if `cast`, the
    bytes of that input before, isn't 0.
    """
    inputs, outputs, size = own
    name, parameters, flop = layer.name, layer.parameters, 2 * batch * layer.macs
    kernel = parameters - layer.output_shape[-1]
    if size < 4:  # noqa: PLR2004 - of float32
        yield Part(name, "forward", 0, 4 * parameters, size * parameters)
    if cast:
        yield Part(name, "forward", 0, cast, size * inputs)
    yield Part(name, "forward", flop, size * (inputs + parameters), size * outputs)
    if not training:
        return
    if layer is not documented.LAYERS[-1]:  # of ReLU, by what it returned, and of the bias
        yield Part(name, "backward", 0, size * 2 * outputs, size * outputs)
    yield Part(name, "backward", flop, size * (inputs + outputs), size * kernel)
    if not first:
        yield Part(name, "backward", flop, size * (outputs + kernel), size * inputs)
    yield Part(name, "update", 0, (size + 8) * parameters, 0)


def of_layers(parts: Iterable[Part]) -> dict[tuple[str, Direction], Work]:
    """Return the work of each layer and direction, in the model's order."""
    found: dict[tuple[str, Direction], Work] = {}
    for part in parts:
        key = part.layer, part.direction
        found[key] = Work((*found.get(key, Work(())).parts, part))
    return found
