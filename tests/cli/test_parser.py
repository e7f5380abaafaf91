"""python -m alexnet_repro: help, exit statuses, and the document's outputs."""

import configparser
import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import alexnet_repro
from alexnet_repro import LOSSES, Recipe, documented
from alexnet_repro.backend.precision import PRECISIONS
from alexnet_repro.cli import parser as command_line
from alexnet_repro.cli.parser import LOSS_NAMES, PRECISION_NAMES, RECIPES
from alexnet_repro.verify.doctor import doctor
from tests.helpers.paths import ROOT


def _exit_status(arguments):
    """Return the exit status of the command line, also for refused arguments."""
    try:
        return command_line.main(arguments)
    except SystemExit as caught:
        return caught.code


def test_help_without_keras():
    """`--help` exits 0 with the usage, and without the seconds that importing Keras and TensorFlow takes."""
    command = [sys.executable, "-X", "importtime", "-m", "alexnet_repro", "--help"]
    package = Path(alexnet_repro.__file__).parents[1]
    done = subprocess.run(command, cwd=package, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m alexnet_repro")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & {"keras", "tensorflow", "jax", "torch", "numpy"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--help", "report shapes train evaluate documented quick"),
        ("shapes --help", "--batch"),
        (
            "train --help",
            "--recipe --epochs --weights --no-evaluate --loss --precision --seed --data-dir --synthetic",
        ),
        ("train --help", "--distribute --worker-timeout TF_CONFIG srun"),
        ("report --help", "A.json B.json --out report.html summary.md comparison.md comparison.json"),
        ("evaluate --help", "--weights --samples --loss --precision --seed --data-dir --synthetic"),
    ],
)
def test_help(capsys, arguments, words):
    """Help names everything there is, on stdout, with exit status 0."""
    assert _exit_status(arguments.split()) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert [word for word in words.split() if word not in out] == []


