"""The commands; the grammar of the command line is in `alexnet_repro.cli.parser`."""

import argparse
import dataclasses
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from alexnet_repro.data.loader import DataLoader
    from alexnet_repro.training.distributed.strategy import Distribution
    from alexnet_repro.training.history import Evaluation, History
    from alexnet_repro.training.recipe import Recipe

DEFAULT_WEIGHTS = "5.6_alexnet.weights.h5"


def run_doctor(arguments: argparse.Namespace) -> int:
    """Diagnose this machine, without importing Keras or TensorFlow here; return the exit status."""
    from alexnet_repro.startup import configured_backend
    from alexnet_repro.verify.doctor.doctor import report

    return report(
        sys.stdout,
        as_json=arguments.json,
        deadline=arguments.deadline,
        require_gpu=arguments.require_gpu,
        backend=configured_backend(),
    )


def run_report(arguments: argparse.Namespace) -> None:
    """Report on one run, or compare two; without importing Keras or TensorFlow."""
    from alexnet_repro.verify.report.compare_runs import compare
    from alexnet_repro.verify.report.page import write_comparison, write_report
    from alexnet_repro.verify.report.run_record import RERUN, UnreadableError, read_results
    from alexnet_repro.verify.report.tables import comparison_lines

    first, second = read_results(arguments.results), arguments.second and read_results(arguments.second)
    folder, lines = arguments.out or (arguments.second or arguments.results).parent, []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, of numbers that no run measures
            if second is None:
                written = write_report(first, folder)
            else:
                compared = compare(first, second)
                lines = list(comparison_lines(compared))
                written = write_comparison(first, second, compared, folder)
    except OSError as error:
        raise OSError(f"{error}: --out=DIR") from error
    except (ValueError, ArithmeticError) as error:  # a number that no run measures
        named = " or ".join(map(str, filter(None, (arguments.results, arguments.second))))
        raise UnreadableError(f"{named}: what it holds can't be drawn: {error}; {RERUN}") from error
    print("\n".join([*lines, *map(str, written)]))


def run_shapes(arguments: argparse.Namespace) -> None:
    """Print the layer table."""
    from alexnet_repro.model import build_alexnet, layer_rows
    from alexnet_repro.verify.report.tables import TextTable

    rows = list(layer_rows(build_alexnet(kernel_initializer="zeros")))
    cells = [(row.name, str((arguments.batch, *row.output_shape)), row.parameters, row.macs) for row in rows]
    cells.append(("total", "", sum(row.parameters for row in rows), sum(row.macs for row in rows)))
    texts = [(name, shape, f"{parameters:,}", f"{macs:,}") for name, shape, parameters, macs in cells]
    print(TextTable(("layer", "output shape", "parameters", "MACs per image"), texts))


def run_train(arguments: argparse.Namespace) -> int:
    """Train, save, and evaluate; return the exit status: 128 and the signal's number where one ended it."""
    from alexnet_repro.training.stop_signal import outliving_readers

    with outliving_readers():
        return _Training(arguments).run()


def run_evaluate(arguments: argparse.Namespace) -> None:
    """Evaluate saved weights."""
    from alexnet_repro import build_alexnet, evaluate, load_weights

    loader = _loader(arguments.data_dir, arguments.seed, synthetic=arguments.synthetic)
    with _prepared(arguments.precision, arguments.seed, deterministic=True):
        model = build_alexnet(kernel_initializer="zeros")
        trained_by = load_weights(model, arguments.weights)
        loss = arguments.loss or trained_by or "normalised_sigmoid"
        _print_evaluation(evaluate(model, loader, arguments.samples, loss=loss), loader, loss)


