"""`verify`: what pytest is started with, from any folder, and what of the surroundings is left out."""

import argparse
import json
import os
import subprocess
import sys

import pytest

from alexnet_repro import layout
from alexnet_repro.cli import verify as module
from alexnet_repro.cli.parser import main, parser
from alexnet_repro.cli.verify import VerifyStart, pytest_words, run_verify
from tests.helpers.paths import ROOT

OWN = [f"--config-file={ROOT}/pyproject.toml", f"--rootdir={ROOT}", "-pno:cacheprovider"]


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Start `verify` with options and variables in another folder; returns its status and what pytest was given."""

    def start(*options, **environ):
        given = {}

        def pytest_main(words, plugins):
            given.update(words=words, start=plugins[0], variables=dict(module.os.environ))
            return pytest.ExitCode.TESTS_FAILED

        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(pytest, "main", pytest_main)
        monkeypatch.chdir(tmp_path)
        return run_verify(argparse.Namespace(words=["verify", *options])), given

    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", raising=False)
    return start


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], []),
        (["--level=quick", "-v"], ["--level=quick", "-v"]),
        (["--report", "there", "--require-gpu"], ["--report=there", "--require-gpu"]),
        (["--report"], ["--report"]),
        (["-k", "benchmarks"], ["-k", "benchmarks"]),
    ],
    ids=lambda words: f"words={' '.join(words)}"[:50],
)
def test_words(options, expected):
    """A value of one of our options is joined to it; all else stays."""
    assert list(pytest_words(options)) == expected


NAMED = "benchmarks/test_correct.py::test_correct[device=cpu:0-check=shapes]"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"args": ["/there/benchmarks"]}),
        (["benchmarks/x.py"], {"args": ["/there/benchmarks/x.py"]}),
        ([NAMED], {"args": [f"/there/{NAMED}"]}),
        (["benchmarks2/x.py", "my/benchmarks"], {"args": ["benchmarks2/x.py", "my/benchmarks", "/there/benchmarks"]}),
        (["-k", "benchmarks/x.py"], {"args": ["/there/benchmarks"], "keyword": "benchmarks/x.py"}),
        (["--ignore", "benchmarks/x.py"], {"args": ["/there/benchmarks"], "ignore": ["/there/benchmarks/x.py"]}),
        (["--ignore=benchmarks/x.py"], {"args": ["/there/benchmarks"], "ignore": ["/there/benchmarks/x.py"]}),
        (["--ignore-glob", "benchmarks/*"], {"args": ["/there/benchmarks"], "ignore_glob": ["/there/benchmarks/*"]}),
        (["--deselect", "benchmarks/x.py::t"], {"args": ["/there/benchmarks"], "deselect": ["benchmarks/x.py::t"]}),
        (["--junitxml", "benchmarks/x.xml"], {"args": ["/there/benchmarks"], "xmlpath": "benchmarks/x.xml"}),
    ],
    ids=lambda words: f"words={' '.join(words)}"[:60],
)
def test_paths(options, expected, tmp_path, monkeypatch):
    """Paths in `benchmarks` are the suite's, and values of pytest's options aren't paths to run."""
    suite, read = tmp_path / "there", []

    class Reader:
        """A plugin that keeps what pytest has read, and lets nothing run."""

        @pytest.hookimpl(tryfirst=True)
        def pytest_cmdline_main(self, config):
            """Keep the configuration."""
            read.append(config)
            return 0

    (suite / "benchmarks").mkdir(parents=True)
    (suite / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    own = [f"--config-file={suite}/pytest.ini", f"--rootdir={suite}", "-pno:cacheprovider"]
    assert pytest.main([*own, *options], plugins=[VerifyStart(tmp_path, options, suite), Reader()]) == 0
    [config] = read
    option = {name: getattr(config.option, name) for name in expected if name != "args"}
    found = json.dumps({"args": config.args} | option).replace(str(suite), "/there")
    assert json.loads(found) == expected


def test_pytest_is_given_the_suite(started, tmp_path):
    """Its configuration and folder, whatever the working folder has; the exit status is pytest's."""
    status, given = started("--level=quick", "-k", "a or b")
    assert (status, given["words"]) == (1, [*OWN, "--level=quick", "-k", "a or b"])
    assert (given["start"].folder, given["start"].command) == (
        tmp_path,
        "python -m alexnet_repro verify --level=quick -k 'a or b'",
    )


def test_options_of_the_environment_are_left_out(started, capsys):
    """PYTEST_ADDOPTS, which may lower the plan, isn't obeyed, and the run says so."""
    _, given = started(PYTEST_ADDOPTS="-k nothing")
    assert given["words"] == OWN
    assert "PYTEST_ADDOPTS" not in given["variables"]
    said = "python -m alexnet_repro verify: PYTEST_ADDOPTS is left out; give its options here: -k nothing\n"
    assert capsys.readouterr().err == said


def test_what_is_timed_by_is_loaded(started):
    """Where plugins aren't loaded by themselves, the one that timings need is."""
    _, given = started(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert given["words"] == [*OWN, "-ppytest_benchmark.plugin"]


def test_backend_that_cant_be_used(tmp_path):
    """One line says so, with pytest's exit status for usage errors."""
    command = [sys.executable, "-m", "alexnet_repro", "verify"]
    environ = os.environ | {"KERAS_BACKEND": "mxnet", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=False, cwd=tmp_path, env=environ, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (4, "")
    assert line.startswith("pytest: the backend mxnet can't be used, as tensorflow, jax, torch can; unset KERAS_")


def test_help(capsys):
    """It has the verification's options, and where pytest's are; nothing runs."""
    with pytest.raises(SystemExit) as ended:
        main(["verify", "--level=quick", "--help"])
    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (0, "")
    assert [
        each for each in ("--level", "--report", "--references", "--burn-in", "pytest's options") if each not in out
    ] == []


def test_any_option_is_pytests():
    """The parser refuses none: what pytest knows depends on its plugins."""
    assert parser().parse_args(["verify", "--no-such-option", "x", "--level=none"]).run is run_verify


def test_folder_that_is_gone(tmp_path, monkeypatch, capsys):
    """One line says so, and the exit status is 1."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["verify"]) == 1
    assert capsys.readouterr().err == "python -m alexnet_repro: the working folder is gone; start in another\n"


def test_installation_without_benchmarks(tmp_path, monkeypatch, capsys):
    """One line says what is missing, and what installs it."""
    monkeypatch.setattr(layout, "PACKAGE", tmp_path / "site/alexnet_repro")
    monkeypatch.setattr(layout, "WITHIN", tmp_path / "site/alexnet_repro/suite")
    assert main(["verify"]) == 1
    said = f"python -m alexnet_repro: no benchmarks are beside or within {tmp_path}/site/alexnet_repro; "
    said += "pip install --force-reinstall --no-deps alexnet-repro\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("place", "fix"),
    [
        ("alexnet_repro/suite/benchmarks/x.json", "pip install --force-reinstall --no-deps alexnet-repro"),
        ("elsewhere/x.json", "restore {}, or remove it"),
    ],
)
def test_restoration(tmp_path, monkeypatch, place, fix):
    """A file of the wheel comes back with it; what a site keeps the site has to restore."""
    monkeypatch.setattr(layout, "PACKAGE", tmp_path / "alexnet_repro")
    monkeypatch.setattr(layout, "WITHIN", tmp_path / "alexnet_repro/suite")
    (tmp_path / "alexnet_repro/suite").mkdir(parents=True)
    assert layout.restoration(tmp_path / place) == fix.format(tmp_path / place)
    assert layout.update_command() == "python -m alexnet_repro verify --update-reference --references=DIR"


def test_restoration_in_a_checkout():
    """There git has the file."""
    path = ROOT / "benchmarks/references/tolerances.toml"
    assert layout.restoration(path) == f"git checkout {path}"
    assert layout.update_command("-x") == "python -m alexnet_repro verify -x --update-reference"
