"""The record of a completed training: `record.json` and `learning_curve.svg`, in a folder of its own.

One JSON object; later versions add fields, and readers ignore those they don't know:

- `schema` (1), `name` (the folder's), `command` (that repeats the training), `note` (what else was going on).
- `recorded` (the day), `revision` (of the code, as git names it; `-dirty` with changes) and `environment` (processor,
  threads, GPUs, packages, settings): of when the record was made, which after `--resume` may be later than training.
- `data` (`Fashion-MNIST` or `synthetic`), `seed`, `precision`, `recipe` (the fields of `alexnet_repro.Recipe`).
- `layers`: per layer `name`, `kind`, `output_shape` without the batch axis, `parameters`, `macs`, and the Keras
  settings that the document names; `draw`: the shapes of a training draw, images `x` and labels `y`.
- `training`: `images`, `seconds` (without saving and evaluating), `first_update_seconds`, `images_per_second`.
- `updates`: `losses` and `accuracies` of each update's batch, before the update.
- `evaluations`: after each epoch, and where `--evaluate-every` says so, `updates`, `loss` (the recipe's), `accuracy`,
  `num_samples`.
- `final`: the `outcome` of the weights after `updates` updates, on all test images; `saved`: of the weights that the
  recipe saved last, which are those that the document evaluates; null if it saves at the end only.

Measured numbers have six significant digits.
"""

import datetime as dt
import json
import os
import platform
import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
from pydantic import TypeAdapter, ValidationError

from alexnet_repro.backend.devices import gpu_names, thread_counts
from alexnet_repro.data.loader import DataLoader
from alexnet_repro.documented import TEST_SAMPLES
from alexnet_repro.files import atomic_write
from alexnet_repro.model import LayerRow, layer_rows
from alexnet_repro.training.evaluate import logits_on_test
from alexnet_repro.training.history import History
from alexnet_repro.training.recipe import Recipe
from alexnet_repro.training.schedule import draws_until_saved
from alexnet_repro.training.weights import load_weights, weights_digest
from alexnet_repro.training.weights_file import WeightsError
from alexnet_repro.verify.benchmark.tolerances import first_error
from alexnet_repro.verify.doctor.fingerprint import SPEED_SETTINGS, kind_of, packages
from alexnet_repro.verify.doctor.installation import revision
from alexnet_repro.verify.doctor.settings import SETTINGS
from alexnet_repro.verify.numerics.oracle import EXACT_LOSSES
from alexnet_repro.verify.report.curves import learning_curve

RECORD, CURVE = "record.json", "learning_curve.svg"
BROKEN_ARRAY = re.compile(r"\[\s+(-?\d[^\[\]{}\"]*?)\s+\]")
# Options of one machine, or of how the record was made: repeating the training takes others.
LEFT_OUT = ("--resume", "--record", "--note", "--weights", "--checkpoints", "--data-dir")
LAYER_SETTINGS = ("filters", "kernel_size", "pool_size", "strides", "padding", "units", "activation", "rate")
REPEATS = 1_000


@dataclass(frozen=True)
class _Header:
    schema: Literal[1]
    name: str


class Trained(NamedTuple):
    """A completed training: the model with the weights after the last update, and how it was trained.

    `words` are the command line's arguments, as typed; `weights` is where weights were saved as the recipe says.
    """

    model: keras.Sequential
    loader: DataLoader
    recipe: Recipe
    history: History
    words: Sequence[str]
    precision: str
    weights: Path
    note: str = ""


