"""What runs between updates, and what of it runs on resume."""

import dataclasses
import errno
import functools
import os
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from alexnet_repro import Evaluation, build_alexnet, load_weights
from alexnet_repro.training import loop as training
from alexnet_repro.training.weights import only_writer, weights_digest
from tests.helpers.short_runs import TINY, short_run, small_loader

pytestmark = pytest.mark.usefixtures("narrow")

FOUND = Evaluation(1.0, 0.5, 1)
SAVING = dataclasses.replace(TINY, save_every=4)  # after draws 1 and 5 of each epoch's six: updates 2, 10, 14 and 22


@pytest.fixture(scope="module")
def model():
    """A model whose updates nobody makes."""
    return build_alexnet((67, 67, 1), kernel_initializer="he_normal")


@pytest.fixture
def run(model, tmp_path, monkeypatch):
    """A short training in the test's folder: of two at a time, one would be refused the other's weights."""
    monkeypatch.chdir(tmp_path)
    return functools.partial(short_run, model, tmp_path)


class Watched:
    """Saving weights and evaluating, which do nothing but fail at chosen calls."""

    def __init__(self, folder):
        self.folder, self.calls, self.failing = folder, [], {}

    def save(self, _, path, __):
        self._called(f"saved {path}", OSError("no room"))

    def measure(self, *_, **__):
        self._called(f"measured after {max(self.folder.glob('update-*.npz')).stem}", KeyboardInterrupt())
        return FOUND

    def _called(self, what, error):
        self.calls.append(what)
        if self.failing.get(what.split()[0]) in {"always", len(self.calls)}:
            raise error


@pytest.fixture
def watched(monkeypatch, tmp_path):
    """What is done between updates, in its order."""
    watched = Watched(tmp_path)
    monkeypatch.setattr(training, "save_weights", watched.save)
    monkeypatch.setattr(training, "evaluate", watched.measure)
    return watched


def test_checkpoint_comes_first(run, watched):
    """Measuring takes its time: a checkpoint is there before it, and one with its result after it."""
    history = run(validate=True, weights="a.weights.h5")[0]
    assert watched.calls == [
        "measured after update-00000012",
        "saved a.weights.h5",
        "measured after update-00000024",
    ]
    assert history.evaluations == ((12, FOUND), (24, FOUND))
    assert run(validate=True)[0].evaluations == history.evaluations
    assert len(watched.calls) == 3


@pytest.mark.parametrize("call", [1, 2])
def test_killed_while_evaluating(run, watched, call):
    """On resume, a pending evaluation runs first, and no update is made again."""
    whole = run(resume=False)[0]
    watched.failing["measured"] = call
    with pytest.raises(KeyboardInterrupt):
        run(validate=True, resume=False)
    history, _, messages = run(validate=True)
    assert messages[0].endswith(f"after update {12 * call}")
    assert history.evaluations == ((12, FOUND), (24, FOUND))
    assert len(watched.calls) == 3
    np.testing.assert_array_equal(history.losses, whole.losses)


@pytest.mark.parametrize("draws", [6, 12])
def test_stopped_where_an_evaluation_is_due(run, watched, draws):
    """A stop comes before an evaluation, for which there may be no time; it runs on resume."""
    stopped = run(validate=True, stop_after=draws)[0]
    assert str(stopped) == f"stopped after update {2 * draws} of 24"
    assert len(watched.calls) == draws // 6 - 1
    assert run(validate=True)[0].evaluations == ((12, FOUND), (24, FOUND))


def test_no_room_for_weights(run, watched):
    """Training continues where weights can't be saved, with a warning; except for the last ones."""
    watched.failing["saved"] = "always"
    with pytest.raises(OSError, match=r"^no room; then resume from the latest checkpoint$"):
        run(recipe=SAVING, weights="a.weights.h5")
    assert watched.calls == [*["saved a.weights.h5"] * 4, f"saved a.{os.getpid()}.weights.h5"]
    watched.failing.clear()
    history, _, messages = run(recipe=SAVING, weights="a.weights.h5", loader=small_loader())
    assert messages[0].endswith("after update 20")
    assert watched.calls[5:] == ["saved a.weights.h5"]
    assert history.saved


def test_no_room_is_a_warning(run, watched):
    """Each failed save of weights on the way is a warning."""
    watched.failing["saved"] = 1
    assert run(recipe=SAVING, weights="a.weights.h5")[2][1:] == ["no room; training continues"]


