"""Is a run as fast as the reference of its device? From a run's timings, and looks at fresh processes, to findings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alexnet_repro.verify.benchmark import reference as speed_reference
from alexnet_repro.verify.benchmark import tolerances as rules_file
from alexnet_repro.verify.benchmark.gate import Case, compare, none_on_file, suspects
from alexnet_repro.verify.benchmark.noise import level
from alexnet_repro.verify.benchmark.reference import Reference, environment_differences, path_of
from alexnet_repro.verify.benchmark.timing import Timing
from alexnet_repro.verify.benchmark.tolerances import Rules
from alexnet_repro.verify.finding import Finding

RULES = "rules.toml"
Again = Callable[[Sequence[str]], tuple[Mapping[str, Sequence[float]], float]]
"""From cases to their rounds in a fresh process, and the share of the processors that others took meanwhile.

Raises:
    ValueError: they couldn't be timed.
"""


@dataclass(frozen=True)
class Place:
    """A device, as its references are looked for."""

    kind: str
    environment: Mapping[str, Any]
    boot: str = ""
    """As `alexnet_repro.verify.doctor.fingerprint.boot_of` has it."""


def speed_findings(
    timings: Sequence[Timing], places: Mapping[str, Place], folder: Path, again: Again | None = None
) -> list[Finding]:
    """Return how each timing compares with its device's reference; void ones are left out, as theirs is said already.

    Args:
        timings: of this run.
        places: by device.
        folder: of references and rules.
        again: looks again at what is slower; without it, what is slower stays in doubt.
    """
    wanted = [timing for timing in timings if timing.rounds and not timing.fault]
    try:
        rules = rules_file.read(folder / RULES)
        kept = {device: speed_reference.read(path_of(folder, place.kind)) for device, place in places.items()}
    except ValueError as error:
        return [Finding("speed", "FAIL", "references can't be read", str(error), "git checkout benchmarks/references")]
    cases: list[Case] = []
    for device, reference in kept.items():
        if reference and not environment_differences(places[device].environment, reference.environment):
            cases += _cases(reference, device, places[device], [timing for timing in wanted if timing.device == device])
    told = {finding.message: finding for finding in _looked_at(cases, rules, again)}
    names = {case.name for case in cases}
    missing: dict[tuple[str, str], list[str]] = {}
    for each in wanted:
        if each.case not in names:
            why = _why(places[each.device], kept[each.device])
            missing.setdefault((each.device, why), []).append(each.case)
    absent = [none_on_file(which, device, why) for (device, why), which in missing.items()]
    return [*told.values(), *absent]


def _cases(reference: Reference, device: str, place: Place, timings: Sequence[Timing]) -> list[Case]:
    """Return all cases on file for a device, with the looks at those that were timed."""
    timed = {timing.case: [level(timing.rounds)] for timing in timings}
    return [
        Case(
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


def _looked_at(cases: Sequence[Case], rules: Rules, again: Again | None) -> list[Finding]:
    """Return findings after as many looks as are needed."""
    failed = ""
    while again and not failed and (doubted := [case.name for case in suspects(cases, rules)]):
        try:
            rounds, busy = again(doubted)
            cases = [
                replace(case, looks=[*case.looks, level(rounds[case.name])], busy=max(case.busy, busy))
                if case.name in doubted
                else case
                for case in cases
            ]
        except (KeyError, ValueError) as error:
            failed = f"; another look failed: {error}"
    return [
        replace(each, evidence=each.evidence + failed) if each.status == "INCONCLUSIVE" and failed else each
        for each in compare(cases, rules)
    ]


def _why(place: Place, reference: Reference | None) -> str:
    """Return why nothing is on file for a case."""
    if reference is None:
        return f"no reference is on file for {place.kind}"
    changed = environment_differences(place.environment, reference.environment)
    if changed:
        return f"the reference on file for {place.kind} is of another environment: {'; '.join(changed)}"
    return f"no reference is on file for this case on {place.kind}"
