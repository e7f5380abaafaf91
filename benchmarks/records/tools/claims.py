"""Each figure that the document prints and each claim of its text, beside what the records of trainings measured."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest
from typing import Any

from alexnet_repro import documented
from benchmarks.records.tools.bands import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Band, band, binomial, verdict
from benchmarks.records.tools.runs import Record, Records, any_of, documented_run, evaluated, same_but_seed

NOT_RUN = "not run yet"
MIN_SEVERAL_TENS = 30
NEARLY_A_GIGABYTE = (0.9e9, 1e9)


@dataclass(frozen=True)
class Claim:
    """What the document says, and what was measured."""

    what: str
    says: str
    measured: str
    verdict: str
    why: str
    band: str = ""


def not_run(what: str, says: str, name: str) -> Claim:
    """Return a claim whose record isn't there; its command is in the table of runs."""
    return Claim(what, says, "", NOT_RUN, f"needs [`{name}`](#runs)")


def _first_draw(record: Record, what: str) -> list[float]:
    updates = documented.DRAW_SIZE // record["recipe"]["batch_size"]
    return record["updates"][what][:updates]


# Of a first draw, nothing has been learned yet: what draws differ by is known from a run itself, whatever its seed.


def _first_loss(runs: Sequence[Record]) -> Band:
    found = [_first_draw(each, "losses") for each in runs]
    count, updates = len(found), len(found[0])
    pooled = statistics.fmean(map(statistics.variance, found))
    spread = math.sqrt(pooled * (1 + 1 / count) / updates)  # of this mean of so many updates, and one more
    return replace(band([statistics.fmean(map(statistics.fmean, found))], spread, count * (updates - 1)), runs=count)


def _first_accuracy(runs: Sequence[Record]) -> Band:
    share = statistics.fmean(statistics.fmean(_first_draw(each, "accuracies")) for each in runs)
    spread = math.sqrt(1 + 1 / len(runs)) * binomial(share, documented.DRAW_SIZE)
    return replace(band([share], spread), runs=len(runs))


def _test_accuracy(runs: Sequence[Record]) -> Band:
    shares = [evaluated(each)["accuracy"] for each in runs]
    return band(shares, binomial(statistics.fmean(shares), documented.TEST_SAMPLES))


def _test_loss(runs: Sequence[Record]) -> Band:
    loss, found = runs[0]["recipe"]["loss"], [evaluated(each) for each in runs]
    return band([each["losses"][loss] for each in found], found[0]["document_draw"]["losses"][loss]["std"])


Figure = tuple[str, float, Callable[[Sequence[Record]], Band]]
TEST_ACCURACY: Figure = ("2,000 test images after training: accuracy", documented.TEST_ACCURACY, _test_accuracy)
FIGURES: Sequence[Figure] = (
    ("first draw of 128: loss, mean of four updates", documented.FIRST_LOSS, _first_loss),
    ("first draw of 128: accuracy", documented.FIRST_ACCURACY, _first_accuracy),
    TEST_ACCURACY,
    ("the same: loss as returned", documented.TEST_LOSS, _test_loss),
    ("the same: loss in the progress line", documented.TEST_LOSS_SHOWN, _test_loss),
)


def printed(records: Records, name: str, figures: Sequence[Figure] = FIGURES) -> list[Claim]:
    """Return figures that the document prints, beside those of a run and of the same training with other seeds."""
    runs = same_but_seed(records, name)
    if not runs:
        return [not_run(what, f"{says:.4f}", name) for what, says, _ in figures]
    found = [(what, says, measured(runs)) for what, says, measured in figures]
    return [
        Claim(what, f"{says:.4f}", f"{each.middle:.4f}", *verdict(says, each), "{:.4f} to {:.4f}".format(*each.ends))
        for what, says, each in found
    ]


def others(records: Records) -> list[Claim]:
    """Return what else is printed: TensorFlow's version, shapes and times."""
    record = records.get(documented_run(records))
    shapes = "(128, 224, 224, 1) and (128,)"
    times = (
        f"{documented.FIRST_MILLISECONDS_PER_SAMPLE} ms per sample, 2 s; 2,000 test images {documented.TEST_SECONDS} s"
    )
    rows = [("TensorFlow", documented.TENSORFLOW), ("shapes of a draw", shapes), ("first draw: time", times)]
    if record is None:
        return [not_run(what, says, "documented") for what, says in rows]
    packages = record["environment"]["packages"]
    versions = f"{packages.get('tensorflow', 'none')}, Keras {packages['keras']}"
    drawn = " and ".join(str(tuple(record["draw"][name])) for name in ("x", "y"))
    training = record["training"]
    speed = (
        f"{1000 / training['images_per_second']:.3g} ms per sample, {training['first_update_seconds']:.0f} s to begin"
    )
    return [
        Claim(*rows[0], versions, NOT_REPRODUCED, "on purpose; what 2.0.0 computes is recorded in `tests/recorded`"),
        Claim(*rows[1], drawn, *_if(drawn == shapes, "exactly")),
        Claim(*rows[2], speed, INCONCLUSIVE, "the document doesn't name the device; ours is [below](#runs)"),
    ]


