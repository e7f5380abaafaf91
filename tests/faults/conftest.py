"""What makes hundreds of checks in one process quicker."""

import pytest

from alexnet_repro.verify.checks import learning


@pytest.fixture(autouse=True)
def _fewer_updates(monkeypatch):
    """A batch that can be learned is learned in twenty updates."""
    monkeypatch.setattr(learning, "MAX_UPDATES", 32)
