"""Atomic writes: the file is the old one or the new one, nothing else stays, and what prevents it has its fix."""

import contextlib
import errno
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from alexnet_repro.files import (
    atomic_path,
    atomic_write,
    check_room,
    keras_json,
    nested_differences,
)
from tests.helpers.paths import ROOT


def half_written(path, text, **_):
    """Write as `Path.write_text` does on a disk that fills up."""
    path.write_bytes(text.encode()[: len(text) // 2])
    raise OSError(28, "No space left on device")


def interrupted(path, text, **_):
    """Write as `Path.write_text` does when Ctrl+C is typed."""
    path.write_bytes(text.encode()[: len(text) // 2])
    raise KeyboardInterrupt


def not_replaced(*_, **__):
    """Fail as `Path.replace` may."""
    raise OSError(1, "Operation not permitted")


@pytest.mark.parametrize(
    ("method", "broken", "reason"),
    [
        pytest.param("write_text", half_written, "No space left on device; free that disk, or", id="broken=write"),
        pytest.param("replace", not_replaced, "Operation not permitted;", id="broken=replace"),
    ],
)
def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch, method, broken, reason):
    """After an error the old file is there, nothing is beside it, and the message has its name, why and the advice."""
    path = tmp_path / "folder" / "a.txt"
    atomic_write(path, "old")
    monkeypatch.setattr(Path, method, broken)
    with pytest.raises(OSError, match=f"^{path} can't be written: {reason} name another folder$"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    """So it is where something else than a disk ends the write, which is raised as it is."""
    path = tmp_path / "a.txt"
    atomic_write(path, "old")
    monkeypatch.setattr(Path, "write_text", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_temporary_path(tmp_path):
    """It is beside the file, hidden, of this process alone, and ends as it has to."""
    with atomic_path(tmp_path / "a.weights.h5", suffix=".weights.h5") as tmp:
        assert tmp == tmp_path / f".a.{os.getpid()}.weights.h5"
        tmp.touch()


def test_written_to_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """The new file is on the disk before it takes the old one's place, and its name is when the call returns."""
    path = tmp_path / "a.txt"
    flushed = []
    monkeypatch.setattr("os.fsync", lambda descriptor: flushed.append((os.fstat(descriptor).st_ino, path.exists())))
    atomic_write(path, "new")
    assert flushed == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EACCES, errno.EBADF])
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_file_system_that_cannot_sync(tmp_path, monkeypatch, kind, number):
    """Where files or folders can't be synced, as on CIFS, the new content counts as written."""

    def fsync(descriptor):
        if kind == "file" or stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", fsync)
    atomic_write(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left on device; free that disk, or name"),
        (errno.EDQUOT, "Disk quota exceeded; free some of your quota there (quota -s), or name"),
        (errno.EFBIG, "File too large; allow larger files: ulimit -f unlimited, or name"),
        (errno.EROFS, "Read-only file system; mount it writable, or name"),
        (errno.EBUSY, "Device or resource busy; mount the folder, not the file, or name"),
        (errno.ENOLCK, "No locks available; switch off HDF5's locks: export HDF5_USE_FILE_LOCKING=FALSE, or name"),
        (errno.EIO, "Input/output error; look whether that disk fails: sudo dmesg | tail, or name"),
        (errno.EACCES, "Permission denied; name"),
    ],
    ids=lambda each: f"reason={errno.errorcode[each]}" if isinstance(each, int) else "",
)
def test_the_fix_fits_the_reason(tmp_path, monkeypatch, number, words):
    """Each of a disk's reasons has its own fix, when content is lost in fsync too; the old file stays."""
    path = tmp_path / "a.txt"
    atomic_write(path, "old")

    def broken(*_, **__):
        raise OSError(number, "an HDF5 text\nof several lines")

    lost = number in {errno.ENOSPC, errno.EDQUOT, errno.EIO}
    monkeypatch.setattr("os.fsync" if lost else "pathlib.Path.write_text", broken)
    with pytest.raises(OSError, match=f"^{path} can't be written: {re.escape(words)} another folder$"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_file_mounted_alone(tmp_path, monkeypatch):
    """A file that is a mount point, as `docker run -v FILE:FILE` makes it, is refused before anything is written."""
    (tmp_path / "a.txt").write_text("old")
    mount = SimpleNamespace(mountpoint=str(tmp_path / "a.txt"))
    monkeypatch.setattr("psutil.disk_partitions", lambda **_: [mount])
    with pytest.raises(OSError, match=r"a.txt can't be written: Device or resource busy; mount the folder, not the fi"):
        atomic_write(tmp_path / "a.txt", "new")
    atomic_write(tmp_path / "b.txt", "new")
    monkeypatch.setattr("psutil.disk_partitions", not_replaced)
    atomic_write(tmp_path / "a.txt", "new")


def test_another_users_file_in_a_shared_folder(tmp_path, monkeypatch):
    """In a folder such as /tmp, only its owner can replace a file: others are refused before anything is written."""
    atomic_write(tmp_path / "a.txt", "old")
    tmp_path.chmod(0o1777)
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(OSError, match="Operation not permitted; name another"):
        atomic_write(tmp_path / "a.txt", "new")
    tmp_path.chmod(0o777)
    atomic_write(tmp_path / "a.txt", "new")


@pytest.mark.parametrize("letter", ["x", "ö", "汉"])
def test_longest_name(tmp_path, letter):
    """A name as long as the disk takes can be written: the temporary one isn't longer."""
    name = f"{letter * (244 // len(letter.encode()))}.weights.h5"
    with atomic_path(tmp_path / name, suffix=".weights.h5") as tmp:
        assert len(os.fsencode(tmp.name)) <= 244
        tmp.write_text("new")
    assert (tmp_path / name).read_text() == "new"
    with pytest.raises(OSError, match="File name too long; choose a shorter name, or name another folder"):
        atomic_write(tmp_path / (letter * 300), "new")


def _loop(folder):
    (folder / "a.txt").symlink_to("b.txt")
    (folder / "b.txt").symlink_to("a.txt")
    return folder / "a.txt"


def _below_a_file(folder):
    (folder / "file").touch()
    return folder / "file" / "folder" / "a.txt"


def _below_a_dangling_link(folder):
    (folder / "link").symlink_to("nowhere")
    return folder / "link" / "a.txt"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(
            _loop, "Too many levels of symbolic links; remove the link, which leads to itself", id="path=loop"
        ),
        pytest.param(_below_a_file, "/file is a file, not a folder", id="path=below_a_file"),
        pytest.param(_below_a_dangling_link, "/link is a link that leads nowhere, not a fol", id="path=below_a_link"),
        pytest.param(lambda folder: folder / os.fsdecode(b"\xff"), "; choose a name in UTF-8", id="path=not_utf8"),
    ],
)
@pytest.mark.parametrize("trial", [True, False])
def test_paths_that_cannot_be(tmp_path, make, words, trial):
    """A path at which nothing can be written is refused with its reason, by a trial as well; nothing is left."""
    path = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match="can't be written: ") as caught, atomic_path(path, trial=trial) as tmp:
        tmp.touch()
    assert words in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_trial(tmp_path):
    """A trial writes nothing but a temporary file, and leaves what is there as it is."""
    atomic_write(tmp_path / "a.txt", "old")
    with atomic_path(tmp_path / "a.txt", trial=True) as tmp:
        tmp.write_text("new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_folder_without_renaming(tmp_path, monkeypatch):
    """Where files can't be renamed, a trial finds it."""
    monkeypatch.setattr(Path, "replace", not_replaced)
    with pytest.raises(OSError, match=r"Operation not permitted$"), atomic_path(tmp_path / "a.txt", trial=True) as tmp:
        tmp.touch()
    assert list(tmp_path.iterdir()) == []


def test_room(tmp_path, monkeypatch):
    """Files that are too large together for a disk are refused with what it needs and has; those that fit aren't."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    (tmp_path / "a").mkdir()
    check_room([(tmp_path, 600_000), (tmp_path / "a", 400_000)])
    with pytest.raises(
        OSError, match=r"written to: 1,000,001 bytes are needed there, 1,000,000 are free; free that di"
    ):
        check_room([(tmp_path, 600_000), (tmp_path / "a", 400_001)])
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EDQUOT, "1,000 bytes are needed there; Disk quota exceeded; free some of your quota there (quota -s)"),
        (errno.ENOSPC, "No space left on device; free that disk"),
        (errno.EOPNOTSUPP, None),
    ],
    ids=["reason=quota", "reason=disk", "reason=not_supported"],
)
def test_room_that_the_file_system_does_not_give(tmp_path, monkeypatch, number, words):
    """What isn't seen in a disk's free bytes, such as a quota, is found by taking the room."""
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: SimpleNamespace(fallocate64=lambda *_: -1))
    monkeypatch.setattr("ctypes.get_errno", lambda: number)
    refused = pytest.raises(OSError, match=re.escape(words)) if words else contextlib.nullcontext()
    with refused:
        check_room([(tmp_path, 1_000)])


def test_room_under_ulimit(tmp_path):
    """A file larger than `ulimit -f` admits is refused, with the command that lifts the limit."""
    code = (
        "import pathlib, sys; from alexnet_repro import files; files.check_room([(pathlib.Path(sys.argv[1]), 600_000)])"
    )
    command = ["sh", "-c", 'ulimit -f 500 && exec "$0" "$@"', sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "600,000 bytes are needed there; File too large; allow larger files: ulimit -f unlimited" in done.stderr


@pytest.mark.parametrize(
    ("there", "here", "expected"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, [("a c", 2, 3)]),
        ({"a": 1}, {"b": 2}, [("a", 1, None), ("b", None, 2)]),
        ({"a": {"b": 1}}, {"a": 2}, [("a", {"b": 1}, 2)]),
        ({"a": [1, 2]}, {"a": [1, 3]}, [("a", [1, 2], [1, 3])]),
    ],
    ids=[f"differs={what}" for what in ("nothing", "inner value", "names", "kind", "list")],
)
def test_nested_differences(there, here, expected):
    """Differences are named by their keys, with both values; a key that is missing has None."""
    assert list(nested_differences(there, here)) == expected


def test_pipe_stays_a_pipe(tmp_path):
    """What isn't a regular file, such as a pipe or a device, is never replaced by one."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"pipe can't be written: it is a device, a pipe or a socket; name another"):
        atomic_write(tmp_path / "pipe", "text", "name another")
    assert (tmp_path / "pipe").is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize(
    ("environ", "writable", "expected"),
    [
        pytest.param({"KERAS_HOME": "/data/keras"}, True, "/data/keras/keras.json", id="folder=named"),
        pytest.param({"KERAS_HOME": "~/keras"}, True, "/home/me/keras/keras.json", id="folder=in home"),
        pytest.param({"KERAS_HOME": ""}, True, "keras.json", id="folder=empty"),  # the working folder's
        pytest.param({}, True, "/home/me/.keras/keras.json", id="folder=default"),
        pytest.param({}, False, "/tmp/.keras/keras.json", id="folder=default-home=read-only"),
    ],
)
def test_file_of_keras(monkeypatch, environ, writable, expected):
    """Of Keras's configuration files it is the one that Keras's `config.py` reads."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr("os.access", lambda *_: writable)
    assert str(keras_json(environ)) == expected
