"""Flags of XLA's that the backend doesn't know: one line before anything is computed."""

import pytest

from alexnet_repro.cli import parser as command_line
from alexnet_repro.cli.flags import unknown_flags
from alexnet_repro.verify.doctor import device_probe
from alexnet_repro.verify.doctor.device_probe import ProbeResult

UNKNOWN = "which this version doesn't know; take it out of"


@pytest.mark.parametrize(
    ("how", "log", "expected"),
    [
        ("", "", None),
        ("ImportError: no", "ImportError: no", None),
        ("ended by SIGKILL", "", None),
        ("no answer within 180 s", "", None),
        (
            *("exit status 1", "Unknown flag in XLA_FLAGS: --a"),
            f"XLA_FLAGS has --a, {UNKNOWN} XLA_FLAGS, or: unset XLA_FLAGS",
        ),
        (
            *("ended by SIGABRT", "Unknown flags in TF_XLA_FLAGS: --a --b=3 | terminate called"),
            f"TF_XLA_FLAGS has --a --b=3, {UNKNOWN} TF_XLA_FLAGS, or: unset TF_XLA_FLAGS",
        ),
        (
            *("exit status 1", 'Could not open file "x" to read flags for environment variable "XLA_FLAGS"'),
            "XLA_FLAGS names x, which is no flag, nor a file that can be read; unset XLA_FLAGS",
        ),
        ("ended by SIGABRT", "Check failed: x", "jax can't start with XLA_FLAGS=x: Check failed: x; unset XLA_FLAGS"),
    ],
    ids=["how=well", "how=import", "how=killed", "how=slow", "how=one", "how=two", "how=file", "how=check"],
)
def test_how_the_child_ended(monkeypatch, how, log, expected):
    """The variable and its flags are named, as the child's last words have them; other deaths say nothing of flags."""
    result = ProbeResult("cpu:0", "jax", how or None, log=log)
    monkeypatch.setattr(device_probe, "probe_start", lambda _backend, _deadline: result)
    monkeypatch.setenv("XLA_FLAGS", "x")
    assert unknown_flags("jax") == expected


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_no_flags(monkeypatch, backend):
    """Without flags, or where nothing reads them, no child is started."""
    monkeypatch.setattr("subprocess.Popen", None)
    for name in ("XLA_FLAGS", "TF_XLA_FLAGS"):
        monkeypatch.setenv(name, "--bogus" if backend == "torch" else "")
    assert unknown_flags(backend) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "name"),
    [("train --synthetic", "XLA_FLAGS"), ("evaluate --synthetic --weights=weights", "TF_XLA_FLAGS")],
)
def test_unknown_flag(monkeypatch, capsys, tmp_path, command, name):
    """What computes says which flag isn't known, and ends with 1 before it writes anything."""
    pytest.importorskip("tensorflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, "--bogus=1")
    (tmp_path / "weights").touch()
    assert command_line.main(command.split()) == 1
    reason = f"{name} has --bogus=1, {UNKNOWN} {name}, or: unset {name}"
    assert capsys.readouterr().err == f"python -m alexnet_repro: {reason}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


@pytest.mark.slow
def test_known_flags(monkeypatch):
    """Flags that the backend knows are passed on."""
    pytest.importorskip("tensorflow")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    assert unknown_flags("tensorflow") is None
