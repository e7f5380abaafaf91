"""Training does what its recipe says, and stops when the loss isn't finite."""

import dataclasses

import keras
import numpy as np
import pytest

from alexnet_repro import (
    DataLoader,
    Recipe,
    TrainingDivergedError,
    build_alexnet,
    documented,
    evaluate,
    resize_with_pad,
    save_weights,
    synthetic_fashion,
    train,
)
from alexnet_repro.backend.precision import precision
from alexnet_repro.training.evaluate import evaluation_classifier
from alexnet_repro.training.schedule import iter_segments
from tests.helpers.models import narrow_layers

pytestmark = pytest.mark.usefixtures("narrow")

TINY = dataclasses.replace(
    Recipe.documented(), draw_size=16, batch_size=8, draws_per_epoch=3, epochs=2, preliminary_draws=1, save_every=2
)


@pytest.fixture
def loader():
    """A few synthetic images, always the same."""
    return DataLoader.from_arrays(*synthetic_fashion(64, 40, seed=0), seed=0)


@pytest.fixture(scope="module")
def drawn():
    """The documented architecture on images of 67 by 67, narrow, and the weights it was given."""
    keras.utils.set_random_seed(0)
    with narrow_layers():
        model = build_alexnet((67, 67, 1))
    return model, model.get_weights()


@pytest.fixture
def small(drawn):
    """That model, with those weights at the start of each test."""
    model, weights = drawn
    keras.utils.set_random_seed(0)
    model.set_weights(weights)
    return model


class Counting:
    """A step that updates nothing, and keeps the indices of each call."""

    variables = ()

    def __init__(self, losses=(), updates_per_call=1):
        self.calls, self.losses, self.updates_per_call = [], list(losses), updates_per_call

    def __call__(self, indices):
        self.calls.append(indices)
        return [self.losses.pop(0) if self.losses else 1.0 for _ in indices], [0.5] * len(indices)


def test_documented_recipe():
    """The documented recipe is the document's: one draw, then 5 epochs of 468, each draw four SGD updates of 32."""
    recipe = Recipe.documented()
    assert (recipe.epochs, recipe.draws_per_epoch) == (documented.EPOCHS, documented.DRAWS_PER_EPOCH)
    assert (recipe.draw_size, recipe.updates_per_draw) == (documented.DRAW_SIZE, documented.UPDATES_PER_DRAW)
    assert (recipe.batch_size, recipe.preliminary_draws, recipe.num_updates) == (32, 1, 4 + 9_360)
    assert (recipe.loss, recipe.kernel_initializer, recipe.dropout) == ("normalised_sigmoid", "glorot_uniform", True)
    optimizer = recipe.build_optimizer()
    assert isinstance(optimizer, keras.optimizers.SGD)
    plain = keras.optimizers.SGD(0.01).get_config()  # no momentum, weight decay, clipping or moving average
    assert {**optimizer.get_config(), "name": plain["name"]} == plain


def test_quick_recipe():
    """The quick recipe is the one whose accuracy was searched for."""
    assert Recipe.quick().as_data() == {
        "name": "quick", "loss": "softmax", "optimizer": "adam",
        "optimizer_arguments": {"beta_1": 0.875, "beta_2": 0.984375},
        "learning_rate": 2e-4, "warmup_updates": 16, "cosine_decay": True, "draw_size": 32, "batch_size": 32,
        "draws_per_epoch": 160, "epochs": 1, "preliminary_draws": 0, "kernel_initializer": "he_normal",
        "dropout": False, "save_every": None,
    }  # fmt: skip


def test_documented_saves():
    """Weights are saved at iterations 0, 20, … 460 of each epoch: last after 9,332 updates and the four before."""
    draws = list(iter_segments(Recipe.documented()))
    assert {draw.draws for draw in draws} == {1}
    saved_at = [number for number, draw in enumerate(draws) if draw.saves]
    assert saved_at == [1 + epoch * 468 + iteration for epoch in range(5) for iteration in range(0, 468, 20)]
    assert (saved_at[-1] + 1) * 4 == 4 + 9_332


