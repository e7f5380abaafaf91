"""In which order a recipe's draws are made, and after which of them something else has to be done."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from alexnet_repro.training.recipe import Recipe


class Segment(NamedTuple):
    """Draws between which nothing but updates has to be done."""

    draws: int
    epoch: int
    """From 1; preliminary draws are epoch 0."""
    saves: bool = False
    """Whether the recipe saves weights after it."""
    checkpoints: bool = False
    """Whether a checkpoint is due after it."""
    ends_epoch: bool = False
    measures: bool = False
    """Whether the model is to be measured on test images after it."""

    @property
    def needs_host(self) -> bool:
        """Whether something has to be done after it."""
        return self.saves or self.checkpoints or self.ends_epoch or self.measures


def iter_segments(
    recipe: Recipe, *, done: int = 0, at_once: int = 1, every: int | None = None, measure_every: int | None = None
) -> Iterator[Segment]:
    """Yield what is left of a run.

    Args:
        recipe: the run.
        done: draws that have been made.
        at_once: how many updates a stretch may have, if a single draw hasn't more.
        every: a checkpoint is due at the end of the draw in which so many updates are full; None: never.
        measure_every: the model is measured after so many draws of an epoch, and again after as many more, besides
            at the epoch's end; None: at its end alone.
    """
    draws, per_draw = 0, recipe.updates_per_draw
    for number, draw in enumerate(itertools.islice(_draws(recipe, measure_every), done, None), done + 1):
        draws += 1
        due = every is not None and number * per_draw // every > (number - 1) * per_draw // every
        if draw.needs_host or due or (draws + 1) * per_draw > at_once:
            yield draw._replace(draws=draws, checkpoints=due)
            draws = 0


def draw_after(recipe: Recipe, draws: int, measure_every: int | None = None) -> Segment:
    """Return the last of so many draws, one at least: what has to be done after it."""
    return next(itertools.islice(_draws(recipe, measure_every), draws - 1, None))


def draws_until_saved(recipe: Recipe) -> int:
    """Return after how many draws the recipe saves weights for the last time."""
    return max(number for number, draw in enumerate(_draws(recipe), 1) if draw.saves)


def _draws(recipe: Recipe, measure_every: int | None = None) -> Iterator[Segment]:
    """Yield a whole run, draw by draw; the preliminary ones save nothing."""
    for _ in range(recipe.preliminary_draws):
        yield Segment(1, 0)
    for epoch in range(1, recipe.epochs + 1):
        for iteration in range(recipe.draws_per_epoch):
            ends_epoch = iteration == recipe.draws_per_epoch - 1
            if recipe.save_every is None:
                saves = ends_epoch and epoch == recipe.epochs
            else:
                saves = iteration % recipe.save_every == 0
            measures = ends_epoch or (measure_every is not None and (iteration + 1) % measure_every == 0)
            yield Segment(1, epoch, saves, ends_epoch=ends_epoch, measures=measures)
