"""What each command does; the grammar of the command line is in `alexnet_repro.cli.parser`."""

import argparse
import dataclasses
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from alexnet_repro.data.loader import DataLoader
    from alexnet_repro.training.distributed.cluster import Cluster
    from alexnet_repro.training.distributed.one_device import OneDevice
    from alexnet_repro.training.evaluate import Evaluation
    from alexnet_repro.training.loop import History
    from alexnet_repro.training.recipe import Recipe


def run_doctor(arguments: argparse.Namespace) -> int:
    """Diagnose this machine, without importing Keras or TensorFlow here; return the exit status."""
    from alexnet_repro.verify.doctor.doctor import report

    return report(sys.stdout, as_json=arguments.json, deadline=arguments.deadline, require_gpu=arguments.require_gpu)


def run_report(arguments: argparse.Namespace) -> None:
    """Report on one run, or compare two; without importing Keras or TensorFlow."""
    from alexnet_repro.verify.report.compare_runs import compare
    from alexnet_repro.verify.report.page import write_comparison, write_report
    from alexnet_repro.verify.report.run_record import RERUN, UnreadableError, read_results
    from alexnet_repro.verify.report.tables import comparison_lines

    first, second = read_results(arguments.results), arguments.second and read_results(arguments.second)
    folder = arguments.out or (arguments.second or arguments.results).parent
    try:
        if second is None:
            written = write_report(first, folder)
        else:
            compared = compare(first, second)
            written = write_comparison(first, second, compared, folder)
            print("\n".join(comparison_lines(compared)))
    except OSError as error:
        raise OSError(f"{error}: --out=DIR") from error
    except (ValueError, OverflowError) as error:  # a number that no run measures
        raise UnreadableError(f"{folder}: what the results hold can't be drawn: {error}; {RERUN}") from error
    print("\n".join(map(str, written)))


def run_shapes(arguments: argparse.Namespace) -> None:
    """Print the layer table."""
    from alexnet_repro.model import build_alexnet, layer_rows
    from alexnet_repro.verify.report.tables import TextTable

    rows = list(layer_rows(build_alexnet(kernel_initializer="zeros")))
    cells = [
        (row.name, str((arguments.batch, *row.output_shape)), f"{row.parameters:,}", f"{row.macs:,}") for row in rows
    ]
    totals = (f"{sum(row.parameters for row in rows):,}", f"{sum(row.macs for row in rows):,}")
    headings = ("layer", "output shape", "parameters", "MACs per image")
    print(TextTable(headings, [*cells, ("total", "", *totals)]))


def run_train(arguments: argparse.Namespace) -> int:
    """Train, save, and measure; return the exit status: 128 and the signal's number where one ended it."""
    from alexnet_repro.training.stop_signal import outliving_readers

    with outliving_readers():
        return _train(arguments)


def _train(arguments: argparse.Namespace) -> int:
    from alexnet_repro import Checkpoints, Recipe, TrainingStoppedError, build_alexnet, train
    from alexnet_repro.training.stop_signal import deferred_signals
    from alexnet_repro.training.weights import check_weights_path

    recipe = getattr(Recipe, arguments.recipe)()
    changes = {"loss": arguments.loss, "epochs": arguments.epochs, "batch_size": arguments.batch_size}
    recipe = dataclasses.replace(recipe, **{name: value for name, value in changes.items() if value is not None})
    cluster = _cluster(arguments)
    if cluster is None or cluster.chief:
        check_weights_path(arguments.weights)
        if arguments.record is not None:
            arguments.record.mkdir(parents=True, exist_ok=True)  # if it can't be, that is found out before hours pass
    loader = _loader(arguments)
    stem = arguments.weights.name.removesuffix(".weights.h5")
    folder = arguments.checkpoints or arguments.weights.with_name(f"{stem}.checkpoints")
    checkpoints = None if arguments.no_checkpoints else Checkpoints(folder, arguments.checkpoint_every)
    with _prepared(arguments), _devices(arguments, cluster, loader, recipe) as devices:
        with devices.scope():
            model = build_alexnet(kernel_initializer=recipe.kernel_initializer)
        with deferred_signals() as stop_request:
            try:
                history = train(
                    model,
                    loader,
                    recipe,
                    step=devices.step(model, loader, recipe),
                    weights=arguments.weights if devices.chief else None,
                    checkpoints=devices.checkpoints(checkpoints),
                    resume=arguments.resume,
                    stopping=devices.stopping(stop_request),
                    pausing=devices.pausing,
                    validate=not arguments.no_evaluate,
                    validate_every=arguments.evaluate_every,
                    progress=devices.chief,
                )
            except TrainingStoppedError as stopped:
                print(f"{stopped}; {_how_to_resume(arguments)}" if devices.chief else stopped, file=sys.stderr)
                return 128 + (stop_request.by or devices.stopped_by)
            if stop_request.by is not None:  # while the last weights were measured
                if devices.chief:
                    _print_training(history, loader, recipe, arguments)
                print(f"training is done; {_how_to_resume(arguments)}", file=sys.stderr)
                return 128 + stop_request.by
        if devices.chief:
            with devices.pausing():
                _print_training(history, loader, recipe, arguments)
                if arguments.record is not None:
                    _record(model, loader, recipe, history, arguments)
    return 0


