"""Locks among processes: one at a time, for no longer than their holder lives, and none where there are none."""

import errno
import fcntl
import os
import re
import socket
import subprocess
import sys
import time

import pytest

from alexnet_repro.locks import HeldError, locked
from tests.helpers.paths import ROOT
from tests.helpers.short_runs import Messages

HOLD = """
import pathlib, sys
from alexnet_repro.locks import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock `tmp_path / "lock"` until it gets a line or is killed."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_held_by_another_process(tmp_path, holder):
    """The holder is named, by process and host; once it is killed, its file is no lock."""
    name = f"^process {holder.pid} on {re.escape(socket.gethostname())} holds {tmp_path}/lock$"
    with pytest.raises(HeldError, match=name), locked(tmp_path / "lock"):
        pass
    holder.kill()
    holder.wait()
    assert (tmp_path / "lock").exists()
    with locked(tmp_path / "lock"):
        pass
    assert not list(tmp_path.iterdir())


def test_waiting(tmp_path, holder, capsys):
    """Waiting says for whom and how long, once, and ends: with the holder, or with the time."""
    with pytest.raises(HeldError), locked(tmp_path / "lock", timeout=0.2, quiet=0.05):
        pass
    assert capsys.readouterr().err == (
        f"waiting for process {holder.pid} on {socket.gethostname()}, which holds {tmp_path}/lock, 0.2 s at most\n"
    )
    holder.communicate("\n")
    began = time.monotonic()
    with locked(tmp_path / "lock", timeout=60, quiet=60):
        assert time.monotonic() - began < 30
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "content",
    [b"", b"4242 elsewhere\n", b"\xff" * 99, b'{"pid": 1, "host": "elsewhere"}'],
    ids=["content=none", "content=process", "content=binary", "content=json"],
)
def test_file_that_is_left(tmp_path, content):
    """A file that is left, by a killed process, another host or another library, is no lock."""
    (tmp_path / "lock").write_bytes(content)
    with Messages() as messages, locked(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()} {socket.gethostname()}\n"
    assert messages == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO])
def test_file_system_without_locks(tmp_path, monkeypatch, number):
    """Where there are no locks, work goes on at once, with a line that says so."""

    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with Messages() as messages, locked(tmp_path / "lock"):
        pass
    assert messages == [
        f"{tmp_path}/lock: no locks there ({os.strerror(number)}); see to it that no other process writes there"
    ]


def test_file_that_its_holder_removes(tmp_path, monkeypatch):
    """A lock on a file that its holder has just removed is none: the next file is locked."""
    taken, flock = [], fcntl.flock

    def removed_meanwhile(descriptor, operation):
        flock(descriptor, operation)
        taken.append(descriptor)
        if len(taken) == 1:
            (tmp_path / "lock").unlink()

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with locked(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text().startswith(f"{os.getpid()} ")
    assert len(taken) == 2


def test_place_where_no_file_can_be(tmp_path):
    """Where the file can't be made, that is the error."""
    with pytest.raises(FileNotFoundError), locked(tmp_path / "nowhere" / "lock"):
        pass