def test_commands_shown_in_help_are_right(tmp_path, monkeypatch):
    """Every command that the help shows can be typed as it stands."""
    monkeypatch.chdir(tmp_path)
    Path("5.6_alexnet.weights.h5").touch()
    shown = re.findall(r"python -m alexnet_repro (.*)", command_line.EPILOG)
    assert len(shown) == 9
    for arguments in shown:
        command_line.parser().parse_args(shlex.split(arguments))


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ("", "COMMAND"),
        ("paint", "'paint'"),
        ("shapes --batch=0", "--batch"),
        ("shapes --batch=1.5", "--batch"),
        ("shapes --batch=4294967296", "'4294967296'"),
        ("shapes --bat=1", "--bat=1"),
        ("train again", "again"),
        ("train --recipe=slow", "'slow'"),
        ("train --loss=hinge", "'hinge'"),
        ("train --precision=float8", "'float8'"),
        ("train --epochs=0", "--epochs"),
        ("train --seed=-1", "'-1'"),
        ("train --seed=" + "9" * 5_000, "--seed"),
        ("train --weights=alexnet.h5", ".weights.h5"),
        ("train --samples=2000", "--samples=2000"),
        ("train --synthetic --data-dir=here", "--data-dir"),
        ("train --distribute=all", "'all'"),
        ("train --replicas=2", "--replicas"),
        ("train --distribute=multiworker --replicas=2", "--replicas"),
        ("train --worker-timeout=0", "--worker-timeout"),
        ("evaluate", "--weights"),
        ("evaluate --weights=nowhere.weights.h5", "nowhere.weights.h5"),
        ("evaluate --samples=0", "--samples"),
        ("evaluate --samples", "--samples"),
        ("evaluate --samples=10000001", "from 1 to 10000000"),
    ],
    ids=lambda value: f"given={value[:40]}",
)
def test_wrong_arguments(capsys, arguments, culprit):
    """Wrong arguments exit 2 with one line on stderr that names what is wrong and where help is."""
    assert _exit_status(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert (err.count("\n"), err[-1]) == (1, "\n")
    assert culprit in err
    assert re.search(r"\(see python -m alexnet_repro( \w+)? --help\)$", err)


def test_choices_are_the_packages_own():
    """The recipes with their draws, losses and precisions, literal in the command line, are the package's own."""
    recipes = {name: getattr(Recipe, name)() for name, each in vars(Recipe).items() if isinstance(each, classmethod)}
    assert {recipe.name: recipe.draw_size for recipe in recipes.values()} == RECIPES
    assert list(recipes) == list(RECIPES)
    assert tuple(LOSSES) == LOSS_NAMES
    assert tuple(PRECISIONS) == PRECISION_NAMES


@pytest.mark.parametrize("batch", [1, 5])
def test_shapes(capsys, batch):
    """`shapes` prints the documented table: every layer's name, output shape, parameters and MACs, and the totals."""
    assert command_line.main(["shapes", f"--batch={batch}"]) == 0
    _, *rows, total = capsys.readouterr().out.splitlines()
    assert [row.split() for row in rows] == [
        [layer.name, *str((batch, *layer.output_shape)).split(), f"{layer.parameters:,}", f"{layer.macs:,}"]
        for layer in documented.LAYERS
    ]
    assert total.split() == ["total", "46,764,746", "938,146,176"]


def test_data_dir_must_be_a_folder(tmp_path, capsys):
    """A folder that isn't there is a wrong argument, not a reason to look elsewhere."""
    assert _exit_status(["train", f"--data-dir={tmp_path / 'nowhere'}"]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_interrupt(monkeypatch, capsys):
    """Ctrl-C ends with the conventional status and one line."""

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "run_shapes", interrupted)
    assert command_line.main(["shapes"]) == 130
    assert capsys.readouterr().err == "python -m alexnet_repro: interrupted\n"


def test_memory_that_is_not_there(monkeypatch, capsys):
    """A lack of memory, wherever it shows, is one line with what was wanted, and status 1."""
    asked = "Unable to allocate 32.0 GiB for an array with shape (4294967295,) and data type int64"
    for message, line in ((asked, f": {asked}"), ("", "")):
        monkeypatch.setattr(
            command_line, "run_shapes", lambda _, text=message: (_ for _ in ()).throw(MemoryError(text))
        )
        assert command_line.main(["shapes"]) == 1
        assert capsys.readouterr().err == f"python -m alexnet_repro: not enough memory{line}\n"


def _loop(path):
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("option", "make", "words"),
    [
        ("--weights", os.mkfifo, "PATH isn't a file or folder"),
        ("--weights", lambda path: path.symlink_to("/dev/null"), "PATH isn't a file or folder"),
        ("--weights", _loop, "PATH: Too many levels of symbolic links"),
        ("--weights", lambda path: path.symlink_to("away"), "PATH is a link to away, which isn't there"),
        ("--weights", lambda _: None, "no such file or folder: PATH"),
        ("--data-dir", Path.touch, "PATH isn't a folder"),
        ("--data-dir", lambda _: None, "no such folder: PATH"),
    ],
    ids=[f"given={name}" for name in ("pipe", "device", "loop", "dangling", "nothing", "file", "no_folder")],
)
def test_what_a_path_is(tmp_path, capsys, option, make, words):
    """What is there, but of the wrong kind, is named for what it is; "no such file" is of what isn't there."""
    make(tmp_path / "given")
    assert _exit_status(["evaluate", f"{option}={tmp_path / 'given'}"]) == 2
    assert words.replace("PATH", str(tmp_path / "given")) in capsys.readouterr().err


def test_weights_in_several_files(tmp_path):
    """A folder, and what the names of a checkpoint's files begin with, are weights, which the reader looks at."""
    (tmp_path / "model.index").touch()
    for path in (tmp_path, tmp_path / "model", tmp_path / "model.index"):
        given = command_line.parser().parse_args(["evaluate", f"--weights={path}"])
        assert given.weights == path


@pytest.mark.parametrize("option", ["--weights", "--data-dir"])
def test_path_that_cannot_be_read(capsys, option):
    """A path whose name no disk takes is a wrong argument, with the system's message."""
    with pytest.raises(SystemExit) as caught:
        command_line.main(["evaluate", f"{option}=/{'x' * 300}"])
    assert caught.value.code == 2
    assert "File name too long" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["shapes", "train", "evaluate --weights=README.md"])
