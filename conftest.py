"""Options, test ids and header, for tests and benchmarks alike; the benchmarks' plugin, where they are collected."""

import argparse
import contextlib
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alexnet_repro.quiet import kept_output
from alexnet_repro.startup import configured_backend, explained, prepare, reported, unusable_backend

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported
prepare()
with reported("pytest", pytest.ExitCode.USAGE_ERROR):
    from alexnet_repro.cli.flags import unknown_flags
    from alexnet_repro.cli.parser import PRECISION_NAMES
    from alexnet_repro.packages import package_version
    from alexnet_repro.verify.finding import LEVELS
if refusal := unusable_backend():
    print(f"pytest: {refusal}", file=sys.stderr)
    sys.exit(pytest.ExitCode.USAGE_ERROR)

SECONDS = {"s": 1, "m": 60, "h": 3600}
LIBRARY_OUTPUT = 20_000  # characters that a record has of it
LONGEST = 366 * 24 * 3600  # seconds


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected {least} or more, got {text!r}")
        return int(text)

    return number


def _duration(text: str) -> float:
    """Return the seconds of `90s`, `10m` or `2h`."""
    number, unit = text[:-1], text[-1:]
    if unit not in SECONDS or not number.isdecimal() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number and s, m or h, as 10m; got {text!r}")
    if (seconds := int(number) * SECONDS[unit]) > LONGEST:
        raise argparse.ArgumentTypeError(f"expected a year at most, got {text!r}")
    return float(seconds)


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")


def _device(text: str) -> str:
    if re.fullmatch(r"cpu:0|gpu:[0-9]+", text):
        return text
    meant = re.fullmatch(r"/?(?:device:)?(cpu|gpu|cuda)?[:=]?([0-9]*)", text.lower())
    kind = "gpu" if meant and meant[1] != "cpu" else "cpu"
    number = meant[2] if meant and meant[2] and kind == "gpu" else "0"
    hint = f"; did you mean {kind}:{number}?" if meant and text else ""
    raise argparse.ArgumentTypeError(f"expected one device, cpu:0 or gpu: and its number, got {text!r}{hint}")


def pytest_addoption(parser: pytest.Parser) -> None:
    add = parser.getgroup("alexnet-repro").addoption
    add("--precision", choices=PRECISION_NAMES, default="float32", help="of the slow tests (default: float32)")
    device = "verify this device only, such as cpu:0 or gpu:1; may be repeated (default: every device)"
    add("--device", action="append", type=_device, metavar="NAME", help=device)
    level = (
        "how much to verify: quick (a minute: layers, an update, a replay, two timings of each device), standard "
        "(every check, a few batch sizes), or long (all batch sizes, XLA on and off, and a burn-in of ten minutes)"
    )
    add("--level", choices=LEVELS, default="standard", help=f"{level} (default: standard)")
    replays = "runs of the same steps that are compared (default: 3; at the quick level 2)"
    add("--replays", type=_at_least(2), metavar="N", help=replays)
    burn_in = "stress every device for this long (90s, 10m, 2h): memory patterns, copies, replays; a line per minute"
    add("--burn-in", type=_duration, default=0.0, metavar="TIME", help=f"{burn_in} (default: at the long level 10m)")
    profile = "time each layer alone, forward and backward, beside its roofline; at most a minute"
    try:
        add("--profile", action="store_true", help=profile)
    except ValueError:
        message = "pytest-profiling has an option --profile, too; leave it out: pytest -p no:profiling"
        raise pytest.UsageError(message) from None
    deadline = "time limit of a check, after which it fails (default: 10m)"
    add("--deadline", type=_duration, default=600.0, metavar="TIME", help=deadline)
    add("--cpu-replicas", type=_at_least(2), default=0, metavar="N", help=argparse.SUPPRESS)
    distribute = "verify the machines of a cluster together; start it on each, with TF_CONFIG set or under Slurm"
    add("--distribute", choices=("multiworker",), help=distribute)
    timeout = "time limit for the other workers to start (default: 60s)"
    add("--worker-timeout", type=_duration, default=60.0, metavar="TIME", help=timeout)
    link = "speed of the network between two machines in Gb/s, as iperf3 measures it: with --distribute, the all-reduce"
    add("--link-gbps", type=_positive, metavar="N", help=f"{link} is compared with it (default: no bound)")
    add("--fail-inconclusive", action="store_true", help="let inconclusive checks fail, too")
    update = "write this machine's digests and timings, of several processes, to benchmarks/references"
    add("--update-reference", action="store_true", help=update)
    processes = "processes that --update-reference times in, from 5 on (default: 8, the fewest that others can fail by)"
    add("--reference-processes", type=_at_least(5), default=8, metavar="N", help=processes)
    add("--report", metavar="DIR", help="folder of results.json and junit.xml (default: reports/TIME)")
    hashed = "write no serial, UUID or machine id, but a hash by the key in ALEXNET_REPRO_HASH_KEY"
    add("--hash-serials", action="store_true", help=f"{hashed}: with one key, a fleet still tells them apart")
    ignore = "go on although the doctor failed, with the devices that work; the verdict is inconclusive at best"
    add("--ignore-doctor", action="store_true", help=ignore)
    add("--require-gpu", action="store_true", help="fail on a machine without a usable GPU")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Return an id of `argument=value` pairs, by which results are compared."""
    values = val if isinstance(val, tuple | list) else (val,)
    if all(isinstance(each, str | int | float | None) for each in values):
        return f"{argname}={' '.join(map(str, values))}"
    return None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let `-k` select by the pairs of an id."""
    if ":" in item.config.option.keyword:
        item.extra_keyword_matches.update(map(_word, _pairs(item.name)))


