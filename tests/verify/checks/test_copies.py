"""Copies to a device, back, and between devices arrive as they were sent, or the way that spoils them is named."""

from contextlib import nullcontext

import numpy as np
import pytest
from keras import ops

from alexnet_repro.backend.devices import moved
from alexnet_repro.verify.checks import memory
from alexnet_repro.verify.checks.config import CheckConfig

CONFIG = CheckConfig(side=67, steps=2, replays=2)


def test_copies_arrive():
    """What is copied to this processor and back is what was sent."""
    found = memory.copies(CONFIG)
    assert (found.status, found.message) == ("PASS", "64 MiB to cpu:0 and back")


@pytest.mark.parametrize(
    ("to", "way"),
    [
        pytest.param(["cpu:0"], "to cpu:0 and back", id="wrong=here"),
        pytest.param(["gpu:1"], "from cpu:0 to gpu:1", id="wrong=there"),
        pytest.param(["gpu:1", "cpu:0"], "from gpu:1 to cpu:0", id="wrong=back"),
    ],
)
def test_wrong_byte_is_found(monkeypatch, to, way):
    """One byte that arrives as another fails, and the way it went is named."""
    monkeypatch.setattr(memory, "COPY_CHECK_BYTES", 4096)
    seen = []

    def spoiling(tensor, device):
        seen.append(device)
        array = np.array(ops.convert_to_numpy(tensor))
        if seen[-len(to) :] == to:
            array[1234] ^= 1
        return moved(ops.convert_to_tensor(array), "cpu:0")

    monkeypatch.setattr(memory, "moved", spoiling)
    found = memory.copies(CONFIG, ("gpu:1",))
    assert (found.status, found.number) == ("FAIL", 1)
    assert found.message == f"1 of 4096 bytes copied {way} didn't arrive as they were sent"
    assert found.fix


def test_gpu_to_gpu_copies(monkeypatch):
    """Copies go from the first GPU to each of the others and back, and to no CPU."""
    monkeypatch.setattr(memory, "COPY_CHECK_BYTES", 4096)
    monkeypatch.setattr(memory, "usable_devices", lambda: ("cpu:0", "gpu:0", "gpu:1", "gpu:2"))
    monkeypatch.setattr(memory, "on_device", lambda _: nullcontext())
    monkeypatch.setattr(memory, "moved", lambda tensor, _device: tensor)
    found = memory.gpu_to_gpu_copies(CheckConfig(device="gpu:0"))
    assert [way for way in found.message.split(", ") if "gpu:0" in way and "and back" not in way] == [
        "from gpu:0 to gpu:1",
        "from gpu:1 to gpu:0",
        "from gpu:0 to gpu:2",
        "from gpu:2 to gpu:0",
    ]
    assert "cpu" not in found.message
