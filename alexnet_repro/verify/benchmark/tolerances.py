"""What is tolerated when timings are compared with a reference: a TOML file that people edit, apart from baselines."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMITS = {
    "false_alarms": (0.0, 0.1),
    "smallest_slowdown": (0.0, 1.0),
    "most_noise": (0.0, 1.0),
    "most_busy": (0.0, 1.0),
}
EVERYWHERE = ("false_alarms", "smallest_slowdown", "most_noise", "most_busy")
OF_A_CASE = ("smallest_slowdown", "most_noise")


@dataclass(frozen=True)
class Tolerance:
    """What is tolerated of one case."""

    smallest_slowdown: float
    """What is less isn't worth an alarm, however sure: 0.03 is 3 %."""
    most_noise: float
    """A case in which a slowdown of as much couldn't be seen is INCONCLUSIVE."""


@dataclass(frozen=True)
class Override:
    """Other tolerances for the cases of a name; None: as everywhere."""

    match: str
    """`*` and `?` stand for any characters and for one; brackets for themselves, as names have them."""
    smallest_slowdown: float | None = None
    most_noise: float | None = None


@dataclass(frozen=True)
class Rules:
    """The file's content."""

    false_alarms: float = 0.005
    """Of whole runs of unchanged code, at the most, however many cases a run has."""
    smallest_slowdown: float = 0.03
    most_noise: float = 0.10
    most_busy: float = 0.05
    """The share of all processors that something else may take while one looks again at what is slower."""
    overrides: tuple[Override, ...] = ()

    def of(self, case: str) -> Tolerance:
        """Return a case's tolerances: of the overrides that match, the last that says something."""
        found = {name: getattr(self, name) for name in OF_A_CASE}
        for override in self.overrides:
            if _matches(override.match, case):
                found |= {name: value for name in OF_A_CASE if (value := getattr(override, name)) is not None}
        return Tolerance(**found)


def read(path: Path) -> Rules:
    """Return the rules in a file.

    Raises:
        ValueError: there is none, or it isn't TOML, or a key or value isn't allowed; the message names file, key, and
            what is allowed.
    """
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror}): git checkout {path}") from error
    except ValueError as error:  # of TOML or of UTF-8
        raise ValueError(f"{path} isn't TOML: {error}") from error
    cases = content.pop("case", [])
    if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
        raise ValueError(f"{path}: case: expected tables, each under [[case]]")
    values = {name: _number(path, "", name, value, EVERYWHERE) for name, value in content.items()}
    return Rules(**values, overrides=tuple(_override(path, i, case) for i, case in enumerate(cases, 1)))


def _override(path: Path, number: int, content: Mapping[str, Any]) -> Override:
    where, match = f"case {number}, ", content.get("match")
    if not isinstance(match, str) or not match:
        raise ValueError(f"{path}: {where}match: expected a case's name, in which * and ? may stand for others")
    values = {name: value for name, value in content.items() if name != "match"}
    return Override(match, **{name: _number(path, where, name, value, OF_A_CASE) for name, value in values.items()})


def _number(path: Path, where: str, name: str, value: Any, allowed: tuple[str, ...]) -> float:
    if name not in allowed:
        raise ValueError(f"{path}: {where}{name}: no such rule; there are {', '.join(allowed)}")
    low, high = LIMITS[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high:
        raise ValueError(f"{path}: {where}{name}: expected a number above {low:g} and up to {high:g}, got {value!r}")
    return float(value)


def _matches(glob: str, case: str) -> bool:
    """Return whether a name is meant; fnmatch would take brackets for sets of characters."""
    parts = {"*": ".*", "?": "."}
    return re.fullmatch("".join(parts.get(each, re.escape(each)) for each in glob), case) is not None