def test_backend_that_cannot_be_used(monkeypatch, capsys, command):
    """What trains or evaluates refuses a backend that isn't one of the three, by one line with the variable."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    assert command_line.main(command.split()) == 1
    reason = "the backend numpy can't be used, as tensorflow, jax, torch can; unset KERAS_BACKEND, which is numpy"
    assert capsys.readouterr().err == f"python -m alexnet_repro: {reason}\n"


def test_version():
    """The version is the distribution's."""
    assert alexnet_repro.__version__ == version("alexnet-repro")


@pytest.mark.parametrize("name", ["argparse", "inspect", "json", "queue", "random", "socket", "tensorflow"])
def test_files_of_the_working_folder_are_no_modules(tmp_path, name):
    """A script in the working folder that is called as a module of Python's or an installed one isn't imported."""
    (tmp_path / f"{name}.py").write_text("raise RuntimeError('imported')")
    command = [sys.executable, "-m", "alexnet_repro", "--version"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"alexnet-repro {alexnet_repro.__version__}\n"


def test_shadow_on_the_path(tmp_path):
    """A file on PYTHONPATH that shadows what the command line stands on is named, also without a working folder."""
    gone, shadow = tmp_path / "gone", tmp_path / "argparse.py"
    gone.mkdir()
    shadow.write_text("raise RuntimeError")
    start = f"cd {gone} && rmdir {gone} && exec {sys.executable} -m alexnet_repro shapes"
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(["sh", "-c", start], env=environ, capture_output=True, text=True, check=False)
    expected = f"python -m alexnet_repro: argparse is imported from {shadow}, not from Python's own; rename it\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected)


def test_working_folder_that_is_gone(tmp_path, monkeypatch, capsys):
    """Without a working folder, what needs it is refused in a line that says so."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(command_line, "run_shapes", lambda _: os.path.realpath("a.weights.h5"))
    assert command_line.main(["shapes"]) == 1
    assert capsys.readouterr().err == "python -m alexnet_repro: the working folder is gone; start in another\n"


def test_import_that_fails(monkeypatch, capsys):
    """Whatever a package raises when it is imported, also under one of our own lazy names, is one line."""
    monkeypatch.setattr(command_line, "run_shapes", lambda _: exec("import broken_package"))
    monkeypatch.setitem(sys.modules, "broken_package", None)
    assert command_line.main(["shapes"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m alexnet_repro: broken_package can't be imported: import of broken_package halted")


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
        (OSError(28, "No space left on device"), 1, "python -m alexnet_repro: [Errno 28] No space left on device\n"),
    ],
    ids=["stdout=closed pipe", "stdout=full disk"],
)
def test_output_that_cannot_be_written(monkeypatch, capsys, error, status, message):
    """A reader that is gone ends a command silently, a full disk with one line."""

    def unwritable():
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(command_line, "run_shapes", lambda _: patch.setattr(sys.stdout, "flush", unwritable))
        assert command_line.main(["shapes"]) == status
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", {"as_json": False, "deadline": 180, "require_gpu": False, "backend": "jax"}),
        ("--json --deadline=7 --require-gpu", {"as_json": True, "deadline": 7, "require_gpu": True, "backend": "jax"}),
    ],
    ids=["options=none", "options=all"],
)
def test_doctor_options(monkeypatch, options, expected):
    """The doctor gets the options and Keras's backend, and its exit status is the command's."""
    seen = {}
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(doctor, "report", lambda _out, **given: seen.update(given) or 3)
    assert command_line.main(["doctor", *options.split()]) == 3
    assert seen == expected


@pytest.mark.parametrize("environment", ["verify-gpu", "bench-gpu"])
def test_gpu_environments_of_tox_require_one(environment):
    """Where tox verifies or times GPUs, a machine without a usable one fails."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    assert "--require-gpu" in tox[f"testenv:{environment}"]["commands"].split()
