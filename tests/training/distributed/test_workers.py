"""Workers that train together, as processes on loopback: correct, named when lost, and resumed."""

import shutil
import signal
import socket
import time

import keras
import numpy as np
import pytest

from alexnet_repro import build_alexnet, load_weights
from tests.helpers.workers import TIMEOUT, alone, assert_same_bits, assert_same_training, free_addresses, training

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("narrow"),
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="KERAS_BACKEND isn't tensorflow"),
]

STARTED = 240  # seconds that a training may take altogether, on a busy machine
LEFT = TIMEOUT + 10  # and its workers from the loss of one to their end: the timeout, and what a busy machine adds
CHECKPOINTS = ("--checkpoint-every=2", "--no-evaluate")


def names(folder):
    """Return the checkpoints in a folder."""
    return sorted(path.name for path in folder.glob("update-*"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for all; hundreds of megabytes, which pytest would keep."""
    folder = tmp_path_factory.mktemp("workers")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def one_device(folder):
    """The same training on one device."""
    return alone(folder / "one")


@pytest.fixture(scope="module")
def together(folder):
    """Trainings without interruption, by number of workers: what each worker kept, and where."""
    done = {}

    def together(workers):
        if workers not in done:
            resident = {"resident": workers == 3}  # as on GPUs, or as on a CPU
            with training(folder / f"whole{workers}", workers, settings=resident) as processes:
                assert [each.ended(STARTED) for each in processes] == [0] * workers
            done[workers] = [each.kept_arrays() for each in processes], folder / f"whole{workers}", processes
        return done[workers]

    return together


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_are_one_device(together, one_device, workers):
    """Dropout off, workers end with the same weights, losses and evaluations, bit for bit, and as one device does."""
    kept, _, _ = together(workers)
    for each in kept[1:]:
        assert_same_bits(each, kept[0])
        np.testing.assert_array_equal(each["evaluations"], kept[0]["evaluations"])
    assert_same_training(kept[0], one_device)
    assert kept[0]["evaluations"].shape == (1, 4)


def test_the_chief_alone_prints_and_saves(together):
    """Worker 0 prints the results and saves weights and checkpoints; the others neither print nor write anything."""
    kept, folder, (chief, other) = together(2)
    printed = [line for line in chief.out.read_text().splitlines() if line not in {"ready", "update"}]
    assert [line.split()[0] for line in printed] == ["trained", "weights:", "test"]
    assert other.out.read_text() == "ready\n" + "update\n" * 6
    assert not (folder / "disk1").exists()
    assert names(folder / "disk0" / "a.checkpoints") == ["update-00000006.npz"]
    model = build_alexnet((67, 67, 1), kernel_initializer="zeros")
    load_weights(model, folder / "disk0" / "a.weights.h5")
    for number, weights in enumerate(model.get_weights()):
        np.testing.assert_array_equal(weights, kept[0][f"last-{number:02}"])


def assert_all_end(survivors, line, *, since, status=1):
    """All survivors end within the stated time with one line that names the worker, and none is left."""
    for each in survivors:
        assert each.ended(since + LEFT - time.monotonic()) == status, each.err.read_text()
        assert each.lines() == [line]


def test_killed_and_resumed(folder, together):
    """A worker killed in a step is named; resumed with as many workers, the bits are those of a run that went through;
    with fewer workers, or on one device, they differ by rounding alone.
    """
    at, addresses = folder / "killed", free_addresses(3)
    with training(at, 3, *CHECKPOINTS, settings={"pace": 0.5}, addresses=addresses) as processes:
        while "update-00000004.npz" not in names(at / "disk0" / "a.checkpoints"):
            processes[2].wait_for("update")  # it lives
            time.sleep(0.05)
        processes[2].process.send_signal(signal.SIGKILL)
        since = time.monotonic()
        line = f"worker 2 ({addresses[2]}) disconnected unexpectedly: killed, or its machine is down"
        assert_all_end(processes[:2], line, since=since)
    assert names(at / "disk0" / "a.checkpoints") == ["update-00000002.npz", "update-00000004.npz"]
    whole = together(3)[0][0]
    for workers in (3, 2):
        again = folder / f"again{workers}"
        shutil.copytree(at, again)
        with training(again, workers, "--resume", *CHECKPOINTS) as processes:
            assert [each.ended(STARTED) for each in processes] == [0] * workers
        assert "resuming from" in processes[0].err.read_text()
        assert processes[0].out.read_text().count("update\n") == 2
        for each in processes:
            (assert_same_bits if workers == 3 else assert_same_training)(each.kept_arrays(), whole)
    assert_same_training(alone(at / "disk0", "--resume", *CHECKPOINTS), whole)


def test_chief_killed(folder):
    """When the chief is killed, the others name it."""
    addresses = free_addresses(2)
    with training(folder / "chief", 2, *CHECKPOINTS, settings={"pace": 0.5}, addresses=addresses) as processes:
        processes[0].wait_for("update", times=2)
        processes[0].process.send_signal(signal.SIGKILL)
        line = f"worker 0 ({addresses[0]}) disconnected unexpectedly: killed, or its machine is down"
        assert_all_end(processes[1:], line, since=time.monotonic())


def test_stopped(folder):
    """A worker that is stopped, its connections open, is named after the time."""
    addresses = free_addresses(2)
    with training(folder / "stopped", 2, *CHECKPOINTS, settings={"pace": 0.5}, addresses=addresses) as processes:
        processes[1].wait_for("update", times=2)
        processes[1].process.send_signal(signal.SIGSTOP)
        line = f"worker 1 ({addresses[1]}) sent no heartbeat for {TIMEOUT} s: stopped, hanging, or cut off"
        assert_all_end(processes[:1], line, since=time.monotonic())


def test_hangs(folder):
    """A worker whose main thread hangs outside of the step is named after the time, by all, and ends as well."""
    addresses = free_addresses(2)
    with training(folder / "hangs", 2, *CHECKPOINTS, settings=[{}, {"hang": 3}], addresses=addresses) as processes:
        processes[1].wait_for("hangs")
        since = time.monotonic()
        assert [each.ended(since + LEFT - time.monotonic()) for each in processes] == [1, 1]
        lines = {line for each in processes for line in each.lines()}
        assert len(lines) == 1
        assert lines.pop().startswith(f"worker 1 ({addresses[1]}) hangs in host code: no progress for ")


def test_signal_to_one(folder, together):
    """A signal to one worker stops all after the same update, with its status; resumed, the bits are the same."""
    at = folder / "signal"
    with training(at, 2, *CHECKPOINTS, settings={"pace": 0.5}) as processes:
        processes[1].wait_for("update", times=3)
        processes[1].process.send_signal(signal.SIGTERM)
        assert [each.ended(STARTED) for each in processes] == [143, 143]
    updates = [each.out.read_text().count("update\n") for each in processes]
    assert updates[0] == updates[1] < 6
    assert f"stopped after update {updates[0]} of 6; to resume:" in processes[0].err.read_text()
    assert f"stopped after update {updates[0]} of 6\n" in processes[1].err.read_text()
    assert names(at / "disk0" / "a.checkpoints")[-1] == f"update-{updates[0]:08}.npz"
    with training(at, 2, "--resume", *CHECKPOINTS) as processes:
        assert [each.ended(STARTED) for each in processes] == [0, 0]
    whole = together(2)[0][0]
    for each in processes:
        assert_same_bits(each.kept_arrays(), whole)


def test_never_comes_up(folder):
    """A worker that never comes up is named after the time, by those that did."""
    addresses = free_addresses(3)
    with training(folder / "missing", 3, only=(0, 1), addresses=addresses) as processes:
        assert [each.ended(STARTED) for each in processes] == [1, 1]
        line = f"worker 2 ({addresses[2]}) never came up: waited for {TIMEOUT} s"
        assert [each.lines() for each in processes] == [[line], [line]]


def test_other_recipe(folder):
    """Workers with different recipes end before they begin, with what differs."""
    addresses = free_addresses(3)
    settings = [{}, {}, {"recipe": {"loss": "normalised_sigmoid"}}]
    with training(folder / "other", 3, settings=settings, addresses=addresses) as processes:
        assert [each.ended(STARTED) for each in processes] == [1] * 3
        line = (
            f"worker 2 ({addresses[2]}) trains a different recipe: recipe loss is 'normalised_sigmoid' there, "
            f"'softmax' on worker 0 ({addresses[0]})"
        )
        assert [each.lines() for each in processes] == [[line]] * 3


def test_port_taken(folder):
    """A worker whose port is taken names it and ends; the other names the worker."""
    addresses = free_addresses(2)
    port = int(addresses[1].rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)), training(folder / "taken", 2, addresses=addresses) as processes:
        assert [each.ended(STARTED) for each in processes] == [1, 1]
        assert processes[1].lines() == [
            f"port {port}, which worker 1 ({addresses[1]}) needs, is taken; to see by whom:"
        ]
        assert processes[0].lines() == [f"worker 1 ({addresses[1]}) never came up: waited for {TIMEOUT} s"]
