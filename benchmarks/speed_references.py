"""A run's timings beside the references on file: cases that are slower are timed again, and new references made."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from alexnet_repro.cli.suite_options import REFERENCES as VARIABLE
from alexnet_repro.verify.benchmark.reference import Place, keep_references, places_of, provenance, references_of
from alexnet_repro.verify.benchmark.regression import speed_findings
from alexnet_repro.verify.benchmark.telemetry import cpu_time, share_of_others
from alexnet_repro.verify.benchmark.timing import Timing
from alexnet_repro.verify.doctor.fingerprint import machine_of
from alexnet_repro.verify.finding import Finding
from benchmarks.plan import FOLDER

if TYPE_CHECKING:
    from benchmarks.session import VerificationSession

REFERENCES = FOLDER / "references"


def reference_folders(config: pytest.Config) -> list[Path]:
    """Return where references are looked for, the site's own folder first; new ones are written to the first."""
    site = config.getoption("references") or os.environ.get(VARIABLE)
    return [*([Path(site).absolute()] if site else []), REFERENCES]


def compare_with_references(session: "VerificationSession") -> list[Finding]:
    """Return how timings compare with the references on file; with --update-reference, write new ones first."""
    timings = session.record.timings
    places = places_of(dict.fromkeys((*session.devices, *(each.device for each in timings))), session.machine)

    def remeasure(cases: Sequence[str]) -> tuple[Mapping[str, Sequence[float]], float]:
        session.say(f"\nre-measuring in a fresh process: {', '.join(cases)}")
        before = cpu_time()
        rounds = {case: timing.rounds for case, timing in _timed_again(session, cases).items()}
        return rounds, share_of_others(before, cpu_time(), os.cpu_count() or 1)

    if session.config.getoption("update_reference"):
        try:
            _update(session, places)
        except ValueError as error:
            return [Finding("speed", "FAIL", "no reference is made of a device that isn't right", str(error))]
    return speed_findings(timings, places, session.references, remeasure)


def _update(session: "VerificationSession", places: Mapping[str, Place]) -> None:
    """Write references of this run's timings and of those of fresh processes; ValueError: they aren't right."""
    processes = session.config.getoption("reference_processes")
    session.say(f"\n{processes} processes for the reference, of which this run's is the first:")
    runs = [{each.case: each for each in session.record.timings}]
    for number in range(2, processes + 1):
        runs.append(_timed_again(session, runs[0]))
        session.say(f"process {number} of {processes}: {len(runs[-1])} cases")
    origin = provenance(session.config.rootpath, session.record.run["command"])
    keep_references(session.references[0], references_of(runs, places, machine_of(session.machine), origin))


def _timed_again(session: "VerificationSession", cases: Iterable[str]) -> dict[str, Timing]:
    """Return the timings of cases from a fresh process of each device; ValueError: one isn't timed, or wrong."""
    by_device: dict[str, list[str]] = {}
    device_of = {each.case: each.device for each in session.record.timings}
    for case in cases:
        by_device.setdefault(device_of[case], []).append(session.node_ids[case])
    found: dict[str, Timing] = {}
    for device, nodes in by_device.items():
        found |= session.timings.fresh(device, nodes)
    return found