def in_words_of_pytest(keyword: str) -> str:
    """Return the expression of `-k` with each `name=value` as a word: pytest takes no `=` there.

    The word is of the whole pair, so that `batch=1` isn't part of `batch=16`; `device=gpu` is that of every GPU. An id,
    or a part of one, is its pairs.
    """
    return re.sub(r"[^\s()]*=[^\s()]*", lambda found: f"({' and '.join(map(_word, _pairs(found[0])))})", keyword)


def _pairs(test_id: str) -> list[str]:
    """Return the pairs of a test's name or of a part of it, and what is before them."""
    name, bracket, pairs = test_id.partition("[") if "[" in test_id.partition("=")[0] else ("", "", test_id)
    named = [name.rpartition("::")[2]] if name else []
    return [*named, *re.split(r"-(?=\w+=)", pairs.removesuffix("]") if bracket else pairs)]


def _word(pair: str) -> str:
    """Return a pair in characters that `-k` takes, between colons; a word without `=` as it is."""
    name, equals, value = pair.partition("=")
    known = re.sub(r"[^\w:+.-]", "_", value)
    return f":{name}:{known}:" if equals else pair


def pytest_report_header(config: pytest.Config) -> list[str]:
    backend = configured_backend()
    names = ("alexnet-repro", "keras", backend, "numpy")
    versions = " · ".join(f"{name} {package_version(name) or 'not installed'}" for name in names)
    return [versions, f"data: {os.environ.get('ALEXNET_REPRO_DATA', 'Keras cache or download')}"]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the verification if `benchmarks` is to be collected, wherever it is among the arguments."""
    config.option.keyword = in_words_of_pytest(config.option.keyword)
    prepare()  # the streams, which were pytest's while it imported this file
    folder = Path(__file__).resolve().parent / "benchmarks"

    def file(name: str) -> str:  # of `--pyargs benchmarks.test_forward`
        return name.replace(".", "/") if config.getoption("pyargs") and "/" not in name else name

    paths, ignored = (
        [Path(config.invocation_params.dir, file(each.partition("::")[0])).resolve() for each in arguments]
        for arguments in (config.args, config.getoption("ignore") or ())
    )
    if folder not in ignored and any(folder in (path, *path.parents) or path in folder.parents for path in paths):
        with kept_output(pythons_too=True) as kept:
            try:
                from benchmarks.session import NAME, VerificationSession

                session = VerificationSession(config)
            except BaseException as error:
                kept.explains_an_error = True
                if found := explained(error):
                    raise pytest.UsageError("; ".join(filter(None, found))) from None
                raise
            session.record.run["library_output"] = kept.text()[-LIBRARY_OUTPUT:]
        config.pluginmanager.register(session, NAME)
        config.pluginmanager.register(session.keeper, f"{NAME}'s plan")
        config.pluginmanager.register(session.terminal, f"{NAME}'s terminal")
        session.terminal.quieten_benchmark()
    elif why := unknown_flags(configured_backend()):  # of a verification, the doctor says so
        raise pytest.UsageError(why)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[pytest.CollectReport]:
    """Say in one line what a file can't import, where it isn't our own."""
    report = yield
    if report.failed and (found := explained(report.call.excinfo.value)):
        report.longrepr = "; ".join(found)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Iterator[int | None]:
    """Tell the verification of an error that comes after its end: the exit status is then one's."""
    try:
        return (yield)
    except BaseException as error:
        if session := config.pluginmanager.get_plugin("verification"):
            session.broke(error)
        raise
