"""Options, test ids, header and devices, for tests and benchmarks alike: wiring only."""

import argparse
import contextlib
import math
import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # GPUs' numbers are the driver's then, as nvidia-smi has them

from alexnet_repro.cli.options import PRECISION_NAMES, configured_backend
from alexnet_repro.verify.doctor.installation import package_version

SECONDS = {"s": 1, "m": 60, "h": 3600}


def _two_or_more(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:  # noqa: PLR2004 - of one, there is nothing to compare
        raise argparse.ArgumentTypeError(f"expected 2 or more, got {text!r}")
    return int(text)


def _duration(text: str) -> float:
    """Return the seconds that `90s`, `10m` or `2h` means."""
    number, unit = text[:-1], text[-1:]
    if unit not in SECONDS or not number.isdecimal() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number and s, m or h, as 10m; got {text!r}")
    return float(int(number) * SECONDS[unit])


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("alexnet-repro")
    group.addoption(
        "--precision",
        choices=PRECISION_NAMES,
        default="float32",
        help="what the slow tests train in (default: float32)",
    )
    group.addoption(
        "--device",
        action="append",
        metavar="NAME",
        help="ask and time this device only, as cpu:0 or gpu:1; may be repeated (default: every device)",
    )
    group.addoption(
        "--full",
        action="store_true",
        help="time the whole grid of batches, precisions and XLA (default: a few batches, XLA as Keras decides)",
    )
    group.addoption(
        "--replays",
        type=_two_or_more,
        default=3,
        metavar="N",
        help="runs of the same steps that are compared (default: 3)",
    )
    group.addoption(
        "--burn-in",
        type=_duration,
        default=0.0,
        metavar="TIME",
        help="soak every device for so long (90s, 10m, 2h): memory patterns, copies, replays; a line a minute",
    )
    group.addoption(
        "--deadline",
        type=_duration,
        default=600.0,
        metavar="TIME",
        help="what takes a check longer hangs, and fails (default: 10m)",
    )
    group.addoption(
        "--cpu-replicas",
        type=_two_or_more,
        default=0,
        metavar="N",
        help="split the CPU in N devices to try the measurements of several GPUs; always inconclusive",
    )
    group.addoption(
        "--distribute",
        choices=("multiworker",),
        help="verify the machines of a cluster together: start the same on each machine, as TF_CONFIG or Slurm says",
    )
    group.addoption(
        "--worker-timeout",
        type=_duration,
        default=60.0,
        metavar="TIME",
        help="how long the other workers are waited for at the start (default: 60s)",
    )
    group.addoption(
        "--link-gbps",
        type=_positive,
        metavar="N",
        help="speed of the network between two machines in Gb/s, as iperf3 measures it: with --distribute, the "
        "all-reduce is compared with it (default: no bound)",
    )
    group.addoption("--fail-inconclusive", action="store_true", help="what can't be told fails too")
    group.addoption(
        "--update-reference",
        action="store_true",
        help="keep this machine's digests and, from eight fresh processes, its timings under benchmarks/references",
    )
    group.addoption(
        "--report", metavar="DIR", help="where results.json and junit.xml are written (default: reports/TIME)"
    )
    group.addoption("--require-gpu", action="store_true", help="a machine without a usable GPU fails")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Ids are `argument=value` pairs: results are compared by them."""
    return f"{argname}={val}" if isinstance(val, str | int | float) else None


def pytest_report_header(config: pytest.Config) -> list[str]:
    backend = configured_backend()
    names = ("alexnet-repro", "keras", backend, "numpy")
    versions = " · ".join(f"{name} {package_version(name) or 'not installed'}" for name in names)
    return [f"{versions} · data: {os.environ.get('ALEXNET_REPRO_DATA', 'Keras cache or download')}"]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the verification if `benchmarks` is to be collected: alone, after the tests, or with all of this."""
    folder = Path(__file__).parent / "benchmarks"
    paths, ignored = (
        [Path(config.invocation_params.dir, each.partition("::")[0]).resolve() for each in arguments]
        for arguments in (config.args, config.getoption("ignore") or ())
    )
    if folder not in ignored and any(folder in (path, *path.parents) or path in folder.parents for path in paths):
        from benchmarks.session import NAME, VerificationSession

        config.pluginmanager.register(VerificationSession(config), NAME)


@pytest.fixture(scope="session", autouse=True)
def _memory_growth() -> None:
    """Before anything touches a GPU."""
    from alexnet_repro import enable_memory_growth

    enable_memory_growth()
