"""The same seed elsewhere: the losses on record, of other machines and a GPU, are where a training starts here."""

import dataclasses
import json
from functools import cache

import keras
import pytest

from alexnet_repro import DataLoader, Recipe, build_alexnet, train
from tests.helpers.paths import ROOT

RECORDS = ROOT / "benchmarks/records"
ROUNDING = 1e-4


@pytest.fixture(scope="module")
def first_loss(fashion_mnist):
    """A function that returns the first loss from a seed, of the quick recipe's updates of 32, once per seed."""

    @cache
    def compute(seed):
        one = {"draw_size": 32, "batch_size": 32, "draws_per_epoch": 1, "warmup_updates": 0}  # as on record
        recipe = dataclasses.replace(Recipe.quick(), **one)
        keras.utils.set_random_seed(seed)
        model = build_alexnet(kernel_initializer=recipe.kernel_initializer)
        return train(model, DataLoader.from_arrays(*fashion_mnist, seed=seed), recipe, progress=False).losses[0]

    return compute


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the records' weights were drawn by TensorFlow")
@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("quick_seed0", 0),
        pytest.param("quick_seed4", 4, marks=pytest.mark.slow, id="name=quick_seed4-seed=4"),
        ("quick_h100", 0),
    ],
)
def test_first_loss_on_record(first_loss, name, seed):
    """Weights, draws and so the first loss follow from the seed: they are those of the record, but for rounding."""
    record = json.loads((RECORDS / name / "record.json").read_text(encoding="utf-8"))
    assert (record["seed"], record["precision"]) == (seed, "float32")
    assert first_loss(seed) == pytest.approx(record["updates"]["losses"][0], rel=ROUNDING)
