"""Atomic writes: the file is the old one or the new one, and nothing else stays; differences of nested data."""

import os
from pathlib import Path

import pytest

from alexnet_repro.files import atomic_path, atomic_write, keras_json, nested_differences


def half_written(path, text, **_):
    """Write as `Path.write_text` does on a disk that fills up."""
    path.write_bytes(text.encode()[: len(text) // 2])
    raise OSError(28, "No space left on device")


def interrupted(path, text, **_):
    """Write as `Path.write_text` does when Ctrl+C is typed."""
    path.write_bytes(text.encode()[: len(text) // 2])
    raise KeyboardInterrupt


def not_replaced(*_):
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
