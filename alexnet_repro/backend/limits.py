"""What else than memory limits this process: processors' time, threads, files; imports neither Keras nor a backend."""

import contextlib
import math
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# By the letters of `ulimit`: the limit, its words, the size of one in the unit of the words, and the unit. Of kB as
# `ulimit` has them, so that a limit has the digits that were typed.
ULIMITS = {
    "v": (resource.RLIMIT_AS, "address space", 1024e6, " GB"),
    "d": (resource.RLIMIT_DATA, "data", 1024e6, " GB"),
    "u": (resource.RLIMIT_NPROC, "processes and threads of this user", 1, ""),
    "n": (resource.RLIMIT_NOFILE, "open files", 1, ""),
    "l": (resource.RLIMIT_MEMLOCK, "locked memory", 1024, " kB"),
    "f": (resource.RLIMIT_FSIZE, "size of a file", 1024, " kB"),
    "t": (resource.RLIMIT_CPU, "processor time", 1, " s"),
    "s": (resource.RLIMIT_STACK, "stack", 1024, " kB"),
}
USUAL_STACK = 8 << 20  # bytes: Linux's own limit, which is no cause of anything
PIDS = "p"  # a cgroup's limit of processes and threads
KILLS = "oom_kill"


def limit_in_words(letters: str, root: Path = Path("/")) -> tuple[str, str] | None:
    """Return the first of these limits that is set, in words, and how to lift it; None if none is.

    `letters` are those of `ulimit`, and `PIDS`; `root` is for tests.
    """
    for letter in letters:
        if letter == PIDS:
            found = [number for folder in cgroup_folders("pids", root) for number in file_numbers(folder / "pids.max")]
            if found:
                words = f"processes and threads limited to {min(found):g} (the cgroup's pids.max)"
                return words, "docker run --pids-limit=-1 …, or a pod's podPidsLimit, or systemd's TasksMax"
            continue
        number, words, unit, name = ULIMITS[letter]
        size, hard = resource.getrlimit(number)
        free = size in (resource.RLIM_INFINITY, -1) or (letter == "s" and size >= USUAL_STACK)
        if not free and not (letter == "u" and os.geteuid() == 0):  # which doesn't bind root
            lift = "8192" if letter == "s" else "unlimited" if letter != "n" else "65536"
            where = " # where it was set: this shell can't lift its own hard limit" if hard == size else ""
            return (
                f"{words} limited to {round(size / unit, 2):.12g}{name} (ulimit -{letter})",
                f"ulimit -{letter} {lift}{where}",
            )
    return None


def usable_processors() -> int:
    """Return the number of processors that this process may run on, whatever a quota leaves of their time."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return how many processors' time this process may take by its cgroups' quotas; None: all that it may run on."""
    found = [math.inf]
    for folder in cgroup_folders("cpu", root):
        for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):  # of version 2, of version 1
            match [number for name in names for number in file_numbers(folder / name)]:
                case [allowed, period] if allowed > 0 and period > 0:  # not -1, nor `max 100000`, which is one number
                    found.append(allowed / period)
    return quota if (quota := min(found)) < usable_processors() else None


def oom_kills(root: Path = Path("/")) -> tuple[int, str]:
    """Return how many processes the kernel has killed for want of memory, and the file that says so.

    That is this process's cgroup's own count, or the machine's since it booted.
    """
    names = ("memory.events", "memory.oom_control")
    files = [folder / name for folder in cgroup_folders("memory", root) for name in names]
    for path in (*files, root / "proc/vmstat"):
        with contextlib.suppress(OSError):
            if found := re.search(rf"^{KILLS} (\d+)$", path.read_text(), re.MULTILINE):
                return int(found[1]), str(path)
    return 0, ""


def cgroup_folders(controller: str, root: Path = Path("/")) -> list[Path]:
    """Return the folders of this process's cgroup, and then of those that it is in; a container may see only its own.

    For a controller of version 1, or else of version 2, which has one folder for all of them.
    """
    found: list[Path] = []
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            tops = dict.fromkeys((controller, controllers)) if controllers else ("",)
            below = PurePosixPath(path.lstrip("/"))
            found += [root / "sys/fs/cgroup" / top / each for top in tops for each in (below, *below.parents)]
    return found


def file_numbers(path: Path) -> Iterator[int]:
    """Yield the whole numbers in a file; none where it isn't, or holds words such as `max`."""
    with contextlib.suppress(OSError, ValueError):
        yield from (int(word) for word in path.read_text(encoding="utf-8").split() if re.fullmatch(r"-?\d+", word))
