"""Pytest within a test's own process, where everything is imported: for runs that compute nothing."""

import contextlib
import io
import os
from unittest import mock

import pytest

from tests.helpers.paths import ROOT


def pytest_here(*arguments, plugins=()):
    """Run pytest with these arguments, and return its exit status and all that it printed."""
    off = [f"-pno:{name}" for name in ("cacheprovider", "faulthandler", "unraisableexception")]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), mock.patch.dict(os.environ):
        os.environ.pop("PYTEST_XDIST_WORKER", None)  # it isn't one
        try:
            status = int(pytest.main([*off, *arguments], plugins=plugins))
        except OSError:
            status = 1  # Python's, of an error
    return status, out.getvalue()


def benchmarks_here(*options):
    """Run `pytest benchmarks` with these options, as far as it computes nothing."""
    return pytest_here(str(ROOT / "benchmarks"), *options)
