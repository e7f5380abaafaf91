"""python -m alexnet_repro train and evaluate: what reaches the package, what comes out, and how they end."""

import dataclasses
import os
import re
import signal
import socket
from pathlib import Path

import keras
import numpy as np
import pytest

import alexnet_repro
from alexnet_repro import Recipe, TrainingDivergedError, synthetic_fashion
from alexnet_repro.cli import parser as command_line
from alexnet_repro.data import fashion_mnist


@pytest.fixture
def small(monkeypatch):
    """`--synthetic` gives 64 training and 40 test images; the quick recipe takes three updates of eight."""
    recipe = dataclasses.replace(Recipe.quick(), draw_size=8, batch_size=8, draws_per_epoch=3, warmup_updates=0)
    monkeypatch.setattr(Recipe, "quick", lambda: recipe)
    monkeypatch.setattr(alexnet_repro, "synthetic_fashion", lambda: synthetic_fashion(64, 40))


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_missing_data(capsys, tmp_path, monkeypatch, command):
    """Without data and network, `train` and `evaluate` exit 1 with what to do, with no traceback."""
    weights = tmp_path / "alexnet.weights.h5"
    if command == "evaluate":
        weights.touch()
    monkeypatch.delenv("ALEXNET_REPRO_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with socket.socket() as taken:  # bound, so that no other program gets the port, but not listening
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(fashion_mnist, "URL", f"http://127.0.0.1:{taken.getsockname()[1]}/")
        assert command_line.main([command, f"--weights={weights}"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "python -m alexnet_repro: Fashion-MNIST is not here" in err
    assert "export ALEXNET_REPRO_DATA=" in err
    assert "Traceback" not in err


def test_corrupt_data(capsys, tmp_path):
    """Forged data exit 1 with one line that names the file."""
    for file in fashion_mnist.FILES:
        (tmp_path / file.name).write_bytes(b"forged")
    assert command_line.main(["train", f"--data-dir={tmp_path}"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"python -m alexnet_repro: {tmp_path / 'train-images-idx3-ubyte.gz'} is not the published")


def _other_model(path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.save_weights(path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        pytest.param("empty.weights.h5", Path.touch, id="content=none"),
        pytest.param("bytes.weights.h5", lambda path: path.write_bytes(b"\x89HDF" * 99), id="content=bytes"),
        pytest.param("notes.txt", lambda path: path.write_text("to do"), id="content=text"),
        pytest.param("other.weights.h5", _other_model, id="content=other_model"),
    ],
)
@pytest.mark.usefixtures("small")
def test_wrong_weights(capsys, tmp_path, name, write):
    """A file that doesn't hold this model's weights exits 1 with one line that names it."""
    path = tmp_path / name
    write(path)
    assert command_line.main(["evaluate", "--synthetic", f"--weights={path}"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"python -m alexnet_repro: {path} doesn't hold this model's weights: ")


@pytest.mark.usefixtures("small")
def test_diverged(capsys, tmp_path, monkeypatch):
    """A training run whose loss is no number exits 1 with one line that says so."""

    def diverge(*_, **__):
        raise TrainingDivergedError("the loss is nan at update 7")

    monkeypatch.setattr(alexnet_repro, "build_alexnet", lambda **_: None)
    monkeypatch.setattr("alexnet_repro.training.distributed.strategy.best_train_step", lambda *_: None)
    monkeypatch.setattr(alexnet_repro, "train", diverge)
    assert command_line.main(["train", "--synthetic", f"--weights={tmp_path / 'a.weights.h5'}"]) == 1
    assert capsys.readouterr() == ("", "python -m alexnet_repro: the loss is nan at update 7\n")


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_train_then_evaluate(capsys, tmp_path):
    """`train` writes the weights it evaluated, `evaluate` reads them and finds the same; both print "synthetic"."""
    weights = tmp_path / "new" / "alexnet.weights.h5"
    assert command_line.main(["train", "--synthetic", "--epochs=2", f"--weights={weights}"]) == 0
    trained, saved, measured = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"trained on 48 synthetic images in \d+ s \([\d.]+ images/s, float32\): "
        r"loss \d+\.\d{4}, accuracy 0\.\d{4} over the last 6 updates",
        trained,
    )
    assert saved == f"weights: {weights}"
    assert re.fullmatch(r"test accuracy [01]\.\d{4}, softmax loss \d+\.\d{4} on 40 synthetic images", measured)

    assert command_line.main(["evaluate", "--synthetic", f"--weights={weights}"]) == 0
    assert capsys.readouterr().out == f"{measured}\n"
    words = ["evaluate", "--synthetic", "--samples=20", "--loss=normalised_sigmoid"]
    assert command_line.main([*words, f"--weights={weights}"]) == 0
    assert re.fullmatch(
        r"test accuracy [01]\.\d{4}, normalised_sigmoid loss \d+\.\d{4} on 20 synthetic images\n",
        capsys.readouterr().out,
    )
    weights.unlink()  # 187 MB, which pytest would keep


def test_unwritable_weights(capsys, tmp_path):
    """A place where weights can't be saved is an error before training, not after it."""
    (tmp_path / "a.weights.h5").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "a.weights.h5", tmp_path / "file" / "b.weights.h5"):
        assert command_line.main(["train", "--synthetic", f"--weights={path}"]) == 1
        err = capsys.readouterr().err
        assert err.startswith(f"python -m alexnet_repro: {path} ")
        assert err.count("\n") == 1


@pytest.fixture
def reached(monkeypatch):
    """The arguments that the commands pass to the package; nothing is trained."""
    seen = {}

    def train(_model, loader, recipe, *, weights, **options):
        seen.update(recipe=recipe, seed=loader.seed, weights=weights, policy=keras.config.dtype_policy().name)
        seen.update(options)
        seen["dropout"] = float(keras.random.uniform(()))  # of the seed that was set
        weights.touch()
        return alexnet_repro.History(np.ones(1), np.ones(1), images=1, seconds=1.0, first_update_seconds=1.0)

    monkeypatch.setattr(alexnet_repro, "train", train)
    monkeypatch.setattr(alexnet_repro, "synthetic_fashion", lambda **_: synthetic_fashion(1, 1))
    monkeypatch.setattr(alexnet_repro, "build_alexnet", seen.update)
    monkeypatch.setattr("alexnet_repro.training.distributed.strategy.best_train_step", lambda *_: None)
    return seen


def test_train_options(reached, tmp_path, capsys):
    """Recipe, loss, epochs, precision, seed and file reach the training, and --no-evaluate ends it there."""
    weights = tmp_path / "a.weights.h5"
    arguments = "train --synthetic --recipe=documented --loss=softmax --epochs=2 --precision=mixed_bfloat16 --seed=7"
    assert command_line.main([*arguments.split(), f"--weights={weights}", "--no-evaluate"]) == 0
    assert (reached["recipe"].name, reached["recipe"].loss, reached["recipe"].epochs) == ("documented", "softmax", 2)
    assert (reached["seed"], reached["policy"], reached["weights"]) == (7, "mixed_bfloat16", weights)
    assert not reached["validate"]
    assert "saved every 20 iterations as documented: last at iteration 460" in capsys.readouterr().out
    keras.utils.set_random_seed(7)
    assert reached["dropout"] == float(keras.random.uniform(()))
    assert keras.config.dtype_policy().name == "float32"


def test_defaults(reached, tmp_path):
    """Without options it is the quick recipe in float32 with the seed 0, evaluated after each epoch, with checkpoints
    beside the weights.
    """
    assert command_line.main(["train", "--synthetic", f"--weights={tmp_path / 'a.weights.h5'}"]) == 0
    assert (reached["recipe"], reached["seed"], reached["policy"]) == (alexnet_repro.Recipe.quick(), 0, "float32")
    assert (reached["validate"], reached["resume"]) == (True, False)
    assert reached["checkpoints"] == alexnet_repro.Checkpoints(tmp_path / "a.checkpoints", every=500, keep=3)


@pytest.mark.parametrize(("recipe", "initializer"), [("quick", "he_normal"), ("documented", "glorot_uniform")])
def test_initial_weights(reached, tmp_path, recipe, initializer):
    """The model that is trained begins as its recipe says."""
    words = ["train", "--synthetic", f"--recipe={recipe}", f"--weights={tmp_path / 'a.weights.h5'}"]
    assert command_line.main(words) == 0
    assert reached["kernel_initializer"] == initializer


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ("", (None, "normalised_sigmoid", 0, "float32")),
        ("--samples=2000 --loss=softmax --seed=7 --precision=mixed_bfloat16", (2000, "softmax", 7, "mixed_bfloat16")),
    ],
    ids=["options=none", "options=all"],
)
def test_evaluate_options(monkeypatch, tmp_path, capsys, options, given):
    """Samples, loss, seed, precision and file reach the evaluation; its result is printed."""
    (path := tmp_path / "a.weights.h5").touch()
    seen = []

    def evaluate(model, loader, num_samples, *, loss):
        seen.extend((model, num_samples, loss, loader.seed, keras.config.dtype_policy().name))
        return alexnet_repro.Evaluation(0.5, 0.75, 40)

    monkeypatch.setattr(alexnet_repro, "build_alexnet", lambda **_: "the model")
    monkeypatch.setattr(alexnet_repro, "load_weights", lambda *loaded: seen.append(loaded))
    monkeypatch.setattr(alexnet_repro, "synthetic_fashion", lambda: synthetic_fashion(1, 1))
    monkeypatch.setattr(alexnet_repro, "evaluate", evaluate)
    assert command_line.main(["evaluate", "--synthetic", f"--weights={path}", *options.split()]) == 0
    assert seen == [("the model", path), "the model", *given]
    assert capsys.readouterr().out == f"test accuracy 0.7500, {given[1]} loss 0.5000 on 40 synthetic images\n"


@pytest.mark.parametrize(
    ("found", "word"),
    [
        ((2.3026, 0.1094, 10_000), "on 10,000 synthetic images\n"),
        ((2.3026, 0.1, 10_000), "on 10,000 synthetic images; that is chance\n"),
        ((2.3026, 0.1, 10_000, 3), "on 10,000 synthetic images; that is chance: every image gets class 3\n"),
    ],
    ids=["chance=no", "chance=yes", "chance=one_class"],
)
def test_evaluation_in_words(monkeypatch, tmp_path, capsys, found, word):
    """The loss is the one that the weights were trained by, where the file says so; chance is called chance."""
    (path := tmp_path / "a.weights.h5").touch()
    monkeypatch.setattr(alexnet_repro, "build_alexnet", lambda **_: "the model")
    monkeypatch.setattr(alexnet_repro, "load_weights", lambda *_: "softmax")
    monkeypatch.setattr(alexnet_repro, "synthetic_fashion", lambda: synthetic_fashion(1, 1))
    monkeypatch.setattr(alexnet_repro, "evaluate", lambda *_, **__: alexnet_repro.Evaluation(*found))
    assert command_line.main(["evaluate", "--synthetic", f"--weights={path}"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("test accuracy 0.1")
    assert "softmax loss 2.3026 " in out
    assert out.endswith(word)


def test_checkpoint_options(reached, tmp_path):
    """Where checkpoints go, how often, whether to resume, and that there be none, reach the training."""
    weights = f"--weights={tmp_path / 'a.weights.h5'}"
    options = ["--resume", f"--checkpoints={tmp_path / 'c'}", "--checkpoint-every=7"]
    assert command_line.main(["train", "--synthetic", weights, *options]) == 0
    assert (reached["resume"], reached["checkpoints"]) == (True, alexnet_repro.Checkpoints(tmp_path / "c", every=7))
    assert command_line.main(["train", "--synthetic", weights, "--no-checkpoints"]) == 0
    assert reached["checkpoints"] is None


@pytest.mark.usefixtures("small")
def test_log_messages(tmp_path, monkeypatch, capsys):
    """The command line prints the package's log messages on stderr as they are, at each call once."""
    monkeypatch.setattr(alexnet_repro, "build_alexnet", lambda **_: None)
    monkeypatch.setattr("alexnet_repro.training.distributed.strategy.best_train_step", lambda *_: None)

    def train(*_, checkpoints, **__):
        with checkpoints.opened((), {}) as store:
            store.restore()
        return alexnet_repro.History(np.ones(1), np.ones(1), images=1, seconds=1.0, first_update_seconds=1.0)

    monkeypatch.setattr(alexnet_repro, "train", train)
    for _ in range(2):
        assert command_line.main(["train", "--synthetic", f"--weights={tmp_path / 'a.weights.h5'}"]) == 0
        assert capsys.readouterr().err == f"no checkpoint in {tmp_path / 'a.checkpoints'}: starting fresh\n"


@pytest.mark.usefixtures("reached")
@pytest.mark.parametrize(("options", "times"), [([], 1), (["--nondeterministic"], 0)])
def test_determinism(tmp_path, monkeypatch, options, times):
    """GPUs are set to deterministic kernels, unless the option allows others."""
    calls = []
    monkeypatch.setattr("alexnet_repro.backend.determinism.make_gpus_deterministic", lambda: calls.append(True))
    assert command_line.main(["train", "--synthetic", f"--weights={tmp_path / 'a.weights.h5'}", *options]) == 0
    assert len(calls) == times


@pytest.mark.usefixtures("reached")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_stop_a_training(tmp_path, monkeypatch, capsys, number):
    """A signal ends the training after its update, with the conventional status and the command to resume."""

    def train(*_, stopping, **__):
        assert not stopping()
        os.kill(os.getpid(), number)
        assert stopping()
        raise alexnet_repro.TrainingStoppedError("stopped after update 1 of 2")

    monkeypatch.setattr(alexnet_repro, "train", train)
    words = ["train", "--synthetic", "--seed=3", f"--weights={tmp_path / 'a b.weights.h5'}"]
    assert command_line.main(words) == {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGUSR1": 138}[number.name]
    lines = capsys.readouterr().err.strip().splitlines()
    again = "once more" if number in {signal.SIGINT, signal.SIGTERM} else "after SIGTERM twice"
    assert lines == [
        f"{number.name}: stopping after the updates at hand; {again}, and it stops at once",
        "stopped after update 1 of 2; to resume:",
        f"  python -m alexnet_repro train --synthetic --seed=3 '--weights={tmp_path}/a b.weights.h5' --resume",
    ]
    assert signal.getsignal(number) not in {None, signal.SIG_IGN}


@pytest.mark.usefixtures("reached")
def test_signal_during_the_last_evaluation(tmp_path, monkeypatch, capsys):
    """A signal after the last update ends the command before a record is measured."""
    history = alexnet_repro.History(np.ones(1), np.ones(1), images=1, seconds=1.0, first_update_seconds=1.0)

    def train(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        return history

    monkeypatch.setattr(alexnet_repro, "train", train)
    words = ["train", "--synthetic", f"--weights={tmp_path / 'a.weights.h5'}", f"--record={tmp_path / 'record'}"]
    assert command_line.main(words) == 143
    assert "training is done; to resume:\n  python -m alexnet_repro train --synthetic" in capsys.readouterr().err
    assert not list((tmp_path / "record").iterdir())


@pytest.mark.usefixtures("reached")
def test_weights_not_found(tmp_path, monkeypatch, capsys):
    """Weights that aren't found after training are reported."""
    history = alexnet_repro.History(np.ones(1), np.ones(1), images=1, seconds=1.0, first_update_seconds=1.0)
    monkeypatch.setattr(alexnet_repro, "train", lambda *_, **__: history)
    weights = tmp_path / "a.weights.h5"
    assert command_line.main(["train", "--synthetic", "--recipe=documented", f"--weights={weights}"]) == 0
    assert f"weights: {weights} not found\n" in capsys.readouterr().out


def test_no_cluster(tmp_path, monkeypatch, capsys):
    """Without a cluster's addresses, multi-worker training exits 1 before anything is loaded, with what to type."""
    for name in ("TF_CONFIG", "SLURM_STEP_NODELIST", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    assert command_line.main(["train", "--distribute=multiworker", f"--data-dir={tmp_path}"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("python -m alexnet_repro: no workers are given: TF_CONFIG isn't set")
    assert "srun --nodes=2" in err
