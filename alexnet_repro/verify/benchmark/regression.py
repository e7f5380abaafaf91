"""Performance regressions: a run's timings, and re-measurements in fresh processes, against the device's reference."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from alexnet_repro.layout import restoration
from alexnet_repro.verify.benchmark.gate import GateCase, cases_to_remeasure, judge_speeds, no_reference
from alexnet_repro.verify.benchmark.noise import level
from alexnet_repro.verify.benchmark.reference import (
    Place,
    environment_differences,
    framework_of,
    path_of,
    read_reference,
)
from alexnet_repro.verify.benchmark.timing import Timing
from alexnet_repro.verify.benchmark.tolerances import Tolerances, read_tolerances
from alexnet_repro.verify.doctor.endings import find_ending
from alexnet_repro.verify.finding import Finding

Remeasure = Callable[[Sequence[str]], tuple[Mapping[str, Sequence[float]], float]]
"""From cases to their rounds in a fresh process, and others' share of the processors; ValueError: not timed."""


def speed_findings(
    timings: Sequence[Timing], places: Mapping[str, Place], folders: Sequence[Path], remeasure: Remeasure | None = None
) -> list[Finding]:
    """Return how each valid timing of this run compares with its device's reference.

    `places` are by device; `folders` have references and tolerances, of which the first file of a name is read.
    Without `remeasure`, slower cases are inconclusive.
    """
    wanted = [timing for timing in timings if timing.rounds and not timing.fault]
    path, kept = _first(folders, "tolerances.toml"), {}
    try:
        tolerances = read_tolerances(path)
        for device, place in places.items():
            path = _first(folders, path_of(Path(), place.kind, place.environment).name)
            kept[device] = read_reference(path)
    except ValueError as error:
        return [Finding("speed", "FAIL", "references can't be read", str(error), restoration(path))]
    cases: list[GateCase] = []
    missing: list[Finding] = []
    for device in dict.fromkeys(timing.device for timing in wanted):
        place, reference = places[device], kept[device]
        timed = {timing.case: [level(timing.rounds)] for timing in wanted if timing.device == device}
        why = f"no reference is on file for {place.kind} and {framework_of(place.environment)}"
        if reference and (changed := environment_differences(place.environment, reference.environment)):
            why = f"the reference on file for {place.kind} is of another environment: {'; '.join(changed)}"
        elif reference:
            why = f"no reference is on file for this case on {place.kind}"
            cases += [
                GateCase(
                    name,
                    device,
                    baseline.precision,
                    [level(rounds) for rounds in baseline.processes],
                    timed.get(name, []),  # those that weren't timed show the noise
                    baseline.provenance.get("recorded", ""),
                    elsewhere=baseline.provenance.get("boot", "") != place.boot,
                )
                for name, baseline in reference.cases.items()
                if baseline.device == device
            ]
        if without := timed.keys() - {case.name for case in cases}:
            missing.append(no_reference([name for name in timed if name in without], device, why))
    return [*_with_remeasurements(cases, tolerances, remeasure), *missing]


def _first(folders: Sequence[Path], name: str) -> Path:
    """Return the first folder's file of a name that is there, if only as a broken link, or else the last folder's."""
    paths = [folder / name for folder in folders]
    return next((path for path in paths if os.path.lexists(path)), paths[-1])


def _with_remeasurements(
    cases: Sequence[GateCase], tolerances: Tolerances, remeasure: Remeasure | None
) -> list[Finding]:
    """Return the findings after as many re-measurements as are needed."""
    failed = fix = ""
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
            device = next(case.device for case in cases if case.name in names)
            ending = find_ending(device, "", str(error))
            failed, fix = (ending.message, f"{ending.fix}; then: ") if ending else (str(error).partition("\n")[0], "")
    return [
        replace(each, message=f"{each.message}; it couldn't be measured again: {failed}", fix=fix + each.fix)
        if each.status == "INCONCLUSIVE" and failed
        else each
        for each in judge_speeds(cases, tolerances)
    ]