def test_recipes_are_frozen():
    """A recipe can't be changed, only replaced."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe.quick().epochs = 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("loss", "mse"),
        ("batch_size", 0),
        ("batch_size", 48),
        ("epochs", 0),
        ("draws_per_epoch", 0),
        ("save_every", 0),
        ("preliminary_draws", -1),
        ("learning_rate", float("nan")),
        ("warmup_updates", 9_364),
    ],
)
def test_impossible_recipes(field, value):
    """A recipe that can't be run is refused when it is made, by the field's name."""
    with pytest.raises(ValueError, match=r"draw_size|" + field):
        dataclasses.replace(Recipe.documented(), **{field: value})


@pytest.mark.parametrize(
    ("warmup", "cosine", "expected"),
    [
        (10, True, [0, 0.05, 0.1, 0]),
        (10, False, [0, 0.05, 0.1, 0.1]),
        (0, True, [0.1, 0.09985, 0.09938, 0]),  # 0.1 (1 + cos(pi n / 200)) / 2 for n = 5 and 10
    ],
)
def test_learning_rate_schedule(warmup, cosine, expected):
    """A learning rate rises from 0 over the warm-up, reaches its peak, and falls to 0 at the last update or stays."""
    changed = {"learning_rate": 0.1, "draws_per_epoch": 200, "warmup_updates": warmup, "cosine_decay": cosine}
    recipe = dataclasses.replace(Recipe.quick(), **changed)
    rate = recipe.build_optimizer()._learning_rate
    rates = [float(rate(step)) for step in (0, 5, 10, recipe.num_updates)]
    assert rates == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("updates_per_call", "calls"), [(1, 7), (4, 4), (100, 4)])
def test_updates_are_made_of_draws(loader, small, updates_per_call, calls):
    """`train` gives its step the draws in order, in batches: up to its updates per call, interrupted by saves."""
    step = Counting(updates_per_call=updates_per_call)
    history = train(small, loader, TINY, step=step, progress=False)
    again = DataLoader.from_arrays(*synthetic_fashion(64, 40, seed=0), seed=0)
    drawn = [again.draw_train_indices(16) for _ in range(7)]
    np.testing.assert_array_equal(np.concatenate(step.calls), np.concatenate(drawn).reshape(14, 8))
    assert len(history.losses) == 14
    assert len(step.calls) == calls
    assert (step.calls[0].dtype, history.images) == (np.int64, 112)


def test_saves(loader, small, tmp_path, monkeypatch):
    """Weights are written as often as the recipe says."""
    saves = []
    monkeypatch.setattr("alexnet_repro.training.loop.save_weights", lambda *saved: saves.append(saved[2]))
    train(small, loader, TINY, step=Counting(), weights=tmp_path / "a.weights.h5", progress=False)
    assert saves == ["normalised_sigmoid"] * 4  # iterations 0 and 2 of two epochs; the loss is kept beside the weights
    at_the_end = dataclasses.replace(TINY, save_every=None)
    train(small, loader, at_the_end, step=Counting(), weights=tmp_path / "a.weights.h5", progress=False)
    assert len(saves) == 5


def test_validation(loader, small, monkeypatch):
    """With `validate`, the model is evaluated on all test images after each epoch, with the recipe's loss."""
    monkeypatch.setattr(
        "alexnet_repro.training.loop.evaluate", lambda _, loader, *, loss, **__: (loader.num_test, loss)
    )
    history = train(small, loader, TINY, step=Counting(), validate=True, progress=False)
    assert history.evaluations == ((8, (40, "normalised_sigmoid")), (14, (40, "normalised_sigmoid")))


def test_validation_within_epochs(loader, small, monkeypatch):
    """With `validate_every`, also after every that many draws of an epoch; at its end once."""
    monkeypatch.setattr("alexnet_repro.training.loop.evaluate", lambda *_, **__: "measured")
    history = train(small, loader, TINY, step=Counting(), validate=True, validate_every=2, progress=False)
    assert history.evaluations == tuple((updates, "measured") for updates in (6, 8, 12, 14))
    with pytest.raises(ValueError, match="validate_every must be at least 1, or None; got 0"):
        train(small, loader, TINY, step=Counting(), validate=True, validate_every=0)


def test_validation_compiles_once(loader, small, monkeypatch):
    """The classifier that evaluates the model is compiled once for all epochs."""
    classifiers = []
    monkeypatch.setattr(
        "alexnet_repro.training.loop.evaluate", lambda *_, classifier, **__: classifiers.append(classifier)
    )
    train(small, loader, TINY, step=Counting(), validate=True, progress=False)
    assert len(classifiers) == 2
    assert classifiers[0] is classifiers[1]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_divergence(loader, small, loss):
    """A loss that isn't finite stops the run, at most a call later, with the update's number and what to try."""
    step = Counting([2.0, 1.9, loss])
    with pytest.raises(TrainingDivergedError, match=rf"loss is {loss} at update 3 of 14 .* suspect the hardware"):
        train(small, loader, TINY, step=step, progress=False)
    assert len(step.calls) <= 3


