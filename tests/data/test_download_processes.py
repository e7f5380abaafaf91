"""Downloads in processes of their own: several at once, killed midway, and with a disk that is full or read-only."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest

from alexnet_repro import load_fashion_mnist
from alexnet_repro.data import fashion_mnist
from tests.helpers.data_server import NAMES, assert_is_the_data

# Loads the data once a line comes in, and prints the result and the names in the cache.
LOAD = """
import json, os, resource, sys
from pathlib import Path
from alexnet_repro.data import fashion_mnist
files, fashion_mnist.URL, largest = json.loads(sys.argv[1])
fashion_mnist.FILES = [fashion_mnist.DataFile(*file) for file in files]
if largest:
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
print("ready", flush=True)
input()
try:
    (images, labels), _ = fashion_mnist.load_fashion_mnist()
    result = f"{images.shape} {labels.tolist()}"
except fashion_mnist.MissingDataError as error:
    result = str(error)
print(json.dumps([result, sorted(os.listdir(Path(os.environ["KERAS_HOME"], "datasets/fashion-mnist")))]))
"""
LOADED = "(5, 28, 28) [0, 1, 2, 3, 4]"


@pytest.fixture
def start(places, server):  # noqa: ARG001  # they are where the processes look
    """A function that starts a process, which loads once a line comes in."""
    processes = []

    def started(*before, largest=0):
        settings = json.dumps([fashion_mnist.FILES, fashion_mnist.URL, largest])
        process = subprocess.Popen(
            [*before, sys.executable, "-c", LOAD, settings],
            cwd=Path(fashion_mnist.__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        processes.append(process)
        return process

    yield started
    for process in processes:
        process.kill()
        process.communicate()


def go(*processes):
    """Let processes load, at once when all are ready."""
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * len(processes)
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


def outcome(process):
    """Return a process's message, and the names in its cache but for the lock's."""
    message, names = json.loads(process.communicate()[0])
    return message, [name for name in names if name != ".download.lock"]


def test_processes_at_once(server, start):
    """Of processes that start without data, one fetches each file and all read it."""
    processes = [start() for _ in range(2)]
    go(*processes)
    for process in processes:
        message, names = outcome(process)
        assert message == LOADED
        assert {name for name in names if not name.startswith(".incoming-")} == set(NAMES)  # the other one's
    assert sorted(server.requested) == sorted(NAMES)


def test_killed(places, server, start):
    """A process that is killed midway leaves nothing that is taken for a file, and the next one loads."""
    halfway, killed = Event(), Event()

    def wait(_):
        halfway.set()
        assert killed.wait(10)

    server.halfway = wait
    process = start()
    go(process)
    assert halfway.wait(10)
    process.kill()
    process.wait()
    server.halfway = lambda _: None
    killed.set()
    assert [path.name[:10] for path in places["cache"].iterdir() if path.name != ".download.lock"] == [".incoming-"]
    assert_is_the_data(load_fashion_mnist(places["data_dir"]))
    assert server.requested == [NAMES[0], *NAMES]
    assert {path.name for path in places["cache"].iterdir()} - {".download.lock"} == set(NAMES)


def test_file_too_large(start):
    """Where a file may not grow that large, the system's reason is reported with a fix, and no part of it is left."""
    process = start(largest=100)
    go(process)
    message, names = outcome(process)
    assert "File too large. To have it elsewhere: export KERAS_HOME=FOLDER\n" in message
    assert names == []


def _in_a_mount(cache, options):
    """Return how a command begins that sees a file system of its own on the cache, or skip."""
    mount = f'mount -t tmpfs -o {options} none "$0" && exec "$@"'
    before = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(cache)]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*before, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("needs util-linux's unshare, and a system that lets users mount in namespaces of their own")
    return before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "reason", "left"),
    [
        pytest.param("size=8k", "No space left on device", list(NAMES[:1]), id="disk=full"),  # a page is the lock's
        pytest.param("ro", "Read-only file system", [], id="disk=read-only"),
    ],
)
def test_disk(places, start, options, reason, left):
    """On a disk that is full or read-only the reason is reported with a fix; files that are there are whole."""
    process = start(*_in_a_mount(places["cache"], options))
    go(process)
    message, names = outcome(process)
    assert f"{reason}. To have it elsewhere: export KERAS_HOME=FOLDER\n" in message
    assert names == left
