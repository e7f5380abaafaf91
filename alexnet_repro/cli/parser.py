"""The command line, python -m alexnet_repro: its grammar and exit statuses. Nothing here imports Keras."""

import argparse
import contextlib
import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from alexnet_repro import __version__
from alexnet_repro.cli.commands import DEFAULT_WEIGHTS, run_doctor, run_evaluate, run_report, run_shapes, run_train
from alexnet_repro.cli.flags import unknown_flags
from alexnet_repro.cli.fleet import run_fleet
from alexnet_repro.cli.suite_options import add_suite_options, duration
from alexnet_repro.cli.verify import VERIFY_HELP, run_verify
from alexnet_repro.quiet import KeptOutput, kept_output
from alexnet_repro.startup import configured_backend, explained, prepare, unusable_backend
from alexnet_repro.training.distributed.cluster import launch_help

# The package's own, literal so that --help and wrong arguments answer without importing Keras.
RECIPES = {"documented": 128, "quick": 32}  # images per draw
LOSS_NAMES = ("normalised_sigmoid", "softmax")
PRECISION_NAMES = ("float32", "tf32", "mixed_bfloat16", "mixed_float16")

DESCRIPTION = """\
The AlexNet of "Dive into Deep Learning" (TensorFlow 2 edition, section 5.6) on Fashion-MNIST."""

EPILOG = """\
a new machine:
  python -m alexnet_repro doctor
  python -m alexnet_repro verify

what the document did, end to end (hours on a CPU):
  python -m alexnet_repro shapes
  python -m alexnet_repro train --recipe=documented --weights=5.6_alexnet.weights.h5
  python -m alexnet_repro evaluate --samples=2000 --weights=5.6_alexnet.weights.h5

in minutes:
  python -m alexnet_repro train --recipe=quick --precision=mixed_bfloat16

what a verification found, and whether another was faster:
  python -m alexnet_repro report results.json
  python -m alexnet_repro report before/results.json after/results.json

which of many machines isn't like the others:
  python -m alexnet_repro fleet results/ --expect=nodes.txt
"""

DISTRIBUTE = f"""\
Each update's batch is split equally among all GPUs; only worker 0 prints and saves. On several machines:
{launch_help()}"""

REPORT = """\
Turn what a verification found into a page to read.

One results.json: report.html, which opens offline and on a phone, summary.md, for a CI's summary, and its drawings
as SVG files. Two: a table of each case's time in the second over that in the first, with a 95 % interval of the
rounds' spread, printed and written as comparison.md and comparison.json. Two runs show how these runs differ;
whether machines do takes several runs of each. No GPU, TensorFlow or network is needed."""


FLEET_HELP = """\
Compare the results of many machines with each other: which of them isn't like the others?

Folders are searched for results.json at any depth. Nodes of one environment must give the same bits and be equally
fast; who differs from a majority fails by name. Results of earlier days in the same folder give each node its history.
Writes fleet.html, fleet.json, fleet.junit.xml and fleet.prom (for node_exporter). No GPU, TensorFlow or network is
needed. Exit status: 0 PASS, 1 FAIL, 3 INCONCLUSIVE."""


def whole_number(smallest: int, largest: int = 2**32 - 1) -> Callable[[str], int]:
    """Return an argument type: an integer from `smallest` to `largest`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not smallest <= int(text) <= largest:
            raise argparse.ArgumentTypeError(f"expected a whole number from {smallest} to {largest}, got {text!r}")
        return int(text)

    return parse


def percentage(text: str) -> float:
    """Argument type: a percentage over 0 and up to 100; returned as a fraction."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0 < value <= 100:  # noqa: PLR2004 - percent
        raise argparse.ArgumentTypeError(f"expected a percentage over 0 and up to 100, got {text!r}")
    return value / 100


def new_weights_file(text: str) -> Path:
    """Argument type: a file name that Keras saves weights under."""
    if not text.endswith(".weights.h5"):
        raise argparse.ArgumentTypeError(f"the name must end in .weights.h5, got {text!r}")
    return Path(text)


def _existing(what: str, is_one: Callable[[Path], bool]) -> Callable[[str], Path]:
    """Return an argument type: the path of an existing file or folder."""

    def parse(text: str) -> Path:
        path = Path(text)
        try:
            path.stat()
        except FileNotFoundError as error:
            link = f"{text} is a link to {path.readlink()}, which isn't there" if path.is_symlink() else ""
            raise argparse.ArgumentTypeError(link or f"no such {what}: {text}") from error
        except OSError as error:  # a parent folder can't be read, links lead in a circle, or the name is too long
            raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from error
        if not is_one(path):
            raise argparse.ArgumentTypeError(f"{text} isn't a {what}")
        return path

    return parse