def test_weights_that_cannot_be_replaced(run, tmp_path, model, monkeypatch):
    """Trained weights that can't be saved at the end, since a file was mounted there, are saved under another name."""
    path, replace = tmp_path / "a.weights.h5", Path.replace

    def busy(self, target):
        if target == path:
            raise OSError(errno.EBUSY, "busy")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", busy)
    kept = tmp_path / f"a.{os.getpid()}.weights.h5"
    words = f"^{path} can't be written: Device or resource busy; mount the folder, .*; the weights are in {kept}$"
    with pytest.raises(OSError, match=words):
        run(weights=path)
    digest = weights_digest(model)
    load_weights(model, kept)
    assert weights_digest(model) == digest


@pytest.mark.usefixtures("watched")
def test_two_trainings_into_one_file(run, tmp_path):
    """Two trainings can't save their weights in one file at the same time, and one after the other says so."""
    path = tmp_path / "a.weights.h5"
    taken = pytest.raises(
        OSError, match=r"another training saves its weights in .*a.weights.h5 \(process \d+ on .*file: --"
    )
    with only_writer(path), taken:
        run(weights=path)
    path.touch()
    assert run(weights=path)[2][-1] == f"{path} is there already, and will be replaced"
    assert [each.name for each in tmp_path.iterdir() if each.suffix != ".npz"] == ["a.weights.h5"]


def test_room_for_weights_is_checked_before_the_first_update(run, tmp_path, model, monkeypatch):
    """The room that weights take is needed besides that of checkpoints."""
    # The step's five values in four files, the model's weights, and the states of its two dropouts' generators.
    needed = 4 * 20 + 4 * sum(each.size for each in model.get_weights()) + 2 * 8
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(OSError, match=f"{needed:,} bytes are needed there"):
        run(weights=tmp_path / "a.weights.h5")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("error")
def test_warnings_as_errors(run, watched, monkeypatch):
    """A warning that Python is to raise, as Keras's when it saves, ends no training."""

    def warns(*arguments):
        warnings.warn("__array__ must implement 'dtype' and 'copy'", DeprecationWarning, stacklevel=1)
        watched.save(*arguments)

    monkeypatch.setattr(training, "save_weights", warns)
    with pytest.warns(DeprecationWarning, match="__array__"):
        assert len(run(weights="a.weights.h5")[0].losses) == 24
    assert watched.calls == ["saved a.weights.h5"]


def test_resume_needs_checkpoints(run):
    """A training that is to resume without checkpoints is refused, not begun anew."""
    with pytest.raises(ValueError, match="resume needs checkpoints"):
        run(checkpoints=None)


def test_weights_of_a_finished_run(run, model, tmp_path):
    """A finished run saves its last weights where it is to this time, and recognizes them."""
    first = run(weights=tmp_path / "a.weights.h5")[0]
    again = run(weights=tmp_path / "b.weights.h5")[0]
    assert first.saved == again.saved == weights_digest(model)
    load_weights(model, tmp_path / "b.weights.h5")
    assert weights_digest(model) == first.saved


def test_weights_differ_in_their_digest(model):
    """A digest is of every weight: another in one place is another digest."""
    before, kept = weights_digest(model), model.get_weights()
    changed = [each.copy() for each in kept]
    changed[-1][0] += 1
    model.set_weights(changed)
    assert weights_digest(model) != before
    model.set_weights(kept)
    assert weights_digest(model) == before


def test_loader_of_the_run_before(run):
    """A run that resumes with the loader of the run before draws what comes next, and nothing twice."""
    whole, loader = run(resume=False)[0], small_loader()
    run(stop_after=5, loader=loader, resume=False)
    np.testing.assert_array_equal(run(loader=loader)[0].losses, whole.losses)


def test_loader_that_has_drawn_before(run):
    """A run whose loader had drawn before is resumed with a new loader, which then draws what comes next."""

    def drawn():
        loader = small_loader()
        loader.get_batch_train(3)
        return loader

    whole = run(loader=drawn(), resume=False)[0]
    run(stop_after=5, loader=drawn(), resume=False)
    np.testing.assert_array_equal(run()[0].losses, whole.losses)
    assert whole.losses[0] != run(resume=False)[0].losses[0]
