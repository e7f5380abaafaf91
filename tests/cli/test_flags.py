"""Flags of XLA's that the backend doesn't know: one line before anything is computed."""

import pytest

from alexnet_repro.cli import parser as command_line
from alexnet_repro.cli.flags import flags_in_log, unknown_flags


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", None),
        ("Traceback (most recent call last):\nImportError: no\n", None),
        (
            "I0000 00:00:1 2 port.cc:1] on\nF0000 00:00:1 2 parse_flags.cc:234] Unknown flag in XLA_FLAGS: --a\n",
            "XLA_FLAGS holds --a, which this version of jax doesn't know; unset XLA_FLAGS",
        ),
        (
            "F1127 12:47:08.564697   2 parse_flags_from_env.cc:234] Unknown flags in TF_XLA_FLAGS: --a --b=3\n",
            "TF_XLA_FLAGS holds --a --b=3, which this version of jax doesn't know; unset TF_XLA_FLAGS",
        ),
        (
            'F0000 00:00:1 2 parse_flags_from_env.cc:171] Could not open file "x" to read flags\nusage\n',
            'jax can\'t start with XLA_FLAGS=x: Could not open file "x" to read flags; unset XLA_FLAGS',
        ),
    ],
    ids=["log=empty", "log=import", "log=one", "log=two", "log=file"],
)
def test_log(log, expected):
    """The variable and its flags are named, as the child's last words have them; other deaths say nothing of flags."""
    assert flags_in_log(log, "jax", {"XLA_FLAGS": "x"}) == expected


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
    reason = f"{name} holds --bogus=1, which this version of tensorflow doesn't know; unset {name}"
    assert capsys.readouterr().err == f"python -m alexnet_repro: {reason}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


@pytest.mark.slow
def test_known_flags(monkeypatch):
    """Flags that the backend knows are passed on."""
    pytest.importorskip("tensorflow")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    assert unknown_flags("tensorflow") is None
