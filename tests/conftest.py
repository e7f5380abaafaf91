"""Fixtures of all tests: the documented model, the real data where it is available, gradients on any backend."""

import gc
import gzip
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

# On two cores, the oracle's small products take ten times as long by two threads as by one.
if "numpy" not in sys.modules:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# What is tested here is the program, and how it computes on a CPU. What a GPU rounds otherwise, or sums in another
# order, `pytest benchmarks` verifies, by bounds that are made for it.
if (VISIBLE := os.environ.get("CUDA_VISIBLE_DEVICES")) != "-1":
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # before TensorFlow, JAX or PyTorch looks for GPUs

import pytest

from alexnet_repro.quiet import kept_output
from alexnet_repro.startup import reported

with reported("pytest", pytest.ExitCode.USAGE_ERROR), kept_output(pythons_too=True) as kept:  # xdist has no capture yet
    kept.explains_an_error = True
    import hypothesis
    import keras
    import numpy as np

    from alexnet_repro import MissingDataError, build_alexnet, load_fashion_mnist
    from alexnet_repro.backend.precision import precision
    from alexnet_repro.data import download
    from alexnet_repro.data import fashion_mnist as module
    from alexnet_repro.data.fashion_mnist import DataFile
    from tests.helpers.data_server import ARRAYS, CONTENT, Server, sha256
    from tests.helpers.models import narrow_layers

    kept.explains_an_error = False

# No deadline: the first call for a new shape compiles; on JAX it compiles each operation, so there are fewer examples.
# On CI the same examples every time.
hypothesis.settings.register_profile(
    "suite",
    deadline=None,
    max_examples=5 if keras.backend.backend() == "jax" else 50,
    derandomize=bool(os.environ.get("CI")),
    print_blob=True,
)
hypothesis.settings.load_profile("suite")


# A shell's background process ignores SIGINT, and so would the processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Under nohup SIGHUP is ignored; with a handler this process still outlives it, and those that it starts don't.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


gc.disable()  # until all tests are collected: what is imported stays


def pytest_configure(config: pytest.Config) -> None:
    """Where benchmarks run beside the tests, the doctor's processes see the GPUs; then the session hides them here."""
    if config.pluginmanager.has_plugin("verification"):
        del os.environ["CUDA_VISIBLE_DEVICES"]
        os.environ |= {} if VISIBLE is None else {"CUDA_VISIBLE_DEVICES": VISIBLE}


def pytest_collection_finish():
    """Collecting garbage needn't look at what is imported by now: a million objects, 0.3 s each time."""
    gc.collect()
    gc.freeze()
    gc.enable()


# What leads a process elsewhere, in either spelling: to a proxy, to a cluster's other machines, to other options, or to
# take itself for one of several that pytest-xdist has started.
NETWORK = ("_PROXY", "CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
SURROUNDINGS = (*NETWORK, "TF_CONFIG", "SLURM", "PYTEST_ADDOPTS", "PYTEST_XDIST")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    """What surrounds the run, such as a proxy or a job, is for those tests alone that fetch from the internet."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ if item.get_closest_marker("network") is None else ():
            if any(each in name.upper() for each in SURROUNDINGS):
                patch.delenv(name)
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test begins first: at the end of a run by two workers, the other one would wait for it."""
    items.sort(key=lambda item: item.path.name != "test_accuracy.py")


@pytest.fixture(scope="session", autouse=True)
def _full_float32() -> Iterator[None]:
    """Correctness is checked with all 24 bits: TensorFloat-32 off."""
    with precision("float32"):
        yield


@pytest.fixture(scope="session")
def alexnet() -> keras.Sequential:
    """The documented model, for tests that don't change its weights."""
    return build_alexnet()


@pytest.fixture(scope="session")
def fashion_mnist() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The real images; without them the test is skipped, and the reason says how to get them."""
    try:
        return load_fashion_mnist()
    except MissingDataError as error:
        pytest.skip(str(error))


@pytest.fixture
def narrow() -> Iterator[None]:
    """Models have narrower dense layers: for tests that don't turn on the number of weights."""
    with narrow_layers():
        yield


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Path]]:
    """The folders that are searched for files, all empty; no server listens at the address of downloads."""
    folders = {
        "data_dir": tmp_path / "named",
        "variable": tmp_path / "the environment's",
        "cache": tmp_path / "keras/datasets/fashion-mnist",
    }
    for folder in folders.values():
        folder.mkdir(parents=True)
    files = [
        DataFile(name, len(content), sha256(content), ARRAYS[name].shape[1:], sha256(gzip.decompress(content)))
        for name, content in CONTENT.items()
    ]
    monkeypatch.setattr(module, "FILES", files)
    monkeypatch.setattr(download, "PAUSES", (0.01, 0.02))
    monkeypatch.setenv("ALEXNET_REPRO_DATA", str(folders["variable"]))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    with socket.socket() as taken:  # bound, so that no other program gets the port, but not listening
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(module, "URL", f"http://127.0.0.1:{taken.getsockname()[1]}/")
        yield folders


@pytest.fixture
def server(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of the stand-ins, from which files are downloaded."""
    with Server() as server:
        monkeypatch.setattr(module, "URL", f"http://127.0.0.1:{server.server_port}/")
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def value_and_gradients() -> Callable[..., tuple[float, list[np.ndarray]]]:
    """A function that takes a scalar function of tensors and its arguments, and returns value and gradients."""
    return {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.backend.backend()]


def _tensorflow(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[float, list[np.ndarray]]:
    import tensorflow as tf

    tensors = [tf.convert_to_tensor(argument) for argument in arguments]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(*tensors)
    return float(value), [gradient.numpy() for gradient in tape.gradient(value, tensors)]


def _jax(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[float, list[np.ndarray]]:
    import jax

    tensors = [keras.ops.convert_to_tensor(argument) for argument in arguments]
    value, gradients = jax.value_and_grad(function, argnums=tuple(range(len(tensors))))(*tensors)
    return float(value), [np.asarray(gradient) for gradient in gradients]


def _torch(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[float, list[np.ndarray]]:
    tensors = [keras.ops.convert_to_tensor(argument).detach().clone().requires_grad_() for argument in arguments]
    value = function(*tensors)
    value.backward()
    return float(value.detach()), [tensor.grad.cpu().numpy() for tensor in tensors]
