"""What follows from the flips that showed, and what is counted: tables of docs/method/detection.md."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alexnet_repro import documented
from alexnet_repro.verify.benchmark import roofline
from alexnet_repro.verify.benchmark.timing import Calibration
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.memory import COPY_CHECK_BYTES
from alexnet_repro.verify.checks.registry import DEVICE_PRECISIONS
from alexnet_repro.verify.checks.repeatability import REPLAY_BATCH
from benchmarks.level import QUICK_REPLAYS, QUICK_STEPS
from benchmarks.tools.gate_power import share

KINDS = {
    "sum": "a sum of products, before ReLU",
    "output": "a layer's output, as it lies in memory",
    "gradient": "the gradient by a layer's output, likewise",
    "weight": "a weight, in memory, from before the step on",
    "read": "the same, read wrong in one step alone",
    "pixels": "an image's pixel",
}
FIELDS = {  # by an element's number of bits: the lowest bit of each field, from the top
    32: {"sign": 31, "exponent, upper half": 27, "exponent, lower half": 23, "fraction, upper half": 12, "lower": 0},
    16: {"sign": 15, "exponent, upper half": 11, "exponent, lower half": 7, "fraction, upper half": 4, "lower": 0},
}
# By NVIDIA's data sheets: multiprocessors, clock (Hz), multiply-adds per clock of each in bfloat16, memory (bytes).
GPUS = {"H100 SXM": (132, 1.98e9, 2048, 80e9), "A100 SXM 40 GB": (108, 1.41e9, 1024, 40e9)}
RECORDED = Path(__file__).parents[1] / "references" / "detection.json"
KERNEL_TILE = 128  # rows and columns of a product's tile, as libraries choose for large ones
CONFIDENCE = 0.95
STATE_BYTES = 2 * 4 * documented.TOTAL_PARAMETERS  # weights and velocities, float32: sent per run, read back per step


# What a burn-in's turn takes on an H100, estimated. Copies (bytes/s) and a step of 32 images are docs/gpu.md's, hashing
# and building a replay were measured on a CPU; memory's patterns at 2.57 TB/s, once in four turns.
COPY_RATE, STEP_SECONDS, HASH_RATE, BUILD_SECONDS = 1.8e9, 0.0073, 0.9e9, 3.5
MEMORY_SECONDS = 5 * 2 * 80e9 / 2.57e12 / 4
BURN_INS = {"burn-in of 10 minutes": 600, "burn-in of 8 hours": 28_800}


Stored = Mapping[str, list[list[Any]]]
"""By precision, the rows that were found."""


class Level(NamedTuple):
    """How much of what a device computes is compared in bits."""

    name: str
    precisions: int
    runs: int  # of a replay in each precision, in all processes
    steps: int  # of each

    @property
    def total(self) -> int:
        """Steps whose bits are compared."""
        return self.precisions * self.runs * self.steps


def levels() -> list[Level]:
    """Return those of `--level` on a CPU and a GPU, without a burn-in."""
    usual = CheckConfig()
    found = [Level("quick", 1, QUICK_REPLAYS, QUICK_STEPS)]
    for kind, others in (("cpu", 1), ("gpu", 2)):  # another process; on GPUs one more with all of them busy
        precisions = len(DEVICE_PRECISIONS[kind])
        found.append(Level(f"standard, {kind.upper()}", precisions, usual.replays + others, usual.steps))
    return found


def burn_in_steps(seconds: float) -> float:
    """Return how many steps a burn-in compares on an H100, estimated: most of its time is copying and hashing."""
    read = STATE_BYTES / COPY_RATE + STATE_BYTES / 2 / HASH_RATE  # two threads hash
    usual = CheckConfig()
    turn = usual.replays * (STATE_BYTES / COPY_RATE + usual.steps * (STEP_SECONDS + read))
    turn += BUILD_SECONDS + MEMORY_SECONDS + 2 * COPY_CHECK_BYTES / COPY_RATE
    return seconds / turn * usual.replays * usual.steps


def rate_found(steps: float, shows: float = 1.0) -> float:
    """Return the share of steps with a fault of which as many show one with 95 %; above 1 there is no such share."""
    return float((1 - (1 - CONFIDENCE) ** (1 / steps)) / shows)


def steps_needed(rate: float, shows: float = 1.0) -> int:
    """Return how many steps find with 95 % a fault that each has with this probability, and that shows as often."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-rate * shows))


