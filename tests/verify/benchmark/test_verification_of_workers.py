"""`pytest benchmarks --distribute=multiworker`: real processes, one verdict and one report of all their machines."""

import json
import os
import signal
import subprocess
import sys
import time

import keras
import pytest

from tests.helpers.paths import ROOT
from tests.helpers.workers import free_addresses

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="KERAS_BACKEND isn't tensorflow"),
]


class Worker:
    """One worker's verification, with a disk of its own."""

    def __init__(self, folder, addresses, task, *options):
        self.report, self.out = folder / f"disk{task}", folder / f"{task}.out"
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": task}}
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "benchmarks", "--distribute=multiworker"]
        quiet = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CONFIG": json.dumps(cluster)}
        with self.out.open("w") as out:
            self.process = subprocess.Popen(
                [*command, f"--report={self.report}", "--benchmark-max-time=0.1", *options],
                cwd=ROOT,
                env={**os.environ, **quiet},
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def results(self, *folders):
        """Return the results file in that folder of its disk."""
        return json.loads(self.report.joinpath(*folders, "results.json").read_text())


@pytest.fixture
def workers(tmp_path):
    """Start workers with these options each; none is left behind."""
    started = []

    def start(*options_of_each):
        addresses = free_addresses(len(options_of_each))
        for task, options in enumerate(options_of_each):
            started.append(Worker(tmp_path, addresses, task, *options))
        return addresses, started

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


def _wait_for(worker, word):
    """Return as soon as a worker has printed it."""
    deadline = time.monotonic() + 120
    while word not in worker.out.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_two_workers(workers):
    """Each has its own results, the first one those of all: every device by its machine's name, the slowest named,
    and what is measured of both, here inconclusive, as they share one machine.
    """
    options = ("-k", "shapes or (test_workers and not strong)")
    addresses, both = workers(options, options)
    assert [each.process.wait(timeout=500) for each in both] == [0, 0], both[0].out.read_text()
    whole = both[0].results()
    assert (whole["verdict"], whole["complete"]) == ("INCONCLUSIVE", True)
    assert whole["machine"]["machines"] == addresses
    assert [each["device"] for each in whole["findings"]["correct"]] == [f"{address}/cpu:0" for address in addresses]
    fast = {each["check"]: each for each in whole["findings"]["fast"]}
    assert list(fast) == ["stragglers", "all-reduce", "scaling"]
    assert {each["status"] for each in fast.values()} == {"INCONCLUSIVE"}
    assert all("workers on one machine" in each["message"] for each in fast.values())
    assert sorted(fast["stragglers"]["data"]["seconds"]) == sorted(f"{address}/cpu:0" for address in addresses)
    assert (fast["all-reduce"]["data"]["devices"], fast["scaling"]["data"]["devices"]) == (2, 2)
    output = both[0].out.read_text()
    assert "slowest" in output
    assert f"results: {both[0].report / 'results.json'}" in output
    assert f"{addresses[0]}/cpu:0" in (both[0].report / "report.html").read_text()
    for task, each in enumerate(both):
        own = each.results(f"worker{task}")
        assert [found["device"] for found in own["findings"]["correct"]] == ["cpu:0"]
    assert not (both[1].report / "results.json").exists()


def test_killed_worker(workers):
    """Where one is killed, the other's run ends as a failure that names it, and has its own machine's results."""
    options = ("-k", "shapes or test_workers")
    addresses, (left, killed) = workers(options, options)
    _wait_for(killed, "collected")
    killed.process.send_signal(signal.SIGKILL)
    assert left.process.wait(timeout=200) == 1
    assert f"worker 1 ({addresses[1]}) disconnected unexpectedly" in left.out.read_text()
    own = left.results("worker0")
    assert own["verdict"] == "FAIL"
    assert [each["status"] for each in own["findings"]["correct"]] == ["PASS"]
    first, *others = own["findings"]["fast"]
    assert (first["check"], first["status"]) == ("stragglers", "FAIL")
    assert {each["status"] for each in others[:-1]} == {"INCONCLUSIVE"}  # they follow from it; the last is of the end


def test_interrupted_worker(workers):
    """Where one is interrupted, or ends at its first failure, the other hears of it at once and fails, naming it."""
    options = ("-k", "shapes or test_workers")  # of shapes alone it might be done by then
    addresses, (left, interrupted) = workers(options, options)
    _wait_for(interrupted, "collected")
    interrupted.process.send_signal(signal.SIGINT)
    assert interrupted.process.wait(timeout=100) == pytest.ExitCode.INTERRUPTED
    assert left.process.wait(timeout=100) == 1
    assert f"worker 1 ({addresses[1]}) disconnected unexpectedly" in left.out.read_text()
    assert left.results("worker0")["verdict"] == "FAIL"


@pytest.mark.parametrize(
    ("second", "message"),
    [
        pytest.param(("-k", "shapes", "--replays=4"), "has different options: options replays is '4' there, '3' on",
                     id="other=options"),
        pytest.param(("-k", "shapes or dropout"), "runs other tests: 2, and", id="other=tests"),
    ],
)  # fmt: skip
def test_other_options_or_tests(workers, second, message):
    """Workers with other options or tests end before they begin, with what differs."""
    addresses, both = workers(("-k", "shapes"), second)
    assert [each.process.wait(timeout=120) for each in both] == [1, 1]
    for each in both:
        assert f"worker 1 ({addresses[1]}) {message}" in each.out.read_text()


def test_alone(tmp_path, monkeypatch):
    """Without anything that says who the workers are, it is a usage error that says what to type."""
    monkeypatch.delenv("TF_CONFIG", raising=False)
    command = [sys.executable, "-m", "pytest", "benchmarks", "--distribute=multiworker", f"--report={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "TF_CONFIG isn't set" in done.stderr
    assert "python -m alexnet_repro verify --distribute=multiworker" in done.stderr