class _Training:
    """One `train` command: its options, and the recipe, images and devices that they name."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Fail now where the training would fail hours later: folders that can't be written, missing images."""
        from alexnet_repro import Checkpoints, Recipe
        from alexnet_repro.training.distributed.cluster import cluster_here
        from alexnet_repro.training.weights import check_weights_path

        self.options = options
        names = ("loss", "epochs", "batch_size")
        changes = {name: value for name in names if (value := getattr(options, name)) is not None}
        self.recipe = dataclasses.replace(getattr(Recipe, options.recipe)(), **changes)
        self.cluster = cluster_here() if options.distribute == "multiworker" else None
        self.weights = None if options.no_weights else options.weights or Path(DEFAULT_WEIGHTS)
        _check_memory(self.recipe, checkpoints=not options.no_checkpoints)
        if self.cluster is None or self.cluster.chief:
            if self.weights:
                check_weights_path(self.weights)
            if options.record is not None:
                _check_record(options.record)
        self.loader = _loader(options.data_dir, options.seed, synthetic=options.synthetic)
        beside = self.weights or Path(DEFAULT_WEIGHTS)
        stem = beside.name.removesuffix(".weights.h5")
        folder = options.checkpoints or beside.with_name(f"{stem}.checkpoints")
        self.checkpoints = None if options.no_checkpoints else Checkpoints(folder, options.checkpoint_every)

    def run(self) -> int:
        """Train, and return the exit status."""
        from alexnet_repro import TrainingStoppedError, build_alexnet, train
        from alexnet_repro.training.stop_signal import deferred_signals

        options, loader, recipe = self.options, self.loader, self.recipe
        prepared = _prepared(options.precision, options.seed, deterministic=not options.nondeterministic)
        with prepared, self._devices() as devices:
            with devices.scope():
                model = build_alexnet(kernel_initializer=recipe.kernel_initializer)
            with deferred_signals() as stop_request:
                try:
                    history = train(
                        model,
                        loader,
                        recipe,
                        step=devices.step(model, loader, recipe),
                        weights=self.weights if devices.chief else None,
                        checkpoints=devices.checkpoints(self.checkpoints),
                        resume=options.resume,
                        stopping=devices.stopping(stop_request),
                        pausing=devices.pausing,
                        validate=not options.no_evaluate,
                        validate_every=options.evaluate_every,
                        progress=devices.chief,
                    )
                except TrainingStoppedError as stopped:
                    print(f"{stopped}; {self._how_to_resume()}" if devices.chief else stopped, file=sys.stderr)
                    return 128 + (stop_request.signal or devices.stopped_by)
                if stop_request.signal is not None:  # during the last evaluation
                    if devices.chief:
                        self._print_result(history)
                    print(f"training is done; {self._how_to_resume()}", file=sys.stderr)
                    return 128 + stop_request.signal
            if devices.chief:
                with devices.pausing():
                    self._print_result(history)
                    self._record(model, history)
        return 0

    @contextmanager
    def _devices(self) -> Iterator["Distribution"]:
        """Prepare the devices to train on, and leave them; before anything else of TensorFlow's."""
        import keras

        from alexnet_repro.training.distributed import strategy

        options = self.options
        if options.distribute is None:
            yield strategy.Distribution()
            return
        if keras.backend.backend() != "tensorflow":
            raise OSError(f"--distribute needs TensorFlow, and KERAS_BACKEND is {keras.backend.backend()}")
        if self.cluster is None:
            yield strategy.Mirrored(self.recipe, options.replicas)
            return
        names = ("resume", "checkpoint_every", "no_checkpoints", "no_evaluate", "evaluate_every", "nondeterministic")
        shared = {name: getattr(options, name) for name in names}
        own = strategy.plan(self.loader, self.recipe, options.precision, shared)
        with strategy.working_together(self.cluster, own, options.worker_timeout, self.recipe) as workers:
            yield workers
        signal.alarm(max(60, options.worker_timeout))  # TensorFlow may wait for lost workers while it shuts down

    def _print_result(self, history: "History") -> None:
        recipe, weights = self.recipe, self.weights
        losses, accuracies = history.losses[-10:], history.accuracies[-10:]
        print(
            f"trained on {history.images:,} {self.loader.source} images in {history.seconds:.0f} s "
            f"({history.images / history.seconds:.1f} images/s, {self.options.precision}): "
            f"loss {losses.mean():.4f}, accuracy {accuracies.mean():.4f} over the last "
            f"{len(losses)} update{'s' * (len(losses) > 1)}"
        )
        when = ""
        if every := recipe.save_every:
            last = (recipe.draws_per_epoch - 1) // every * every
            when = f", saved every {every} iterations as documented: last at iteration {last} of the last epoch"
        print(f"weights: {weights}{when if weights.exists() else ' not found'}" if weights else "weights: not saved")
        for _, evaluation in history.evaluations[-1:]:
            _print_evaluation(evaluation, self.loader, recipe.loss)

    def _record(self, model: "keras.Sequential", history: "History") -> None:
        from alexnet_repro.verify.report.training_record import Trained, record_training

        if (options := self.options).record is not None:
            made = (options.words, options.precision, self.weights or Path(), options.note)
            trained = Trained(model, self.loader, self.recipe, history, *made)
            print(f"record: {record_training(options.record, trained)}")

    def _how_to_resume(self) -> str:
        if self.options.no_checkpoints:
            return "without checkpoints there is nothing to resume from"
        words = [each for each in self.options.words if each != "--resume"]
        return f"to resume:\n  python -m alexnet_repro {shlex.join([*words, '--resume'])}"