def record_training(folder: Path, trained: Trained, *, progress: bool = True) -> Path:
    """Measure a trained model, write its record and learning curve into `folder`, and return the record's path.

    Where the recipe saves weights while it trains, `trained.model` then holds those that were saved last.

    Raises:
        WeightsError: the weights saved last can't be read, or aren't of this training.
        OSError: record or curve can't be written; the message names it.
    """
    name, recipe, history = folder.resolve().name, trained.recipe, trained.history
    made = {
        "schema": 1,
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
        "layers": list(map(_layer, trained.model.layers, layer_rows(trained.model))),
        "draw": dict(zip("xy", (each.shape for each in trained.loader.get_batch_train(recipe.draw_size)), strict=True)),
    }
    measured = {
        "training": {
            **{name: getattr(history, name) for name in ("images", "seconds", "first_update_seconds")},
            "images_per_second": history.images / history.seconds,
        },
        "updates": {"losses": history.losses.tolist(), "accuracies": history.accuracies.tolist()},
        "evaluations": [
            {"updates": updates, "loss": found.loss, "accuracy": found.accuracy, "num_samples": found.num_samples}
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
        updates = draws_until_saved(recipe) * recipe.updates_per_draw
        measured["saved"] = _outcome(trained, updates, progress=progress)
    images = recipe.batch_size * np.arange(1, len(history.losses) + 1)
    points = [(recipe.batch_size * updates, found.accuracy) for updates, found in history.evaluations]
    curve = learning_curve(name, images, history.losses, history.accuracies, points).standalone
    atomic_write(folder / CURVE, curve)
    atomic_write(folder / RECORD, formatted(made | significant(measured)))
    return folder / RECORD


def repeatable(words: Sequence[str]) -> str:
    """Return the command that repeats a training: the words as typed, without options of one machine or of a record."""
    kept, left = [], iter(words)
    for word in left:
        option, equals, _ = word.partition("=")
        if option not in LEFT_OUT:
            kept.append(word)
        elif not equals and option != "--resume":  # the only one without a value
            next(left, None)
    return f"python -m alexnet_repro {shlex.join(kept)}"


def _layer(layer: keras.Layer, row: LayerRow) -> dict[str, Any]:
    config = layer.get_config()
    settings = {name: config[name] for name in LAYER_SETTINGS if name in config}
    return {"name": row.name, "kind": type(layer).__name__, **row._asdict(), **settings}


def _outcome(trained: Trained, updates: int, *, progress: bool) -> dict[str, Any]:
    logits = logits_on_test(trained.model, trained.loader, progress=progress)
    return {"updates": updates, **outcome(logits, trained.loader.all_test()[1])}


def _environment() -> dict[str, Any]:
    """Return what decides bits and speed, without this machine's names and paths."""
    names = gpu_names()
    settings = {name: os.environ.get(name, "") for name in sorted({*SPEED_SETTINGS, *SETTINGS})}
    return {
        "cpu": kind_of("cpu:0", {}),
        "threads": thread_counts(),
        "gpus": names,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "backend": keras.backend.backend(),
        "packages": packages(gpu=bool(names)),
        "settings": {name: value for name, value in settings.items() if value and "/" not in value},
    }


def outcome(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Return how good the float logits `(n, classes)` of test images with integer labels `(n,)` are, in float64.

    `num_samples`; `accuracy`, and `losses`, the mean of each loss by name, on all images; `confusion`, a row per label
    and a column per prediction, in images; and `document_draw`: of the document's 2,000 images, drawn with replacement
    `repeats` times from a fixed seed, `mean`, `std` and the quantiles `low` and `high` (2.5 and 97.5 %) of `accuracy`
    and of each of `losses`.
    """
    classes, predicted = logits.shape[1], logits.argmax(1)
    right = (predicted == labels).astype(np.float64)
    lost = {name: losses(labels, logits)[0] for name, losses in EXACT_LOSSES.items()}
    # RandomState, not default_rng: NumPy promises that its stream never changes (NEP 19).
    drawn = np.random.RandomState(0).randint(0, len(labels), (REPEATS, TEST_SAMPLES))

    def spread(values: np.ndarray) -> dict[str, Any]:
        means = values[drawn].mean(1)
        low, high = np.quantile(means, [0.025, 0.975])
        return {"mean": means.mean(), "std": means.std(ddof=1), "low": low, "high": high}

    draws = {"accuracy": spread(right), "losses": {name: spread(values) for name, values in lost.items()}}
    confusion = np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)
    return {
        "num_samples": len(labels),
        "accuracy": right.mean(),
        "losses": {name: values.mean() for name, values in lost.items()},
        "confusion": confusion.tolist(),
        "document_draw": {"samples": TEST_SAMPLES, "repeats": REPEATS, **draws},
    }


def significant(value: Any) -> Any:
    """Return JSON whose numbers have six significant digits, integers aside."""
    return json.loads(json.dumps(value), parse_float=lambda digits: float(f"{float(digits):.6g}"))


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the records in a folder's folders, by name; ValueError names one that isn't a record, or is another's."""
    records = {}
    for path in sorted(folder.glob(f"*/{RECORD}")):
        try:
            name = TypeAdapter(_Header).validate_json(path.read_bytes()).name
        except ValidationError as error:
            raise ValueError(f"{path} is no record of a training ({first_error(error)})") from error
        if name != path.parent.name:
            raise ValueError(f"{path} has the name {name!r}, not its folder's")
        records[name] = json.loads(path.read_bytes())
    return records


def formatted(record: Mapping[str, Any]) -> str:
    """Return a record as JSON, lists of numbers filled into lines."""
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    return BROKEN_ARRAY.sub(lambda found: f"[{textwrap.fill(' '.join(found[1].split()), 100)}]", text) + "\n"
