"""Options, test ids and header, for tests and benchmarks alike; the benchmarks' plugin, where they are collected."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from alexnet_repro.quiet import kept_output
from alexnet_repro.startup import configured_backend, explained, prepare, reported, unusable_backend

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported
prepare()
with reported("pytest", pytest.ExitCode.USAGE_ERROR):
    from alexnet_repro.cli.flags import unknown_flags
    from alexnet_repro.cli.parser import PRECISION_NAMES
    from alexnet_repro.cli.suite_options import add_suite_options
    from alexnet_repro.packages import package_version
if refusal := unusable_backend():
    print(f"pytest: {refusal}", file=sys.stderr)
    sys.exit(pytest.ExitCode.USAGE_ERROR)

LIBRARY_OUTPUT = 20_000  # characters that a record has of it


def pytest_addoption(parser: pytest.Parser) -> None:
    add = parser.getgroup("alexnet-repro").addoption
    add("--precision", choices=PRECISION_NAMES, default="float32", help="of the slow tests (default: float32)")
    try:
        add_suite_options(add)
    except ValueError as error:
        if "--profile" not in str(error):
            raise
        message = "pytest-profiling has an option --profile, too; leave it out: pytest -p no:profiling"
        raise pytest.UsageError(message) from None


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
