"""The document's code in four combinations of loss and update size, one epoch each, at equal images seen."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.records.tools.bands import NORMAL, binomial
from benchmarks.records.tools.runs import LOSSES, Record, Records, after_epochs

SIZES = (32, 128)  # what `fit` makes of a draw, and the whole of it
# The first epoch of five is as good as one: the documented rate is constant, and draws follow from the seed.
NAMES = {
    ("normalised_sigmoid", 32): "documented",
    ("softmax", 32): "documented_softmax",
    ("normalised_sigmoid", 128): "epoch_normalised_sigmoid_128",
    ("softmax", 128): "epoch_softmax_128",
}
PAIRS = (
    *((("normalised_sigmoid", size), ("softmax", size), f"`softmax` instead of `normalised_sigmoid`, updates of {size}")
      for size in SIZES),
    *(((loss, 32), (loss, 128), f"Updates of 128 instead of 32, `{loss}`") for loss in LOSSES),
)  # fmt: skip


class Combination(NamedTuple):
    """What one epoch gave, on every test image."""

    name: str
    """Of its record."""
    updates: int
    images: int
    """Images seen."""
    accuracy: float
    loss: float
    """Its own: of different objectives, not to be compared."""
    num_samples: int
    same: Mapping[str, Any]
    """What all four have to have in common."""


Combinations = Mapping[tuple[str, int], Combination | None]


def combinations(records: Records) -> Combinations:
    """Return each combination by loss and update size; None where there is no record of it."""
    return {key: _combination(name, records[name]) if name in records else None for key, name in NAMES.items()}


def unlike(found: Combinations) -> list[str]:
    """Return in what the combinations differ beside loss and update size: then nothing follows about these."""
    present = [each.same for each in found.values() if each]
    return [key for key in (present[0] if present else ()) if len({str(each[key]) for each in present}) > 1]


def effects(found: Combinations) -> list[str]:
    """Return what loss and update size each change, one sentence per pair that was run."""
    return [f"{what}: {_change(found[a], found[b])}" for a, b, what in PAIRS if found[a] and found[b]]


def _change(first: Combination, second: Combination) -> str:
    """Return the change, beside at most how much is chance: less, since both were evaluated on the same images."""
    change = second.accuracy - first.accuracy
    bound = NORMAL * sum(binomial(each.accuracy, each.num_samples) ** 2 for each in (first, second)) ** 0.5
    judged = "more than the test images explain" if abs(change) > bound else "which the test images alone may explain"
    return f"{change:+.4f} in accuracy, {judged} (at most ±{bound:.4f})"


def _combination(name: str, record: Record) -> Combination:
    recipe, epoch = record["recipe"], after_epochs(record)[0]
    images = epoch["updates"] * recipe["batch_size"]
    same = {"precision": record["precision"], "seed": record["seed"], "images seen": images}
    same |= {field: value for field, value in recipe.items() if field not in ("loss", "batch_size", "epochs")}
    return Combination(name, epoch["updates"], images, epoch["accuracy"], epoch["loss"], epoch["num_samples"], same)
