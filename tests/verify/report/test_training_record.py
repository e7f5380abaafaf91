"""The record of a training: its content, and that it is written atomically."""

import dataclasses
import json
import re
import socket

import keras
import numpy as np
import pytest

from alexnet_repro import DataLoader, Evaluation, Recipe, save_weights, synthetic_fashion
from alexnet_repro.training.evaluate import evaluate, logits_on_test
from alexnet_repro.training.history import History
from alexnet_repro.training.weights import weights_digest
from alexnet_repro.training.weights_file import WeightsError
from alexnet_repro.verify.report import training_record as module
from alexnet_repro.verify.report.training_record import (
    Trained,
    formatted,
    outcome,
    read_records,
    record_training,
    repeatable,
    significant,
)

WORDS = ["train", "--synthetic", "--seed=3", "--data-dir", "/somewhere/here", "--weights=/there/a.weights.h5"]


@pytest.fixture(scope="module")
def tiny():
    """A model of 8 by 8 pixels and one dense layer, in place of the document's."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(name="flatten"), keras.layers.Dense(10, activation="sigmoid", name="dense")]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers])


@pytest.fixture(scope="module")
def loader():
    """40 synthetic test images."""
    return DataLoader.from_arrays(*synthetic_fashion(64, 40, seed=0), seed=3)


@pytest.fixture(scope="module")
def history():
    """Two updates, and what was measured after them."""
    numbers = np.array([2.3456789, 2.25]), np.array([1 / 3, 0.5])
    return History(
        *numbers, images=64, seconds=2.0, first_update_seconds=1.5, evaluations=((2, Evaluation(2.5, 0.25, 40)),)
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory, tiny, loader, history):
    """The record of a documented training whose saved weights are all zeros, and its folder."""
    folder = tmp_path_factory.mktemp("records") / "tiny"
    weights = folder.parent / "a.weights.h5"
    kept = tiny.get_weights()
    expected = evaluate(tiny, loader, loss="softmax", progress=False)
    tiny.set_weights([np.zeros_like(each) for each in kept])
    save_weights(tiny, weights)
    history = dataclasses.replace(history, saved=weights_digest(tiny))
    tiny.set_weights(kept)
    trained = Trained(tiny, loader, Recipe.documented(), history, WORDS, "float32", weights, note="quiet")
    path = record_training(folder, trained, progress=False)
    tiny.set_weights(kept)
    return json.loads(path.read_text()), folder, expected


def test_training_is_recorded(written):
    """The record holds all that repeating the training takes, and no path or host name."""
    record, folder, _ = written
    assert (record["schema"], record["name"], record["note"]) == (1, "tiny", "quiet")
    assert record["command"] == "python -m alexnet_repro train --synthetic --seed=3"
    assert (record["data"], record["seed"], record["precision"]) == ("synthetic", 3, "float32")
    assert (record["recipe"]["name"], record["recipe"]["epochs"], record["recipe"]["loss"]) == (
        "documented",
        5,
        "normalised_sigmoid",
    )
    assert record["training"] == {
        "images": 64,
        "seconds": 2.0,
        "first_update_seconds": 1.5,
        "images_per_second": 32.0,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["recorded"])
    assert record["environment"]["packages"]["keras"] == keras.__version__
    assert record["environment"]["threads"]["processors"] >= 1
    assert record["draw"] == {"x": [128, 224, 224, 1], "y": [128]}
    assert str(folder.parent) not in (folder / "record.json").read_text()


def test_environment(monkeypatch):
    """Settings that change speed or bits are recorded, but no path of this machine."""
    for name in module.SPEED_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/here")
    found = module._environment()
    assert found["settings"].get("OMP_NUM_THREADS") == "2"
    assert "XLA_FLAGS" not in found["settings"]
    assert socket.gethostname() not in found.values()


def test_results_are_recorded(written):
    """Losses have six digits; the last weights and the saved ones are measured on all test images by both losses."""
    record, _, expected = written
    assert record["updates"] == {"losses": [2.34568, 2.25], "accuracies": [0.333333, 0.5]}
    assert record["evaluations"] == [{"updates": 2, "loss": 2.5, "accuracy": 0.25, "num_samples": 40}]
    final, saved = record["final"], record["saved"]
    assert (final["updates"], final["num_samples"], saved["updates"]) == (2, 40, 9_336)
    assert final["accuracy"] == pytest.approx(expected.accuracy)
    assert final["losses"]["softmax"] == pytest.approx(expected.loss, rel=1e-4)
    # Zero weights answer all alike: ln 10, whatever the loss, and always class 0.
    assert saved["losses"] == {"normalised_sigmoid": 2.30259, "softmax": 2.30259}
    assert sum(row[0] for row in saved["confusion"]) == np.sum(saved["confusion"]) == 40


def test_weights_of_another_training(tmp_path, tiny, loader, history):
    """Weights that another training has written over those saved last aren't recorded as this one's."""
    weights = save_weights(tiny, tmp_path / "a.weights.h5")
    history = dataclasses.replace(history, saved="0" * 64)
    trained = Trained(tiny, loader, Recipe.documented(), history, WORDS, "float32", weights)
    with pytest.raises(WeightsError, match=r"a.weights.h5 isn't what this training saved last: .* Train it again"):
        record_training(tmp_path / "record", trained, progress=False)
    assert not (tmp_path / "record").exists()


def test_layers(written):
    """Each layer is recorded with its shape, parameters and settings."""
    assert written[0]["layers"] == [
        {"name": "flatten", "kind": "Flatten", "output_shape": [64], "parameters": 0, "macs": 0},
        {
            "name": "dense",
            "kind": "Dense",
            "output_shape": [10],
            "parameters": 650,
            "macs": 640,
            "units": 10,
            "activation": "sigmoid",
        },
    ]


def test_drawing(written):
    """The learning curve is an SVG file beside it, on white, that names the run."""
    text = (written[1] / "learning_curve.svg").read_text()
    assert text.startswith('<svg style="background: white" ')
    assert "tiny: loss" in text


def test_saved_only_at_the_end(tmp_path, tiny, loader, history):
    """A recipe that saves at the end only has one set of weights to measure, and no file is read."""
    nowhere = tmp_path / "nowhere.weights.h5"
    trained = Trained(tiny, loader, Recipe.quick(), history, WORDS, "float32", nowhere)
    record = json.loads(record_training(tmp_path / "quick", trained, progress=False).read_text())
    assert record["saved"] is None
    assert read_records(tmp_path) == {"quick": record}


def test_logits(tiny, loader):
    """The logits of the test images are float32, one row per image, in their order: their sigmoids are the outputs."""
    logits = logits_on_test(tiny, loader, progress=False)
    assert (logits.shape, logits.dtype) == ((40, 10), np.float32)
    pixels = keras.ops.image.resize(keras.ops.cast(loader.all_test()[0], "float32") / 255.0, (8, 8))
    answers = keras.ops.convert_to_numpy(tiny(pixels))
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), answers, rtol=1e-4)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("train", "train"),
        ("train --resume --recipe=quick --record=r", "train --recipe=quick"),
        ("train --record r --epochs 2 --weights a.weights.h5", "train --epochs 2"),
        ("train --data-dir d --seed=1 --checkpoints c --checkpoint-every=7", "train --seed=1 --checkpoint-every=7"),
        ("train --note=busy --no-checkpoints", "train --no-checkpoints"),
    ],
)
def test_command(typed, expected):
    """The recorded command leaves out options of one machine, with `=` or without."""
    assert repeatable(typed.split()) == f"python -m alexnet_repro {expected}"


def test_command_is_quoted():
    """The recorded command can be pasted, whatever is in it."""
    assert repeatable(["train", "--precision=a b"]) == "python -m alexnet_repro train '--precision=a b'"


def test_format():
    """Lists of numbers are filled into lines, and nothing else is changed."""
    content = {
        "losses": [1.5, 2, -3e-07] * 50,
        "words": ["[\n 1,\n 2\n]", "a"],
        "nested": [[1, 2], [3, 4]],
        "none": None,
    }
    text = formatted(content)
    assert json.loads(text) == content
    assert max(map(len, text.splitlines())) <= 120
    assert len(text.splitlines()) < 30


def test_unwritable(tmp_path, tiny, loader, history):
    """Where a record can't be written, its file is named, and nothing is left."""
    (tmp_path / "file").touch()
    trained = Trained(tiny, loader, Recipe.quick(), history, WORDS, "float32", tmp_path / "nowhere.weights.h5")
    with pytest.raises(OSError, match=r"file/learning_curve\.svg can't be written"):
        record_training(tmp_path / "file", trained, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"schema": 2, "name": "a"}', '{"schema": 1, "name": "b"}'],
    ids=["content=none", "content=list", "content=empty", "content=later", "content=other_folder"],
)
def test_unreadable(tmp_path, content):
    """A file that is no record, or another folder's, is refused by name."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/record.json").write_text(content)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "a/record.json"))):
        read_records(tmp_path)


def test_outcome():
    """Of 300 answers right of 400, accuracy is 0.75; the confusion matrix counts which were wrong, and how."""
    labels = np.repeat([0, 1], 200)
    answers = np.array([0] * 190 + [9] * 10 + [1] * 110 + [0] * 90)
    found = outcome(np.eye(10, dtype=np.float32)[answers] * 4, labels)
    assert (found["num_samples"], found["accuracy"]) == (400, 0.75)
    assert [(found["confusion"][a][b]) for a, b in ((0, 0), (0, 9), (1, 1), (1, 0))] == [190, 10, 110, 90]
    assert np.sum(found["confusion"]) == 400
    # Right: ln(e^4 + 9) - 4; wrong: ln(e^4 + 9) = 4.152584.
    assert found["losses"]["softmax"] == pytest.approx(0.152584 * 0.75 + 4.152584 * 0.25, rel=1e-5)


def test_outcome_is_of_every_test_image(monkeypatch):
    """Of 10,000 test images, the last thousand of which are wrong, 0.9 are right."""
    images, labels = np.zeros((10_000, 28, 28), np.uint8), np.repeat(np.array([0, 9], np.uint8), (9_000, 1_000))
    loader = DataLoader.from_arrays((images, labels), (images, labels))
    monkeypatch.setattr(module, "logits_on_test", lambda *_, **__: np.eye(10, dtype=np.float32)[np.zeros(10_000, int)])
    trained = Trained(None, loader, Recipe.quick(), None, WORDS, "float32", None)
    found = module._outcome(trained, 7, progress=False)
    assert (found["updates"], found["num_samples"], found["accuracy"]) == (7, 10_000, 0.9)


def test_spread_of_the_documents_draws():
    """1,000 draws of 2,000 spread as the binomial says: around the accuracy, by sqrt(p (1 - p) / 2000)."""
    logits = np.zeros((2_500, 10), np.float32)  # hardly more than are drawn: without replacement they spread by half
    logits[:2_100, 0] = logits[2_100:, 1] = 5
    found = outcome(logits, np.zeros(2_500, int))["document_draw"]
    assert (found["samples"], found["repeats"]) == (2_000, 1_000)
    accuracy = found["accuracy"]
    assert accuracy["mean"] == pytest.approx(0.84, abs=4 * 0.0082 / 1_000**0.5)
    assert accuracy["std"] == pytest.approx(0.0082, rel=4 / 2_000**0.5)
    assert (accuracy["low"], accuracy["high"]) == (pytest.approx(0.8239, abs=0.003), pytest.approx(0.8561, abs=0.003))
    assert set(found["losses"]) == {"normalised_sigmoid", "softmax"}
    assert found["losses"]["softmax"]["low"] < found["losses"]["softmax"]["mean"] < found["losses"]["softmax"]["high"]


@pytest.mark.parametrize(("number", "expected"), [(0.12345678, 0.123457), (1234567.0, 1234570.0), (2.0, 2.0)])
def test_significant(number, expected):
    """Six significant digits are kept."""
    assert significant(number) == expected
