"""What a fleet's results files are reduced to, and what is found in them: plain data, without any judgement.

A *node* is a machine. A *cohort* is the devices of one kind in one environment, which must compute the same bits, or
be equally fast.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alexnet_repro.verify.finding import Status, worst_status

Area = Literal["files", "missing", "own", "bits", "speed", "history", "health", "inventory"]
"""What a finding is about; `own`: what the node's run found by itself."""

CASE_NUMBERS = (
    *("level", "error", "seconds", "invalid"),
    *("cpu_mhz", "gpu_mhz", "watts", "temperature", "pcie_generation", "pcie_width", "throttled", "load"),
)
"""The columns of `FleetDevice.numbers`; NaN is what wasn't recorded.

`level` and `error` are those of `alexnet_repro.verify.benchmark.noise.level`, logarithms of seconds; `seconds` is the
rounds' median; `invalid` 1 where the timing is no measurement, else 0; then medians of the samples taken meanwhile,
of `temperature` the highest, of `pcie_*` the lowest, and `throttled` the share of samples with a throttle reason.
"""


class RefusedFile(NamedTuple):
    """A file that is left out: it has no vote."""

    path: str
    why: str  # one line
    status: Status = "INCONCLUSIVE"  # PASS: nothing is lost by it, as of a second copy


@dataclass(frozen=True, slots=True)
class FleetDevice:
    """One device of one run."""

    name: str  # as `gpu:0`
    kind: str  # its product name, or the CPU's
    serial: str = ""  # of its own, perhaps hashed; else its UUID; empty: unknown
    bits: str = ""  # hash of all that is known to decide bits; empty: not recorded, it has no vote
    speed: str = ""  # hash of all that is known to decide speed; empty: not recorded
    inventory: Mapping[str, str] = field(default_factory=dict)  # firmware, driver, pci, memory, ecc_uncorrected, …
    replays: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By `CHECK PRECISION`, as `replay float32`: a hash of each step, in their order."""
    cases: tuple[str, ...] = ()  # without the device, as `train_step[batch=128-precision=float32]`
    numbers: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, len(CASE_NUMBERS))))
    """`(len(cases), len(CASE_NUMBERS))`."""


@dataclass(frozen=True, slots=True)
class OwnFinding:
    """A FAIL or INCONCLUSIVE that the node's run found by itself."""

    status: Status
    check: str
    message: str
    device: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class FleetRun:
    """One results file, reduced to what a fleet compares."""

    path: str
    node: str
    started: datetime  # with a time zone
    verdict: Status
    complete: bool
    ended: str = ""  # why it ended early
    level: str = "standard"
    version: str = ""  # of this package
    seconds: float = 0.0
    devices: tuple[FleetDevice, ...] = ()
    found: tuple[OwnFinding, ...] = ()
    machine: Mapping[str, str] = field(default_factory=dict)  # id, system, firmware, driver, python, packages, …
    identity: str = ""  # of the run: two files of one identity are one run

    @property
    def day(self) -> str:
        """The day on which it started, in UTC."""
        return self.started.astimezone(UTC).date().isoformat()


@dataclass
class Fleet:
    """All that was read."""

    runs: dict[str, list[FleetRun]] = field(default_factory=dict)
    """By node; the oldest first, the last is the current one: of all that ran at the same time, they are one."""
    refused: list[RefusedFile] = field(default_factory=list)
    steps: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """By a step's hash, what it is made of: `loss`, and `gradient of …` and `weight …` to digests, the last layer
    first."""
    environments: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """By hash, what is known to decide bits, or speed."""
    names: dict[str, str] = field(default_factory=dict)
    """By node, the name that another machine has as well: `n1@bbbb` to `n1`. They share one vote."""

    @property
    def current(self) -> list[FleetRun]:
        """The newest run of each node, with those at the same time."""
        return [runs[-1] for runs in self.runs.values()]


@dataclass(frozen=True)
class FleetSettings:
    """What a person asks of a fleet."""

    expected: tuple[str, ...] = ()  # nodes; none: all that were read
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By name of a column of the inventory, as `rack`, each node's value there; all columns that there are."""
    by: tuple[str, ...] = ()  # the columns by which a group may be slow
    tolerance: float = 0.03  # a smaller slowdown is none
    false_alarms: float = 0.01  # of whole fleets in which nothing is wrong, the share with a FAIL of speed or history
    max_age: timedelta = timedelta(days=1)  # of a node's newest run, beside the newest quarter of all nodes' runs
    max_noise: float = 0.10  # where a slowdown of as much may not be seen, speed is INCONCLUSIVE


@dataclass(frozen=True)
class FleetFinding:
    """What is found in a fleet: of a device, of a node, of a group of nodes, or of a file."""

    area: Area
    status: Status
    message: str
    node: str = ""  # empty: of several, or of a file
    device: str = ""
    group: str = ""  # as `rack=r7`, or a cohort's name
    evidence: str = ""
    fix: str = ""
    case: str = ""
    number: float | None = None  # of speed, the ratio of times to the cohort's centre
    bound: float | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    nodes: tuple[str, ...] = ()  # those of a slow group, of whom none is better than it


STATUS_CODES: tuple[Status, ...] = ("PASS", "INCONCLUSIVE", "FAIL")
"""A status by its code in `SpeedTable.statuses`."""
NOT_TIMED = -1


@dataclass(frozen=True)
class SpeedTable:
    """Devices' times beside their cohort's, by case: arrays, for a large fleet has a million cells."""

    cohort: str  # its name, as `Cohort.name`
    members: tuple[tuple[str, str], ...]  # the rows: node and device
    cases: tuple[str, ...]  # the columns
    ratios: NDArray[np.float32]
    """`(members, cases)`: of a device's time to the cohort's centre; NaN: not timed, invalid, or nothing to compare."""
    bounds: NDArray[np.float32]
    """`(members, cases)`: the ratio that noise explains, as 1.04; inf: unknown."""
    statuses: NDArray[np.int8]
    """`(members, cases)`: places in `STATUS_CODES`, or `NOT_TIMED`."""
    shifts: NDArray[np.float32]
    """`(members,)`: the ratio over all of a device's cases; NaN: unknown."""


@dataclass(frozen=True)
class Cohort:
    """Devices that are compared with each other."""

    name: str  # for people: the kind, and where that isn't enough what else it is by
    what: Literal["bits", "speed"]
    environment: str  # its hash
    members: tuple[tuple[str, str], ...]  # node and device
    status: Status
    message: str  # as `11 of 12 devices have the same bits`


@dataclass(frozen=True)
class SpeedAnswer:
    """How fast the devices are, beside each other."""

    cohorts: Sequence[Cohort] = ()
    tables: Sequence[SpeedTable] = ()  # one a cohort, in their order
    findings: Sequence[FleetFinding] = ()


@dataclass(frozen=True)
class FleetAnswer:
    """What is found in a fleet, and its verdict."""

    fleet: Fleet
    settings: FleetSettings
    cohorts: Sequence[Cohort]
    tables: Sequence[SpeedTable]  # of speed
    findings: Sequence[FleetFinding]  # the worst first
    nodes: Mapping[str, Status]  # each node's verdict, the worst first; the missing ones, too
    out: Path | None = None

    @property
    def verdict(self) -> Status:
        """The worst of all; INCONCLUSIVE where there is no node."""
        every = [*self.nodes.values(), *(each.status for each in self.findings)]
        return worst_status(every) if self.nodes else worst_status(["INCONCLUSIVE", *every])

    def of_node(self, node: str) -> list[FleetFinding]:
        """Return the findings about a node."""
        return [each for each in self.findings if each.node == node]
