"""The order of a recipe's draws, and what has to run after which of them."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from alexnet_repro.training.recipe import Recipe


class Segment(NamedTuple):
    """Consecutive draws with nothing but updates between them."""

    draws: int
    epoch: int  # from 1; preliminary draws are epoch 0
    saves: bool = False  # whether the recipe saves weights after it
    checkpoints: bool = False  # whether a checkpoint is due after it
    ends_epoch: bool = False
    evaluates: bool = False  # whether an evaluation on test images is due after it

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
    """Yield the rest of a run, of which `done` draws were made before.

    A segment has at most `max_updates` updates, unless a single draw has more. A checkpoint is due after the draw in
    which `checkpoint_every` more updates are reached (None: never); an evaluation at each epoch's end, and also after
    each `evaluate_every` draws of an epoch.
    """
    draws, per_draw = 0, recipe.updates_per_draw
    every = checkpoint_every or recipe.num_updates + 1
    for number, draw in enumerate(itertools.islice(iter_draws(recipe, evaluate_every), done, None), done + 1):
        draws += 1
        due = number * per_draw // every > (number - 1) * per_draw // every
        if draw.needs_host or due or (draws + 1) * per_draw > max_updates:
            yield draw._replace(draws=draws, checkpoints=due)
            draws = 0


def draws_until_saved(recipe: Recipe) -> int:
    """Return the number of draws after which the recipe saves weights for the last time."""
    return max(number for number, draw in enumerate(iter_draws(recipe), 1) if draw.saves)


def iter_draws(recipe: Recipe, evaluate_every: int | None = None) -> Iterator[Segment]:
    """Yield a whole run, a segment per draw; nothing is saved after preliminary ones."""
    yield from itertools.repeat(Segment(1, 0), recipe.preliminary_draws)
    for epoch in range(1, recipe.epochs + 1):
        for iteration in range(recipe.draws_per_epoch):
            ends_epoch = iteration == recipe.draws_per_epoch - 1
            every = recipe.save_every
            saves = iteration % every == 0 if every else ends_epoch and epoch == recipe.epochs
            evaluates = ends_epoch or (evaluate_every is not None and (iteration + 1) % evaluate_every == 0)
            yield Segment(1, epoch, saves, ends_epoch=ends_epoch, evaluates=evaluates)