def test_real_divergence(loader, small):
    """A learning rate far too high ends in that error, not in a run of NaNs."""
    hot = dataclasses.replace(TINY, learning_rate=1e6, loss="softmax")
    with pytest.raises(TrainingDivergedError, match="at update"):
        train(small, loader, hot, progress=False)


def test_progress(loader, small, capsys, monkeypatch):
    """The bar shows images, images/s, loss and accuracy, and an estimate is printed after the first updates."""
    monkeypatch.delenv("COLUMNS", raising=False)  # of a terminal, which there is none
    train(small, loader, TINY, step=Counting())
    err = capsys.readouterr().err
    assert "training takes about" in err
    assert "112/112" in err
    assert "images/s" in err
    assert "loss=1.0000" in err
    assert "accuracy=0.500" in err


@pytest.mark.parametrize(
    "name",
    [
        "float32",
        pytest.param("mixed_bfloat16", marks=pytest.mark.slow, id="name=mixed_bfloat16"),
        pytest.param("mixed_float16", marks=pytest.mark.slow, id="name=mixed_float16"),
    ],
)
def test_training_learns(name):
    """In every precision a few images are learned by heart: the loss falls below half its start."""
    keras.utils.set_random_seed(0)
    batch = 4 if name == "mixed_float16" else 16  # whose convolutions take a CPU long
    recipe = dataclasses.replace(
        Recipe.quick(), draw_size=batch, batch_size=batch, draws_per_epoch=15, warmup_updates=2
    )
    images, labels = synthetic_fashion(4, 1, seed=0)[0]
    learnable = DataLoader.from_arrays((images, labels), (images, labels), seed=0)
    with precision(name):
        model = build_alexnet((67, 67, 1), kernel_initializer=recipe.kernel_initializer)
        before = [layer.get_weights() for layer in model.layers if layer.trainable_weights]
        history = train(model, learnable, recipe, progress=False)
    assert history.losses[-3:].mean() < history.losses[0] / 2
    after = [layer.get_weights() for layer in model.layers if layer.trainable_weights]
    assert all(
        (w != start).any() for new, old in zip(after, before, strict=True) for w, start in zip(new, old, strict=True)
    )


def test_first_loss_is_chance(loader, small):
    """Before anything is learned the documented loss is that of guessing, log 10, as the document's 2.3014 is."""
    short = dataclasses.replace(TINY, epochs=1, draws_per_epoch=1, preliminary_draws=0)
    history = train(small, loader, short, progress=False)
    assert history.losses[0] == pytest.approx(np.log(10), abs=0.03)


@pytest.mark.slow
def test_dropout_acts_only_if_the_recipe_says_so():
    """Without dropout two runs from one state have the same first loss under any dropout seed; with it they don't."""

    def first_loss(dropout, seed):
        keras.utils.set_random_seed(seed)
        model = build_alexnet((67, 67, 1), kernel_initializer="he_normal")
        weights = np.random.RandomState(0)
        model.set_weights([0.05 * weights.standard_normal(w.shape) for w in model.get_weights()])
        again = DataLoader.from_arrays(*synthetic_fashion(64, 40, seed=0), seed=0)
        recipe = dataclasses.replace(TINY, dropout=dropout, draws_per_epoch=1, epochs=1, preliminary_draws=0)
        return train(model, again, recipe, progress=False).losses[0]

    assert first_loss(dropout=False, seed=1) == pytest.approx(first_loss(dropout=False, seed=2), rel=1e-6)
    assert first_loss(dropout=True, seed=1) != pytest.approx(first_loss(dropout=True, seed=2), rel=1e-6)


def test_same_seed_same_bits():
    """The same seed gives the same losses, bit for bit, dropout included."""

    def losses():
        keras.utils.set_random_seed(3)
        again = DataLoader.from_arrays(*synthetic_fashion(64, 40, seed=0), seed=3)
        return train(build_alexnet((67, 67, 1)), again, TINY, progress=False).losses.tolist()

    assert losses() == losses()


