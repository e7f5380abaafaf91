"""`verify`: pytest over the suite's benchmarks, from the wheel or a checkout, in any folder."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alexnet_repro.cli.suite_options import add_suite_options
from alexnet_repro.layout import VERIFY, suite_folder

VERIFY_HELP = """\
Verify this machine: what `pytest benchmarks` runs in a checkout, from any folder, with the same exit statuses.

All of pytest's options go with it, such as -k, -v, -x and --collect-only. One test: benchmarks/FILE.py::TEST.
Nothing of the working folder is read, as conftest.py or pytest.ini, nor is PYTEST_ADDOPTS."""

ADDOPTS, NO_AUTOLOAD = "PYTEST_ADDOPTS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD"
EXPRESSIONS = ("-k", "-m")  # whose value may look like a path of ours


class VerifyStart:
    """How a verification was started, as a pytest plugin: the folder, and the command."""

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        """Keep what was typed in which folder."""
        self.folder, self.command = folder, f"{VERIFY} {shlex.join(options)}".rstrip()

    def pytest_addoption(self, parser: Any) -> None:
        """Let messages about options name this command."""
        parser.prog = VERIFY


def run_verify(arguments: argparse.Namespace) -> int:
    """Run pytest in this process, and return its exit status."""
    suite, options = suite_folder(), arguments.words[1:]
    start = VerifyStart(Path.cwd(), options)
    import pytest

    if ignored := os.environ.pop(ADDOPTS, ""):
        print(f"{VERIFY}: {ADDOPTS} is left out; give its options here: {ignored}", file=sys.stderr)
    own = [f"--config-file={suite / 'pyproject.toml'}", f"--rootdir={suite}", "-pno:cacheprovider"]
    if os.environ.get(NO_AUTOLOAD):
        own.append("-ppytest_benchmark.plugin")
    words = list(pytest_words(options, suite))
    if not any(word.startswith(f"{suite / 'benchmarks'}") for word in words):
        words.append(str(suite / "benchmarks"))
    try:
        return int(pytest.main([*own, *words], plugins=[start]))
    except SystemExit as ended:  # what can't be imported, or used, and was reported
        return ended.code if isinstance(ended.code, int) else 1


def pytest_words(options: Sequence[str], suite: Path) -> Iterator[str]:
    """Yield the options as pytest is to have them: paths in `benchmarks` are the suite's, and values of ours joined.

    For pytest looks for `conftest.py` in what an option takes that it doesn't know yet.
    """
    takes: list[str] = [*EXPRESSIONS]
    add_suite_options(lambda name, action="", **_: None if action == "store_true" else takes.append(name))
    words = iter(options)
    for word in words:
        if word in takes and (value := next(words, None)) is not None:
            yield from (word, value) if word in EXPRESSIONS else (f"{word}={value}",)
        else:
            yield re.sub(r"^(--ignore=)?(benchmarks(?![^/:]).*)", rf"\1{suite}/\2", word)
