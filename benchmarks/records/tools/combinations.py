"""The document's code in four combinations of loss and update size, one epoch each, at equal images seen."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.records.tools.bands import NORMAL, binomial
from benchmarks.records.tools.planned import LOSSES, Record, Records, after_epochs

SIZES = (32, 128)  # what `fit` makes of a draw, and the whole of it
# The first epoch of five is as good as one: the documented rate is constant, and draws follow from the seed.
NAMES = {
    ("normalised_sigmoid", 32): "documented",
    ("softmax", 32): "documented_softmax",
    ("normalised_sigmoid", 128): "epoch_normalised_sigmoid_128",
    ("softmax", 128): "epoch_softmax_128",
}


@dataclass(frozen=True)
class Combination:
    """What one epoch gave, on every test image."""

    name: str
    """Of its record."""
    loss: str
    batch_size: int
    updates: int
    accuracy: float
    test_loss: float
    """Its own: of different objectives, not to be compared."""
    num_samples: int
    same: Mapping[str, Any]
    """What all four have to have in common."""

    @property
    def images(self) -> int:
        """Images seen."""
        return self.updates * self.batch_size


def combinations(records: Records) -> dict[tuple[str, int], Combination | None]:
    """Return each combination by loss and update size; None where there is no record of it."""
    return {key: _combination(name, records[name]) if name in records else None for key, name in NAMES.items()}


def unlike(found: Mapping[tuple[str, int], Combination | None]) -> list[str]:
    """Return in what the combinations differ beside loss and update size: then they tell nothing about these."""
    present = [each for each in found.values() if each]
    return [key for key in (present[0].same if present else {}) if len({str(each.same[key]) for each in present}) > 1]


def effects(found: Mapping[tuple[str, int], Combination | None]) -> list[str]:
    """Return what loss and update size each change, a sentence a pair that was run."""
    pairs = [((LOSSES[0], size), (LOSSES[1], size), f"`{LOSSES[1]}` instead of `{LOSSES[0]}`, updates of {size}")
             for size in SIZES]  # fmt: skip
    pairs += [((loss, SIZES[0]), (loss, SIZES[1]), f"updates of {SIZES[1]} instead of {SIZES[0]}, `{loss}`")
              for loss in LOSSES]  # fmt: skip
    said = []
    for before, after, what in pairs:
        first, second = found[before], found[after]
        if first and second:
            said.append(f"{what[0].upper() if what[0] != '`' else what[0]}{what[1:]}: {_change(first, second)}")
    return said


def _change(first: Combination, second: Combination) -> str:
    """Return the change, beside what chance makes of it at the most; both were asked the same images, so it is less."""
    change = second.accuracy - first.accuracy
    variances = [binomial(each.accuracy, each.num_samples) ** 2 for each in (first, second)]
    bound = NORMAL * sum(variances) ** 0.5
    judged = "more than the test images explain" if abs(change) > bound else "which the test images alone may explain"
    return f"{change:+.4f} in accuracy, {judged} (±{bound:.4f} at the most)"


def _combination(name: str, record: Record) -> Combination:
    recipe, epoch = record["recipe"], after_epochs(record)[0]
    varied = ("loss", "batch_size", "epochs")
    same = {
        "precision": record["precision"],
        "seed": record["seed"],
        "images seen": epoch["updates"] * recipe["batch_size"],
    }
    same |= {field: value for field, value in recipe.items() if field not in varied}
    return Combination(
        name, recipe["loss"], recipe["batch_size"], epoch["updates"], epoch["accuracy"], epoch["loss"],
        epoch["num_samples"], same,
    )  # fmt: skip