def layer_table(records: Records) -> list[Claim]:
    """Return the document's layer table beside what was built: shapes of a batch of one, parameters."""
    record = any_of(records)  # all train the same model
    if record is None:
        return [not_run(f"`{each.name}`", _printed_layer(each), "documented") for each in documented.LAYERS]
    rows = []
    for says, built in zip_longest(documented.LAYERS, record["layers"]):
        here = says and _printed_layer(says)
        there = built and f"{(1, *built['output_shape'])}, {built['parameters']:,}"
        same = here == there and says.name == built["name"]
        name = f"`{says.name if says else built['name']}`"
        rows.append(Claim(name, here or "", there or "", *_if(same, "exactly" if same else "another layer")))
    total = sum(each["parameters"] for each in record["layers"])
    says = f"{documented.TOTAL_PARAMETERS:,}"
    return [*rows, Claim("parameters in all", says, f"{total:,}", *_if(says == f"{total:,}", "exactly"))]


def _printed_layer(layer: documented.DocumentedLayer) -> str:
    return f"{(1, *layer.output_shape)}, {layer.parameters:,}"


def claims(records: Records) -> list[Claim]:
    """Return the claims of the text, 1 to 9."""
    found: dict[int, tuple[str, ...]] = {6: _gradients()}
    if record := any_of(records):
        found |= {**_layout(record["layers"]), 5: _memory(record["layers"])}
    name = documented_run(records)
    if record := records.get(name):
        rate, accuracy = record["recipe"]["learning_rate"], printed(records, name, [TEST_ACCURACY])[0]
        found[8] = (f"{rate:g}", *_if(rate < documented.LENET_LEARNING_RATE, "less than 0.9"))
        found[9] = (accuracy.measured, accuracy.verdict, accuracy.why, accuracy.band)
    texts = {n: f"{n}. {text}" for n, text in CLAIMS.items()}
    return [Claim(text, "", *found[n]) if n in found else not_run(text, "", "documented") for n, text in texts.items()]


def _layout(layers: Sequence[Record]) -> dict[int, tuple[str, str, str]]:
    """Return what was measured, verdict and reason of claims 1 to 4 and 7, about which layers there are."""
    convolutions, dense, pools, drops = (
        [each for each in layers if each["kind"] == kind] for kind in ("Conv2D", "Dense", "MaxPooling2D", "Dropout")
    )
    after = {before["name"]: layer["kind"] for before, layer in pairwise(layers)}
    pooled = [n for n, each in enumerate(convolutions, 1) if after[each["name"]] == "MaxPooling2D"]
    dropped = [n for n, each in enumerate(dense, 1) if after.get(each["name"]) == "Dropout"]
    windows = {(*each["pool_size"], *each["strides"]) for each in pools}
    sizes = [tuple(each["kernel_size"]) for each in convolutions]
    pairs = [(each["filters"], lenet) for each, lenet in zip(convolutions, documented.LENET_CHANNELS, strict=False)]
    times = [ours / lenet for ours, lenet in pairs]
    filters = _list(f"{ours} to {lenet}" for ours, lenet in pairs)
    counts = f"{len(convolutions)} convolutions, {len(dense) - 1} hidden dense, 1 output"
    return {
        1: (counts, *_if(counts == "5 convolutions, 2 hidden dense, 1 output", "as built")),
        2: (f"after {_list(pooled)}", *_if((pooled, windows) == ([1, 2, 5], {(3, 3, 2, 2)}), "as built")),
        3: (_list(f"{a}×{b}" for a, b in sizes), *_if(sizes == [(11, 11), (5, 5), *[(3, 3)] * 3], "as built")),
        4: (
            f"{_list(f'{each:g}' for each in times)} times",
            *_if(min(times) >= MIN_SEVERAL_TENS, f"{filters}; several tens would be {MIN_SEVERAL_TENS} or more"),
        ),
        7: (f"after dense {_list(dropped)}", *_if(dropped == [1, 2] and len(drops) == len(dropped), "nowhere else")),
    }


def _memory(layers: Sequence[Record]) -> tuple[str, str, str]:
    hidden = sum([each["parameters"] for each in layers if each["kind"] == "Dense"][:2])
    low, high = NEARLY_A_GIGABYTE
    return f"{hidden * 4 / 1e6:.0f} MB", *_if(low <= hidden * 4 <= high, f"{hidden:,} parameters × 4 bytes in float32")


def _gradients() -> tuple[str, str, str]:
    saturated = 1 / (1 + math.exp(-10))
    return (
        f"1; {saturated * (1 - saturated):.1e} at 10",
        REPRODUCED,
        "arithmetic; `tests/records/test_claims.py` compares with Keras",
    )


CLAIMS = {
    1: "Eight layers with weights: five convolutions, two hidden dense layers, one dense output",
    2: "The first, second and fifth convolution are each followed by 3×3 max pooling with stride 2",
    3: "Windows: 11×11, then 5×5, then 3×3",
    4: "Channels are several tens of times LeNet's",
    5: 'The two hidden dense layers bring "nearly 1 GB" of parameters',
    6: "ReLU's gradient is 1 for positive input, a saturated sigmoid's almost 0",
    7: "Dropout sits on the dense layers, not on the convolutions",
    8: "The learning rate is smaller than LeNet's",
    9: "About 0.84 on test data",
}


def _if(true: bool, why: str) -> tuple[str, str]:
    return (REPRODUCED if true else NOT_REPRODUCED), why


def _list(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))
