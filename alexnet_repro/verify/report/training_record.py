"""The record of a training that came to its end: what was done, where, and what came out of it."""

import dataclasses
import datetime as dt
import os
import platform
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from alexnet_repro.backend.devices import gpu_names, thread_counts
from alexnet_repro.data.loader import DataLoader
from alexnet_repro.model import layer_rows
from alexnet_repro.training.evaluate import logits_on_test
from alexnet_repro.training.loop import History
from alexnet_repro.training.recipe import Recipe
from alexnet_repro.training.schedule import draws_until_saved
from alexnet_repro.training.weights import load_weights, weights_digest
from alexnet_repro.training.weights_file import WeightsError
from alexnet_repro.verify.benchmark.reference import revision
from alexnet_repro.verify.doctor.fingerprint import SPEED_SETTINGS, kind_of, packages
from alexnet_repro.verify.doctor.software import NUMERIC_SETTINGS
from alexnet_repro.verify.report.curves import learning_curve
from alexnet_repro.verify.report.outcome import outcome, significant
from alexnet_repro.verify.report.record_file import SCHEMA, write_record

# Of one machine, or of how the record was made: another who types the command has others.
LEFT_OUT = ("--resume", "--record", "--note", "--weights", "--checkpoints", "--data-dir")
WITHOUT_VALUE = ("--resume",)
LAYER_SETTINGS = ("filters", "kernel_size", "pool_size", "strides", "padding", "units", "activation", "rate")


@dataclasses.dataclass(frozen=True)
class Trained:
    """A training that came to its end."""

    model: keras.Sequential
    """With the weights after the last update."""
    loader: DataLoader
    recipe: Recipe
    history: History
    words: Sequence[str]
    """The command line's, as typed."""
    precision: str
    weights: Path
    """Where weights were saved as the recipe says."""
    note: str = ""


def record_training(folder: Path, trained: Trained, *, progress: bool = True) -> Path:
    """Measure a trained model, write its record and learning curve into `folder`, and return the record's path.

    Where the recipe saves weights while it trains, `trained.model` then holds those that were saved last.

    Raises:
        WeightsError: the weights saved last can't be read, or aren't of this training.
        OSError: the record can't be written.
    """
    name = folder.resolve().name
    recipe, history = trained.recipe, trained.history
    record = {
        "schema": SCHEMA,
        "name": name,
        "command": repeatable(trained.words),
        "note": trained.note,
        "recorded": dt.datetime.now(dt.UTC).date().isoformat(),
        "revision": revision(Path(__file__).parents[3]),
        "environment": _environment(),
        "data": trained.loader.source,
        "seed": trained.loader.seed,
        "precision": trained.precision,
        "recipe": recipe.as_data(),
        "layers": layers_of(trained.model),
        "draw": {name: each.shape for name, each in _a_draw(trained).items()},
        "training": {
            "images": history.images,
            "seconds": significant(history.seconds),
            "first_update_seconds": significant(history.first_update_seconds),
            "images_per_second": significant(history.images / history.seconds),
        },
        "updates": {
            "losses": [significant(loss) for loss in history.losses],
            "accuracies": [significant(accuracy) for accuracy in history.accuracies],
        },
        "evaluations": [
            {
                "updates": updates,
                "loss": significant(found.loss),
                "accuracy": significant(found.accuracy),
                "num_samples": found.num_samples,
            }
            for updates, found in history.evaluations
        ],
        "final": _outcome(trained, len(history.losses), progress=progress),
        "saved": None,
    }
    if recipe.save_every is not None:
        load_weights(trained.model, trained.weights)
        if weights_digest(trained.model) != history.saved:
            raise WeightsError(
                f"{trained.weights} isn't what this training saved last: another one has written there since. Train it "
                "again, with weights and checkpoints of its own (--weights=NAME.weights.h5)"
            )
        record["saved"] = _outcome(trained, updates_until_saved(recipe), progress=progress)
    return write_record(folder, record, curve_of(name, trained))


def repeatable(words: Sequence[str]) -> str:
    """Return what anyone can type to train the same: the words as typed, but for those of one machine or of a record.

    Args:
        words: the command line's, as `["train", "--seed=1", "--data-dir", "here"]`.
    """
    kept, left = [], iter(words)
    for word in left:
        option, equals, _ = word.partition("=")
        if option not in LEFT_OUT:
            kept.append(word)
        elif not equals and option not in WITHOUT_VALUE:
            next(left, None)
    return f"python -m alexnet_repro {shlex.join(kept)}"


def updates_until_saved(recipe: Recipe) -> int:
    """Return how many updates the weights have seen that the recipe saves last."""
    return draws_until_saved(recipe) * recipe.updates_per_draw


def layers_of(model: keras.Sequential) -> list[dict[str, Any]]:
    """Return each layer's name, kind, output shape, parameters and MACs, and the settings that the document names."""
    rows = []
    for layer, row in zip(model.layers, layer_rows(model), strict=True):
        config = layer.get_config()
        settings = {name: config[name] for name in LAYER_SETTINGS if name in config}
        rows.append({"name": row.name, "kind": type(layer).__name__, **row._asdict(), **settings})
    return rows


def curve_of(name: str, trained: Trained) -> str:
    """Return the learning curve as SVG."""
    history, batch = trained.history, trained.recipe.batch_size
    images = batch * np.arange(1, len(history.losses) + 1)
    points = [(batch * updates, found.accuracy) for updates, found in history.evaluations]
    return learning_curve(name, images, history.losses, history.accuracies, points).alone


def _a_draw(trained: Trained) -> dict[str, np.ndarray]:
    x, y = trained.loader.get_batch_train(trained.recipe.draw_size)
    return {"x": x, "y": y}


def _outcome(trained: Trained, updates: int, *, progress: bool) -> dict[str, Any]:
    logits = logits_on_test(trained.model, trained.loader, progress=progress)
    return {"updates": updates, **outcome(logits, trained.loader.all_test()[1])}


def _environment() -> dict[str, Any]:
    """Return what decides bits and speed, without this machine's names and paths."""
    names = gpu_names()
    asked = {name: os.environ[name] for name in sorted({*SPEED_SETTINGS, *NUMERIC_SETTINGS}) if name in os.environ}
    return {
        "cpu": kind_of("cpu:0", names),
        "threads": thread_counts(),
        "gpus": names,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "backend": keras.backend.backend(),
        "packages": packages(gpu=bool(names)),
        "settings": {name: value for name, value in asked.items() if "/" not in value},
    }
