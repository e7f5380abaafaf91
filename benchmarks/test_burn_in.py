"""Does every device stay correct under load? All devices at once, for the time of `--burn-in`."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest

from alexnet_repro.verify.checks.burn_in import burn_in
from alexnet_repro.verify.checks.registry import DEVICE_PRECISIONS
from alexnet_repro.verify.checks.runner import CheckRunner
from alexnet_repro.verify.doctor.software import beside_settings
from alexnet_repro.verify.finding import Finding
from benchmarks.level import burn_in_seconds
from benchmarks.session import VerificationSession


@pytest.fixture(scope="module")
def burning_in(verification: VerificationSession, runner: CheckRunner) -> Iterator[dict[str, Future[Finding]]]:
    """The burn-in of each device, running; it ends with the tests, also with a run that is interrupted."""
    seconds = burn_in_seconds(verification.config)
    capture = verification.config.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            verification.say(line)

    def run(device: str) -> Finding:
        config, precisions = replace(runner.config, device=device), DEVICE_PRECISIONS[device.partition(":")[0]]
        given = {"deadline": runner.deadline, "here": runner.here, "environ": runner.here.only(device), "stop": stop}
        return burn_in(config, precisions, seconds, say, **given)

    stop = threading.Event()
    with ThreadPoolExecutor(len(verification.devices)) as threads:
        try:
            yield {device: threads.submit(run, device) for device in verification.devices}
        finally:
            stop.set()


def test_burn_in(
    device: str, runner: CheckRunner, burning_in: dict[str, Future[Finding]], verification: VerificationSession
) -> None:
    """Memory keeps its patterns, copies are exact, and replays are the same, bit for bit."""
    verification.report_findings("repeatable", beside_settings(burning_in[device].result(), runner.here))