def _cluster(arguments: argparse.Namespace) -> "Cluster | None":
    from alexnet_repro.training.distributed.cluster import cluster_here

    return cluster_here() if arguments.distribute == "multiworker" else None


@contextmanager
def _devices(
    arguments: argparse.Namespace, cluster: "Cluster | None", loader: "DataLoader", recipe: "Recipe"
) -> Iterator["OneDevice"]:
    """Prepare the devices to train on, and leave them; before anything else of TensorFlow's."""
    import keras

    from alexnet_repro.training.distributed.one_device import OneDevice

    if arguments.distribute is None:
        yield OneDevice()
        return
    if keras.backend.backend() != "tensorflow":
        raise OSError(f"--distribute needs TensorFlow, and KERAS_BACKEND is {keras.backend.backend()}")
    from alexnet_repro.training.distributed import strategy as strategies

    if cluster is None:
        yield strategies.Mirrored(recipe, arguments.replicas)
        return
    names = ("resume", "checkpoint_every", "no_checkpoints", "no_evaluate", "evaluate_every", "nondeterministic")
    options = {name: getattr(arguments, name) for name in names}
    own = strategies.plan(loader, recipe, arguments.precision, options)
    with strategies.working_together(cluster, own, arguments.worker_timeout, recipe) as workers:
        yield workers
    signal.alarm(arguments.worker_timeout)  # should TensorFlow wait in vain for others while it shuts down


def _print_training(history: "History", loader: "DataLoader", recipe: "Recipe", arguments: argparse.Namespace) -> None:
    last = min(10, len(history.losses))
    print(
        f"trained on {history.images:,} {loader.source} images in {history.seconds:.0f} s "
        f"({history.images / history.seconds:.1f} images/s, {arguments.precision}): "
        f"loss {history.losses[-last:].mean():.4f}, accuracy {history.accuracies[-last:].mean():.4f} "
        f"over the last {last} updates"
    )
    here = arguments.weights.exists()
    print(f"weights: {arguments.weights}{_saved_when(recipe) if here else ' is gone, or was saved under another name'}")
    for _, evaluation in history.evaluations[-1:]:
        _print_evaluation(evaluation, loader, recipe.loss)


def _record(
    model: "keras.Sequential",
    loader: "DataLoader",
    recipe: "Recipe",
    history: "History",
    arguments: argparse.Namespace,
) -> None:
    from alexnet_repro.verify.report.training_record import Trained, record_training

    words, precision, weights = arguments.words, arguments.precision, arguments.weights
    trained = Trained(model, loader, recipe, history, words, precision, weights, arguments.note)
    print(f"record: {record_training(arguments.record, trained)}")


def _how_to_resume(arguments: argparse.Namespace) -> str:
    if arguments.no_checkpoints:
        return "without checkpoints there is nothing to go on from"
    words = [each for each in arguments.words if each != "--resume"]
    return f"to go on:\n  python -m alexnet_repro {shlex.join([*words, '--resume'])}"


def run_evaluate(arguments: argparse.Namespace) -> None:
    """Measure saved weights."""
    from alexnet_repro import build_alexnet, evaluate, load_weights

    loss = arguments.loss or "normalised_sigmoid"
    loader = _loader(arguments)
    with _prepared(arguments):
        model = build_alexnet(kernel_initializer="zeros")
        load_weights(model, arguments.weights)
        _print_evaluation(evaluate(model, loader, arguments.samples, loss=loss), loader, loss)


def _saved_when(recipe: "Recipe") -> str:
    if recipe.save_every is None:
        return ""
    last = (recipe.draws_per_epoch - 1) // recipe.save_every * recipe.save_every
    return f", saved every {recipe.save_every} iterations as documented: last at iteration {last} of the last epoch"


@contextmanager
def _prepared(arguments: argparse.Namespace) -> Iterator[None]:
    """Set up determinism, GPU memory, precision and seed, in this order and before any model is built."""
    import keras

    from alexnet_repro.backend.determinism import make_gpus_deterministic
    from alexnet_repro.backend.memory import enable_memory_growth
    from alexnet_repro.backend.precision import precision

    if not getattr(arguments, "nondeterministic", False):
        make_gpus_deterministic()
    enable_memory_growth()
    with precision(arguments.precision):
        keras.utils.set_random_seed(arguments.seed)
        yield


def _loader(arguments: argparse.Namespace) -> "DataLoader":
    from alexnet_repro import DataLoader, synthetic_fashion

    if arguments.synthetic:
        return DataLoader.from_arrays(*synthetic_fashion(), seed=arguments.seed)
    return DataLoader(arguments.data_dir, seed=arguments.seed)


def _print_evaluation(result: "Evaluation", loader: "DataLoader", loss: str) -> None:
    print(
        f"test accuracy {result.accuracy:.4f}, {loss} loss {result.loss:.4f} "
        f"on {result.num_samples:,} {loader.source} images"
    )
