"""The command line, python -m alexnet_repro: its grammar and exit statuses."""

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from alexnet_repro.cli.commands import run_doctor, run_evaluate, run_report, run_shapes, run_train
from alexnet_repro.cli.options import (
    LOSS_NAMES,
    PRECISION_NAMES,
    RECIPES,
    configured_backend,
    conflict,
    existing_file,
    existing_folder,
    new_weights_file,
    whole_number,
)
from alexnet_repro.training.distributed.cluster import launch_help

DESCRIPTION = """\
The AlexNet of "Dive into Deep Learning" (TensorFlow 2 edition, section 5.6) on Fashion-MNIST."""

EPILOG = """\
a new machine:
  python -m alexnet_repro doctor

what the document did, end to end (hours on a CPU):
  python -m alexnet_repro shapes
  python -m alexnet_repro train --recipe=documented --weights=5.6_alexnet.weights.h5
  python -m alexnet_repro evaluate --samples=2000 --weights=5.6_alexnet.weights.h5

in minutes:
  python -m alexnet_repro train --recipe=quick --precision=mixed_bfloat16

what a run of `pytest benchmarks` found, and whether another was faster:
  python -m alexnet_repro report results.json
  python -m alexnet_repro report before/results.json after/results.json
"""

DISTRIBUTE = f"""\
Each update's batch is split equally among all GPUs; only worker 0 prints and saves. On several machines:
{launch_help()}"""

REPORT = """\
Turn what `pytest benchmarks` found into a page to read.

One results.json: report.html, which opens offline and on a phone, summary.md, for a CI's summary, and its drawings
as SVG files. Two: a table of each case's time in the second over that in the first, with a 95 % interval of the
rounds' spread, printed and written as comparison.md and comparison.json. Two runs show how these runs differ;
whether machines do takes several runs of each. No GPU, TensorFlow or network is needed."""


# What several options have in common.
COUNT: dict[str, Any] = {"type": whole_number(1), "metavar": "N"}
SECONDS: dict[str, Any] = {"type": whole_number(1), "metavar": "SECONDS"}
FOLDER: dict[str, Any] = {"type": Path, "metavar": "DIR"}


