"""What `train` refuses before the first update, in one line: what can't be saved, and options that contradict."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest

import alexnet_repro
from alexnet_repro import synthetic_fashion
from alexnet_repro.backend.memory_limits import MemoryLimit
from alexnet_repro.cli import parser as command_line


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working folder; `train` checks what comes before the first update, and makes none."""

    def train(_model, _loader, _recipe, *, checkpoints, **_):
        if checkpoints is not None:
            with checkpoints.opened((), {}):
                pass
        return alexnet_repro.History(np.ones(1), np.ones(1), images=1, seconds=1.0, first_update_seconds=1.0)

    monkeypatch.setattr(alexnet_repro, "train", train)
    monkeypatch.setattr(alexnet_repro, "synthetic_fashion", lambda: synthetic_fashion(1, 1))
    monkeypatch.setattr(alexnet_repro, "build_alexnet", lambda **_: None)
    monkeypatch.setattr("alexnet_repro.training.distributed.strategy.best_train_step", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _loop(folder):
    (folder / "a.weights.h5").symlink_to("b.weights.h5")
    (folder / "b.weights.h5").symlink_to("a.weights.h5")


def _pipe(folder):
    os.mkfifo(folder / "a.weights.h5")


def _linked_pipe(folder):
    os.mkfifo(folder / "pipe")
    (folder / "a.weights.h5").symlink_to("pipe")


def _file(folder):
    (folder / "file").touch()


def _nothing(_):
    pass


@pytest.mark.parametrize(
    ("make", "option", "words"),
    [
        (_loop, "--weights=a.weights.h5", "Too many levels of symbolic links; remove the link, which leads to itself"),
        (_pipe, "--weights=a.weights.h5", "a.weights.h5 can't be written: it is a device, a pipe or a socket"),
        (_linked_pipe, "--weights=a.weights.h5", "pipe can't be written: it is a device, a pipe or a socket"),
        (_nothing, f"--weights={'x' * 250}.weights.h5", "File name too long; choose a shorter name"),
        (_nothing, "--weights=\udcff.weights.h5", "\\udcff.weights.h5 can't be written: "),
        (_nothing, "--checkpoints=\udcff", "; choose a name in UTF-8, or name another folder"),
        (_file, "--weights=file/a.weights.h5", "file is a file, not a folder; name another file: --weights=FILE"),
        (_file, "--checkpoints=file", "file is a file, not a folder; name another folder: --checkpoints=DIR"),
        (_file, "--checkpoints=file/new", "file is a file, not a folder; name another folder: --checkpoints=DIR"),
        (_nothing, f"--checkpoints={'x' * 256}", "File name too long; choose a shorter name"),
        (_file, "--record=file", "file is a file, not a folder; name another folder: --record=DIR"),
        (_nothing, f"--record={'x' * 256}", "File name too long; choose a shorter name"),
    ],
    ids=[
        *(
            "weights=loop",
            "weights=pipe",
            "weights=link_to_pipe",
            "weights=too_long",
            "weights=not_utf8",
            "checkpoints=not_utf8",
        ),
        *("weights=in_a_file", "checkpoints=file", "checkpoints=in_a_file", "checkpoints=too_long"),
        *("record=file", "record=too_long"),
    ],
)
def test_what_cannot_be_saved(folder, capsys, make, option, words):
    """Where something can't be saved, nothing is trained: one line has the reason and the fix, and nothing is left."""
    make(folder)
    before = sorted(folder.iterdir())
    assert command_line.main(["train", "--synthetic", "--weights=w.weights.h5", option]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert words in err
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("--resume --no-checkpoints", "argument --resume: doesn't go with --no-checkpoints"),
        ("--checkpoints=DIR --no-checkpoints", "argument --checkpoints: doesn't go with --no-checkpoints"),
        ("--no-weights --weights=a.weights.h5", "argument --weights: doesn't go with --no-weights"),
        (
            "--no-weights --recipe=documented --record=DIR",
            "argument --record: of the documented recipe doesn't go with",
        ),
    ],
    ids=["unused=resume", "unused=checkpoints", "unused=weights", "unused=record"],
)
def test_options_that_contradict(capsys, options, error):
    """Options of which one would take the other's effect are wrong arguments."""
    with pytest.raises(SystemExit) as caught:
        command_line.main(["train", *options.split()])
    assert caught.value.code == 2
    assert error in capsys.readouterr().err


def test_no_weights(folder, capsys):
    """With --no-weights none are saved, and checkpoints are where they are without it."""
    (folder / "5.6_alexnet.weights.h5").mkdir()  # which no weights could replace
    assert command_line.main(["train", "--synthetic", "--no-weights"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "weights: not saved"
    assert Path("5.6_alexnet.checkpoints").is_dir()


GB = 10**9


@pytest.mark.parametrize(
    ("option", "limit", "words"),
    [
        (
            "--recipe=quick",
            MemoryLimit("RAM", 4 * GB, 1.6 * GB, "end other programs"),
            "RAM leaves 1.6 GB of 4.0 GB: end",
        ),
        ("--no-checkpoints", MemoryLimit("RAM", 4 * GB, 1.6 * GB, ""), None),
        ("--recipe=quick", MemoryLimit("RAM", 4 * GB, 1.8 * GB, ""), None),
        ("--recipe=documented", MemoryLimit("RAM", 4 * GB, 1.2 * GB, ""), None),
        (
            "--recipe=documented",
            MemoryLimit("the cgroup's memory.max", 2 * GB, GB, "--memory="),
            "1.0 GB of 2.0 GB: --mem",
        ),
        ("--recipe=quick", MemoryLimit("ulimit -v", 4 * GB, 2 * GB, "ulimit", virtual=True), "ulimit -v leaves 2.0 GB"),
    ],
    ids=[
        "left=1.6-given=quick",
        "left=1.6-given=no_checkpoints",
        "left=1.8-given=quick",
        "left=1.2-given=documented",
        "left=1-given=documented",
        "left=2-given=quick-limit=addresses",
    ],
)
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="what other backends need isn't known as well")
def test_memory(monkeypatch, capsys, option, limit, words):
    """Where memory doesn't suffice for a single update, one line names the limit, what it leaves, and the fix."""
    monkeypatch.setattr("alexnet_repro.backend.memory_limits.memory_limits", lambda: [limit])
    monkeypatch.setattr(Path, "exists", lambda path: path != Path("/dev/nvidiactl") and os.path.exists(path))  # noqa: PTH110
    assert command_line.main(["train", "--synthetic", option]) == (1 if words else 0)
    assert (words or "") in capsys.readouterr().err


def test_memory_beside_a_gpu(monkeypatch):
    """Where weights may be in a GPU's memory, less is needed here."""
    monkeypatch.setattr(Path, "exists", lambda path: path == Path("/dev/nvidiactl") or os.path.exists(path))  # noqa: PTH110
    for left, status in ((0.6 * GB, 1), (0.8 * GB, 0)):
        limits = [MemoryLimit("RAM", 4 * GB, left, "")]
        monkeypatch.setattr("alexnet_repro.backend.memory_limits.memory_limits", lambda limits=limits: limits)
        assert command_line.main(["train", "--synthetic"]) == status
