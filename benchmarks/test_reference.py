"""Are the bits those that were recorded in the same environment?"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from alexnet_repro.verify.checks import golden
from alexnet_repro.verify.checks.registry import Asked
from alexnet_repro.verify.checks.runner import Examination

DIGESTS = Path(__file__).parent / "references" / "digests.json"


def test_golden(
    device: str,
    precision: str,
    examination: Examination,
    conclude: Callable[..., None],
    request: pytest.FixtureRequest,
) -> None:
    """The replay's digests are the golden ones; those of another environment are compared, but don't pass."""
    found = examination.find(device, Asked("replay", precision))
    subject = replace(examination.subject, device=device, precision=precision)
    environment = golden.environment_of(device, examination.here)
    if request.config.getoption("update_reference"):
        if found.status != "PASS":
            pytest.fail(f"no reference is made of a device that isn't right:\n{found}", pytrace=False)
        golden.write(DIGESTS, golden.updated(golden.read(DIGESTS), found, subject, environment))
    conclude("reference", golden.compare(found, subject, environment, golden.read(DIGESTS)))
