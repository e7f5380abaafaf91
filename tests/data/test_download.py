"""Fashion-MNIST's files, fetched: once, whole, verified, and nothing kept of what a server sends instead."""

import fcntl
from threading import Timer

import pytest
import requests

from alexnet_repro import CorruptDataError, MissingDataError, load_fashion_mnist
from alexnet_repro.data import download, fashion_mnist
from alexnet_repro.data.connection import why_not
from tests.helpers.data_server import CONTENT, HTML, NAMES, Answer, assert_is_the_data, sha256

PLACES = ("data_dir", "variable", "cache")


def test_cache_that_cannot_be_made(places, server, tmp_path, monkeypatch):
    """Where Keras's cache can't be made, the message has the reason."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    message = r"into .*/file/datasets/fashion-mnist: .*/file is a file, not a folder.*: export KERAS_HOME=FOLDER"
    with pytest.raises(MissingDataError, match=message):
        load_fashion_mnist(places["data_dir"])
    assert not server.requested


def test_download(places, server, capsys):
    """Files that are nowhere are fetched once into Keras's cache, each appearing whole, readable by all, with a bar."""
    there_halfway = {}
    server.halfway = lambda name: there_halfway.update({name: (places["cache"] / name).exists()})
    assert_is_the_data(load_fashion_mnist(places["data_dir"]))
    assert there_halfway == dict.fromkeys(NAMES, False)
    assert {path.name: path.stat().st_mode & 0o777 for path in places["cache"].glob("*.gz")} == dict.fromkeys(
        NAMES, 0o644
    )
    out, err = capsys.readouterr()
    assert out == ""
    assert all(f"{name}: 100%" in err for name in NAMES)
    assert_is_the_data(load_fashion_mnist(places["data_dir"]))
    assert sorted(server.requested) == sorted(NAMES)


@pytest.mark.parametrize("place", PLACES)
def test_file_that_appears_during_a_download(places, server, place):
    """A file that another program puts in place meanwhile is found and verified like any other, not replaced."""
    path = places[place] / NAMES[3]
    server.halfway = lambda _: path.write_bytes(b"forged")
    with pytest.raises(CorruptDataError, match="is not the published file"):
        load_fashion_mnist(places["data_dir"])
    assert path.read_bytes() == b"forged"
    assert server.requested == list(NAMES[:3])


# What a server may send instead of a file: the answer, what the message says, and how many requests came.
NAME, SIZE = NAMES[2], len(CONTENT[NAMES[2]])
BAD = {
    "html": (Answer(HTML, kind="text/html"), "the server sent a web page; is a sign-in or a proxy in between?", 1),
    "html-length=right": (Answer(HTML.ljust(SIZE)), sha256(HTML.ljust(SIZE)), 1),
    "truncated": (Answer(CONTENT[NAME][:-1]), f"announces {SIZE - 1:,} bytes, the published file has {SIZE:,}", 1),
    "length=too_long": (Answer(CONTENT[NAME], length=SIZE + 1), f"announces {SIZE + 1:,} bytes", 1),
    "length=too_short": (Answer(CONTENT[NAME], length=SIZE - 1), f"announces {SIZE - 1:,} bytes", 1),
    "length=none-cut": (
        Answer(CONTENT[NAME][:-1], length=-1),
        f"ended after {SIZE - 1:,} of {SIZE:,} bytes",
        3,
    ),
    "length=none-longer": (Answer(CONTENT[NAME] * 9, length=-1), f"more than the published file's {SIZE:,} bytes", 1),
    "404": (Answer(b"gone", status=404), "404", 1),
    "503": (Answer(b"later", status=503), "the server answered 503", 3),
    "broken_off": (
        Answer(b"\x1f\x8b", length=SIZE),
        "the connection broke off after 2 of",
        3,
    ),
    "reset": (Answer(b"\x1f\x8b", length=SIZE, resets=True), "the connection broke off", 3),
    "reset_before_an_answer": (Answer(b"", status=0, resets=True), "the connection broke off before an answer", 3),
    "none": (Answer(b"", status=0, stalls=True), "no answer in 0.1 s; tried 3 times", 3),
    "stalled": (
        Answer(b"\x1f\x8b", length=SIZE, stalls=True),
        f"no byte in 0.1 s after 2 of {SIZE:,} bytes; tried 3",
        3,
    ),
}


