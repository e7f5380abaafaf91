"""Each figure that the document prints and each claim of its text, beside what the records of trainings measured."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise, zip_longest
from statistics import fmean, variance
from typing import Any, NamedTuple

from alexnet_repro import documented
from benchmarks.records.tools.bands import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Band, band, binomial, verdict
from benchmarks.records.tools.runs import Record, Records, any_of, documented_run, evaluated, same_but_seed

NOT_RUN = "not run yet"
MIN_SEVERAL_TENS = 30
# What the document prints of a training, the figure, and its name in `bands`.
TEST_ACCURACY = ("2,000 test images after training: accuracy", documented.TEST_ACCURACY, "accuracy")
FIGURES = (
    ("first draw of 128: loss, mean of four updates", documented.FIRST_LOSS, "first loss"),
    ("first draw of 128: accuracy", documented.FIRST_ACCURACY, "first accuracy"),
    TEST_ACCURACY,
    ("the same: loss as returned", documented.TEST_LOSS, "loss"),
    ("the same: loss in the progress line", documented.TEST_LOSS_SHOWN, "loss"),
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


class Claim(NamedTuple):
    """What the document says, and what was measured."""

    what: str
    says: str
    measured: str
    verdict: str
    why: str
    band: str = ""


def not_run(what: str, says: str, name: str = "documented") -> Claim:
    """Return a claim whose record isn't there; its command is in the table of runs."""
    return Claim(what, says, "", NOT_RUN, f"needs [`{name}`](#runs)")


def bands(runs: Sequence[Record]) -> dict[str, Band]:
    """Return the band of each figure in `FIGURES`, from runs of one training that differ in their seeds.

    In a first draw nothing has been learned yet: what draws differ by is known from a run itself, whatever its seed.
    """
    count, loss, found = len(runs), runs[0]["recipe"]["loss"], [evaluated(each) for each in runs]
    updates = documented.DRAW_SIZE // runs[0]["recipe"]["batch_size"]
    losses, accuracies = ([each["updates"][what][:updates] for each in runs] for what in ("losses", "accuracies"))
    spread = math.sqrt(fmean(map(variance, losses)) * (1 + 1 / count) / updates)  # of this mean, and one more
    first_share, shares = fmean(map(fmean, accuracies)), [each["accuracy"] for each in found]
    first_spread = math.sqrt(1 + 1 / count) * binomial(first_share, documented.DRAW_SIZE)
    return {
        "first loss": band([fmean(map(fmean, losses))], spread, count * (updates - 1))._replace(runs=count),
        "first accuracy": band([first_share], first_spread)._replace(runs=count),
        "accuracy": band(shares, binomial(fmean(shares), documented.TEST_SAMPLES)),
        "loss": band([each["losses"][loss] for each in found], found[0]["document_draw"]["losses"][loss]["std"]),
    }


def printed(records: Records, name: str, figures: Sequence[tuple[str, float, str]] = FIGURES) -> list[Claim]:
    """Return figures that the document prints, beside those of a run and of the same training with other seeds."""
    runs = same_but_seed(records, name)
    if not runs:
        return [not_run(what, f"{says:.4f}", name) for what, says, _ in figures]
    found = bands(runs)
    return [
        Claim(what, f"{says:.4f}", f"{each.middle:.4f}", *verdict(says, each), "{:.4f} to {:.4f}".format(*each.ends))
        for what, says, each in ((what, says, found[name]) for what, says, name in figures)
    ]


def others(records: Records) -> list[Claim]:
    """Return what else is printed: TensorFlow's version, shapes and times."""
    record = records.get(documented_run(records))
    shapes = "(128, 224, 224, 1) and (128,)"
    per_sample, seconds = documented.FIRST_MILLISECONDS_PER_SAMPLE, documented.TEST_SECONDS
    times = f"{per_sample} ms per sample, 2 s; 2,000 test images {seconds} s"
    rows = [("TensorFlow", documented.TENSORFLOW), ("shapes of a draw", shapes), ("first draw: time", times)]
    if record is None:
        return [not_run(*row) for row in rows]
    packages, training = record["environment"]["packages"], record["training"]
    versions = f"{packages.get('tensorflow', 'none')}, Keras {packages['keras']}"
    drawn = " and ".join(str(tuple(record["draw"][name])) for name in ("x", "y"))
    per_sample, first = 1000 / training["images_per_second"], training["first_update_seconds"]
    speed = f"{per_sample:.3g} ms per sample, {first:.0f} s to begin"
    return [
        Claim(*rows[0], versions, NOT_REPRODUCED, "on purpose; what 2.0.0 computes is recorded in `tests/recorded`"),
        Claim(*rows[1], drawn, *_if(drawn == shapes, "exactly")),
        Claim(*rows[2], speed, INCONCLUSIVE, "the document doesn't name the device; ours is [below](#runs)"),
    ]


