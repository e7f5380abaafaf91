"""`train --record` and `--batch-size` on the command line."""

import dataclasses
import json

import keras
import numpy as np
import pytest

import alexnet_repro
from alexnet_repro import Recipe, synthetic_fashion
from alexnet_repro.cli import parser as command_line


@pytest.fixture
def tiny(monkeypatch):
    """A model of 8 by 8 pixels, 64 training and 40 test images, and a quick recipe of three updates of eight."""

    def build(**_):
        layers = [keras.layers.Flatten(name="flatten"), keras.layers.Dense(10, activation="sigmoid", name="dense")]
        return keras.Sequential([keras.Input((8, 8, 1)), *layers], name="alexnet")

    recipe = dataclasses.replace(Recipe.quick(), draw_size=8, batch_size=8, draws_per_epoch=3, warmup_updates=0)
    monkeypatch.setattr(Recipe, "quick", lambda: recipe)
    monkeypatch.setattr(alexnet_repro, "build_alexnet", build)
    monkeypatch.setattr(alexnet_repro, "synthetic_fashion", lambda: synthetic_fashion(64, 40))


def test_help(capsys):
    """`train --help` names what these tests are about."""
    with pytest.raises(SystemExit):
        command_line.main(["train", "--help"])
    out = capsys.readouterr().out
    assert [word for word in ("--batch-size", "--record DIR", "--note TEXT") if word not in out] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--batch-size=0", "--batch-size: expected a whole number from 1"),
        ("--batch-size=48 --recipe=documented", "--batch-size: must divide the 128 images of a draw, got 48"),
        ("--batch-size=64", "--batch-size: must divide the 32 images of a draw, got 64"),
        ("--note=busy", "--note: goes into a record, so it needs --record=DIR"),
        ("--evaluate-every=9 --no-evaluate", "--evaluate-every: doesn't go with --no-evaluate"),
    ],
)
def test_wrong_arguments(capsys, arguments, message):
    """A batch that doesn't divide the draw, or options that don't go together, exit 2 with one line that says so."""
    with pytest.raises(SystemExit) as caught:
        command_line.main(["train", *arguments.split()])
    out, err = capsys.readouterr()
    assert (caught.value.code, out, err.count("\n")) == (2, "", 1)
    assert message in err


@pytest.mark.parametrize(("arguments", "updates"), [("", 9_364), ("--batch-size=128", 2_341)])
def test_batch_size(monkeypatch, tmp_path, arguments, updates):
    """`--batch-size` is the number of images per update: with 128, each draw is one update."""
    recipes = []

    def train(_model, _loader, recipe, **_):
        recipes.append(recipe)
        return alexnet_repro.History(np.ones(1), np.ones(1), images=1, seconds=1.0, first_update_seconds=1.0)

    monkeypatch.setattr(alexnet_repro, "train", train)
    monkeypatch.setattr(alexnet_repro, "build_alexnet", lambda **_: None)
    monkeypatch.setattr("alexnet_repro.training.distributed.strategy.best_train_step", lambda *_: None)
    monkeypatch.setattr(alexnet_repro, "synthetic_fashion", lambda: synthetic_fashion(1, 1))
    words = ["train", "--synthetic", "--recipe=documented", f"--weights={tmp_path / 'a.weights.h5'}"]
    assert command_line.main([*words, *arguments.split()]) == 0
    assert [(recipe.draw_size, recipe.num_draws, recipe.num_updates) for recipe in recipes] == [(128, 2_341, updates)]


@pytest.mark.usefixtures("tiny")
def test_record_of_a_finished_training(tmp_path, capsys):
    """`--record` keeps what came out; of a training that is at its end, `--resume --record` keeps the same."""
    words = ["train", "--synthetic", "--seed=3", "--epochs=2", f"--weights={tmp_path / 'a.weights.h5'}"]
    assert command_line.main([*words, f"--record={tmp_path / 'new/first'}", "--note=quiet"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"record: {tmp_path}/new/first/record.json"
    assert command_line.main([*words, "--resume", "--record", str(tmp_path / "new/second")]) == 0
    first, second = (json.loads((tmp_path / "new" / name / "record.json").read_text()) for name in ("first", "second"))
    assert (first["name"], first["note"], second["name"], second["note"]) == ("first", "quiet", "second", "")
    assert first["command"] == "python -m alexnet_repro train --synthetic --seed=3 --epochs=2"
    assert (len(first["updates"]["losses"]), first["final"]["updates"], first["final"]["num_samples"]) == (6, 6, 40)
    assert [each["updates"] for each in first["evaluations"]] == [3, 6]
    same = [key for key in first if key not in {"name", "note", "training"}]  # whose seconds a checkpoint rounds up
    assert {key: first[key] for key in same} == {key: second[key] for key in same}
    assert first["training"]["images"] == second["training"]["images"] == 48


def test_unwritable_record(tmp_path, capsys, monkeypatch):
    """Where the record can't be written, that is found out before training, and is one line."""
    monkeypatch.setattr(alexnet_repro, "train", lambda *_, **__: pytest.fail("trained"))
    (tmp_path / "file").touch()
    words = ["train", "--synthetic", f"--weights={tmp_path / 'a.weights.h5'}", f"--record={tmp_path / 'file'}"]
    assert command_line.main(words) == 1
    err = capsys.readouterr().err
    assert (err.count("\n"), "file" in err) == (1, True)


@pytest.mark.usefixtures("tiny")
def test_a_stopped_training_has_no_record(tmp_path, monkeypatch, capsys):
    """A training that was stopped leaves no record, but the command to resume it, the record's option included."""

    def train(*_, **__):
        raise alexnet_repro.TrainingStoppedError("stopped after update 1 of 2")

    monkeypatch.setattr(alexnet_repro, "train", train)
    record = tmp_path / "record"
    words = ["train", "--synthetic", f"--weights={tmp_path / 'a.weights.h5'}", f"--record={record}"]
    assert command_line.main(words) == 128
    assert f"--record={record} --resume" in capsys.readouterr().err
    assert list(record.iterdir()) == []
