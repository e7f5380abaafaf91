"""After how many updates do learning curves pass through what the document prints, and do both figures hold there?"""

import math
import statistics
from collections.abc import Sequence

import numpy as np

from alexnet_repro import documented
from benchmarks.records.tools.bands import REPRODUCED, band, binomial, verdict
from benchmarks.records.tools.runs import Record, evaluated


def passed(run: Record) -> tuple[int, float, float]:
    """Return a run's seed, and after how many updates it reaches the printed accuracy and loss; infinity: never."""
    updates, accuracies, losses = _curves(run)
    accuracy = first_reached(updates, accuracies, documented.TEST_ACCURACY)
    return run["seed"], accuracy, first_reached(updates, [-loss for loss in losses], -documented.TEST_LOSS)


def first_reached(updates: Sequence[float], values: Sequence[float], level: float) -> float:
    """Return after how many updates, rising, the values measured after each first are at least `level`.

    Between two measurements, values lie on a straight line. It is the first number of updates where the first value is
    there already, and infinity where no value is.
    """
    at = next((index for index, value in enumerate(values) if value >= level), None)
    if not at:
        return math.inf if at is None else updates[0]
    share = (level - values[at - 1]) / (values[at] - values[at - 1])
    return updates[at - 1] + share * (updates[at] - updates[at - 1])


def both_reproduced(runs: Sequence[Record]) -> list[tuple[int, int]]:
    """Return after which updates, from and to, both printed figures are reproduced by the bands of these runs.

    The runs are at least one, of one training, with seeds of their own. Both figures are compared after every draw, on
    straight lines between measurements. What a draw of 2,000 adds to a loss is known of the weights that were
    evaluated, and taken from there.
    """
    recipe, curves = runs[0]["recipe"], [_curves(run) for run in runs]
    spread = evaluated(runs[0])["document_draw"]["losses"][recipe["loss"]]["std"]
    per_draw = recipe["draw_size"] // recipe["batch_size"]
    after = range(max(updates[0] for updates, *_ in curves), min(updates[-1] for updates, *_ in curves) + 1, per_draw)
    accuracies, losses = (np.array([np.interp(after, each[0], each[n]) for each in curves]).T for n in (1, 2))
    found: list[tuple[int, int]] = []
    for updates, shares, means in zip(after, accuracies.tolist(), losses.tolist(), strict=True):
        accuracy = band(shares, binomial(statistics.fmean(shares), documented.TEST_SAMPLES))
        judged = verdict(documented.TEST_ACCURACY, accuracy), verdict(documented.TEST_LOSS, band(means, spread))
        if all(each == REPRODUCED for each, _ in judged):
            begun = found.pop()[0] if found and found[-1][1] == updates - per_draw else updates
            found.append((begun, updates))
    return found


def epochs(updates: float, recipe: Record) -> float:
    """Return a number of updates in epochs, without the draws before the first."""
    draws = updates * recipe["batch_size"] / recipe["draw_size"] - recipe["preliminary_draws"]
    return draws / recipe["draws_per_epoch"]


def _curves(run: Record) -> tuple[list[int], list[float], list[float]]:
    return tuple([each[name] for each in run["evaluations"]] for name in ("updates", "accuracy", "loss"))
