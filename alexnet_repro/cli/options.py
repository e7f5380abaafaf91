"""What an argument on the command line may be; nothing here imports Keras."""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

from alexnet_repro.files import keras_home

# Literal as the names in `alexnet_repro.cli.parser` are: images in a draw, by recipe.
DRAW_SIZES = {"documented": 128, "quick": 32}


def backend_asked() -> str:
    """Return the backend that Keras will take: KERAS_BACKEND's, or else its configuration file's."""
    try:
        told = json.loads((keras_home() / "keras.json").read_text(encoding="utf-8"))["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        told = "tensorflow"
    return os.environ.get("KERAS_BACKEND") or str(told)


def whole_number(smallest: int) -> Callable[[str], int]:
    """Return an argument type: an integer from `smallest` to 2**32 - 1."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not smallest <= int(text) < 2**32:
            raise argparse.ArgumentTypeError(f"expected a whole number from {smallest} to {2**32 - 1}, got {text!r}")
        return int(text)

    return parse


def new_weights_file(text: str) -> Path:
    """Argument type: a name Keras saves weights under."""
    if not text.endswith(".weights.h5"):
        raise argparse.ArgumentTypeError(f"the name must end in .weights.h5, got {text!r}")
    return Path(text)


def existing_file(text: str) -> Path:
    """Argument type: a file that is there."""
    return _existing(text, "file", Path.is_file)


def existing_folder(text: str) -> Path:
    """Argument type: a folder that is there."""
    return _existing(text, "folder", Path.is_dir)


def _existing(text: str, what: str, there: Callable[[Path], bool]) -> Path:
    try:
        found = there(Path(text))
    except OSError as error:  # a folder on the way can't be looked into, or the name is too long
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from error
    if not found:
        raise argparse.ArgumentTypeError(f"no such {what}: {text}")
    return Path(text)


def wrong_together(arguments: argparse.Namespace) -> str | None:
    """Return what is wrong with the arguments of `train` that are right one by one; None if nothing is."""
    draw, batch = DRAW_SIZES[arguments.recipe], arguments.batch_size
    if batch is not None and draw % batch:
        return f"argument --batch-size: must divide the {draw} images of a draw, got {batch}"
    if arguments.note and arguments.record is None:
        return "argument --note: goes into a record, so it needs --record=DIR"
    if arguments.replicas is not None and arguments.distribute != "mirrored":
        return "argument --replicas: is for --distribute=mirrored"
    if arguments.evaluate_every is not None and arguments.no_evaluate:
        return "argument --evaluate-every: doesn't go with --no-evaluate"
    return None
