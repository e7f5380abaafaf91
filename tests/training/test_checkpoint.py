"""A training that is cut short resumes from its latest checkpoint, bit for bit."""

import dataclasses
import functools
import itertools
import os
import shutil
import subprocess
import sys
import time
import zipfile
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from alexnet_repro import (
    Checkpoints,
    DataLoader,
    Evaluation,
    TrainingStoppedError,
    build_alexnet,
    synthetic_fashion,
    train,
)
from tests.helpers.models import narrow_layers
from tests.helpers.short_runs import TINY, Messages, short_run, small_loader

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def model():
    """A model whose updates nobody makes."""
    with narrow_layers():
        return build_alexnet((67, 67, 1), kernel_initializer="zeros")


@pytest.fixture
def run(model, tmp_path):
    """A short training with checkpoints in the test's folder."""
    return functools.partial(short_run, model, tmp_path)


def names(folder):
    """Return what is in a folder, hidden files aside."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_when_and_how_many(run, tmp_path):
    """A checkpoint is saved every `every` updates and at each epoch's end, and the latest three are kept."""
    made = []
    run(settings={"keep": 100})
    made = names(tmp_path)
    assert made == [f"update-{updates:08}.npz" for updates in (4, 8, 12, 16, 20, 24)]
    for path in tmp_path.glob("*.npz"):
        path.unlink()
    run(settings={"every": 10})  # each draw is two updates, each epoch twelve
    assert names(tmp_path) == [f"update-{updates:08}.npz" for updates in (12, 20, 24)]


@pytest.mark.parametrize("stop_after", [1, 3, 6, 11])
def test_resumed_is_uninterrupted(run, tmp_path, stop_after):
    """Stopped anywhere and resumed, losses and weights are those of a run that wasn't; so is the time's meaning."""
    whole, step, _ = run()
    for path in tmp_path.glob("*.npz"):
        path.unlink()
    stopped, _, _ = run(stop_after=stop_after)
    assert f"after update {2 * stop_after} of 24" in str(stopped)
    resumed, again, messages = run()
    assert messages == [f"resuming from {tmp_path}/update-{2 * stop_after:08}.npz, after update {2 * stop_after}"]
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    np.testing.assert_array_equal(again.weight, step.weight)
    assert (resumed.images, len(resumed.accuracies)) == (96, 24)


def test_a_finished_run_is_finished(run):
    """Resumed after its end, a run makes no update and returns its history."""
    whole, _, _ = run()
    same, step, _ = run(stop_after=1)
    np.testing.assert_array_equal(same.losses, whole.losses)
    assert float(step.weight[0]) == whole.losses[-1]


def test_fresh_run_in_the_same_folder(run, tmp_path):
    """A run that starts fresh in the folder of another keeps its own checkpoints, and resumes from them."""
    run()
    run(stop_after=3, resume=False)
    assert names(tmp_path) == ["update-00000004.npz", "update-00000006.npz", "update-00000024.npz"]
    assert run()[2] == [f"resuming from {tmp_path}/update-00000006.npz, after update 6"]


def test_nothing_to_resume(run, tmp_path):
    """Without a checkpoint, training starts fresh, and logs so."""
    assert run()[2] == [f"no checkpoint in {tmp_path}: starting fresh"]


def test_numpy_before_2_1(run, tmp_path, monkeypatch):
    """Checkpoints can be read where `np.savez` takes every keyword as an array's name, as NumPy 1.26 and 2.0 do."""

    def savez(file, **arrays):
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, np.asanyarray(array))

    monkeypatch.setattr(np, "savez", savez)
    run(stop_after=3)
    assert run(stop_after=1)[2] == [f"resuming from {tmp_path}/update-00000006.npz, after update 6"]


@pytest.mark.parametrize(
    "damage", ["cut", "flipped", "empty", "html", "pickle", "swapped", "zip-version", "zip-encrypted"]
)
def test_corrupt_checkpoints(run, tmp_path, damage):
    """A corrupt latest checkpoint is skipped, the one before is used, and the result is the same."""
    whole, _, _ = run()
    latest, before = sorted(tmp_path.glob("*.npz"), reverse=True)[:2]
    content = bytearray(latest.read_bytes())
    if damage == "cut":
        latest.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[content.index(b"losses.npy") + 150] ^= 1
        latest.write_bytes(content)
    elif damage.startswith("zip"):  # in the first entry of the archive's directory: a version to come, or a password
        at, bits = {"zip-version": (6, 64), "zip-encrypted": (8, 1)}[damage]
        content[content.index(b"PK\x01\x02") + at] ^= bits
        latest.write_bytes(content)
    elif damage == "pickle":
        np.savez(latest, description=np.array([{"a": print}], object))
    elif damage == "swapped":  # whole archives, but another array than was described
        with np.load(latest) as archive:
            arrays = dict(archive)
        np.savez(latest, **{**arrays, "000": arrays["000"] + 1})
    else:
        latest.write_bytes(b"" if damage == "empty" else b"<html>")
    resumed, _, messages = run()
    assert messages[0].startswith(f"{latest} skipped: corrupt")
    assert messages[1].startswith(f"resuming from {before}")
    np.testing.assert_array_equal(resumed.losses, whole.losses)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"recipe": dataclasses.replace(TINY, loss="normalised_sigmoid")}, "recipe loss is 'softmax' there, 'normal"),
        ({"loader": small_loader(seed=1)}, "seed is '0' there, '1' here"),
        ({"loader": small_loader(images=65)}, "data sha256 is '"),
    ],
    ids=[f"differs={what}" for what in ("recipe", "seed", "data")],
)
def test_foreign_checkpoints(run, change, difference):
    """Checkpoints of another recipe, seed or data set are skipped: each is named, with what differs."""
    run()
    with pytest.raises(OSError, match=r"no checkpoint in .* is usable; to start fresh, move them away"):
        run(**change)
    with Messages() as lines, pytest.raises(OSError, match="no checkpoint"):
        run(**change)
    assert len(lines) == 3
    assert f"skipped: belongs to a different run: {difference}" in lines[0]