existing_folder = _existing("folder", Path.is_dir)


def existing_weights(text: str) -> Path:
    """Argument type: a file, a folder, or what the names of a TensorFlow checkpoint's files begin with."""
    try:
        return _existing("file or folder", lambda path: path.is_file() or path.is_dir())(text)
    except argparse.ArgumentTypeError:
        with contextlib.suppress(OSError):
            if Path(f"{text}.index").is_file():
                return Path(text)
        raise


def conflict(arguments: argparse.Namespace) -> str | None:
    """Return an error of `train`'s arguments that are valid one by one; None if there is none."""
    draw, batch = RECIPES[arguments.recipe], arguments.batch_size
    errors = {
        f"--batch-size: must divide the {draw} images of a draw, got {batch}": batch is not None and draw % batch,
        "--note: goes into a record, so it needs --record=DIR": arguments.note and arguments.record is None,
        "--replicas: is for --distribute=mirrored": arguments.replicas and arguments.distribute != "mirrored",
        "--resume: doesn't go with --no-checkpoints": arguments.resume and arguments.no_checkpoints,
        "--checkpoints: doesn't go with --no-checkpoints": arguments.checkpoints and arguments.no_checkpoints,
        "--weights: doesn't go with --no-weights": arguments.weights and arguments.no_weights,
        "--record: of the documented recipe doesn't go with --no-weights": (
            arguments.record and arguments.no_weights and arguments.recipe == "documented"
        ),
        "--evaluate-every: doesn't go with --no-evaluate": arguments.evaluate_every and arguments.no_evaluate,
    }
    return next((f"argument {error}" for error, present in errors.items() if present), None)


# What several options have in common.
COUNT: dict[str, Any] = {"type": whole_number(1), "metavar": "N"}
SECONDS: dict[str, Any] = {"type": whole_number(1), "metavar": "SECONDS"}
FOLDER: dict[str, Any] = {"type": Path, "metavar": "DIR"}
FLAG: dict[str, Any] = {"action": "store_true"}


