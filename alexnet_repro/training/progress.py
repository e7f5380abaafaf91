"""How far a long piece of work is, on stderr."""

import sys
from typing import NoReturn

from tqdm import tqdm


def progress_bar(num_images: int, what: str, *, show: bool, done: int = 0) -> "tqdm[NoReturn]":
    """Return a bar on stderr that counts images; where stderr isn't a terminal, a line every half minute."""
    interval = 0.5 if sys.stderr.isatty() else 30.0
    return tqdm(
        total=num_images,
        initial=done,
        desc=what,
        unit=" images",
        disable=not show,
        mininterval=interval,
        smoothing=0.05,
    )