def layer_table(records: Records) -> list[Claim]:
    """Return the document's layer table beside what was built: shapes of a batch of one, parameters."""
    says = [(f"`{each.name}`", f"{(1, *each.output_shape)}, {each.parameters:,}") for each in documented.LAYERS]
    record = any_of(records)  # all train the same model
    if record is None:
        return [not_run(*each) for each in says]
    layers, rows = record["layers"], []
    built = [(f"`{each['name']}`", f"{(1, *each['output_shape'])}, {each['parameters']:,}") for each in layers]
    for here, there in zip_longest(says, built):
        (name, figures), measured = here or (there[0], ""), there[1] if there else ""
        why = "exactly" if here == there else "another layer"
        rows.append(Claim(name, figures, measured, *_if(here == there, why)))
    total, ours = f"{documented.TOTAL_PARAMETERS:,}", f"{sum(each['parameters'] for each in layers):,}"
    return [*rows, Claim("parameters in all", total, ours, *_if(total == ours, "exactly"))]


def claims(records: Records) -> list[Claim]:
    """Return the claims of the text, 1 to 9."""
    saturated = 1 / (1 + math.exp(-10))
    gradients = f"1; {saturated * (1 - saturated):.1e} at 10"
    arithmetic = "arithmetic; `tests/records/test_claims.py` compares with Keras"
    found: dict[int, tuple[str, ...]] = {6: (gradients, REPRODUCED, arithmetic)}
    if record := any_of(records):
        found |= _layers(record["layers"])
    name = documented_run(records)
    if record := records.get(name):
        rate, accuracy = record["recipe"]["learning_rate"], printed(records, name, [TEST_ACCURACY])[0]
        found[8] = (f"{rate:g}", *_if(rate < documented.LENET_LEARNING_RATE, "less than 0.9"))
        found[9] = accuracy[2:]
    texts = {n: f"{n}. {text}" for n, text in CLAIMS.items()}
    return [Claim(text, "", *found[n]) if n in found else not_run(text, "") for n, text in texts.items()]


def _layers(layers: Sequence[Record]) -> dict[int, tuple[str, str, str]]:
    """Return what was measured, verdict and reason of claims 1 to 5 and 7, about which layers there are."""
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
    hidden = sum(each["parameters"] for each in dense[:2])
    nearly = _if(0.9e9 <= hidden * 4 <= 1e9, f"{hidden:,} parameters × 4 bytes in float32")
    return {
        1: (counts, *_if(counts == "5 convolutions, 2 hidden dense, 1 output", "as built")),
        2: (f"after {_list(pooled)}", *_if((pooled, windows) == ([1, 2, 5], {(3, 3, 2, 2)}), "as built")),
        3: (_list(f"{a}×{b}" for a, b in sizes), *_if(sizes == [(11, 11), (5, 5), *[(3, 3)] * 3], "as built")),
        4: (
            f"{_list(f'{each:g}' for each in times)} times",
            *_if(min(times) >= MIN_SEVERAL_TENS, f"{filters}; several tens would be {MIN_SEVERAL_TENS} or more"),
        ),
        5: (f"{hidden * 4 / 1e6:.0f} MB", *nearly),
        7: (f"after dense {_list(dropped)}", *_if(dropped == [1, 2] and len(drops) == len(dropped), "nowhere else")),
    }


def _if(true: bool, why: str) -> tuple[str, str]:
    return (REPRODUCED if true else NOT_REPRODUCED), why


def _list(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))