class Parser(argparse.ArgumentParser):
    """A parser that ends with one line and exit status 2 on wrong arguments."""

    any_options = False
    """Whether all but the question for help is left to another parser, as pytest's."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse the words, or take any."""
        if self.any_options:
            args = [each for each in args if each in {"-h", "--help"}]
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print the error, and where help is."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    name = "python -m alexnet_repro"
    top = Parser(prog=name, description=DESCRIPTION, epilog=EPILOG, formatter_class=formatter, allow_abbrev=False)
    top.add_argument("--version", action="version", version=f"alexnet-repro {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int | None], what: str) -> Parser:
        sub = commands.add_parser(name, help=what, description=what, allow_abbrev=False)
        sub.set_defaults(run=run)
        return sub

    doctor = command("doctor", run_doctor, "diagnose this machine: what is wrong, and what to type to fix it")
    doctor.add_argument("--json", **FLAG, help="one JSON object per line; the last has the verdict")
    doctor.add_argument("--require-gpu", **FLAG, help="a machine without a GPU fails")
    deadline = "time limit of a check; raise it where TensorFlow must compile its kernels first (default: %(default)s)"
    doctor.add_argument("--deadline", **SECONDS, default=180, help=deadline)

    verify = command("verify", run_verify, "verify this machine: right, deterministic, as fast as it should be")
    verify.description, verify.formatter_class = VERIFY_HELP, formatter
    verify.any_options = True
    add_suite_options(verify.add_argument)

    report = command("report", run_report, "turn a run's results into a page to read, or compare two runs")
    report.description, report.formatter_class = REPORT, formatter
    report.add_argument("results", type=Path, metavar="A.json", help="results.json of a verification")
    report.add_argument("second", type=Path, nargs="?", metavar="B.json", help="of another run, to compare with A's")
    report.add_argument("--out", **FOLDER, help="output folder, made if need be (default: that of the last file)")

    fleet = command("fleet", run_fleet, "compare the results of many machines: which of them isn't like the others?")
    fleet.description, fleet.formatter_class = FLEET_HELP, formatter
    fleet.set_defaults(refuse=fleet.error)
    _add_fleet_options(fleet.add_argument)

    shapes = command("shapes", run_shapes, "print each layer's output shape, parameters and multiply-accumulates")
    shapes.add_argument("--batch", **COUNT, default=1, help="images in the batch (default: 1)")

    training = command("train", run_train, "train on Fashion-MNIST, save the weights, and evaluate on the test images")
    training.formatter_class = formatter
    training.set_defaults(conflict=conflict, refuse=training.error)
    _add_training_options(training.add_argument)
    distribution = training.add_argument_group("more than one device", DISTRIBUTE).add_argument
    how = "mirrored: on all GPUs of this machine; multiworker: on several machines, each with all its GPUs"
    distribution("--distribute", choices=("mirrored", "multiworker"), help=how)
    distribution("--replicas", **COUNT, help=argparse.SUPPRESS)
    timeout = "time limit for a worker to join or answer; then all stop and name it (default: %(default)s)"
    distribution("--worker-timeout", **SECONDS, default=60, help=timeout)

    evaluation = command("evaluate", run_evaluate, "evaluate saved weights on the test images")
    weights = "as train saved it, or the document under TensorFlow 2.0.0: HDF5 or .keras, whatever its name, or a "
    weights += "checkpoint or SavedModel of TensorFlow's"
    evaluation.add_argument("--weights", type=existing_weights, required=True, metavar="FILE", help=weights)
    samples = "draw N test images with replacement, as the document draws 2000 (default: all 10000, once each)"
    evaluation.add_argument("--samples", type=whole_number(1, 10**7), metavar="N", help=samples)

    for sub in (training, evaluation):
        _add_shared_options(sub)
    return top


def _add_training_options(option: Callable[..., object]) -> None:
    recipe = "quick: the shortest run that reliably passes 0.8 (minutes on a CPU); documented: the document's five "
    recipe += "epochs, SGD with batches of 32 (hours on a CPU) (default: quick)"
    option("--recipe", choices=RECIPES, default="quick", help=recipe)
    option("--epochs", **COUNT, help="instead of the recipe's")
    batch = "images per update instead of the recipe's 32; must divide its draw: 128 (documented) or 32 (quick)"
    option("--batch-size", **COUNT, help=batch)
    weights = "weights file, saved at the end, or every 20 draws with the documented recipe "
    weights += f"(default: {DEFAULT_WEIGHTS})"
    option("--weights", type=new_weights_file, metavar="FILE", help=weights)
    option("--no-weights", **FLAG, help="save no weights")
    option("--no-evaluate", **FLAG, help="don't evaluate after each epoch")
    every = "evaluate also after every N draws of an epoch, as 100 of the documented 468"
    option("--evaluate-every", **COUNT, help=every)
    option("--resume", **FLAG, help="resume from the latest checkpoint (bit-exact), or start fresh")
    option("--checkpoints", **FOLDER, help="checkpoint folder (default: NAME.checkpoints beside NAME.weights.h5)")
    updates = "updates between checkpoints, also saved at each epoch's end, and at SIGINT, SIGTERM, SIGHUP, SIGUSR1, "
    updates += "SIGUSR2 and SIGXCPU; three are kept, "
    updates += "of 187 MB with SGD and 561 MB with Adam (default: %(default)s)"
    option("--checkpoint-every", **COUNT, default=500, help=updates)
    option("--no-checkpoints", **FLAG, help="save no checkpoints")
    nondeterministic = "allow non-deterministic GPU kernels (faster); the same seed then gives other bits each time"
    option("--nondeterministic", **FLAG, help=nondeterministic)
    record = "write record.json and learning_curve.svg to DIR; with --resume, of a finished training too"
    option("--record", **FOLDER, help=record)
    option("--note", default="", metavar="TEXT", help="kept in the record: what else ran meanwhile")


def _add_fleet_options(option: Callable[..., object]) -> None:
    what = "folder with results.json files at any depth, or a results file"
    option("results", type=Path, nargs="+", metavar="DIR|FILE", help=what)
    option("--out", **FOLDER, help="output folder (default: the first folder given, or else this one)")
    expect = "the nodes that should be there, one a line, or CSV whose first column is the node, as node,rack,switch"
    option("--expect", type=Path, metavar="FILE", help=expect)
    by = "a column of that file or of the results (driver, kernel, packages.tensorflow, …) by whose values a group of "
    by += "nodes may be slow; may be repeated"
    option("--by", action="append", default=[], metavar="COLUMN", help=by)
    age = (
        "a node whose newest run is older than the newest of others by more is INCONCLUSIVE, as 36h or 7d (default: 1d)"
    )
    option("--max-age", type=duration, metavar="TIME", help=age)
    tolerance = "a smaller slowdown is none (default: 3)"
    option("--tolerance", type=percentage, metavar="PERCENT", help=tolerance)


def _add_shared_options(sub: argparse.ArgumentParser) -> None:
    """Add what `train` and `evaluate` have in common."""
    loss = "normalised_sigmoid: the document's under TensorFlow 2.0.0; softmax: what its code means under Keras 3 on "
    loss += "TensorFlow (default: the recipe's for train; for evaluate the one that the weights were trained by where "
    loss += "their file has it, or else normalised_sigmoid)"
    sub.add_argument("--loss", choices=LOSS_NAMES, help=loss)
    sub.add_argument("--precision", choices=PRECISION_NAMES, default="float32", help="default: float32")
    seed = "of initial weights, dropout and every draw (default: 0)"
    sub.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help=seed)
    source = sub.add_mutually_exclusive_group().add_argument
    data = "first place to look for the data files (then: $ALEXNET_REPRO_DATA, Keras's cache, a download)"
    source("--data-dir", type=existing_folder, metavar="DIR", help=data)
    source("--synthetic", **FLAG, help="use generated images: no data, no network")