@pytest.mark.parametrize(
    ("change", "resume", "words"),
    [
        (
            {},
            False,
            r"update-00000006.npz is of update 6 of 24 of this training, which isn't finished: add --resume, or",
        ),
        (
            {"loader": small_loader(seed=1)},
            False,
            r"of another training \(seed is '0' there, '1' here\), which isn't fin",
        ),
        (
            {"loader": small_loader(seed=1)},
            True,
            r"6 of 24 of another training .* isn't finished: move it away, or name",
        ),
        (
            {"recipe": dataclasses.replace(TINY, epochs=1)},
            False,
            r"6 of 24 of another training \(recipe epochs is '2' ",
        ),
    ],
    ids=["begun=again", "begun=other_seed", "resumed=other_seed", "begun=other_recipe"],
)
def test_unfinished_training_is_protected(run, tmp_path, change, resume, words):
    """Checkpoints of a training that isn't finished are never replaced by another: it is refused, and says by what."""
    run(stop_after=3)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.npz")}
    with pytest.raises(OSError, match=words):
        run(resume=resume, **change)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.npz")} == before
    assert run()[2] == [f"resuming from {tmp_path}/update-00000006.npz, after update 6"]


def test_finished_training_is_replaced(run, tmp_path):
    """A finished training's checkpoints are replaced, and a line says so; corrupt ones hinder nobody."""
    run()
    (tmp_path / "update-00000003.npz").write_bytes(b"corrupt")
    _, _, messages = run(resume=False, loader=small_loader(seed=1))
    assert messages == [f"the checkpoints of a finished training in {tmp_path} will be replaced"]


@pytest.mark.parametrize("call", ["os.fsync", "os.utime"])
def test_file_system_that_lacks_something(run, tmp_path, monkeypatch, call):
    """Where nothing can be synced, or no times be set, checkpoints count as saved: no warning, and old ones go."""

    def missing(*_, **__):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(call, missing)
    assert run()[2] == [f"no checkpoint in {tmp_path}: starting fresh"]
    assert names(tmp_path) == [f"update-{updates:08}.npz" for updates in (16, 20, 24)]
    for path in tmp_path.glob("*.npz"):
        path.unlink()
    assert str(run(stop_after=3)[0]) == "stopped after update 6 of 24"
    assert run()[2] == [f"resuming from {tmp_path}/update-00000006.npz, after update 6"]


@pytest.mark.parametrize(
    ("options", "files"),
    [
        ({"settings": {}}, 4),  # three are kept while the fourth is written
        ({"settings": {"keep": 1}}, 2),
        ({"settings": {"every": 100}}, 2),  # at each epoch's end
        ({"settings": {"every": 100}, "validate": True}, 3),  # the last is saved again, with what was measured
        ({"settings": {"every": 100, "keep": 1}, "validate": True}, 2),
    ],
    ids=["kept=3", "kept=1", "every=epoch", "every=epoch-measured=yes", "every=epoch-measured=yes-kept=1"],
)
def test_room_is_checked_before_the_first_update(run, tmp_path, monkeypatch, options, files):
    """The room that checkpoints take at most is needed before the first update, and no more than that."""
    size = 4 * 3 + 4 * 2  # of the step's weight and generator
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=files * size - 1))
    monkeypatch.setattr("alexnet_repro.training.loop.evaluate", lambda *_, **__: Evaluation(1.0, 0.5, 1))
    with pytest.raises(
        OSError, match=rf"{files * size} bytes are needed there, {files * size - 1} are free; free that"
    ):
        run(**options)
    assert names(tmp_path) == []
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=files * size))
    assert len(run(**options)[0].losses) == 24