def test_evaluate_counts_every_test_image_once(small):
    """Accuracy and loss are the means over all test images, dropout off, as the public model classifies them."""
    train_split, (images, labels) = synthetic_fashion(1, 290, seed=1)  # more than two batches, the last one short
    loader = DataLoader.from_arrays(train_split, (images, labels))
    images = loader.test_images
    probabilities = keras.ops.convert_to_numpy(small(resize_with_pad(images, 67, 67))).astype(np.float64)
    picked = probabilities[np.arange(290), loader.test_labels]
    result = evaluate(small, loader, progress=False)
    assert result.num_samples == 290
    assert result.accuracy == pytest.approx(np.mean(probabilities.argmax(axis=1) == loader.test_labels))
    assert result.loss == pytest.approx(-np.log(picked / probabilities.sum(axis=1)).mean(), rel=1e-5)


def test_evaluate_again_sees_new_weights(small, loader):
    """A classifier that is compiled once evaluates the model's weights at each call."""
    classifier = evaluation_classifier(small, "softmax")
    before = evaluate(small, loader, loss="softmax", classifier=classifier, progress=False)
    small.set_weights([3 * weight for weight in small.get_weights()])
    after = evaluate(small, loader, loss="softmax", classifier=classifier, progress=False)
    assert after != before
    assert after == evaluate(small, loader, loss="softmax", progress=False)


def test_evaluate_on_a_draw(loader, small):
    """A number of samples is drawn from the test images, with replacement, even more than there are."""
    _, (images, _) = synthetic_fashion(1, 64, seed=0)
    top = int(keras.ops.argmax(small(resize_with_pad(images[:1, ..., None] / np.float32(255), 67, 67)), axis=-1)[0])
    one_right = images[:1], np.array([top], np.uint8)  # the one test image is classified correctly, training's are not
    loader = DataLoader.from_arrays((images, np.full(64, (top + 1) % 10, np.uint8)), one_right)
    assert evaluate(small, loader, 7, progress=False).accuracy == 1
    assert evaluate(small, loader, 130, progress=False).num_samples == 130
    with pytest.raises(ValueError, match="num_samples must be at least 1"):
        evaluate(small, loader, 0, progress=False)


def test_saved_weights_load_exactly(small, tmp_path):
    """What is saved loads into a new model bit for bit, and nothing else is left in the folder."""
    path = save_weights(small, tmp_path / "new folder" / "5.6_alexnet.weights.h5")
    other = build_alexnet((67, 67, 1))
    other.load_weights(path)
    for saved, loaded in zip(small.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(saved, loaded)
    assert [file.name for file in path.parent.iterdir()] == ["5.6_alexnet.weights.h5"]


def test_failed_save_keeps_the_old_file(small, tmp_path, monkeypatch):
    """A save that fails midway leaves the file that was there, and no other."""
    path = save_weights(small, tmp_path / "a.weights.h5")
    before = path.read_bytes()

    def disk_full(beside, **_):
        beside.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(small, "save_weights", disk_full)
    with pytest.raises(OSError, match="No space"):
        save_weights(small, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_weights_need_keras_name(small, tmp_path):
    """A name that Keras wouldn't save under is refused before anything is written."""
    with pytest.raises(ValueError, match=r"ends in \.weights\.h5"):
        save_weights(small, tmp_path / "5.6_alexnet_weights.h5")


def test_impossible_weights_path(loader, small, tmp_path):
    """Weights that couldn't be saved are refused before the first update."""
    (tmp_path / "folder.weights.h5").mkdir()
    for path in (tmp_path / "x.h5", tmp_path / "folder.weights.h5"):
        step = Counting()
        with pytest.raises((ValueError, OSError), match=path.name):
            train(small, loader, TINY, step=step, weights=path, progress=False)
        assert not step.calls


def test_labels_without_an_output(small):
    """Labels that the model has no output for are refused, in training and in evaluation."""
    images, labels = synthetic_fashion(4, 1, seed=0)[0]
    foreign = images, np.full_like(labels, 10)
    for split in ((foreign, (images, labels)), ((images, labels), foreign)):
        loader = DataLoader.from_arrays(*split)
        with pytest.raises(ValueError, match="to 10, but the model has 10 classes"):
            train(small, loader, TINY, step=Counting(), progress=False)
        with pytest.raises(ValueError, match="to 10, but the model has 10 classes"):
            evaluate(small, loader, progress=False)