class _StderrHandler(logging.Handler):
    """Prints the package's messages on stderr as they are, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        with contextlib.suppress(OSError):  # the reader is gone
            tqdm.write(self.format(record), sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 failed, 2 wrong arguments, 3 doctor inconclusive.

    A signal that ended it gives 128 plus its number; so does a reader of its output that is gone.
    """
    prepare()
    words = sys.argv[1:] if argv is None else list(argv)
    own = contextlib.nullcontext(KeptOutput()) if words[:1] == ["verify"] else kept_output()  # pytest's has its own
    with own as kept:
        return _main(words, kept)


def _main(words: list[str], kept: KeptOutput) -> int:
    """Run the command line; where it ends in an error, show what libraries wrote of it."""
    try:
        try:
            return _run(words)
        finally:
            sys.stdout.flush()  # now: what can't be written would be a wall of text when Python ends
    except BrokenPipeError:
        _drop_output()
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        kept.explains_an_error = True  # perhaps why it hung
        return _failed("interrupted", 128 + signal.SIGINT)
    except MemoryError as error:
        kept.explains_an_error = True
        return _failed(f"not enough memory{f': {error}' * bool(str(error))}")
    except BaseException as error:
        kept.explains_an_error = not isinstance(error, OSError | ArithmeticError)  # which say enough themselves
        if found := explained(error):
            return _failed("; ".join(found))
        if isinstance(error, OSError | ArithmeticError | ImportError):  # data, weights and disks; a loss that diverged
            _drop_output()
            gone = isinstance(error, FileNotFoundError) and error.errno and not error.filename  # as os.getcwd says
            return _failed("the working folder is gone; start in another" if gone else str(error))
        raise


def _run(words: list[str]) -> int:
    """Parse the words, and run their command; return its exit status."""
    arguments = parser().parse_args(words, argparse.Namespace(words=words, conflict=lambda _: None))
    if error := arguments.conflict(arguments):
        arguments.refuse(error)
    if arguments.run == run_verify:
        return run_verify(arguments)
    logger = logging.getLogger("alexnet_repro")
    logger.handlers = [_StderrHandler()]
    logger.setLevel(logging.INFO)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # not where its cache goes
    # TensorFlow's warnings, but not those of its start; a lost worker is reported by the watchdog, in fewer words.
    multiworker = getattr(arguments, "distribute", None) == "multiworker"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if multiworker else "2")
    if arguments.run not in (run_fleet, run_report) and (why := unusable_backend()):
        return _failed(why)
    if arguments.run not in (run_doctor, run_fleet, run_report) and (why := unknown_flags(configured_backend())):
        return _failed(why)
    return arguments.run(arguments) or 0


def _drop_output() -> None:
    """Let what is left of stdout go nowhere, if it can't be written: Python would try it once more when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as null:  # noqa: PTH123 - no path of ours
            os.dup2(null.fileno(), sys.stdout.fileno())


def _failed(message: str, status: int = 1) -> int:
    with contextlib.suppress(OSError):  # the reader is gone
        print(f"python -m alexnet_repro: {message}", file=sys.stderr)
    return status
