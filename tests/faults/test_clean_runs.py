"""No false alarms: fifty runs on a correct machine, each from another seed, and no failure."""

from dataclasses import replace

import pytest

from alexnet_repro.verify.checks.registry import ALL_CHECKS, CORRECT, REPEATABLE, CheckId, run_check
from tests.faults.test_faults import CONFIG

RUNS = 50
PRECISIONS = ("float32", "mixed_bfloat16")


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_fifty_clean_runs(precision):
    """Half of the fifty are in each precision; every check passes in all of them."""
    others = [
        str(finding)
        for seed in range(RUNS // len(PRECISIONS))
        for check in (*CORRECT, *REPEATABLE)
        for finding in [
            run_check(
                CheckId(check, precision if ALL_CHECKS[check].in_each_precision else ""),
                replace(CONFIG, steps=1, seed=seed),
            )
        ]
        if finding.status != "PASS"
    ]
    assert others == []
