"""What limits this process's memory: the machine's RAM, a cgroup, `ulimit`. Imports neither Keras nor a backend."""

import contextlib
import resource
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from alexnet_repro.backend.limits import cgroup_folders, file_numbers

CGROUP_FIX = "docker run --memory=, resources.limits.memory of a pod, or srun --mem="
UNLIMITED = 1 << 60  # bytes: what cgroups of version 1 say where nothing is limited is near 2**63
# Of each version: the limit and what is in use, and of the latter what the system takes back when it needs to.
CGROUP_FILES = (
    ("memory.max", "memory.current", ("active_file", "inactive_file")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file")),
)


class MemoryLimit(NamedTuple):
    """A limit: its name, its size and what is left of it, in bytes, and how to lift it.

    If `virtual`, it is of addresses, of which TensorFlow reserves twice as many as it uses; else of memory in use.
    """

    name: str
    size: int
    left: int
    fix: str
    virtual: bool = False


def memory_limits(root: Path = Path("/"), *, swap: bool = True) -> list[MemoryLimit]:
    """Return what limits this process's memory, that with the least left first; `root` is for tests.

    With `swap` what may be swapped out is left too.
    """
    found, swap_free, vms, data = [], 0, 0, 0
    with contextlib.suppress(OSError, psutil.Error), warnings.catch_warnings():  # /proc may be hidden, or hold little
        warnings.simplefilter("ignore")
        own = psutil.Process().memory_info()
        vms, data = own.vms, getattr(own, "data", 0)  # the latter of Linux alone
        swap_total, swap_free = (psutil.swap_memory().total, psutil.swap_memory().free) if swap else (0, 0)
        ram = psutil.virtual_memory()
        fix = "end other programs, or take a machine with more"
        found.append(MemoryLimit("RAM", ram.total + swap_total, ram.available + swap_free, fix))
    found += _cgroup_limits(root, swap_free)
    for name, number, used in (("ulimit -v", resource.RLIMIT_AS, vms), ("ulimit -d", resource.RLIMIT_DATA, data)):
        size = resource.getrlimit(number)[0]
        if 0 <= size < UNLIMITED:  # RLIM_INFINITY is -1
            virtual = number == resource.RLIMIT_AS  # the other counts what can be written to
            found.append(MemoryLimit(name, size, max(0, size - used), f"{name} unlimited", virtual))
    return sorted(found, key=lambda limit: limit.left)


def _cgroup_limits(root: Path, free_swap: int) -> Iterator[MemoryLimit]:
    """Yield the limits of this process's cgroup and of those that it is in; a container may see only its own."""
    for folder in cgroup_folders("memory", root):
        for limit, usage, reclaimed in CGROUP_FILES:
            size = next(file_numbers(folder / limit), UNLIMITED)
            if size < UNLIMITED:
                used = next(file_numbers(folder / usage), 0)
                left = max(0, size - max(0, used - _reclaimable(folder, reclaimed)))
                left += min([free_swap, *file_numbers(folder / "memory.swap.max")])  # of version 2 alone
                yield MemoryLimit(f"the cgroup's {limit}", size, left, CGROUP_FIX)


def _reclaimable(folder: Path, names: tuple[str, ...]) -> int:
    """Return how many bytes of a cgroup's the system takes back when it needs them: of the cache of files."""
    try:
        lines = (folder / "memory.stat").read_text(encoding="utf-8").split("\n")
    except OSError:
        return 0
    return sum(int(line.partition(" ")[2]) for line in lines if line.partition(" ")[0] in names)
