"""The document's code in four combinations of loss and update size, one epoch each, at equal images seen."""

import math
from collections.abc import Mapping

from benchmarks.records.tools.bands import NORMAL, binomial
from benchmarks.records.tools.runs import Record, Records, after_epochs

# The first epoch of five is as good as one: the documented rate is constant, and draws follow from the seed.
NAMES = {
    ("normalised_sigmoid", 32): "documented",
    ("softmax", 32): "documented_softmax",
    ("normalised_sigmoid", 128): "epoch_normalised_sigmoid_128",
    ("softmax", 128): "epoch_softmax_128",
}
CHANGES = {
    "`softmax` instead of `normalised_sigmoid`, updates of 32": (("normalised_sigmoid", 32), ("softmax", 32)),
    "`softmax` instead of `normalised_sigmoid`, updates of 128": (("normalised_sigmoid", 128), ("softmax", 128)),
    "Updates of 128 instead of 32, `normalised_sigmoid`": (("normalised_sigmoid", 32), ("normalised_sigmoid", 128)),
    "Updates of 128 instead of 32, `softmax`": (("softmax", 32), ("softmax", 128)),
}
Combinations = Mapping[tuple[str, int], Record | None]


def combinations(records: Records) -> Combinations:
    """Return each combination by loss and update size; None where there is no record of it.

    The first epoch's evaluation, with `name` of its record, `images` seen, and what all four have to have in common,
    `same`. The losses are of different objectives, not to be compared.
    """
    return {key: _combination(name, records[name]) if name in records else None for key, name in NAMES.items()}


def unlike(found: Combinations) -> list[str]:
    """Return in what the combinations differ beside loss and update size: then they aren't conclusive about these."""
    present = [each["same"] for each in found.values() if each]
    return [key for key in (present[0] if present else ()) if len({str(each[key]) for each in present}) > 1]


def effects(found: Combinations) -> list[str]:
    """Return what loss and update size each change, one sentence per pair that was run.

    The bound is how much may be chance: less is, since both were evaluated on the same images.
    """
    sentences = []
    for what, pair in CHANGES.items():
        first, second = (found[key] for key in pair)
        if first and second:
            change = second["accuracy"] - first["accuracy"]
            deviations = (binomial(each["accuracy"], each["num_samples"]) for each in (first, second))
            bound = NORMAL * math.hypot(*deviations)
            chance = "more than the test images" if abs(change) > bound else "which the test images alone may"
            sentences.append(f"{what}: {change:+.4f} in accuracy, {chance} explain (at most ±{bound:.4f})")
    return sentences


def _combination(name: str, record: Record) -> Record:
    recipe, epoch = record["recipe"], after_epochs(record)[0]
    images = epoch["updates"] * recipe["batch_size"]
    same = {"precision": record["precision"], "seed": record["seed"], "images seen": images}
    same |= {field: value for field, value in recipe.items() if field not in ("loss", "batch_size", "epochs")}
    return {**epoch, "name": name, "images": images, "same": same}