def test_clock_that_went_back(run, tmp_path):
    """The checkpoint saved last is the latest, and is kept, whatever the clock says of earlier ones."""
    run(stop_after=9)
    tomorrow = time.time() + 86_400
    for path in tmp_path.glob("*.npz"):
        os.utime(path, (tomorrow, tomorrow))
    run(stop_after=1)
    assert names(tmp_path)[-1] == "update-00000020.npz"
    assert run(stop_after=1)[2] == [f"resuming from {tmp_path}/update-00000020.npz, after update 20"]


def test_full_disk(run, tmp_path, monkeypatch):
    """A full disk leaves earlier checkpoints as they were, with a warning; at a stop it is an error."""
    run(stop_after=3)
    before = names(tmp_path)

    def full(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    history, _, messages = run()
    assert len(history.losses) == 24  # training continues
    assert messages[1] == (
        f"{tmp_path}/update-00000008.npz can't be written: No space left on device; free that disk; "
        f"the latest checkpoint is {tmp_path}/update-00000006.npz; training continues"
    )
    with pytest.raises(
        OSError, match=r"written: No space left on device; free that disk; the latest checkpoint is .*06\.npz$"
    ):
        run(stop_after=1)
    assert names(tmp_path) == before


def test_left_over_by_a_kill(run, tmp_path):
    """What a killed save left behind is removed, and never read."""
    (tmp_path / ".update-00000099.npz").write_bytes(b"half")
    assert run()[2] == [f"no checkpoint in {tmp_path}: starting fresh"]
    assert not list(tmp_path.glob(".update*"))


def test_one_training_a_folder(tmp_path):
    """Two trainings can't save into one folder at the same time."""
    checkpoints = Checkpoints(tmp_path)
    with checkpoints.opened((), {}):
        pass
    code = "import fcntl, sys\nf = open(sys.argv[1], 'w')\nfcntl.flock(f, 2)\nprint('held', flush=True)\ninput()"
    holder = [sys.executable, "-c", code, str(tmp_path / ".lock")]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        taken = pytest.raises(OSError, match=r"another training saves its checkpoints in .*; name another folder")
        with taken, checkpoints.opened((), {}):
            pass
        other.communicate("\n")


def test_folder_that_cannot_be(tmp_path):
    """A folder that can't be made is an error before the first update, with its name."""
    (tmp_path / "file").write_text("")
    checkpoints = Checkpoints(tmp_path / "file" / "folder")
    with pytest.raises(OSError, match="file/folder can't be written to"), checkpoints.opened((), {}):
        pass


def test_other_versions(run, monkeypatch):
    """A checkpoint of another version of the backend is used, with a warning that bits may differ."""
    with monkeypatch.context() as older:
        older.setattr(keras, "__version__", "3.0.0")
        run(stop_after=3)
    _, _, messages = run(stop_after=3)
    assert "bits may differ from here on: keras is '3.0.0' there, '" in messages[0]
    assert "resuming from" in messages[1]


@pytest.mark.slow
@pytest.mark.usefixtures("narrow")
def test_network_resumes_bit_for_bit(tmp_path):
    """A real network, with Adam, its schedule and dropout: resumed, every loss and weight is the same."""
    recipe = dataclasses.replace(TINY, draws_per_epoch=3, epochs=1)

    def trained(folder, stop_after):
        calls = itertools.count(1)
        keras.utils.set_random_seed(0)
        model = build_alexnet((67, 67, 1), kernel_initializer="he_normal")
        settings = Checkpoints(folder)
        loader = DataLoader.from_arrays(*synthetic_fashion(64, 1, seed=0), seed=0)
        stopping = lambda: next(calls) == stop_after  # noqa: E731
        history = train(model, loader, recipe, checkpoints=settings, resume=True, stopping=stopping, progress=False)
        return history.losses, model.get_weights()

    losses, weights = trained(tmp_path / "whole", None)
    with pytest.raises(TrainingStoppedError):
        trained(tmp_path / "cut", 2)
    keras.utils.set_random_seed(1)
    resumed, others = trained(tmp_path / "cut", None)
    assert len({*losses}) == 6
    np.testing.assert_array_equal(resumed, losses)
    for one, other in zip(others, weights, strict=True):
        np.testing.assert_array_equal(one, other)
    shutil.rmtree(tmp_path)  # hundreds of megabytes


def test_time_of_measuring_is_not_training(run, monkeypatch):
    """What measuring and saving take isn't counted as training, in a run that is resumed either."""
    clock = itertools.count()
    monkeypatch.setattr("alexnet_repro.training.history.time.perf_counter", lambda: float(next(clock)))

    def evaluate(*_, **__):
        for _ in range(1_000):
            next(clock)
        return Evaluation(1.0, 0.5, 1)

    monkeypatch.setattr("alexnet_repro.training.loop.evaluate", evaluate)
    run(stop_after=6, validate=True)  # at the end of the first epoch
    history = run(validate=True)[0]
    assert history.seconds < 1_000
    assert history.evaluations == ((12, Evaluation(1.0, 0.5, 1)), (24, Evaluation(1.0, 0.5, 1)))
