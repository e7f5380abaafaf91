"""The order of a recipe's draws, and what has to run after which of them."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from alexnet_repro.training.recipe import Recipe


class Segment(NamedTuple):
    """Consecutive draws with nothing but updates between them."""

    draws: int
    epoch: int
    """From 1; preliminary draws are epoch 0."""
    saves: bool = False
    """Whether the recipe saves weights after it."""
    checkpoints: bool = False
    """Whether a checkpoint is due after it."""
    ends_epoch: bool = False
    evaluates: bool = False
    """Whether an evaluation on test images is due after it."""

    @property
    def needs_host(self) -> bool:
        """Whether something has to run after it."""
        return self.saves or self.checkpoints or self.ends_epoch or self.evaluates


def iter_segments(
    recipe: Recipe,
    *,
    done: int = 0,
    max_updates: int = 1,
    checkpoint_every: int | None = None,
    evaluate_every: int | None = None,
) -> Iterator[Segment]:
    """Yield the rest of a run.

    Args:
        recipe: the run.
        done: draws made before.
        max_updates: per segment, unless a single draw has more.
        checkpoint_every: updates, after whose last draw a checkpoint is due; None: never.
        evaluate_every: draws of an epoch between evaluations, besides the one at its end; None: at its end only.
    """
    draws, per_draw = 0, recipe.updates_per_draw
    for number, draw in enumerate(itertools.islice(_draws(recipe, evaluate_every), done, None), done + 1):
        draws += 1
        every = checkpoint_every
        due = every is not None and number * per_draw // every > (number - 1) * per_draw // every
        if draw.needs_host or due or (draws + 1) * per_draw > max_updates:
            yield draw._replace(draws=draws, checkpoints=due)
            draws = 0


def draw_after(recipe: Recipe, draws: int, evaluate_every: int | None = None) -> Segment:
    """Return the last of the first `draws` draws, at least one."""
    return next(itertools.islice(_draws(recipe, evaluate_every), draws - 1, None))


def draws_until_saved(recipe: Recipe) -> int:
    """Return the number of draws after which the recipe saves weights for the last time."""
    return max(number for number, draw in enumerate(_draws(recipe), 1) if draw.saves)


def _draws(recipe: Recipe, evaluate_every: int | None = None) -> Iterator[Segment]:
    """Yield a whole run, draw by draw; nothing is saved after preliminary ones."""
    for _ in range(recipe.preliminary_draws):
        yield Segment(1, 0)
    for epoch in range(1, recipe.epochs + 1):
        for iteration in range(recipe.draws_per_epoch):
            ends_epoch = iteration == recipe.draws_per_epoch - 1
            if recipe.save_every is None:
                saves = ends_epoch and epoch == recipe.epochs
            else:
                saves = iteration % recipe.save_every == 0
            evaluates = ends_epoch or (evaluate_every is not None and (iteration + 1) % evaluate_every == 0)
            yield Segment(1, epoch, saves, ends_epoch=ends_epoch, evaluates=evaluates)
