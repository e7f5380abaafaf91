"""python -m alexnet_repro: the document's outputs from the command line."""

import argparse
import dataclasses
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import keras

    from alexnet_repro.data.loader import DataLoader
    from alexnet_repro.recipe import Recipe
    from alexnet_repro.training import Evaluation

# Literal, so that --help and wrong arguments answer without importing Keras;
# tests/test_command_line.py holds them to the package's own.
RECIPES = ("documented", "quick")
LOSS_NAMES = ("normalised_sigmoid", "softmax")
PRECISION_NAMES = ("float32", "tf32", "mixed_bfloat16", "mixed_float16")

DESCRIPTION = """\
The AlexNet of "Dive into Deep Learning" (TensorFlow 2 edition, section 5.6) on Fashion-MNIST."""

EPILOG = """\
what the document did, end to end (hours on a CPU):
  python -m alexnet_repro shapes
  python -m alexnet_repro train --recipe=documented --weights=5.6_alexnet.weights.h5
  python -m alexnet_repro evaluate --samples=2000 --weights=5.6_alexnet.weights.h5

in minutes:
  python -m alexnet_repro train --recipe=quick --precision=mixed_bfloat16
"""


class Parser(argparse.ArgumentParser):
    """Answers wrong arguments with one line and exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where help is."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def whole_number(smallest: int) -> Callable[[str], int]:
    """Return an argument type: an integer from `smallest` to 2**32 - 1."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not smallest <= int(text) < 2**32:
            raise argparse.ArgumentTypeError(f"expected a whole number from {smallest} to {2**32 - 1}, got {text!r}")
        return int(text)

    return parse


def new_weights_file(text: str) -> Path:
    """Argument type: a name Keras saves weights under."""
    if not text.endswith(".weights.h5"):
        raise argparse.ArgumentTypeError(f"the name must end in .weights.h5, got {text!r}")
    return Path(text)