def _check_record(folder: Path) -> None:
    from alexnet_repro.files import atomic_path

    with atomic_path(folder / "record.json", advice="name another folder: --record=DIR", trial=True) as tmp_path:
        tmp_path.touch()


def _check_memory(recipe: "Recipe", *, checkpoints: bool) -> None:
    """Raise an OSError where training would be killed for want of memory.

    What it needs is by cgroup limits and `ulimit -v` with which TensorFlow 2.21 was killed on two cores, beyond what
    importing it takes; a checkpoint is copied before it is written. On a GPU, and with JAX and PyTorch, it is less.
    """
    import keras

    from alexnet_repro.backend.memory_limits import memory_limits

    used = addresses = 700_000_000
    if keras.backend.backend() == "tensorflow" and not Path("/dev/nvidiactl").exists():
        adam = recipe.optimizer == "adam"
        used, addresses = (1_300_000_000, 2_300_000_000) if adam else (1_000_000_000, 2_000_000_000)
        used += checkpoints * (400_000_000 if adam else 150_000_000)
    for limit in memory_limits():
        needed = addresses if limit.virtual else used
        if limit.left < needed:
            left = f"{limit.name} leaves {limit.left / 1e9:.1f} GB of {limit.size / 1e9:.1f} GB"
            raise OSError(f"training needs {needed / 1e9:.1f} GB more memory, and {left}: {limit.fix}")


@contextmanager
def _prepared(precision: str, seed: int, *, deterministic: bool) -> Iterator[None]:
    """Set up determinism, GPU memory, precision and seed, in this order and before any model is built."""
    import keras

    from alexnet_repro.backend.determinism import make_gpus_deterministic
    from alexnet_repro.backend.memory import enable_memory_growth
    from alexnet_repro.backend.precision import precision as numerics

    if deterministic:
        make_gpus_deterministic()
    enable_memory_growth()
    with numerics(precision):
        keras.utils.set_random_seed(seed)
        yield


def _loader(data_dir: Path | None, seed: int, *, synthetic: bool) -> "DataLoader":
    from alexnet_repro import DataLoader, synthetic_fashion

    return DataLoader.from_arrays(*synthetic_fashion(), seed=seed) if synthetic else DataLoader(data_dir, seed=seed)


def _print_evaluation(result: "Evaluation", loader: "DataLoader", loss: str) -> None:
    chance = "; that is chance" if result.at_chance() else ""
    every = "" if result.only_class is None else f": every image gets class {result.only_class}"
    print(
        f"test accuracy {result.accuracy:.4f}, {loss} loss {result.loss:.4f} "
        f"on {result.num_samples:,} {loader.source} images{chance}{every}"
    )
