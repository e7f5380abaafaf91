"""`verify`: pytest over the suite's benchmarks, from the wheel or a checkout, in any folder."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pluggy import HookimplMarker

from alexnet_repro.cli.suite_options import add_suite_options
from alexnet_repro.layout import VERIFY, suite_folder

VERIFY_HELP = """\
Verify this machine: what `pytest benchmarks` runs in a checkout, from any folder, with the same exit statuses.

All of pytest's options go with it, such as -k, -v, -x and --collect-only. One test: benchmarks/FILE.py::TEST.
Nothing of the working folder is read, as conftest.py or pytest.ini, nor is PYTEST_ADDOPTS."""

ADDOPTS, NO_AUTOLOAD = "PYTEST_ADDOPTS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD"
hookimpl = HookimplMarker("pytest")  # which is imported only where it runs


class VerifyStart:
    """How a verification was started, as a pytest plugin: the folder, and the command."""

    def __init__(self, folder: Path, options: Sequence[str], suite: Path) -> None:
        """Keep what was typed in which folder, and where the suite is."""
        self.suite, self.folder = suite, folder
        self.command = f"{VERIFY} {shlex.join(options)}".rstrip()

    def pytest_addoption(self, parser: Any) -> None:
        """Let messages about options name this command."""
        parser.prog = VERIFY

    @hookimpl(tryfirst=True)
    def pytest_load_initial_conftests(self, early_config: Any) -> None:
        """Let the suite's conftest.py be found."""
        early_config.known_args_namespace.file_or_dir = [str(self.suite / "benchmarks")]

    @hookimpl(wrapper=True)
    def pytest_cmdline_parse(self) -> Generator[None, Any, Any]:
        """Take paths in `benchmarks` for the suite's, once pytest knows which words are paths; else run all of it."""
        config = yield
        option, benchmarks = config.option, str(self.suite / "benchmarks")
        paths = self.of_suite(getattr(option, "file_or_dir", ()))
        if not any(each.startswith(benchmarks) for each in paths):
            paths.append(benchmarks)
        config.args, config.args_source = paths, config.ArgsSource.ARGS
        for name in ("ignore", "ignore_glob"):
            if given := getattr(option, name, None):
                setattr(option, name, self.of_suite(given))
        return config

    def of_suite(self, paths: Iterable[str]) -> list[str]:
        """Return paths, those in `benchmarks` as the suite's; others are the working folder's."""
        return [f"{self.suite}/{each}" if re.match(r"benchmarks(?![^/:])", each) else each for each in paths]


def run_verify(arguments: argparse.Namespace) -> int:
    """Run pytest in this process, and return its exit status."""
    suite, options = suite_folder(), arguments.words[1:]
    start = VerifyStart(Path.cwd(), options, suite)
    import pytest

    if ignored := os.environ.pop(ADDOPTS, ""):
        print(f"{VERIFY}: {ADDOPTS} is left out; give its options here: {ignored}", file=sys.stderr)
    own = [f"--config-file={suite / 'pyproject.toml'}", f"--rootdir={suite}", "-pno:cacheprovider"]
    if os.environ.get(NO_AUTOLOAD):
        own.append("-ppytest_benchmark.plugin")
    try:
        return int(pytest.main([*own, *pytest_words(options)], plugins=[start]))
    except SystemExit as ended:  # what can't be imported, or used, and was reported
        return ended.code if isinstance(ended.code, int) else 1


def pytest_words(options: Sequence[str]) -> Iterator[str]:
    """Yield the options with values of ours joined: pytest, before it knows these, takes a value for a path."""
    takes: list[str] = []
    add_suite_options(lambda name, action="", **_: None if action == "store_true" else takes.append(name))
    words = iter(options)
    for word in words:
        value = next(words, None) if word in takes else None
        yield word if value is None else f"{word}={value}"
