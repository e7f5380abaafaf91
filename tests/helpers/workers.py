"""Real processes that train together on loopback: started, followed, stopped, and none left behind."""

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np

from alexnet_repro.verify.numerics import error_bounds
from tests.helpers.paths import PROCESSES

SCRIPT = PROCESSES / "worker.py"
TIMEOUT = 10  # of workers, in seconds; longer than a busy machine keeps a thread waiting
SGD = {"optimizer": "sgd", "optimizer_arguments": {}, "learning_rate": 1e-3, "cosine_decay": False}


def free_addresses(count):
    """Return `count` addresses on loopback that nobody listens at, and that the system doesn't assign meanwhile."""
    found = []
    for port in random.sample(range(20_000, 32_000), 1_000):  # Linux gives away those above by itself
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            found.append(f"127.0.0.1:{port}")
        if len(found) == count:
            break
    return found


class Process:
    """One process of a training, and its output so far."""

    def __init__(self, folder, name, arguments, settings, cluster=None):
        self.out, self.err = folder / f"{name}.out", folder / f"{name}.err"
        self.kept = folder / f"{name}.npz"
        settings = {"out": str(self.kept), **settings, "recipe": {**SGD, **settings.get("recipe", {})}}
        quiet = {"CUDA_VISIBLE_DEVICES": "", "TF_NUM_INTRAOP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        quiet |= {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}  # nobody's: it isn't used
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, SCRIPT, json.dumps(settings), *arguments],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env={**os.environ, **quiet, **({"TF_CONFIG": json.dumps(cluster)} if cluster else {})},
            )

    def begin(self):
        """Let it begin as soon as it is ready."""
        self.process.stdin.close()

    def wait_for(self, word, times=1, seconds=120):
        """Wait until it has printed a word that many times; it has to be alive."""
        deadline = time.monotonic() + seconds
        while self.out.read_text().split().count(word) < times:
            assert self.process.poll() is None, f"it ended before it was stopped: {self.err.read_text()}"
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def ended(self, seconds):
        """Return its exit status; it has to end within `seconds`."""
        return self.process.wait(timeout=max(0.1, seconds))

    def lines(self):
        """Return its own lines on stderr, without TensorFlow's log and progress bars."""
        return re.findall(r"^python -m alexnet_repro: (.*)", self.err.read_text(), re.MULTILINE)

    def kept_arrays(self):
        """Return the arrays it saved at its end: losses, accuracies, evaluations, first and last weights."""
        with np.load(self.kept) as archive:
            return dict(archive)


@contextlib.contextmanager
def training(folder, workers, *arguments, settings=None, only=None, addresses=None):
    """Start a training by several workers, each with its own disk; at the end kill those that are left.

    `settings` may be a dictionary for all, or one for each worker; `only` starts some of them.
    """
    addresses = addresses or free_addresses(workers)
    each = settings if isinstance(settings, list) else [settings or {}] * workers
    options = ("--distribute=multiworker", f"--worker-timeout={TIMEOUT}")
    folder.mkdir(exist_ok=True)
    processes = []
    try:
        for task in range(workers) if only is None else only:
            cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": task}}
            own = (*options, f"--weights={folder}/disk{task}/a.weights.h5", *arguments)
            processes.append(Process(folder, f"worker{task}", own, each[task], cluster))
        for one in processes:  # on a busy machine one imports for longer than the other would wait for it
            one.wait_for("ready")
        for one in processes:
            one.begin()
        yield processes
    finally:
        for one in processes:
            if one.process.poll() is None:
                one.process.send_signal(signal.SIGKILL)
                one.process.wait()


def alone(folder, *arguments, settings=None):
    """Train in one process, by default on one device, and return what it kept."""
    folder.mkdir(exist_ok=True)
    one = Process(folder, "alone", (f"--weights={folder}/a.weights.h5", *arguments), settings or {})
    one.begin()
    assert one.ended(300) == 0, one.err.read_text()
    return one.kept_arrays()


def assert_same_training(found, expected):
    """Two right trainings of few small updates, dropout off, differ by no more than rounding.

    An update moves weights by the learning rate times the gradient, which on any right device is off by a share
    `gradient_drift` of it, by norm: here twice that, for both may be. Six updates move them by the sum of six. (That
    gradients of slightly other weights differ is of second order at this learning rate.) A worker's share left out,
    taken twice, or weighted otherwise moves them by a share of 1/3 at least. The first loss is of the same weights: it
    is off as logits may be.
    """
    assert found["losses"].shape == expected["losses"].shape
    loss = expected["losses"][0]
    assert abs(found["losses"][0] - loss) <= 2 * error_bounds.drift("float32", "cpu:0") * (loss + np.log(10))
    share = 2 * error_bounds.gradient_drift("float32", "cpu:0")
    assert share < 1 / 6
    for number in range(16):
        moved = np.linalg.norm(expected[f"last-{number:02}"] - expected[f"first-{number:02}"])
        apart = np.linalg.norm(found[f"last-{number:02}"] - expected[f"last-{number:02}"])
        assert apart <= share * moved


def assert_same_bits(found, expected):
    """Two trainings have the same losses, accuracies and weights, bit for bit."""
    for name in ("losses", "accuracies", *(name for name in expected if name.startswith("last-"))):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