@pytest.mark.parametrize("answer", BAD)
def test_bad_download(places, server, monkeypatch, answer):
    """Whatever else a server does, the message names it, after the right number of tries, and nothing of it is kept."""
    server.answers[NAME], message, tries = BAD[answer]
    if server.answers[NAME].stalls:
        monkeypatch.setattr(download, "TIMEOUT", 0.1)
    with pytest.raises(MissingDataError) as caught:
        load_fashion_mnist(places["data_dir"])
    assert message in str(caught.value).partition("\n")[0]
    assert "export ALEXNET_REPRO_DATA=" in str(caught.value)
    assert server.requested == [*NAMES[:2], *[NAME] * tries]
    assert {path.name for path in places["cache"].iterdir()} - {".download.lock"} == set(NAMES[:2])


def test_second_try(places, server, capsys):
    """What failed twice and comes the third time is loaded; each failure and the pause after it are reported."""
    server.first_answers[NAME] = [Answer(b"\x1f\x8b", length=SIZE, resets=True), Answer(b"later", status=503)]
    assert_is_the_data(load_fashion_mnist(places["data_dir"]))
    assert server.requested == [*NAMES[:2], *[NAME] * 3, NAMES[3]]
    err = capsys.readouterr().err
    assert f"{NAME}: the connection broke off" in err
    assert "; again in 0.01 s\n" in err
    assert f"{NAME}: the server answered 503" in err
    assert "; again in 0.02 s\n" in err


def test_trickle(places, server, monkeypatch):
    """A file that comes steadily, but far too slowly, is given up when its time is over, not when a block is full."""
    name, size = NAMES[0], len(CONTENT[NAMES[0]])
    server.answers[name] = Answer(CONTENT[name], pause=1.0 / size * 20)
    monkeypatch.setattr(download, "MAX_SECONDS", 0.5)
    with pytest.raises(MissingDataError, match=rf"only \d+ of {size:,} bytes came in 0.5 s"):
        load_fashion_mnist(places["data_dir"])
    assert server.requested == [name]


def test_waiting_for_another_process(places, server, monkeypatch, capsys):
    """Waiting for another process's download is reported, with the lock that it holds, and ends with it."""
    monkeypatch.setattr(download, "QUIET_WAIT", 0.05)
    path = places["cache"] / ".download.lock"
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        release = Timer(0.2, fcntl.flock, (lock, fcntl.LOCK_UN))
        release.start()
        assert_is_the_data(load_fashion_mnist(places["data_dir"]))
        release.join()
    assert f"waiting for another process, which holds {path}, 3600 s at most\n" in capsys.readouterr().err
    assert sorted(server.requested) == sorted(NAMES)


def test_waiting_ends(places, server, monkeypatch):
    """A process that holds the lock for longer than a download takes is named, and no longer waited for."""
    monkeypatch.setattr(download, "MAX_WAIT", 0.1)
    path = places["cache"] / ".download.lock"
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(MissingDataError, match=rf"fashion-mnist: another process holds {path}\n"):
            load_fashion_mnist(places["data_dir"])
    assert not server.requested


@pytest.mark.parametrize("call", ["os.fsync", "os.chmod", "fcntl.flock"])
@pytest.mark.usefixtures("server")
def test_file_system_that_lacks_something(places, monkeypatch, call):
    """Where files can't be synced or locked, or have no permissions, they are fetched all the same."""

    def missing(*_, **__):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(call, missing)
    assert_is_the_data(load_fashion_mnist(places["data_dir"]))


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("name", NAMES)
def test_published_address(name):
    """The address that files are fetched from has each of them, in the published size."""
    sizes = {file.name: file.size for file in fashion_mnist.FILES}
    try:
        answer = requests.head(fashion_mnist.URL + name, timeout=10)
    except (OSError, ValueError) as error:
        pytest.skip(why_not(error, fashion_mnist.URL))
    assert answer.status_code == 200
    assert int(answer.headers["Content-Length"]) == sizes[name]
