"""The documented model, smaller where its size is no matter."""

from contextlib import contextmanager

import pytest

from alexnet_repro import model


@contextmanager
def narrow_layers():
    """Build models whose hidden dense layers have 512 units: on small images, a fifth of the parameters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "HIDDEN_UNITS", 512)
        yield
