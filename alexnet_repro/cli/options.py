"""Types and checks of the command line's arguments; nothing here imports Keras."""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

from alexnet_repro.files import keras_home

# The package's own, literal so that --help and wrong arguments answer without importing Keras; see
# tests/cli/test_parser.py.
RECIPES = {"documented": 128, "quick": 32}  # images per draw
LOSS_NAMES = ("normalised_sigmoid", "softmax")
PRECISION_NAMES = ("float32", "tf32", "mixed_bfloat16", "mixed_float16")


def configured_backend() -> str:
    """Return the backend that Keras will use: KERAS_BACKEND's, or else its configuration file's."""
    try:
        configured = json.loads((keras_home() / "keras.json").read_text(encoding="utf-8"))["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        configured = "tensorflow"
    return os.environ.get("KERAS_BACKEND") or str(configured)


def whole_number(smallest: int) -> Callable[[str], int]:
    """Return an argument type: an integer from `smallest` to 2**32 - 1."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not smallest <= int(text) < 2**32:
            raise argparse.ArgumentTypeError(f"expected a whole number from {smallest} to {2**32 - 1}, got {text!r}")
        return int(text)

    return parse


def new_weights_file(text: str) -> Path:
    """Argument type: a file name that Keras saves weights under."""
    if not text.endswith(".weights.h5"):
        raise argparse.ArgumentTypeError(f"the name must end in .weights.h5, got {text!r}")
    return Path(text)


def _existing(what: str, is_one: Callable[[Path], bool]) -> Callable[[str], Path]:
    """Return an argument type: the path of an existing file or folder."""

    def parse(text: str) -> Path:
        try:
            found = is_one(Path(text))
        except OSError as error:  # a parent folder can't be read, or the name is too long
            raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from error
        if not found:
            raise argparse.ArgumentTypeError(f"no such {what}: {text}")
        return Path(text)

    return parse


existing_file, existing_folder = _existing("file", Path.is_file), _existing("folder", Path.is_dir)


def conflict(arguments: argparse.Namespace) -> str | None:
    """Return an error of `train`'s arguments that are valid one by one; None if there is none."""
    draw, batch = RECIPES[arguments.recipe], arguments.batch_size
    if batch is not None and draw % batch:
        return f"argument --batch-size: must divide the {draw} images of a draw, got {batch}"
    if arguments.note and arguments.record is None:
        return "argument --note: goes into a record, so it needs --record=DIR"
    if arguments.replicas is not None and arguments.distribute != "mirrored":
        return "argument --replicas: is for --distribute=mirrored"
    if arguments.evaluate_every is not None and arguments.no_evaluate:
        return "argument --evaluate-every: doesn't go with --no-evaluate"
    return None
