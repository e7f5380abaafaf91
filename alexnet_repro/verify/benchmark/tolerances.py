"""Tolerances of the comparison with a reference: a TOML file that people edit, apart from the recorded timings."""

import tomllib
from dataclasses import fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from alexnet_repro.layout import restoration

_KNOWN = ConfigDict(extra="forbid")
_Share = Annotated[float, Field(gt=0, le=1, strict=True, allow_inf_nan=False)]


@dataclass(frozen=True, config=_KNOWN)
class Override:
    """Other tolerances for the cases of a name; None: as everywhere."""

    # `*` and `?` stand for any characters and for one; brackets for themselves, as names have them.
    match: Annotated[str, Field(min_length=1)]
    min_slowdown: _Share | None = None
    max_noise: _Share | None = None


@dataclass(frozen=True, config=_KNOWN)
class Tolerances:
    """The file's content."""

    # Maximum share of whole runs of unchanged code with an alarm, however many cases a run has.
    false_alarms: Annotated[float, Field(gt=0, le=0.1, strict=True, allow_inf_nan=False)] = 0.005
    min_slowdown: _Share = 0.03  # a smaller slowdown isn't worth an alarm, however sure it is: 0.03 is 3 %
    max_noise: _Share = 0.10  # a case in which a slowdown of as much couldn't be seen is INCONCLUSIVE
    max_busy: _Share = 0.05  # the share of all processors that something else may take during a re-measurement
    case: tuple[Override, ...] = ()

    def of(self, case: str) -> tuple[float, float]:
        """Return a case's `min_slowdown` and `max_noise`: of the overrides that match, the last that has one."""
        slowdown, noise = self.min_slowdown, self.max_noise
        for each in self.case:
            if fnmatchcase(case, each.match.replace("[", "[[]")):
                slowdown, noise = each.min_slowdown or slowdown, each.max_noise or noise
        return slowdown, noise


def read_tolerances(path: Path) -> Tolerances:
    """Return the tolerances in a file; ValueError names what can't be read or isn't allowed, and what is."""
    try:
        return Tolerances(**tomllib.loads(path.read_text()))
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror}): {restoration(path)}") from error
    except ValidationError as error:
        keys = (", ".join(field.name for field in fields(each)) for each in (Tolerances, Override))
        raise ValueError(f"{path}: {first_error(error)}; keys: {'; of a case: '.join(keys)}") from error
    except ValueError as error:  # of TOML or of UTF-8
        raise ValueError(f"{path} isn't TOML: {error}") from error


def first_error(error: ValidationError) -> str:
    """Return pydantic's first error in one line: the field, what is wrong, and what stands there."""
    first = error.errors(include_url=False)[0]
    where, value = ".".join(map(str, first["loc"])), str(first["input"])[:40]
    found = "" if first["type"] in ("missing", "value_error") else f", not {value!r}"
    return " ".join(f"{where}: {first['msg'].removeprefix('Value error, ')}{found}".split())
