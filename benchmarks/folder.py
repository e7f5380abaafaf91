"""The identity of a run, and the folder that it writes to: never that of another run."""

import datetime as dt
import errno
import json
import os
import platform
import re
import shlex
import socket
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from alexnet_repro.files import sync
from alexnet_repro.packages import package_version
from alexnet_repro.verify.doctor.installation import revision
from alexnet_repro.verify.doctor.inventory import node_name
from alexnet_repro.verify.report.run_record import RunRecord

RESULTS = "results.json"
JUST = 60  # seconds in which an empty file is one that is about to be written
REPORTS = ("junit.xml", "report.html", "summary.md")
FILES = (*REPORTS, "*.svg")
# Why a file system has no hard links, or forbids them.
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL, errno.EXDEV)


def run_identity(root: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """Return who runs what, where and since when: what identifies a results file. `root` is the checkout."""
    return {
        "id": uuid.uuid4().hex,
        "node": node_name(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "version": package_version("alexnet-repro") or "",
        "revision": revision(root),
        "python": platform.python_version(),
        "command": shlex.join(["pytest", *arguments]),
    }


def own_name(started: str) -> str:
    """Return a folder's name that no other run has, on any host: `2026-11-24T10-15-00-node1-4711`."""
    host = re.sub(r"[^A-Za-z0-9.]+", "-", socket.gethostname())
    return f"{started.partition('+')[0].replace(':', '-')}-{host}-{os.getpid()}"


def claim(folder: Path, run: Mapping[str, Any]) -> None:
    """Make the folder this run's, by a whole results file that says who has begun, and that it isn't complete.

    Files of an earlier run are moved into a folder of their own there.

    Raises:
        FileExistsError: another run is writing to it.
        OSError: it can't be written to.
    """
    results = folder / RESULTS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if results.exists():
            _move_aside(folder, results)
        _create(results, RunRecord(results, run=dict(run)).as_text())
        _keep([folder / name for name in REPORTS])  # of a run whose results were taken elsewhere
    except OSError as error:
        if isinstance(error, FileExistsError) and folder.is_dir():
            raise FileExistsError(str(error) if error.errno is None else _taken(folder, {})) from None
        raise OSError(f"{results} can't be written: {error.strerror}; name another folder: --report=DIR") from error


def _create(path: Path, text: str) -> None:
    """Write a new file in one step, and have it on the disk; FileExistsError: there is one of its name.

    On a file system without hard links, as FAT and some of object stores, the file is first empty, and then written.
    """
    new = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        _write(new, text, "w")
        try:
            os.link(new, path)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            _write(path, text, "x")
    finally:
        new.unlink(missing_ok=True)


def _write(path: Path, text: str, mode: Literal["w", "x"]) -> None:
    with path.open(mode, encoding="utf-8") as file:
        file.write(text)
        file.flush()
        sync(file.fileno())


def _move_aside(folder: Path, results: Path) -> None:
    if not results.is_file():
        raise OSError(errno.EINVAL, "it is a folder, a device or a pipe")
    judged = results.read_bytes()
    if not judged and time.time() - results.stat().st_mtime < JUST:
        raise FileExistsError(_taken(folder, {}))
    try:
        content = json.loads(judged)
        run = content["run"] if isinstance(content, dict) else {}
        ended = bool(content.get("complete") or run.get("ended")) or not _alive(run)
    except (ValueError, KeyError, AttributeError):  # cut off, or not ours
        run, ended = {}, True
    if not ended:
        raise FileExistsError(_taken(folder, run))
    earlier = Path(tempfile.mkdtemp(prefix="earlier-", dir=folder))
    results.replace(earlier / RESULTS)
    if (earlier / RESULTS).read_bytes() != judged:  # another run has just taken the folder
        (earlier / RESULTS).replace(results)
        earlier.rmdir()
        raise FileExistsError(_taken(folder, {}))
    _keep([path for name in FILES for path in folder.glob(name)], earlier)


def _keep(files: Sequence[Path], earlier: Path | None = None) -> None:
    """Move those of the files that are there into a folder, by default a new one beside them."""
    for each in filter(Path.exists, files):
        earlier = earlier or Path(tempfile.mkdtemp(prefix="earlier-", dir=each.parent))
        each.replace(earlier / each.name)


def _alive(run: dict[str, Any]) -> bool:
    """Return whether the process that wrote `run` may still live; one of another host may."""
    pid = run.get("pid")
    if run.get("host") != socket.gethostname() or not isinstance(pid, int):
        return "host" in run
    return pid != os.getpid() and Path(f"/proc/{pid}").exists()


def _taken(folder: Path, run: Mapping[str, Any]) -> str:
    by = f", of {run['host']}, process {run.get('pid')}, since {run.get('started')}," if run else ""
    return f"another run{by} writes to {folder}; name another folder: --report=DIR"
