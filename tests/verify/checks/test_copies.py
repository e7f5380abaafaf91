"""Copies to a device, back, and between devices arrive as they were sent, or the way that spoils them is named."""

import os
import subprocess
import sys
from contextlib import nullcontext

import keras
import numpy as np
import pytest
from keras import ops

from alexnet_repro.verify.checks import memory
from alexnet_repro.verify.checks.config import CheckConfig
from tests.helpers.paths import ROOT

CONFIG = CheckConfig(side=67, steps=2, replays=2)


def test_copies_arrive():
    """What is copied to this processor and back is what was sent."""
    found = memory.copies(CONFIG)
    assert (found.status, found.message) == ("PASS", "64 MiB to cpu:0 and back")


def a_byte_lost(tensor):
    """Return a copy of which one byte isn't what it was."""
    array = np.array(ops.convert_to_numpy(tensor))
    array[1234] ^= 1
    return ops.convert_to_tensor(array)


def test_wrong_byte_is_found(monkeypatch):
    """One byte that comes back as another fails, and the way it went is named."""
    monkeypatch.setattr(memory, "COPY_CHECK_BYTES", 4096)
    monkeypatch.setattr(memory, "moved", lambda tensor, _: a_byte_lost(tensor))
    found = memory.copies(CONFIG)
    assert (found.status, found.number) == ("FAIL", 1)
    assert found.message == "1 of 4096 bytes copied to cpu:0 and back didn't arrive as they were sent"
    assert found.fix


GPUS = ("gpu:0", "gpu:1", "gpu:2")


class Copies:
    """Copies among three GPUs that don't exist: by `spoiled` ways a byte is lost, by `skipped` ones nothing arrives."""

    def __init__(self, monkeypatch, spoiled=(), skipped=()):
        self.spoiled, self.skipped = spoiled, skipped
        self.made, self.sources, self.last = [], {}, {}  # ways; senders, by bytes; what lies where copies arrive
        monkeypatch.setattr(memory, "PAIR_BYTES", 4096)
        monkeypatch.setattr(memory, "usable_devices", lambda: ("cpu:0", *GPUS))
        monkeypatch.setattr(memory, "on_device", lambda _: nullcontext())
        monkeypatch.setattr(memory, "moved", self.moved)

    def moved(self, tensor, target):
        sent = np.array(ops.convert_to_numpy(tensor)).tobytes()
        way = self.sources.setdefault(sent, GPUS[min(len(self.sources), 2)]), target
        self.made.append(way)
        if way in self.skipped:
            return self.last[target]
        self.last[target] = a_byte_lost(tensor) if way in self.spoiled else tensor
        return self.last[target]


EVERY_WAY = [(source, target) for source in GPUS for target in GPUS if source != target]


def test_copies_among_all_gpus(monkeypatch):
    """Each of three GPUs sends to both others, bytes of its own: six ways, none by a CPU."""
    copies = Copies(monkeypatch)
    found = memory.gpu_to_gpu_copies(CheckConfig(device="gpu:0"))
    assert copies.made == EVERY_WAY
    assert (found.status, found.evidence, found.data) == ("PASS", "6 ways", {"gpus": 3})


@pytest.mark.parametrize(
    ("fault", "ways", "message"),
    [
        pytest.param(
            "spoiled", [way], f"1 of 4096 bytes copied from {way[0]} to {way[1]} didn't", id=f"way={way[0]} {way[1]}"
        )
        for way in EVERY_WAY
    ]
    + [
        pytest.param("spoiled", EVERY_WAY, "nor by 5 more of 6 ways", id="way=all"),
        # What gpu:0 sent to gpu:2 lies there when gpu:1's copy should arrive.
        pytest.param("skipped", [("gpu:1", "gpu:2")], "bytes copied from gpu:1 to gpu:2 didn't", id="way=stale"),
    ],
)
def test_wrong_way_between_gpus_is_named(monkeypatch, fault, ways, message):
    """Whichever two GPUs it is between, and whichever way, a wrong copy fails by their names; so does none at all."""
    Copies(monkeypatch, **{fault: ways})
    found = memory.gpu_to_gpu_copies(CheckConfig(device="gpu:0"))
    assert (found.check, found.status) == ("copies", "FAIL")
    assert message in found.message
    assert all(f"from {source} to {target}" in found.evidence for source, target in ways)
    assert found.fix


PARTS = """
import sys
import keras
from alexnet_repro.verify.checks.memory import copies_among
if keras.backend.backend() == "tensorflow":
    from alexnet_repro.backend.devices import split_cpu
    split_cpu(8)
found = copies_among([f"cpu:{number}" for number in range(8)], 0)
sys.exit(found.status != "PASS" or found.evidence != "56 ways")
"""


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch has one CPU; TensorFlow and JAX can split it")
@pytest.mark.slow
def test_copies_among_parts_of_a_cpu():
    """Among eight devices, parts of this CPU, copies go 56 ways and arrive."""
    environ = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    subprocess.run([sys.executable, "-c", PARTS], env=environ, cwd=ROOT, check=True, timeout=120)
