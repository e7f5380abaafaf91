"""A training's record, as a file: `record.json`, beside `learning_curve.svg`, in a folder of its own.

One JSON object; later versions add fields, and readers pass over what they don't know:

- `schema` (1), `name` (the folder's), `command` (what anyone can type to train the same), `note` (what was going on).
- `recorded` (the day), `revision` (of the code, as git tells it; `-dirty` with changes) and `environment` (processor,
  threads, GPUs, packages, settings): of when the record was made, which after `--resume` may be later than training.
- `data` (`Fashion-MNIST` or `synthetic`), `seed`, `precision`, `recipe` (the fields of `alexnet_repro.Recipe`).
- `layers`: one a layer: `name`, `kind`, `output_shape` without the batch axis, `parameters`, `macs`, and those of
  Keras's settings that the document names; `draw`: the shapes of a training draw, images `x` and labels `y`.
- `training`: `images`, `seconds` (saving and evaluating left out), `first_update_seconds`, `images_per_second`.
- `updates`: `losses` and `accuracies` of every update, each of its batch, before the update.
- `evaluations`: after each epoch, and more often where that was asked for, `updates`, `loss` (the recipe's),
  `accuracy`, `num_samples`.
- `final`: of the weights after `updates` updates, on every test image (`alexnet_repro.verify.report.outcome`);
`saved`: the
  same of the weights that the recipe saved last, which are those that the document evaluates; null if it saves at the
  end only.

Measured numbers have six significant digits.
"""

import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet_repro.files import atomic_write

SCHEMA = 1
RECORD, CURVE = "record.json", "learning_curve.svg"
NUMBERS = re.compile(r"\[\s+(-?\d[^\[\]{}\"]*?)\s+\]")


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the records in a folder's folders, by name.

    Raises:
        ValueError: one isn't a record, or is another folder's; the message names the file.
    """
    records = {}
    for path in sorted(folder.glob(f"*/{RECORD}")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            schema, name = record["schema"], record["name"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no record of a training ({error!r})") from error
        if (schema, name) != (SCHEMA, path.parent.name):
            raise ValueError(f"{path} has schema {schema} and name {name!r}, not {SCHEMA} and its folder's name")
        records[name] = record
    return records


def write_record(folder: Path, record: Mapping[str, Any], curve: str) -> Path:
    """Write a record and its drawing, each in one step, and return the record's path.

    Raises:
        OSError: one can't be written; the message names it.
    """
    atomic_write(folder / CURVE, curve)
    atomic_write(folder / RECORD, formatted(record))
    return folder / RECORD


def formatted(record: Mapping[str, Any]) -> str:
    """Return a record as JSON, lists of numbers filled into lines."""
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    return NUMBERS.sub(lambda found: f"[{textwrap.fill(' '.join(found[1].split()), 100)}]", text) + "\n"
