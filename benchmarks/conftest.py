"""Hooks and fixtures of the benchmarks; what they share is in `benchmarks.session.VerificationSession`."""

from typing import TYPE_CHECKING

import pytest

# The rest is imported where it is used: pytest loads this file before it parses its options, and a wrong one's message
# need not wait for Keras.
if TYPE_CHECKING:
    from alexnet_repro.verify.checks.registry import CheckId
    from alexnet_repro.verify.checks.runner import CheckRunner
    from benchmarks.session import VerificationSession


def _session_of(config: pytest.Config) -> "VerificationSession":
    return config.pluginmanager.get_plugin("verification")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test its devices, and the checks or else the batches, precisions and XLA of each."""
    from benchmarks.cases import ARGUMENTS, cases

    names = [name for name in ARGUMENTS if name in metafunc.fixturenames]
    if names:
        asked = _session_of(metafunc.config).asked
        metafunc.parametrize(names, cases(names, asked.devices, metafunc.module, level=asked.level))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """End the run before the first benchmark of a machine that isn't ready; skip a test that doesn't apply."""
    session = _session_of(item.config)
    if session.not_ready:
        pytest.exit(session.not_ready, returncode=1)
    if why := session.why_not(item):
        if item.path.stem == "test_scaling":
            session.say_at_end(f"scaling: not run; {why}")
        pytest.skip(why)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Have a timed test's function called by a process of its device, rather than by this one."""
    if "measure" not in pyfuncitem.fixturenames:
        return None
    from benchmarks.timed import time_case

    time_case(_session_of(pyfuncitem.config), pyfuncitem)
    return True


@pytest.fixture(scope="session")
def verification(request: pytest.FixtureRequest) -> "VerificationSession":
    """What is verified, and what has been found so far."""
    return _session_of(request.config)


@pytest.fixture(scope="session")
def loader() -> None:
    """Stands for `benchmarks.timing_process.loader`, by which a timed test is called there."""


@pytest.fixture(scope="session")
def runner(request: pytest.FixtureRequest, verification: "VerificationSession") -> "CheckRunner":
    """The checks, which run in child processes, with their results so far."""
    from alexnet_repro.verify.checks.runner import CheckRunner
    from benchmarks.level import check_config
    from benchmarks.plan import FOLDER

    planned: dict[str, list[CheckId]] = {}
    for item in request.session.items:
        if item.path.parent == FOLDER and "check" in getattr(item, "fixturenames", ()):
            planned.setdefault(item.callspec.params["device"], []).append(item.callspec.params["check"])
    deadline = request.config.getoption("deadline")
    return CheckRunner(check_config(request.config), planned, verification.machine, deadline)


@pytest.fixture
def measure(benchmark: object) -> None:
    """Stands for `benchmarks.timing_process.TimingProcess.measure`, whose rounds go into pytest-benchmark's fixture."""
