"""The tests themselves pass behind a proxy, with a company's certificates, in a cluster's job, and where GPUs are."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests import conftest
from tests.helpers.paths import ROOT
from tests.helpers.pytest_here import pytest_here

NOWHERE = "http://anna:secret@127.0.0.1:9"


@pytest.mark.parametrize(
    "environ",
    [
        {"http_proxy": NOWHERE, "https_proxy": NOWHERE, "no_proxy": "localhost,.corp.example"},
        {"ALL_PROXY": "socks5://127.0.0.1:9", "REQUESTS_CA_BUNDLE": "/nonexistent"},
    ],
    ids=lambda environ: f"variables={' '.join(environ)}",
)
def test_downloads_pass(monkeypatch, environ):
    """Where requests would take a proxy or certificates, a test's own server is reached all the same."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    status, printed = pytest_here(str(ROOT / "tests/data/test_download.py::test_download"), "-q")
    assert status == 0, printed


PROXIES = [f"{each}_proxy" for each in ("http", "https", "all", "no", "grpc")]
CERTIFICATES = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"]
JOB = ["TF_CONFIG", "SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURMD_NODENAME", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"]
NAMES = [*PROXIES, *map(str.upper, PROXIES), *CERTIFICATES, *JOB]


@pytest.mark.parametrize("network", [False, True])
def test_surroundings_are_for_the_network(monkeypatch, network):
    """What leads a process elsewhere is left out of a test and its children, unless it fetches, and then restored."""
    for name in NAMES:
        monkeypatch.setenv(name, "elsewhere")
    item = SimpleNamespace(get_closest_marker=lambda name: True if network and name == "network" else None)
    run = conftest.pytest_runtest_protocol(item)
    next(run)
    there = [name for name in NAMES if name in os.environ]
    next(run, None)
    assert there == (NAMES if network else [])
    assert {os.environ[name] for name in NAMES} == {"elsewhere"}


@pytest.mark.parametrize("visible", [None, "0,3"], ids=lambda value: f"visible={value}")
@pytest.mark.parametrize("benchmarks", [False, True])
def test_gpus_are_hidden(monkeypatch, benchmarks, visible):
    """Tests, and what they start, compute on the CPU; where benchmarks run as well, the doctor sees what it would."""
    monkeypatch.setattr(conftest, "VISIBLE", visible)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    conftest.pytest_configure(SimpleNamespace(pluginmanager=SimpleNamespace(has_plugin=lambda _: benchmarks)))
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == (visible if benchmarks else "-1")


@pytest.mark.slow
def test_ignored_signals_are_heeded():
    """Where the shell has signals ignored, as under nohup and in its background, tests that send them pass."""
    tests = ["tests/training/test_stop_signal.py", "tests/cli/test_train.py::test_signals_stop_a_training"]
    pytest_words = [sys.executable, "-m", "pytest", "-q", "-pno:cacheprovider", "-mnot slow", *tests]
    words = ["sh", "-c", "trap '' HUP INT; exec \"$@\"", "sh", *pytest_words]
    done = subprocess.run(words, check=False, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout
