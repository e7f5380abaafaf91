"""Speed of a fleet's devices beside each other: what is slow, by how much, in which cases, and what goes with it.

One budget of false alarms, `FleetSettings.false_alarms`, holds for the whole fleet: half of it is for what is judged
here, in shares of the cohorts' sizes. Arithmetic: `slowness.py`, `robust.py` and docs/method/fleet.md.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from alexnet_repro.fleet.cohorts import differing, timed_cohorts
from alexnet_repro.fleet.judged import JudgedCohort, first_of
from alexnet_repro.fleet.records import Fleet, FleetFinding, FleetSettings, SpeedAnswer

SPEED_SHARE = 0.75  # of the false alarms; the rest is for the comparison with earlier runs


def judge_speed(fleet: Fleet, settings: FleetSettings) -> SpeedAnswer:
    """Return the cohorts, the tables of their speeds, and what is slow; levels of earlier runs must agree with it."""
    cohorts = timed_cohorts(fleet)
    total = sum(len(each.members) for each in cohorts)
    found = [
        JudgedCohort(each, settings, SPEED_SHARE * settings.false_alarms * len(each.members) / total)
        for each in cohorts
    ]
    findings = [finding for each in found for finding in each.findings]
    findings += _between(found, fleet.environments, settings)
    return SpeedAnswer([each.answer() for each in found], [each.table() for each in found], findings)


def _between(
    found: Sequence[JudgedCohort], environments: Mapping[str, Mapping[str, Any]], settings: FleetSettings
) -> list[FleetFinding]:
    """Return how cohorts of one kind but other environments differ: INCONCLUSIVE, for software may be why."""
    findings = []
    for one, other in pairwise(found):  # sorted by kind, and size
        if one.cohort.kind != other.cohort.kind or one.slow is None or other.slow is None or one.why or other.why:
            continue
        levels = [dict(zip(each.cohort.cases, each.slow.centre, strict=True)) for each in (one, other) if each.slow]
        shared = [levels[1][case] - levels[0][case] for case in levels[0] if case in levels[1]]
        shift = float(np.nanmedian(shared)) if shared else 0.0
        if not abs(shift) > math.log1p(settings.tolerance):
            continue
        slow, fast = (other, one) if shift > 0 else (one, other)
        by = math.expm1(abs(shift))
        what = differing(environments.get(slow.cohort.environment, {}), environments.get(fast.cohort.environment, {}))
        count = f"{len(slow.members):,} devices"
        message = f"{slow.cohort.name}: its {count} are {by:.1%} slower than those of {fast.cohort.name}"
        findings.append(
            FleetFinding(
                "speed",
                "INCONCLUSIVE",
                message,
                group=slow.cohort.name,
                evidence=first_of(what),
                number=1 + by,
                fix="give all nodes one environment, or see what the slower one's differs by",
                data={"cohort": slow.cohort.name, "differs": what},
            )
        )
    return findings