def rounded_away(kept: int = 16, bits: int = 32) -> float:
    """Return the share of flips of a float32 sum's bits that are lost where it is rounded to its first `kept` bits.

    Of the bits below, the highest alone decides which way it is rounded, but for ties.
    """
    return (bits - kept - 1) / bits


def macs_of_step() -> dict[str, dict[str, int]]:
    """Return a step's multiply-accumulates per image: forward, of kernels' gradients, and of inputs' gradients."""
    macs = {layer.name: layer.macs for layer in documented.LAYERS if layer.macs}
    first = next(iter(macs))
    return {"sum": macs, "kernel gradient": macs, "gradient": {name: macs[name] for name in macs if name != first}}


def elements_of(kind: str) -> dict[str, int]:
    """Return how many elements each array of a kind has, of one image; of weights, of the model."""
    if kind == "weight":
        return {layer.name: layer.parameters for layer in documented.LAYERS if layer.macs}
    return {layer.name: math.prod(layer.output_shape) for layer in documented.LAYERS}


def before(name: str) -> str:
    """Return the layer whose output's gradient a layer's backward product computes."""
    names = [layer.name for layer in documented.LAYERS if not layer.name.startswith(("flatten", "dropout"))]
    return names[names.index(name) - 1]


def weighted(shown: Mapping[str, tuple[int, int]], weights: Mapping[str, float]) -> tuple[float, float, float]:
    """Return a share over layers with weights, and the ends of its 95 % interval.

    Those are of Jeffreys's posteriors of the layers' shares. `shown` has of each layer how many flips showed, and how
    many there were.
    """
    random, names = np.random.default_rng(0), [name for name in weights if name in shown]
    total = sum(weights[name] for name in names)
    drawn = sum(
        weights[name] / total * random.beta(shown[name][0] + 0.5, shown[name][1] - shown[name][0] + 0.5, 20_000)
        for name in names
    )
    middle = sum(weights[name] / total * shown[name][0] / shown[name][1] for name in names)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(middle), float(min(low, middle)), float(max(high, middle))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _as_flips(stored: Stored) -> list[tuple[str, str, str, int, int, str]]:
    """Return all flips with their precision; each flip of a weight a second time, as if it were read wrong once.

    In that one step it shows in the loss or in a gradient alone: those come before the weights themselves.
    """
    rows = []
    for precision, flips in stored.items():
        for kind, layer, bit, width, where in flips:
            rows.append((precision, kind, layer, bit, width, where))
            if kind == "weight":
                rows.append((precision, "read", layer, bit, width, "" if where.startswith("weight") else where))
    return rows