class Parser(argparse.ArgumentParser):
    """A parser that ends with one line and exit status 2 on wrong arguments."""

    def error(self, message: str) -> NoReturn:
        """Print the error, and where help is."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    top = Parser(
        prog="python -m alexnet_repro",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=formatter,
        allow_abbrev=False,
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int | None], what: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=what, description=what, allow_abbrev=False)
        sub.set_defaults(run=run)
        return sub

    doctor = command("doctor", run_doctor, "diagnose this machine: what is wrong, and what to type to fix it")
    doctor.add_argument("--json", action="store_true", help="one JSON object per line; the last has the verdict")
    doctor.add_argument("--require-gpu", action="store_true", help="a machine without a GPU fails")
    doctor.add_argument(
        "--deadline",
        **SECONDS,
        default=180,
        help="time limit of a check; raise it where TensorFlow must compile its kernels first (default: %(default)s)",
    )

    report = command("report", run_report, "turn a run's results into a page to read, or compare two runs")
    report.description, report.formatter_class = REPORT, formatter
    report.add_argument("results", type=Path, metavar="A.json", help="results.json of a run of pytest benchmarks")
    report.add_argument("second", type=Path, nargs="?", metavar="B.json", help="of another run, to compare with A's")
    report.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where the files go; made if need be (default: beside the last file named)",
    )

    shapes = command("shapes", run_shapes, "print each layer's output shape, parameters and multiply-accumulates")
    shapes.add_argument("--batch", **COUNT, default=1, help="images in the batch (default: 1)")

    training = command("train", run_train, "train on Fashion-MNIST, save the weights, and evaluate on the test images")
    training.formatter_class = formatter
    training.set_defaults(conflict=conflict, refuse=training.error)
    training.add_argument(
        "--recipe",
        choices=RECIPES,
        default="quick",
        help="quick: the shortest run that reliably passes 0.8 (minutes on a CPU); documented: the document's five "
        "epochs, SGD with batches of 32 (hours on a CPU) (default: quick)",
    )
    training.add_argument("--epochs", **COUNT, help="instead of the recipe's")
    training.add_argument(
        "--batch-size",
        **COUNT,
        help="images per update, instead of the recipe's 32; must divide its draw: 128 with the documented recipe is "
        "one update per draw",
    )
    training.add_argument(
        "--weights",
        type=new_weights_file,
        default=Path("5.6_alexnet.weights.h5"),
        metavar="FILE",
        help="weights file, saved at the end, or every 20 draws with the documented recipe (default: %(default)s)",
    )
    training.add_argument("--no-evaluate", action="store_true", help="don't evaluate after each epoch")
    training.add_argument(
        "--evaluate-every", **COUNT, help="evaluate also after every N draws of an epoch, as 100 of the documented 468"
    )
    training.add_argument(
        "--resume", action="store_true", help="resume from the latest checkpoint (bit-exact), or start fresh"
    )
    training.add_argument(
        "--checkpoints", **FOLDER, help="checkpoint directory (default: NAME.checkpoints beside NAME.weights.h5)"
    )
    training.add_argument(
        "--checkpoint-every",
        **COUNT,
        default=500,
        help="updates between checkpoints, also saved at each epoch's end and at SIGINT and SIGTERM; three are kept, "
        "of 187 MB with SGD and 561 MB with Adam (default: %(default)s)",
    )
    training.add_argument("--no-checkpoints", action="store_true", help="save no checkpoints")
    training.add_argument(
        "--nondeterministic",
        action="store_true",
        help="allow non-deterministic GPU kernels (faster); the same seed then gives other bits each time",
    )
    training.add_argument(
        "--record",
        **FOLDER,
        help="write the result to DIR: record.json and learning_curve.svg, as in benchmarks/records; with --resume, "
        "of a finished training too",
    )
    training.add_argument("--note", default="", metavar="TEXT", help="kept in the record: what else ran meanwhile")

    distribution = training.add_argument_group("more than one device", DISTRIBUTE)
    distribution.add_argument(
        "--distribute",
        choices=("mirrored", "multiworker"),
        help="mirrored: on all GPUs of this machine; multiworker: on several machines, each with all its GPUs",
    )
    distribution.add_argument("--replicas", **COUNT, help=argparse.SUPPRESS)
    distribution.add_argument(
        "--worker-timeout",
        **SECONDS,
        default=60,
        help="time to wait for a worker, at the start and when it falls silent; then all stop and name it "
        "(default: %(default)s)",
    )

    evaluation = command("evaluate", run_evaluate, "evaluate saved weights on the test images")
    evaluation.add_argument(
        "--weights",
        type=existing_file,
        required=True,
        metavar="FILE",
        help="as train saved it, or the document under TensorFlow 2.0.0: HDF5 or .keras, whatever its name",
    )
    evaluation.add_argument(
        "--samples",
        **COUNT,
        help="draw N test images with replacement, as the document draws 2000 (default: all 10000, once each)",
    )

    for sub in (training, evaluation):
        sub.add_argument(
            "--loss",
            choices=LOSS_NAMES,
            help="normalised_sigmoid: the document's under TensorFlow 2.0.0; softmax: what its code means under Keras "
            "3 on TensorFlow (default: the recipe's for train, normalised_sigmoid for evaluate)",
        )
        sub.add_argument("--precision", choices=PRECISION_NAMES, default="float32", help="default: float32")
        sub.add_argument(
            "--seed",
            type=whole_number(0),
            default=0,
            metavar="N",
            help="of initial weights, dropout and every draw (default: 0)",
        )
        source = sub.add_mutually_exclusive_group()
        source.add_argument(
            "--data-dir",
            type=existing_folder,
            metavar="DIR",
            help="first place to look for the data files (then: $ALEXNET_REPRO_DATA, Keras's cache, a download)",
        )
        source.add_argument("--synthetic", action="store_true", help="use generated images: no data, no network")
    return top


class _StderrHandler(logging.Handler):
    """Prints the package's messages on stderr as they are, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        with contextlib.suppress(OSError):  # the reader is gone
            tqdm.write(self.format(record), sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 failed, 2 wrong arguments, 3 doctor inconclusive.

    A signal that ended it gives 128 plus its number.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    arguments = parser().parse_args(words, argparse.Namespace(words=words, conflict=lambda _: None))
    if error := arguments.conflict(arguments):
        arguments.refuse(error)
    logger = logging.getLogger("alexnet_repro")
    logger.handlers = [_StderrHandler()]
    logger.setLevel(logging.INFO)
    # TensorFlow's warnings, but not those of its start; a lost worker is reported by the watchdog, in fewer words.
    multiworker = getattr(arguments, "distribute", None) == "multiworker"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if multiworker else "2")
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # GPUs are numbered as nvidia-smi numbers them
    try:
        return arguments.run(arguments) or 0
    except (OSError, ArithmeticError) as error:  # data, weights and disks; a loss that diverged
        return _failed(str(error))
    except (ImportError, ValueError) as error:
        backend = configured_backend()
        if isinstance(error, ValueError) and not str(error).startswith("Unable to import backend"):
            raise
        # TensorFlow names nothing where its own libraries don't load.
        blamed = isinstance(error, ValueError) or (error.name or backend).partition(".")[0] == backend
        fix = "KERAS_BACKEND may be tensorflow (python -m alexnet_repro doctor), or jax or torch (pip install '.[jax]')"
        return _failed(f"the backend {backend} can't be imported: {error}; {fix}" if blamed else str(error))
    except KeyboardInterrupt:
        return _failed("interrupted", 128 + signal.SIGINT)


def _failed(message: str, status: int = 1) -> int:
    print(f"python -m alexnet_repro: {message}", file=sys.stderr)
    return status
