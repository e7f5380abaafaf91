"""Pytest within a test's own process, where everything is imported, for runs that compute nothing; or in another."""

import contextlib
import io
import os
import subprocess
import sys
from unittest import mock

import pytest

from tests.helpers.paths import ROOT


def pytest_here(*arguments, plugins=()):
    """Run pytest with these arguments, and return its exit status and all that it printed."""
    off = [f"-pno:{name}" for name in ("cacheprovider", "faulthandler", "unraisableexception")]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), mock.patch.dict(os.environ):
        try:
            status = int(pytest.main([*off, *arguments], plugins=plugins))
        except OSError:
            status = 1  # Python's, of an error
    return status, out.getvalue()


def benchmarks_here(*options):
    """Run `pytest benchmarks` with these options, as far as it computes nothing."""
    return pytest_here(str(ROOT / "benchmarks"), *options)


def collected(*options):
    """Return the benchmarks that pytest collects with these options, on the CPU."""
    status, printed = benchmarks_here("--collect-only", "--quiet", "--device=cpu:0", *options)
    assert status == 0, printed
    return [line.removeprefix("benchmarks/") for line in printed.splitlines() if "::" in line]


def benchmarks_apart(*arguments, paths=("benchmarks",), environ=()):
    """Run the benchmarks, with these environment variables changed, and return what became of them: on the CPU."""
    device = () if any(each.startswith("--device") for each in arguments) else ("--device=cpu:0",)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *paths, *device, *arguments]
    # One thread, as of the slow tests, is a setting that the doctor finds.
    environ = {name: value for name, value in os.environ.items() if name != "TF_NUM_INTRAOP_THREADS"} | dict(environ)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environ)
