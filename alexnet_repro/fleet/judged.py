"""A cohort's slow devices, nodes, groups and cases in words: by how much, in which cases, and what goes with it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from alexnet_repro.fleet.causes import Reading, Telemetry, fix_of
from alexnet_repro.fleet.cohorts import Timed
from alexnet_repro.fleet.records import NOT_TIMED, STATUS_CODES, Cohort, FleetFinding, FleetSettings, SpeedTable
from alexnet_repro.fleet.robust import medians, spread_of
from alexnet_repro.fleet.slowness import (
    FAST_SHARE,
    MAX_RUNS,
    MIN_NODES,
    MIN_ONE_RUN,
    MIN_TIMED,
    PERHAPS,
    SLOW,
    SlowGroup,
    Slowness,
    find_slow,
)
from alexnet_repro.verify.finding import Status, worst_status

MAX_NAMED_CASES = 4  # cases in a message
AGAIN = f"run `python -m alexnet_repro verify` there, {MAX_RUNS} times in all, and keep all results in the folder"
_TWO_SPEEDS = 1.5  # of the quartiles' spread to that within the speeds
_SINGLE = "a single case may have two speeds, so that it takes"


class JudgedCohort:
    """One cohort, judged."""

    def __init__(self, cohort: Timed, settings: FleetSettings, chance: float) -> None:
        """Judge it, with `chance` of something slow where nothing is."""
        self.cohort, self.settings = cohort, settings
        self.slow: Slowness | None = None
        self.telemetry = Telemetry(cohort.numbers)
        self.members = [(run.node, device.name) for run, device in cohort.members]
        of_device: dict[str, list[int]] = {}
        for row, (node, _) in enumerate(self.members):
            of_device.setdefault(node, []).append(row)
        self.rows = list(of_device.values())  # by node
        self.timed = np.isfinite(cohort.levels.levels[0])
        self.loaded = set[int]()  # of what is slow, that something else ran on
        self.why = self._why_not()
        if self.timed.any() and cohort.environment:
            columns = {
                name: [settings.columns.get(name, {}).get(node, "") for node in cohort.nodes] for name in settings.by
            }
            self.slow = find_slow(cohort.levels, columns, tolerance=settings.tolerance, chance=chance)
            if not self.why and self.slow.detectable > settings.max_noise:
                self.why = (
                    f"too noisy: smallest detectable slowdown {_large(self.slow.detectable)} "
                    f"(required at most {settings.max_noise:.0%}){self._two_speeds(self.slow)}"
                )
        self.findings = self._findings()

    @property
    def _slowness(self) -> Slowness:
        """What was found, where anything was."""
        if self.slow is None:
            raise RuntimeError("nothing was timed")
        return self.slow

    def _why_not(self) -> str:
        """Return why nothing can be judged; empty if it can."""
        if not self.cohort.environment:
            return "what decides their speed wasn't recorded"
        if not self.timed.any():
            return "no valid timings"
        nodes = sum(bool(self.timed[rows].any()) for rows in self.rows)
        if nodes < MIN_NODES:
            return f"{_count(nodes, 'node')} with timings, too few to know the noise between them: it takes {MIN_NODES}"
        return ""

    def _two_speeds(self, slow: Slowness) -> str:
        """Say which devices are slower, where these are too many for one run to know it from noise; else nothing."""
        rows = np.flatnonzero(np.isfinite(slow.shifts))
        if not slow.noise > _TWO_SPEEDS * spread_of(slow.shifts[rows]):
            return ""
        rows = rows[np.argsort(slow.shifts[rows])]
        ordered = slow.shifts[rows]
        fifth = len(rows) // 5
        place = fifth + int(np.argmax(np.diff(ordered[fifth : len(rows) - fifth]))) + 1
        gap = math.expm1(float(np.median(ordered[place:]) - np.median(ordered[:place])))
        names = first_of(list(dict.fromkeys(self.members[row][0] for row in sorted(rows[place:]))))
        return (
            f"; there are two speeds, by {gap:.1%} apart: {len(rows) - place:,} of {len(rows):,} devices are slower "
            f"({names}); those that are so in {MAX_RUNS} runs aren't so by chance"
        )

    def answer(self) -> Cohort:
        """Return the cohort with its status."""
        devices, nodes = len(self.members), len(self.rows)
        size = _count(devices, "device") if devices == nodes else f"{devices:,} devices of {_count(nodes, 'node')}"
        message = f"{size}: {self.why}"
        if self.slow and not self.why:
            message = (
                f"{size}: they differ by {self._slowness.noise:.1%}, "
                f"and a slowdown by {_large(self._slowness.detectable)} is seen 95 times in 100"
            )
        if few := int(self.cohort.alone.sum()):
            message += f"; {_count(few, 'case')}, timed on fewer than {MIN_NODES} nodes, {_are(few)}n't compared"
        if self.settings.by and nodes < MIN_ONE_RUN:
            message += f"; no group by {', '.join(self.settings.by)} was judged, which takes {MIN_ONE_RUN} nodes"
        status = worst_status(["INCONCLUSIVE" if self.why else "PASS", *(each.status for each in self.findings)])
        return Cohort(self.cohort.name, "speed", self.cohort.environment, tuple(self.members), status, message)

    def _in_slow_node(self) -> np.ndarray:
        if self.slow is None:
            return np.zeros(len(self.members), bool)
        nodes = self._slowness.node_codes == SLOW
        for group in self._slowness.groups:
            nodes = nodes | group.nodes
        return np.asarray(nodes[self.cohort.levels.nodes])

    def _untimed(self) -> list[int]:
        """Return devices with fewer valid timings than half of their cohort's."""
        counts = self.timed.sum(1)
        usual = float(np.median(counts))
        return [int(i) for i in np.flatnonzero(counts < max(min(MIN_TIMED, usual), usual / 2))]

    def table(self) -> SpeedTable:
        """Return the times beside the cohort's, for a picture."""
        shape = self.timed.shape
        codes = np.where(self.timed, PERHAPS if self.why else 0, NOT_TIMED).astype(np.int8)
        ratios, bounds = np.full(shape, math.nan), np.full(shape, math.inf)
        shifts = np.full(len(self.members), math.nan)
        if self.slow:
            slow = self.slow
            ratios, shifts, bounds = np.exp(slow.ratios), np.exp(slow.shifts), np.exp(np.minimum(slow.case_bounds, 50))
            whole = np.maximum(slow.codes, slow.node_codes[self.cohort.levels.nodes])
            whole[self._in_slow_node()] = SLOW
            with np.errstate(invalid="ignore"):
                slower = slow.ratios > np.maximum(math.log1p(self.settings.tolerance), slow.shifts[:, None] / 2)
            codes = np.maximum(codes, np.where(slower & self.timed, whole[:, None], NOT_TIMED))
            codes = np.maximum(codes, np.where(self.timed, slow.case_codes, NOT_TIMED)).astype(np.int8)
            codes[list(self.loaded)] = np.minimum(codes[list(self.loaded)], PERHAPS)
        codes[self.cohort.invalid] = STATUS_CODES.index("INCONCLUSIVE")
        return SpeedTable(
            self.cohort.name,
            tuple(self.members),
            self.cohort.cases,
            ratios.astype(np.float32),
            bounds.astype(np.float32),
            codes,
            shifts.astype(np.float32),
        )

    def _findings(self) -> list[FleetFinding]:
        """Return what is found, of groups, nodes, devices and cases."""
        found = []
        if self.why:
            fix = "run each node more often, with nothing else on it: results of earlier runs in the same folder count"
            if len(self.rows) < MIN_NODES:
                fix = "compare more nodes; two runs beside each other: python -m alexnet_repro report ONE OTHER"
            if not self.cohort.environment or not self.timed.any():
                fix = "run `python -m alexnet_repro verify` of this version, with its benchmarks, on each node"
            found.append(
                self._finding("INCONCLUSIVE", f"{self.cohort.name}: {self.why}", group=self.cohort.name, fix=fix)
            )
        found += [self._of_untimed(row) for row in self._untimed()] if self.slow else []
        found += self._of_invalid()
        if self.slow is None or not math.isfinite(self._slowness.noise):
            return found
        found += [self._of_group(each) for each in self._slowness.groups]
        for node, rows in enumerate(self.rows):
            if code := int(self._slowness.node_codes[node]):
                found.append(self._of_node(node, rows, code))
            else:
                found += [self._of_device(row) for row in rows if self._slowness.codes[row]]
        found += self._of_cases()
        return found + self._of_fast()

    def _finding(self, status: Status, message: str, **fields: Any) -> FleetFinding:
        return FleetFinding("speed", status, message, **fields)

    def _of_untimed(self, row: int) -> FleetFinding:
        node, device = self.members[row]
        count, usual = int(self.timed[row].sum()), int(np.median(self.timed.sum(1)))
        message = f"{_count(count, 'valid timing')} of {device}, the others have {usual}: its speed is unknown"
        return self._finding("INCONCLUSIVE", message, node=node, device=device, fix="run the same level on each node")

    def _of_invalid(self) -> list[FleetFinding]:
        found = []
        for row in np.flatnonzero(self.cohort.invalid.any(1)):
            node, device = self.members[row]
            cases = [self.cohort.cases[i] for i in np.flatnonzero(self.cohort.invalid[row])]
            message = f"{_count(len(cases), 'timing')} of {device} {_are(len(cases))} no measurement"
            fix = "see the node's own report: what was computed wasn't right, or wasn't waited for"
            found.append(
                self._finding("INCONCLUSIVE", message, node=node, device=device, evidence=first_of(cases), fix=fix)
            )
        return found

    def _status(self, code: int, causes: Sequence[Reading], runs: int, rows: Sequence[int]) -> tuple[Status, str, str]:
        """Return the status, what the message adds, and the fix that comes first."""
        if any(each.column == "load" for each in causes):
            self.loaded.update(rows)
            return "INCONCLUSIVE", "something else ran on it", ""
        if code == PERHAPS:
            return "INCONCLUSIVE", "in this run: further runs decide", AGAIN
        return "FAIL", f"in each of {runs} runs" if runs > 1 else "", ""

    def _slow(self, shift: float, rows: Sequence[int], offset: float = 0.0) -> tuple[list[str], str]:
        """Return the cases in which some devices are slower by half of their shift, and how many these are."""
        ratios = medians(np.where(self.timed[rows], self._slowness.ratios[rows], math.nan), 0) - offset
        timed = np.flatnonzero(np.isfinite(ratios))
        cases = [self.cohort.cases[i] for i in timed if ratios[i] > shift / 2]
        return cases, "all cases" if len(cases) == len(timed) else f"{len(cases)} of {len(timed)} cases"

    def _of_device(self, row: int) -> FleetFinding:
        slow, (node, device) = self._slowness, self.members[row]
        rows = self.rows[int(self.cohort.levels.nodes[row])]
        name = f"{device}, unlike its node's others," if len(rows) > 1 and (slow.codes[rows] > 0).sum() == 1 else device
        bound = (slow.bounds if slow.agreed[row] == 1 else slow.suspect)[row]
        shift = float(slow.shifts[row])
        return self._worded([row], int(slow.codes[row]), shift, float(bound), name=name, node=node, device=device)

    def _of_node(self, node: int, rows: list[int], code: int) -> FleetFinding:
        slow, name = self._slowness, f"all {len(rows):,} devices"
        shift, bound = float(slow.node_shifts[node]), float(slow.suspect[rows].max())
        return self._worded(rows, code, shift, bound, name=name, node=self.cohort.nodes[node])

    def _worded(
        self, rows: list[int], code: int, shift: float, bound: float, *, name: str, **where: str
    ) -> FleetFinding:
        causes, runs = self.telemetry.causes(rows), int(self._slowness.agreed[rows].max())
        cases, words = self._slow(shift, rows)
        status, added, first = self._status(code, causes, runs, rows)
        message = f"{name} {_are(len(rows))} {math.expm1(shift):.1%} slower than the others' median, in {words}"
        message = ", ".join([message, *filter(None, [added]), *(each.words for each in causes)])
        device = self.members[rows[0]][1]
        fix = "; ".join(filter(None, [first, fix_of(causes, device)]))
        evidence = f"noise explains {math.expm1(bound):.1%}; {first_of(cases)}"
        data = {"cases": cases, "causes": [each.column for each in causes], "runs": runs, "cohort": self.cohort.name}
        return self._finding(
            status,
            message,
            evidence=evidence,
            fix=fix,
            number=math.exp(shift),
            bound=math.exp(min(bound, 50)),
            data=data,
            **where,
        )

    def _of_group(self, group: SlowGroup) -> FleetFinding:
        nodes = [int(i) for i in np.flatnonzero(group.nodes)]
        names = [self.cohort.nodes[i] for i in nodes]
        rows = [row for node in nodes for row in self.rows[node]]
        causes = self.telemetry.causes(rows)
        cases, words = self._slow(group.shift, rows)
        others = int((~group.nodes).sum())
        same = [
            f"{name}={values[names[0]]}"
            for name, values in self.settings.columns.items()
            if name != group.column
            and values.get(names[0])
            and {node for node in self.cohort.nodes if values.get(node) == values[names[0]]} == set(names)
        ]
        message = (
            f"the {len(names)} nodes of {group.column}={group.value}{f' (and of {first_of(same)})' if same else ''} "
            f"are {math.expm1(group.shift):.1%} slower than the other {others}, in {words}"
        )
        status, added, _ = self._status(SLOW, causes, 1, rows)
        message = ", ".join([message, *filter(None, [added]), *(each.words for each in causes)])
        fix = f"compare what {group.column}={group.value} shares with the others': supply, cooling, switch, firmware"
        if causes:
            fix = f"{fix_of(causes, self.members[rows[0]][1])}; {fix}"
        data = {"cases": cases, "causes": [each.column for each in causes], "cohort": self.cohort.name}
        evidence = f"noise explains {math.expm1(group.bound):.1%}; {first_of(names)}"
        return self._finding(
            status,
            message,
            group=f"{group.column}={group.value}",
            nodes=tuple(names),
            evidence=evidence,
            fix=fix,
            number=math.exp(group.shift),
            bound=math.exp(group.bound),
            data=data,
        )

    def _of_cases(self) -> list[FleetFinding]:
        """Return findings of cases that are slow on devices that aren't slow as a whole."""
        slow, found = self._slowness, []
        whole = (slow.codes > 0) | (slow.node_codes > 0)[self.cohort.levels.nodes]
        codes = np.where(whole[:, None], 0, slow.case_codes)
        for case in slow.two_speeds:
            rows = np.flatnonzero(codes[:, case])
            name, step = self.cohort.cases[case], math.expm1(float(np.median(slow.ratios[rows, case])))
            nodes = list(dict.fromkeys(self.members[row][0] for row in rows))
            message = (
                f"{name} is {step:.1%} slower on {len(rows):,} of {int(self.timed[:, case].sum()):,} devices alone"
            )
            found.append(
                self._finding(
                    "INCONCLUSIVE",
                    f"{message}: it has two speeds, or these have a fault",
                    case=name,
                    group=self.cohort.name,
                    evidence=first_of(nodes),
                    fix=AGAIN,
                    number=1 + step,
                    data={"nodes": nodes, "cases": [name], "cohort": self.cohort.name},
                )
            )
            codes[:, case] = np.where(codes[:, case] == SLOW, SLOW, 0)
        for row in np.flatnonzero(codes.any(1)):
            node, device = self.members[row]
            places = np.flatnonzero(codes[row])
            cases = [self.cohort.cases[i] for i in places]
            worst = places[int(np.argmax(slow.ratios[row, places]))]
            shift, bound = float(slow.ratios[row, worst]), float(slow.case_bounds[row, worst])
            causes = self.telemetry.causes([int(row)])
            status, added, first = self._status(int(codes[row].max()), causes, MAX_RUNS, [int(row)])
            message = (
                f"{device} is up to {math.expm1(shift):.1%} slower than the others' median, in {first_of(cases)} alone"
            )
            message = ", ".join([message, *filter(None, [added]), *(each.words for each in causes)])
            found.append(
                self._finding(
                    status,
                    message,
                    node=node,
                    device=device,
                    case=cases[0] if len(cases) == 1 else "",
                    evidence=f"noise explains {math.expm1(min(bound, 50)):.1%}; {_SINGLE} {MAX_RUNS} runs to fail",
                    fix="; ".join(filter(None, [first, fix_of(causes, device)])),
                    number=math.exp(shift),
                    bound=math.exp(min(bound, 50)),
                    data={"cases": cases, "causes": [each.column for each in causes], "cohort": self.cohort.name},
                )
            )
        return found

    def _of_fast(self) -> list[FleetFinding]:
        """Return that some are faster than all others: no fault of theirs."""
        with np.errstate(invalid="ignore"):
            fast = np.flatnonzero(self._slowness.shifts < -self._slowness.bounds)
        nodes = list(dict.fromkeys(self.members[row][0] for row in fast))
        if not nodes:
            return []
        gain = -math.expm1(float(np.median(self._slowness.shifts[fast])))
        many = len(nodes) >= max(2, FAST_SHARE * len(self.rows))
        verb = "takes" if len(nodes) == 1 else "take"
        message = f"{_count(len(nodes), 'node')} of {len(self.rows)} {verb} {gain:.1%} less time"
        message += ": the others may all be slow" if many else " than the others"
        fix = "compare their clocks, power limits, firmware and settings with the others'" if many else ""
        return [
            self._finding(
                "INCONCLUSIVE" if many else "PASS",
                message,
                group=self.cohort.name,
                evidence=first_of(nodes),
                fix=fix,
                number=1 - gain,
                data={"nodes": nodes, "cohort": self.cohort.name},
            )
        ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def first_of(names: Sequence[str]) -> str:
    """Return the first of the names, and how many there are besides."""
    rest = len(names) - MAX_NAMED_CASES
    return ", ".join(names[:MAX_NAMED_CASES]) + (f" and {rest} more" if rest > 0 else "")


def _large(share: float) -> str:
    return f"{share:.1%}" if share < 1 else "over 100%"
