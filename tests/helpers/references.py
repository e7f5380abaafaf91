"""A reference that is on file in tests, and timings to compare with it."""

from alexnet_repro.verify.benchmark import reference as speed_reference
from alexnet_repro.verify.benchmark.reference import Baseline, Place, Reference, path_of
from alexnet_repro.verify.benchmark.timing import Timing

HERE = {"packages": {"numpy": "2.4.6", "tensorflow": "2.21.0"}, "settings": {}, "threads": {"processors": 2}}
PLACES = {"cpu:0": Place("AMD EPYC, 2 processors", HERE)}
PROCESSES = [[1.0 + i / 1000] * 6 for i in range(8)]
FROM = {
    "recorded": "2026-11-24",
    "command": "pytest benchmarks --update-reference",
    "revision": "486c04f",
    "seed": "0",
}
STORED = Reference(
    "AMD EPYC, 2 processors",
    HERE,
    {"system": "Linux"},
    {"resize": Baseline("cpu:0", "float32", PROCESSES, FROM)},
    schema=1,
)


def stored_in(folder):
    """Put tolerances and one reference into a folder; returns it."""
    (folder / "tolerances.toml").write_text("false_alarms = 0.005\n")
    speed_reference.write_reference(path_of(folder, STORED.device, HERE), STORED)
    return folder


def timing(seconds, case="resize", **more):
    """Return a case's timing on the CPU."""
    return Timing(case, "cpu:0", "float32", [seconds] * 6, seconds, **more)