def _counts(rows: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, tuple[int, int]]:
    found: dict[Any, list[bool]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(bool(row[-1]))
    return {name: (sum(shown), len(shown)) for name, shown in found.items()}


def _percent(value: float, low: float, high: float) -> str:
    return f"{value:.0%} ({low:.0%} to {high:.0%})"


def _by_size(stored: Stored, precision: str, kind: str) -> tuple[float, float, float]:
    """Return the share of flips of a kind that show, of layers by their size: multiply-accumulates, or elements."""
    shown = _counts((row for row in _as_flips(stored) if row[:2] == (precision, kind)), lambda row: row[2])
    if kind == "pixels":
        return weighted(shown, {"conv2d": 1.0})
    return weighted(
        shown, macs_of_step()["sum"] if kind == "sum" else elements_of("weight" if kind == "read" else kind)
    )


def kinds_table(stored: Stored) -> str:
    """Return the share of flips that show, by kind: of all layers alike, and by how much there is of each."""
    rows = []
    for kind, what in KINDS.items():
        for precision in stored:
            chosen = [bool(row[-1]) for row in _as_flips(stored) if row[:2] == (precision, kind)]
            by_size = _percent(*_by_size(stored, precision, kind))
            rows.append([what, precision, len(chosen), share(sum(chosen), len(chosen)).strip(), by_size])
    return table(["one bit flips in", "precision", "flips", "show", "layers by their size"], rows)


def fields_table(stored: Stored) -> str:
    """Return the share of flips that show by field of the number, of sums, outputs and gradients."""

    def field(row: Any) -> str:
        return next(name for name, lowest in FIELDS[row[4]].items() if row[3] >= lowest)

    chosen = [row for row in _as_flips(stored) if row[1] in {"sum", "output", "gradient"}]
    shown = _counts(chosen, lambda row: (row[0], field(row)))
    names = list(FIELDS[32])
    return table(
        ["precision", *names],
        ([precision, *(share(*shown[precision, name]).strip() for name in names)] for precision in stored),
    )


def layers_table(stored: Stored) -> str:
    """Return how many of how many flips show by layer, of both precisions together."""
    chosen = _as_flips(stored)
    shown = _counts(chosen, lambda row: (row[1], row[2]))
    names = list(dict.fromkeys(row[2] for row in chosen))
    kinds = ["sum", "output", "gradient", "weight", "read"]
    cells = ([" of ".join(map(str, shown.get((kind, name), ()))) for kind in kinds] for name in names)
    return table(["layer", *kinds], ([f"`{name}`", *cell] for name, cell in zip(names, cells, strict=True)))


def of_a_mac(stored: Stored, precision: str) -> tuple[float, float, float]:
    """Return the share of a step's multiply-accumulates whose flipped result shows, with its interval.

    A kernel's gradient shows each bit: the first velocity is the gradient times a power of two, exactly.
    """
    rows = [row for row in _as_flips(stored) if row[0] == precision]
    shown: dict[str, tuple[int, int]] = {}
    weights: dict[str, float] = {}
    sums = _counts((row for row in rows if row[1] == "sum"), lambda row: row[2])
    back = _counts((row for row in rows if row[1] == "gradient"), lambda row: row[2])
    for name, macs in macs_of_step()["sum"].items():
        shown[f"forward {name}"], weights[f"forward {name}"] = sums[name], macs
        if name in macs_of_step()["gradient"]:
            shown[f"back {name}"], weights[f"back {name}"] = back[before(name)], macs
    products, kernels = sum(weights.values()), sum(macs_of_step()["kernel gradient"].values())
    found = weighted(shown, weights)
    return tuple((products * each + kernels) / (products + kernels) for each in found)  # type: ignore[return-value]


def steps_by_level() -> dict[str, float]:
    """Return how many steps each level compares; of a GPU's burn-in they are estimated."""
    counted = {level.name: float(level.total) for level in levels()}
    return counted | {f"{name}, GPU": burn_in_steps(seconds) for name, seconds in BURN_INS.items()}


def _one_in(rate: float) -> str:
    """Return a rate in words; more than every step has isn't found."""
    return "not found" if rate > 1 else f"1 in {1 / rate:,.0f}" if rate < 0.1 else f"1 in {1 / rate:.1f}"


def rates_table(stored: Stored) -> str:
    """Return by kind of flip in how many steps there must be one for a level to find it with 95 %.

    The share that shows is that of layers by their size, in the precision in which fewer do.
    """
    rows = []
    for kind, what in KINDS.items():
        shows = min(_by_size(stored, precision, kind)[0] for precision in stored)
        rows.append([what, f"{shows:.0%}", *(_one_in(rate_found(n, shows)) for n in steps_by_level().values())])
    return table(["one flip in", "show", *(f"{name}: {n:,.0f} steps" for name, n in steps_by_level().items())], rows)


def compared_table(stored: Stored) -> str:
    """Return what each level's compared steps come to, beside what a GPU computes meanwhile."""
    worst = min(of_a_mac(stored, precision)[0] for precision in stored)
    macs = REPLAY_BATCH * sum(sum(each.values()) for each in macs_of_step().values())
    moved = roofline.train_step(REPLAY_BATCH, "mixed_bfloat16").bytes
    multiprocessors, clock, each_clock, _ = GPUS["H100 SXM"]
    rows = []
    for name, steps in steps_by_level().items():
        found, seconds = steps * macs * worst / -math.log(1 - CONFIDENCE), steps * macs / multiprocessors / clock
        numbers = f"{steps:,.0f}", f"{steps * macs:.1e}", f"{1e3 * seconds / each_clock:,.1f} ms"
        rows.append([name, *numbers, f"1 in {found:.0e}".replace("e+", "e"), f"{steps * moved / 1e9:,.0f}"])
    head = [
        "level",
        "compared steps",
        "multiply-accumulates",
        "an H100 needs for as many",
        "found: one wrong",
        "GB moved",
    ]
    return table(head, rows)


def tiles_table() -> str:
    """Return how many tiles each forward product of the replay has, beside a GPU's multiprocessors."""
    rows = []
    for layer in documented.LAYERS:
        if layer.macs:
            positions, channels = REPLAY_BATCH * math.prod(layer.output_shape[:-1]), layer.output_shape[-1]
            tiles = math.ceil(positions / KERNEL_TILE) * math.ceil(channels / KERNEL_TILE)
            rows.append([f"`{layer.name}`", f"{positions:,} × {channels:,}", tiles])
    return table(["forward product", "size", "tiles of 128 × 128"], rows)


def memory_bytes(precision: str = "mixed_bfloat16") -> int:
    """Return what a replay's step has in memory at least: weights, velocities, gradients, outputs with theirs."""
    size = roofline.BYTES[precision]
    outputs = sum(math.prod(layer.output_shape) for layer in documented.LAYERS)
    return 3 * 4 * documented.TOTAL_PARAMETERS + 2 * size * REPLAY_BATCH * outputs


def memory_table() -> str:
    """Return which share of a GPU's memory a level's compared steps and copies, and a burn-in, touch."""
    step, copied = memory_bytes(), COPY_CHECK_BYTES
    rows = [
        [name, f"{step / size:.1%}", f"{(step + copied) / size:.1%}", "90 to 100 %"]
        for name, (*_, size) in GPUS.items()
    ]
    return table(["GPU", "quick", "standard", "burn-in"], rows)


def slow_table() -> str:
    """Return how much longer a train step takes at least where an H100's memory, or its products, are slower."""
    rates = Calibration("gpu:0", {"mixed_bfloat16": 717e12}, memory=2.57e12)  # docs/gpu.md
    work = roofline.train_step(512, "mixed_bfloat16")

    def seconds(memory: float = 1.0, products: float = 1.0) -> float:
        matmul = {"mixed_bfloat16": products * rates.matmul["mixed_bfloat16"]}
        slowed = replace(rates, matmul=matmul, memory=memory * rates.memory)
        return roofline.bound(work, "mixed_bfloat16", slowed).seconds

    rows = [
        [f"{left:.0%}", *(f"{slow / seconds() - 1:+.0%}" for slow in (seconds(memory=left), seconds(products=left)))]
        for left in (0.95, 0.9, 0.8, 0.5, 0.25)
    ]
    return table(["its rate", "if memory's", "if the products'"], rows)


def sizes_table(stored: Stored) -> str:
    """Return, by array, the smallest error that `layers` finds in 95 of 100 elements, and in 95 of 100 tiles."""
    named = {precision: {row[0]: row[1:] for row in rows} for precision, rows in stored.items()}
    names = [name for name, found in next(iter(named.values()), {}).items() if any(found)]  # others: exactly
    rows = []
    for name in names:
        cells = [each for rows in named.values() for each in (f"{rows[name][1]:.1g}", f"{rows[name][3]:.1g}")]
        rows.append([f"`{name}`", *cells])
    head = [f"{precision}, {what}" for precision in named for what in ("an element", "a tile")]
    return table(["array", *head], rows)


def persistent_table(stored: Stored) -> str:
    """Return which checks find a fault that is there each time, and whether its bits are other ones."""
    rows = []
    for precision, found in stored.items():
        for kind, size, layer, ran, failed, where in found:
            results = ", ".join(f"{name} {'FAIL' if name in failed else 'passes'}" for name in ran)
            rows.append([precision, kind, f"`{layer}`", f"{size:g}", results, where or "the same"])
    return table(["precision", "fault", "layer", "size or bit", "checks", "bits first differ in"], rows)


def macs_table(stored: Stored) -> str:
    """Return the share of a step's multiply-accumulates whose flipped result shows."""
    return table(["precision", "show"], ([precision, _percent(*of_a_mac(stored, precision))] for precision in stored))


def tables(stored: Mapping[str, Stored]) -> dict[str, Callable[[], str]]:
    """Return what makes each table of a file of injections, by the table's name in the documents."""
    flips, sizes, persistent = (stored.get(name, {}) for name in ("flips", "sizes", "persistent"))
    return {
        "flips": partial(kinds_table, flips),
        "flip_fields": partial(fields_table, flips),
        "flip_layers": partial(layers_table, flips),
        "flip_macs": partial(macs_table, flips),
        "flip_rates": partial(rates_table, flips),
        "compared": partial(compared_table, flips),
        "sizes": partial(sizes_table, sizes),
        "persistent": partial(persistent_table, persistent),
        "tiles": tiles_table,
        "touched": memory_table,
        "slowed": slow_table,
    }


def recorded() -> dict[str, Callable[[], str]]:
    """Return what makes each table of the injections on file."""
    return tables(json.loads(RECORDED.read_bytes()))
