"""Claim 9, on real Fashion-MNIST: the trained model classifies more than four of five test images correctly."""

import keras
import pytest

from alexnet_repro import DataLoader, Recipe, build_alexnet, enable_memory_growth, train
from alexnet_repro.backend.precision import precision

BOUND = 0.8
SEED = 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(Recipe.quick(), id="recipe=quick"),
        pytest.param(Recipe.documented(), id="recipe=documented", marks=pytest.mark.hours),
    ],
)
def test_accuracy(recipe, request, capsys):
    """Trained by the recipe, in the precision of --precision, accuracy on all 10,000 test images is over 0.8."""
    # Without the images this fails, with what to type: a slow test runs only by request.
    loader = DataLoader(seed=SEED)
    enable_memory_growth()
    with capsys.disabled(), precision(request.config.getoption("--precision")):
        print(f"\n{recipe.name} recipe, {recipe.num_updates:,} updates of {recipe.batch_size} images, seed {SEED}")
        keras.utils.set_random_seed(SEED)
        model = build_alexnet(kernel_initializer=recipe.kernel_initializer)
        history = train(model, loader, recipe, validate=True)
        for updates, result in history.evaluations:
            print(f"\nafter {updates:,} updates: test accuracy {result.accuracy:.4f}, loss {result.loss:.4f}")
        print(f"trained in {history.seconds:.0f} s")
    assert len(history.evaluations) == recipe.epochs
    assert result.num_samples == 10_000
    assert result.accuracy > BOUND
