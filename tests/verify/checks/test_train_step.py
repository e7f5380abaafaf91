"""The check of a train step: what updates weights somewhere else isn't the device's."""

import itertools

from alexnet_repro.verify.checks import train_step
from alexnet_repro.verify.checks.config import CheckConfig
from tests.helpers.models import narrow_layers


def test_weights_of_another_device(monkeypatch):
    """The velocity of a weight that lies on another device fails by its name, however right it is."""
    after_the_weights = itertools.count(-16)
    monkeypatch.setattr(train_step, "device_of", lambda _: "gpu:0" if next(after_the_weights) == 2 else "cpu:0")
    with narrow_layers():
        found = train_step.update(CheckConfig(side=67))
    assert found.status == "FAIL"
    assert "conv2d_1_kernel" in found.message
    assert found.message.endswith(" lies on gpu:0, should be updated on cpu:0")
    assert "doctor" in found.fix
