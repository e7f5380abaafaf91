"""Fixes as steps: what can be pasted, and what is prose."""

import subprocess
import sys

import pytest

from alexnet_repro.verify.doctor.causes import CAUSES
from alexnet_repro.verify.report.fixes import steps

UPDATE = "python -m alexnet_repro verify --update-reference"


@pytest.mark.parametrize(
    ("fix", "expected"),
    [
        ("", []),
        ("fix that check first", ["fix that check first"]),
        ("run it again; if it stays, reseat the card", ["run it again; if it stays, reseat the card"]),
        ("python -m alexnet_repro doctor", ["$ python -m alexnet_repro doctor"]),
        ("nvidia-smi -L; sudo dmesg | tail", ["$ nvidia-smi -L", "$ sudo dmesg | tail"]),
        (f"{UPDATE} # when idle; then commit it", [f"$ {UPDATE}", "when idle; then commit it"]),
        (f"with nothing else: {UPDATE} # when idle", ["with nothing else:", f"$ {UPDATE}", "when idle"]),
        ("end what runs: top; then see: lscpu", ["end what runs:", "$ top", "then see:", "$ lscpu"]),
        ("end it; then: nvidia-smi -q, lspci -vv", ["end it; then:", "$ nvidia-smi -q", "$ lspci -vv"]),
        ("sudo nvidia-smi -r, or: sudo reboot", ["$ sudo nvidia-smi -r", "or:", "$ sudo reboot"]),
        ("nvidia-smi, and end the rest", ["$ nvidia-smi", "and end the rest"]),
        ("docker run --gpus all …, or a pod", ["$ docker run --gpus all …", "or a pod"]),
        ("sudo reboot (elsewhere: another)", ["$ sudo reboot", "(elsewhere: another)"]),
        ("pytest 'a.py::t[b=1, c=2]'; watch it", ["$ pytest 'a.py::t[b=1, c=2]'", "watch it"]),
        ("grep -iE 'xid|nvlink' FILE", ["$ grep -iE 'xid|nvlink' FILE"]),
        ("free -m; free 2 GB of it", ["$ free -m", "free 2 GB of it"]),
        ("python is too old", ["python is too old"]),
        ("nvidia-smi-like tools", ["nvidia-smi-like tools"]),
        ("ask in its spec: resources: {limits: 1}", ["ask in its spec: resources: {limits: 1}"]),
    ],
)
def test_commands_and_prose(fix, expected):
    """A command is a step of its own, without its comment and the words around it; prose stays together."""
    assert [f"$ {each.text}" if each.command else each.text for each in steps(fix)] == expected


def test_nothing_is_lost():
    """Every word of each known fix is in its steps, in their order."""
    for cause in CAUSES:
        words = [word for each in steps(cause.fix) for word in each.text.split()]
        assert [word.strip(",;") for word in words] == [word.strip(",;") for word in cause.fix.split() if word != "#"]


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: f"cause={cause.name}")
def test_commands_can_be_pasted(cause):
    """Bash understands each command of the known fixes, and none goes on in prose."""
    for each in steps(cause.fix):
        if each.command:
            subprocess.run(["bash", "-n"], input=each.text, text=True, check=True, timeout=20)
            assert not any(word in each.text for word in ("; ", ", ", " # ", " then", " or ", " and "))


@pytest.mark.parametrize("piece", ["'", ": ", "; ", "pip ", ", ", " # pip "])
def test_long_fix_takes_no_time(piece):
    """A text that no check wrote, however long and odd, is split at once, or left whole."""
    code = f"from alexnet_repro.verify.report.fixes import steps; [steps('pip' + {piece!r} * n) for n in (600, 10**6)]"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)