def existing_file(text: str) -> Path:
    """Argument type: a file that is there."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"no such file: {text}")
    return Path(text)


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    formatter = argparse.RawDescriptionHelpFormatter
    top = Parser(
        prog="python -m alexnet_repro",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=formatter,
        allow_abbrev=False,
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], what: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=what, description=what, allow_abbrev=False)
        sub.set_defaults(run=run)
        return sub

    shapes = command("shapes", run_shapes, "print each layer's output shape, parameters and multiply-accumulates")
    shapes.add_argument(
        "--batch", type=whole_number(1), default=1, metavar="N", help="images in the batch (default: 1)"
    )

    training = command("train", run_train, "train on Fashion-MNIST, save the weights, and measure test accuracy")
    training.add_argument(
        "--recipe",
        choices=RECIPES,
        default="quick",
        help="quick: the shortest run that surely passes 0.8 (minutes on a CPU); documented: the document's five "
        "epochs, SGD in updates of 32 (hours on a CPU) (default: quick)",
    )
    training.add_argument("--epochs", type=whole_number(1), metavar="N", help="instead of the recipe's")
    training.add_argument(
        "--weights",
        type=new_weights_file,
        default=Path("5.6_alexnet.weights.h5"),
        metavar="FILE",
        help="where the weights go: at the end, or every 20 draws with the documented recipe (default: %(default)s)",
    )
    training.add_argument("--no-evaluate", action="store_true", help="don't measure test accuracy afterwards")

    evaluation = command("evaluate", run_evaluate, "measure saved weights on the test images")
    evaluation.add_argument(
        "--weights", type=existing_file, required=True, metavar="FILE", help="weights that train saved"
    )
    evaluation.add_argument(
        "--samples",
        type=whole_number(1),
        metavar="N",
        help="draw N test images with replacement, as the document draws 2000 (default: all 10000, once each)",
    )

    for sub in (training, evaluation):
        sub.add_argument(
            "--loss",
            choices=LOSS_NAMES,
            help="normalised_sigmoid: what the document trained under TensorFlow 2.0.0; softmax: what its code means "
            "under Keras 3 on TensorFlow (default: the recipe's for train, normalised_sigmoid for evaluate)",
        )
        sub.add_argument("--precision", choices=PRECISION_NAMES, default="float32", help="default: float32")
        sub.add_argument(
            "--seed",
            type=whole_number(0),
            default=0,
            metavar="N",
            help="decides initial weights, dropout and every draw (default: 0)",
        )
        source = sub.add_mutually_exclusive_group()
        source.add_argument(
            "--data-dir",
            type=Path,
            metavar="DIR",
            help="folder with the four Fashion-MNIST files (default: $ALEXNET_REPRO_DATA, then Keras's cache, then a "
            "download)",
        )
        source.add_argument(
            "--synthetic", action="store_true", help="use generated images instead; needs neither data nor network"
        )
    return top


def run_shapes(arguments: argparse.Namespace) -> None:
    """Print the layer table."""
    from alexnet_repro.model import build_alexnet, layer_rows

    rows = list(layer_rows(build_alexnet(kernel_initializer="zeros")))
    print(f"{'layer':<16}{'output shape':<22}{'parameters':>12}{'MACs an image':>16}")
    for row in rows:
        print(f"{row.name:<16}{(arguments.batch, *row.output_shape)!s:<22}{row.parameters:>12,}{row.macs:>16,}")
    print(f"{'total':<38}{sum(row.parameters for row in rows):>12,}{sum(row.macs for row in rows):>16,}")


def run_train(arguments: argparse.Namespace) -> None:
    """Train, save, and measure."""
    from alexnet_repro import Recipe, build_alexnet, evaluate, train

    recipe = getattr(Recipe, arguments.recipe)()
    changes = {"loss": arguments.loss, "epochs": arguments.epochs}
    recipe = dataclasses.replace(recipe, **{name: value for name, value in changes.items() if value is not None})
    _try_writing_beside(arguments.weights)
    loader = _loader(arguments)
    with _prepared(arguments):
        model = build_alexnet(kernel_initializer=recipe.kernel_initializer)
        history = train(model, loader, recipe, weights=arguments.weights)
        last = min(10, len(history.losses))
        print(
            f"trained on {history.images:,} {loader.source} images in {history.seconds:.0f} s "
            f"({history.images / history.seconds:.1f} images/s, {arguments.precision}): "
            f"loss {history.losses[-last:].mean():.4f}, accuracy {history.accuracies[-last:].mean():.4f} "
            f"over the last {last} updates"
        )
        print(f"weights: {arguments.weights}{_saved_when(recipe)}")
        if not arguments.no_evaluate:
            _print_evaluation(evaluate(model, loader, loss=recipe.loss), loader, recipe.loss)


def run_evaluate(arguments: argparse.Namespace) -> None:
    """Measure saved weights."""
    from alexnet_repro import build_alexnet, evaluate

    loss = arguments.loss or "normalised_sigmoid"
    loader = _loader(arguments)
    with _prepared(arguments):
        model = build_alexnet(kernel_initializer="zeros")
        _load_weights(model, arguments.weights)
        _print_evaluation(evaluate(model, loader, arguments.samples, loss=loss), loader, loss)


def _load_weights(model: "keras.Model", path: Path) -> None:
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:  # what Keras raises for other files, and other models' weights
        reason = str(error).partition("\n")[0]
        raise OSError(f"{path} doesn't hold this model's weights: {reason}") from error


def _saved_when(recipe: "Recipe") -> str:
    if recipe.save_every is None:
        return ""
    last = (recipe.draws_per_epoch - 1) // recipe.save_every * recipe.save_every
    return f", saved every {recipe.save_every} iterations as documented: last at iteration {last} of the last epoch"


def _try_writing_beside(path: Path) -> None:
    """Find out before the training, not after it, whether its weights can be saved."""
    if path.is_dir():
        raise IsADirectoryError(f"--weights={path} is a folder; name a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OSError(f"--weights={path} can't be written: {error.strerror}") from error


@contextmanager
def _prepared(arguments: argparse.Namespace) -> Iterator[None]:
    """Set up GPU memory, precision and seed, in this order and before any model is built."""
    import keras

    from alexnet_repro.hardware.devices import enable_memory_growth
    from alexnet_repro.hardware.precision import precision

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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 failed, 2 wrong arguments."""
    arguments = parser().parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's own chatter, read when it is imported
    try:
        arguments.run(arguments)
    except (OSError, ArithmeticError) as error:  # data, weights and disks; a loss that diverged
        print(f"python -m alexnet_repro: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
