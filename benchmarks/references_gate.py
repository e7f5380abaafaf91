"""Timings against references, at the end of a run: wiring only."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from alexnet_repro.backend.devices import gpu_names
from alexnet_repro.verify.benchmark import collect
from alexnet_repro.verify.benchmark import reference as speed_reference
from alexnet_repro.verify.benchmark.gate import ENOUGH_PROCESSES
from alexnet_repro.verify.benchmark.load import others, snapshot
from alexnet_repro.verify.benchmark.regression import Place, speed_findings
from alexnet_repro.verify.doctor import fingerprint
from alexnet_repro.verify.finding import Finding
from benchmarks.summary import DEVICES, HERE, RECORD, TIMINGS

FOLDER = Path(__file__).parent / "references"


def against_references(session: pytest.Session) -> list[Finding]:
    """Return how this run's timings compare with those on file; with --update-reference, keep new ones first."""
    config, timings = session.config, session.config.stash[TIMINGS]
    if not timings:
        return []
    devices = dict.fromkeys((*config.stash[DEVICES], *(timing.device for timing in timings)))
    names, here = gpu_names(), config.stash[HERE]
    places = {
        device: Place(
            fingerprint.kind_of(device, names),
            fingerprint.speed_environment(device, here),
            fingerprint.boot_of(device),
        )
        for device in devices
    }
    if collect.COLLECTING in os.environ:
        config.stash[RECORD].machine["speed"] = {
            "devices": {
                device: {"kind": each.kind, "environment": each.environment} for device, each in places.items()
            },
            "machine": fingerprint.machine_of(here),
        }
        return []
    tests = {item.name.removeprefix("test_"): item.nodeid for item in session.items}
    chosen = [f"--device={device}" for device in config.stash[DEVICES]]
    chosen += [
        f"--benchmark-{name.replace('_', '-')}={config.getoption(f'benchmark_{name}')}"
        for name in ("max_time", "min_rounds")
    ]
    chosen += ["--full"] if config.getoption("full") else []
    say = config.get_terminal_writer().line

    def again(cases: Sequence[str]) -> tuple[Mapping[str, Sequence[float]], float]:
        say(f"\nlooking again, in a fresh process: {', '.join(cases)}")
        before = snapshot()
        (run,) = collect.collected(config.rootpath, 1, [*chosen, *(tests[case] for case in cases)])
        return collect.rounds_of(run), others(before, snapshot(), os.cpu_count() or 1)

    if config.getoption("update_reference"):
        say(f"\n{ENOUGH_PROCESSES} processes for the reference:")
        nodes = [tests[timing.case] for timing in timings]
        command = f"pytest {' '.join(map(str, config.invocation_params.args))}"
        try:
            keep(config.rootpath, collect.collected(config.rootpath, ENOUGH_PROCESSES, [*chosen, *nodes], say), command)
        except ValueError as error:
            return [Finding("speed", "FAIL", "no reference is made of a device that isn't right", str(error))]
    return speed_findings(timings, places, FOLDER, again)


def keep(root: Path, runs: Sequence[Mapping], command: str, note: str = "", into: Path | None = None) -> list[Path]:
    """Write what processes timed as references, and return the files."""
    paths, found = [], list(collect.references(runs, collect.provenance(root, command, note)))
    if into and len(found) > 1:
        kinds = ", ".join(reference.device for reference in found)
        raise ValueError(f"--into: {into} would hold one device of several ({kinds}); choose one: --device=gpu:0")
    for reference in found:
        path = into or speed_reference.path_of(FOLDER, reference.device)
        speed_reference.write(path, speed_reference.merged(speed_reference.read(path), reference))
        paths.append(path)
    return paths
