"""Performance regressions: a run's timings, and re-measurements in fresh processes, against the device's reference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alexnet_repro.verify.benchmark.gate import GateCase, cases_to_remeasure, judge_speeds, no_reference
from alexnet_repro.verify.benchmark.noise import level
from alexnet_repro.verify.benchmark.reference import Reference, environment_differences, path_of, read_reference
from alexnet_repro.verify.benchmark.timing import Timing
from alexnet_repro.verify.benchmark.tolerances import Tolerances, read_tolerances
from alexnet_repro.verify.finding import Finding

TOLERANCES = "tolerances.toml"
Remeasure = Callable[[Sequence[str]], tuple[Mapping[str, Sequence[float]], float]]
"""From cases to their rounds in a fresh process, and the share of the processors that others took meanwhile.

Raises:
    ValueError: they couldn't be timed.
"""


@dataclass(frozen=True)
class Place:
    """A device, as its references are found."""

    kind: str
    environment: Mapping[str, Any]
    boot: str = ""
    """From `alexnet_repro.verify.doctor.fingerprint.boot_of`."""


def speed_findings(
    timings: Sequence[Timing], places: Mapping[str, Place], folder: Path, remeasure: Remeasure | None = None
) -> list[Finding]:
    """Return how each valid timing compares with its device's reference.

    Args:
        timings: of this run.
        places: by device.
        folder: of references and tolerances.
        remeasure: times slower cases again; without it, they are inconclusive.
    """
    wanted = [timing for timing in timings if timing.rounds and not timing.fault]
    try:
        tolerances = read_tolerances(folder / TOLERANCES)
        kept = {device: read_reference(path_of(folder, place.kind)) for device, place in places.items()}
    except ValueError as error:
        return [Finding("speed", "FAIL", "references can't be read", str(error), "git checkout benchmarks/references")]
    cases: list[GateCase] = []
    for device, reference in kept.items():
        if reference and not environment_differences(places[device].environment, reference.environment):
            cases += _cases(reference, device, places[device], [timing for timing in wanted if timing.device == device])
    found = _with_remeasurements(cases, tolerances, remeasure)
    names = {case.name for case in cases}
    missing: dict[tuple[str, str], list[str]] = {}
    for each in wanted:
        if each.case not in names:
            why = _why(places[each.device], kept[each.device])
            missing.setdefault((each.device, why), []).append(each.case)
    return [*found, *(no_reference(which, device, why) for (device, why), which in missing.items())]


def _cases(reference: Reference, device: str, place: Place, timings: Sequence[Timing]) -> list[GateCase]:
    """Return all cases on file for a device, with the measurements of those that were timed."""
    timed = {timing.case: [level(timing.rounds)] for timing in timings}
    return [
        GateCase(
            name,
            baseline.device,
            baseline.precision,
            [level(rounds) for rounds in baseline.processes],
            timed.get(name, []),
            baseline.provenance.get("recorded", ""),
            elsewhere=baseline.provenance.get("boot", "") != place.boot,
        )
        for name, baseline in reference.cases.items()
        if baseline.device == device
    ]


def _with_remeasurements(
    cases: Sequence[GateCase], tolerances: Tolerances, remeasure: Remeasure | None
) -> list[Finding]:
    """Return the findings after as many re-measurements as are needed."""
    failed = ""
    while remeasure and not failed and (names := [case.name for case in cases_to_remeasure(cases, tolerances)]):
        try:
            rounds, busy = remeasure(names)
            cases = [
                replace(case, measurements=[*case.measurements, level(rounds[case.name])], busy=max(case.busy, busy))
                if case.name in names
                else case
                for case in cases
            ]
        except (KeyError, ValueError) as error:
            failed = f"; re-measurement failed: {error}"
    return [
        replace(each, evidence=each.evidence + failed) if each.status == "INCONCLUSIVE" and failed else each
        for each in judge_speeds(cases, tolerances)
    ]


def _why(place: Place, reference: Reference | None) -> str:
    """Return why a case has no reference."""
    if reference is None:
        return f"no reference is on file for {place.kind}"
    changed = environment_differences(place.environment, reference.environment)
    if changed:
        return f"the reference on file for {place.kind} is of another environment: {'; '.join(changed)}"
    return f"no reference is on file for this case on {place.kind}"
