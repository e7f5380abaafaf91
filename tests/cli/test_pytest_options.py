"""The options of tests and benchmarks: valid and invalid values."""

import argparse
import os
import subprocess
import sys

import pytest

import conftest
from tests.helpers.paths import ROOT


@pytest.fixture(scope="module")
def parse():
    """A function from arguments to the options' values, as pytest parses them; refusal is an ArgumentError."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.getgroup, parser.addoption = lambda _: parser, parser.add_argument
    conftest.pytest_addoption(parser)
    return lambda *arguments: vars(parser.parse_args(arguments))


def test_defaults(parse):
    """By default: replays and burn-in of the level, ten minutes per check, every device; inconclusive passes."""
    assert parse() == {
        "precision": "float32",
        "device": None,
        "level": "standard",
        "replays": None,
        "burn_in": 0.0,
        "deadline": 600.0,
        "cpu_replicas": 0,
        "fail_inconclusive": False,
        "update_reference": False,
        "reference_processes": 8,
        "hash_serials": False,
        "references": None,
        "report": None,
        "require_gpu": False,
        "ignore_doctor": False,
        "profile": False,
        "distribute": None,
        "worker_timeout": 60.0,
        "link_gbps": None,
    }


@pytest.mark.parametrize(
    ("argument", "name", "value"),
    [
        ("--burn-in=1s", "burn_in", 1.0),
        ("--burn-in=90s", "burn_in", 90.0),
        ("--burn-in=10m", "burn_in", 600.0),
        ("--burn-in=2h", "burn_in", 7200.0),
        ("--deadline=5m", "deadline", 300.0),
        ("--cpu-replicas=2", "cpu_replicas", 2),
        ("--replays=2", "replays", 2),
        ("--replays=100", "replays", 100),
        ("--device=gpu:1", "device", ["gpu:1"]),
        ("--level=quick", "level", "quick"),
        ("--level=long", "level", "long"),
        ("--link-gbps=200", "link_gbps", 200.0),
        ("--link-gbps=9.4", "link_gbps", 9.4),
    ],
)
def test_valid_value(parse, argument, name, value):
    """Times in seconds, minutes or hours; at least two replays; a link's speed in Gb/s."""
    assert parse(argument)[name] == value


@pytest.mark.parametrize("value", ["", "10", "m", "0s", "-5m", "1.5h", "1e3s", "10y", "10M", "1h30m", "soon"])
@pytest.mark.parametrize("option", ["--burn-in", "--deadline"])
def test_invalid_time_is_refused(parse, option, value):
    """A time without a unit, of zero or with a fraction: the message shows a valid one, and the value."""
    with pytest.raises(argparse.ArgumentError) as error:
        parse(f"{option}={value}")
    assert str(error.value) == (f"argument {option}: expected a whole number and s, m, h or d, as 10m; got {value!r}")


@pytest.mark.parametrize("value", ["8785h", "1000000000m", f"{'9' * 400}s"])
def test_endless_time_is_refused(parse, value):
    """What is longer than a year no clock of the system can wait for."""
    with pytest.raises(argparse.ArgumentError, match=f"^argument --deadline: expected a year at most, got '{value}'$"):
        parse(f"--deadline={value}")


@pytest.mark.parametrize("value", ["", "fast", "QUICK", "1", "quick,long"])
def test_unknown_level_is_refused(parse, value):
    """The message names the levels."""
    with pytest.raises(argparse.ArgumentError, match=r"invalid choice: .*quick.*standard.*long"):
        parse(f"--level={value}")


@pytest.mark.parametrize("value", ["", "1", "0", "-2", "2.5", "many"])
def test_fewer_than_two_replays_are_refused(parse, value):
    """A single run has nothing to be compared with."""
    with pytest.raises(argparse.ArgumentError) as error:
        parse(f"--replays={value}")
    assert str(error.value) == f"argument --replays: expected 2 or more, got {value!r}"


@pytest.mark.parametrize("value", ["", "0", "-1", "nan", "inf", "fast", "10G"])
def test_invalid_link_speed_is_refused(parse, value):
    """A speed of zero, or one with a unit."""
    with pytest.raises(argparse.ArgumentError) as error:
        parse(f"--link-gbps={value}")
    assert str(error.value) == f"argument --link-gbps: expected a number above 0, got {value!r}"


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("cpu", "cpu:0"),
        ("CPU:0", "cpu:0"),
        ("cpu:1", "cpu:0"),
        ("gpu", "gpu:0"),
        ("GPU:1", "gpu:1"),
        ("gpu2", "gpu:2"),
        ("cuda:1", "gpu:1"),
        ("/device:GPU:3", "gpu:3"),
        ("1", "gpu:1"),
        ("", None),
        ("gpu:0,gpu:1", None),
        ("all", None),
        ("gpu:-1", None),
    ],
)
def test_no_device(parse, value, meant):
    """What isn't a device's name is refused before anything runs, with the name that was meant where that is clear."""
    with pytest.raises(argparse.ArgumentError) as error:
        parse(f"--device={value}")
    hint = f"; did you mean {meant}?" if meant else ""
    assert (
        str(error.value) == f"argument --device: expected one device, cpu:0 or gpu: and its number, got {value!r}{hint}"
    )


def test_refusal_ends_the_run():
    """Pytest ends before Keras is imported, with its exit status for usage errors, and names the argument."""
    command = [sys.executable, "-X", "importtime", "-m", "pytest", "-pno:cacheprovider", "benchmarks", "--burn-in=5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert " keras" not in done.stderr  # whose import takes seconds
    assert "error: argument --burn-in: expected " in done.stderr


@pytest.mark.parametrize(
    ("folder", "broken", "backend", "line"),
    [
        ("tests", "hypothesis", "tensorflow", "pytest: hypothesis can't be imported: AttributeError: no; pip install"),
        ("benchmarks", "numpy", "tensorflow", "ERROR: numpy can't be imported: AttributeError: no; pip install"),
        (
            *("benchmarks", "numpy", "openvino"),
            "pytest: the backend openvino can't be used, as tensorflow, jax, torch can; unset",
        ),
    ],
)
def test_what_cannot_be_imported(tmp_path, folder, broken, backend, line):
    """Of either suite, a broken package or a backend that isn't one of the three is one line, and a usage error."""
    (tmp_path / "site-packages").mkdir()
    (tmp_path / f"site-packages/{broken}.py").write_text("raise AttributeError('no')")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "site-packages"), "KERAS_BACKEND": backend}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", folder]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith(f"{line} ")
    assert done.stderr.rstrip().count("\n") == 0
