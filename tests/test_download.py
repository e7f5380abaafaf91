"""Fashion-MNIST's files, fetched: once, whole, verified, and nothing kept of what a server sends instead."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from stand_ins import CONTENT, HTML, NAMES, Answer, assert_is_the_data, sha256

from alexnet_repro import CorruptDataError, MissingDataError, load_fashion_mnist
from alexnet_repro.data import fashion_mnist

PLACES = ("data_dir", "variable", "cache")


def test_cache_that_cannot_be_made(places, server, tmp_path, monkeypatch):
    """Where Keras's cache can't be made, the message says so."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    with pytest.raises(MissingDataError, match=r"couldn't be downloaded into .*/file/datasets/fashion-mnist: .*Errno"):
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


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(Answer(HTML), sha256(HTML), id="answer=html"),
        pytest.param(Answer(CONTENT[NAMES[2]][:-1]), sha256(CONTENT[NAMES[2]][:-1]), id="answer=truncated"),
        pytest.param(Answer(b"\x1f\x8b", length=9_999), "broken", id="answer=broken_off"),
        pytest.param(Answer(b"gone", status=404), "404", id="answer=404"),
        pytest.param(Answer(b"", status=0, stalls=True), "no answer in 0.2 s", id="answer=none"),
        pytest.param(Answer(b"\x1f\x8b", length=9_999, stalls=True), "broke off", id="answer=stalled"),
    ],
)
def test_bad_download(places, server, monkeypatch, answer, reason):
    """Whatever else a server sends, the message says what came, and nothing of it is kept."""
    server.answers[NAMES[2]] = answer
    monkeypatch.setattr(fashion_mnist, "TIMEOUT", 0.2)
    with pytest.raises(MissingDataError) as caught:
        load_fashion_mnist(places["data_dir"])
    assert reason in str(caught.value)
    assert {path.name for path in places["cache"].iterdir()} - {".download.lock"} == set(NAMES[:2])


FETCH = """
import json, sys
from alexnet_repro.data import fashion_mnist
fashion_mnist.FILES = [fashion_mnist.DataFile(*file) for file in json.loads(sys.argv[1])]
fashion_mnist.URL = sys.argv[2]
print("ready", flush=True)
input()
(images, labels), _ = fashion_mnist.load_fashion_mnist()
print(images.shape, labels.tolist())
"""


@pytest.mark.slow
def test_processes_at_once(places, server):
    """Of several processes that start without data, one fetches each file and all read it."""
    command = [sys.executable, "-c", FETCH, json.dumps(fashion_mnist.FILES), fashion_mnist.URL]
    package = Path(fashion_mnist.__file__).parents[2]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    processes = [subprocess.Popen(command, cwd=package, env=os.environ, **pipes) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in processes] == ["(5, 28, 28) [0, 1, 2, 3, 4]\n"] * 4
    assert sorted(server.requested) == sorted(NAMES)
    assert {path.name for path in places["cache"].iterdir()} - {".download.lock"} == set(NAMES)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("name", NAMES)
def test_published_address(name):
    """The address that files are fetched from has each of them, in the published size."""
    sizes = {file.name: file.size for file in fashion_mnist.FILES}
    try:
        answer = requests.head(fashion_mnist.URL + name, timeout=10)
    except requests.ConnectionError as error:
        pytest.skip(f"no connection to {fashion_mnist.URL}: {type(error).__name__}")
    assert answer.status_code == 200
    assert int(answer.headers["Content-Length"]) == sizes[name]
