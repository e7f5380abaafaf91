"""Where Keras keeps its files; nothing here imports it."""

import os
from collections.abc import Mapping
from pathlib import Path


def keras_home(environ: Mapping[str, str] = os.environ) -> Path:
    """Return KERAS_HOME, or else `.keras` in the home folder; where there is none, a path that isn't there."""
    # Not Path.home, which raises where there is no home.
    return Path(environ.get("KERAS_HOME") or os.path.expanduser(os.path.join("~", ".keras")))  # noqa: PTH111, PTH118
