"""Names of nodes as people read them: in the order of their numbers, and folded as Slurm writes lists of hosts."""

import re
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

MAX_NAMES = 100_000  # that a list of nodes stands for
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", re.ASCII)
_NUMBERED = re.compile(r"([A-Za-z0-9._-]*?)([0-9]{1,9})([A-Za-z._-]*)", re.ASCII)


def by_number(name: str) -> list[tuple[int, str]]:
    """Return the key that sorts `n2` before `n10`."""
    parts = re.split(r"([0-9]{1,18})", name)
    return [(int(part), part) if number % 2 else (0, part) for number, part in enumerate(parts)]


def folded_names(names: Iterable[str]) -> list[str]:
    """Return names, in order, with runs of numbers folded: `n[01-03,05]`; any other name stays as it is."""
    numbered: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    found: list[tuple[str, str]] = []  # a prefix and a suffix, or a name alone
    for name in sorted(set(names), key=by_number):
        matched = _NUMBERED.fullmatch(name)
        key = (matched[1], matched[3]) if matched else (name, "")
        if key not in numbered:
            found.append(key)
        numbered[key].append(matched[2] if matched else "")
    return [_folded(before, numbered[before, after], after) for before, after in found]


def _folded(before: str, numbers: list[str], after: str) -> str:
    if len(numbers) == 1:
        return f"{before}{numbers[0]}{after}"
    ranges = [[numbers[0]]]
    for last, number in pairwise(numbers):
        if last and number == str(int(last) + 1).zfill(len(last)):
            ranges[-1].append(number)
        else:
            ranges.append([number])
    listed = ",".join(each[0] if len(each) == 1 else f"{each[0]}-{each[-1]}" for each in ranges)
    return f"{before}[{listed}]{after}"


def unfolded_names(folded: str) -> list[str]:
    """Return the names that a list stands for, as Slurm writes it: `n[01-03,05],login`.

    Brackets without numbers are a part of a name. ValueError: a range ends before it begins, or there are too many.
    """
    names: list[str] = []
    for listed in re.findall(r"(?:\[[^\]]*\]|[^,])+", folded):
        own = [""]
        for part in re.split(r"(\[[^\]]*\])", listed.strip()):
            ends = _numbers(part)
            if len(names) + len(own) * len(ends) > MAX_NAMES:
                raise ValueError(f"stands for more than {MAX_NAMES:,} nodes")
            own = [f"{before}{end}" for before in own for end in ends]
        names += own
    return names


def _numbers(part: str) -> list[str]:
    """Return the numbers of `[01-03,05]`; any other text as it is."""
    ranges = [_RANGE.fullmatch(each) for each in part[1:-1].split(",")] if part.startswith("[") else [None]
    numbers: list[str] = []
    for each in ranges:
        if each is None:
            return [part]
        first, last = int(each[1]), int(each[2] or each[1])
        if last < first:
            raise ValueError(f"has a range that ends before it begins: {each[0]}")
        if last - first + len(numbers) >= MAX_NAMES:
            raise ValueError(f"stands for more than {MAX_NAMES:,} nodes")
        numbers += [str(number).zfill(len(each[1])) for number in range(first, last + 1)]
    return numbers


def names_in_words(names: Iterable[str], most: int = 12) -> str:
    """Return folded names as a text, and how many more parts there are than `most`."""
    folded = folded_names(names)
    return ", ".join([*folded[:most], *([f"and {len(folded) - most:,} more"] if len(folded) > most else [])])
