"""One results file, from its bytes to what a fleet compares of it; what can't be one is refused, with why."""

import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from alexnet_repro.fleet.records import CASE_NUMBERS, FleetDevice, FleetRun, OwnFinding
from alexnet_repro.fleet.texts import RefusedError, fact_text, printable, serial_text, text_hash
from alexnet_repro.verify.benchmark.noise import level
from alexnet_repro.verify.benchmark.timing import MAX_ROUND
from alexnet_repro.verify.benchmark.tolerances import first_error
from alexnet_repro.verify.finding import DOCTOR, GROUPS, MACHINE_GROUPS, CaseName, Finding, Number, Status
from alexnet_repro.verify.report.results_schema import RESULTS_SCHEMA
from alexnet_repro.verify.report.run_record import INVALIDATING
from alexnet_repro.verify.verdict import Planned, overall

MAX_MESSAGE = 500
MACHINE_DEVICES = 256  # of a machine
MACHINE_TIMINGS = 2000  # of a machine
MAX_FOUND = 50  # findings of its own that a run brings along
MAX_KEYS = 100  # of a machine's facts
MAX_STEPS = 10_000
MOST_WORKERS = 10_000  # of one run
CLOCKS_APART = timedelta(minutes=5)
FIRST_YEAR = 2020
WORST_FIRST: tuple[Status, ...] = ("FAIL", "INCONCLUSIVE", "PASS")
DEVICE = re.compile(r"[a-z]{1,16}:\d{1,4}")
DIGEST = re.compile(r"[0-9a-f]{8,128}")
LOSS = re.compile(r"-?0x[01]\.[0-9a-f]{1,13}p[+-]\d{1,4}|-?inf|nan")
KERNEL = re.compile(r"Linux-(.+?)-(?:x86_64|aarch64|ppc64le|riscv64)\b")
# Of a machine, what is kept beside packages, firmware and settings.
FACTS = ("system", "container", "cpu", "driver", "kernel", "id", "machine_id", "product")
NESTED = ("packages", "firmware", "settings")
APART = ("bits", "speed", "kind", "serial", "uuid")  # of a device's inventory: fields of their own


class MergedError(RefusedError):
    """The file is the one that several workers' own files were merged into."""

    def __init__(self, why: str, workers: Mapping[str, str]) -> None:
        """Keep why it is refused, and what each worker is called, by the id of its run."""
        super().__init__(why)
        self.workers = workers


class OwnOutputError(RefusedError):
    """The file was written by `fleet`."""


class Reduced(NamedTuple):
    """A results file, and what its hashes stand for."""

    run: FleetRun
    steps: Mapping[str, Mapping[str, str]]  # as `Fleet.steps`
    environments: Mapping[str, Mapping[str, Any]]


@dataclass(slots=True)
class _Timing:
    case: CaseName
    device: str
    rounds: list[Number]
    fault: str | None = None
    samples: dict[str, list[Number | None]] = field(default_factory=dict)


@dataclass(slots=True)
class _Content:
    """What is read of the file; any other field is passed over."""

    schema: int
    complete: bool
    verdict: Status
    run: dict[str, Any]
    plan: list[Planned]
    machine: dict[str, Any]
    findings: dict[str, list[Finding]]
    timings: list[_Timing]


_CONTENT = TypeAdapter(_Content)


def reduced(content: bytes, path: str = "", now: datetime | None = None) -> Reduced:
    """Return what a fleet compares of a results file; RefusedError: it isn't one, or contradicts itself."""
    try:
        return _Reduction(_parsed(content), now or datetime.now(UTC)).whole(printable(path, 1000))
    except RecursionError as error:
        raise RefusedError("its values are nested too deeply") from error
    except (OverflowError, ValueError) as error:
        raise RefusedError("a value in it is none that a run writes") from error


def _parsed(content: bytes) -> _Content:
    try:
        parsed = _CONTENT.validate_json(content, strict=True)
    except ValidationError as error:
        parsed = _parsed_slowly(content, error)
    if parsed.schema != RESULTS_SCHEMA:
        raise RefusedError(_other_schema(parsed.schema))
    return parsed


def _parsed_slowly(content: bytes, error: ValidationError) -> _Content:
    """Return the content where only a text in it isn't Unicode; RefusedError: why it isn't a results file."""
    try:
        data = from_json(content)
    except ValueError:
        try:
            data = json.loads(content)
            content = json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")
        except (ValueError, RecursionError):
            why = "it isn't JSON, was cut off, or is nested too deeply" if content.strip() else "it is empty"
            raise RefusedError(why) from error
    if not isinstance(data, dict):
        raise RefusedError("it isn't a results file, but other JSON")
    if "fleet_schema" in data:
        raise OwnOutputError("it was written by fleet")
    if "recipe" in data:
        raise RefusedError("it is the record of a training")
    if (schema := data.get("schema")) != RESULTS_SCHEMA:
        raise RefusedError(_other_schema(schema) if "schema" in data else "it isn't a results file, but other JSON")
    try:
        return _CONTENT.validate_json(content, strict=True)
    except ValidationError as again:
        raise RefusedError(printable(f"it isn't a results file: {first_error(again)}", MAX_MESSAGE)) from again


def _other_schema(schema: object) -> str:
    of = "an earlier" if isinstance(schema, int) and schema < RESULTS_SCHEMA else "another"
    return f"its schema is {printable(schema, 20)}, of {of} version; this one reads {RESULTS_SCHEMA}"


@dataclass
class _Reduction:
    """The reduction of one file."""

    content: _Content
    now: datetime
    steps: dict[str, Mapping[str, str]] = field(default_factory=dict)
    environments: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def whole(self, path: str) -> Reduced:
        content, run, machine = self.content, self.content.run, self.content.machine
        if isinstance(machine.get("machines"), list):
            why = "it is of several workers; their own files are compared, as worker0/results.json"
            raise MergedError(why, _workers(run, machine["machines"]))
        found, plan = content.findings, content.plan
        complete = content.complete and not run.get("ended")
        verdict = self._verdict(complete=complete)
        if not (node := printable(run.get("node") or run.get("host") or "")):
            raise RefusedError("it names no node")
        if not (identity := printable(run.get("id") or "", 100)):
            raise RefusedError("its run has no id")
        started = self._started(run.get("started"), node)
        devices = self._devices()
        ended = "" if complete else printable(run.get("ended") or "", MAX_MESSAGE)
        own = FleetRun(
            path,
            node,
            started,
            verdict,
            complete,
            ended,
            level=printable(run.get("level") or machine.get("level") or "standard", 20),
            version=printable(run.get("version") or "", 50),
            seconds=_seconds(run.get("seconds")),
            devices=devices,
            found=_own_findings(found, plan, verdict, ended, complete=complete),
            machine=self._facts(),
            identity=identity,
        )
        return Reduced(own, self.steps, self.environments)

    def _verdict(self, *, complete: bool) -> Status:
        """Return the verdict that the file states, which may be worse than what its findings add up to."""
        content, stated = self.content, self.content.verdict
        plan = content.plan
        if content.complete and any(each.state in ("waiting", "running") for each in plan):
            raise RefusedError("it contradicts itself: it is complete, and a part of its plan still waits or runs")
        added = overall({**dict.fromkeys(GROUPS, ()), **content.findings}, plan, complete=complete)
        if WORST_FIRST.index(stated) > WORST_FIRST.index(added):
            raise RefusedError(f"it contradicts itself: it states {stated}, and its findings add up to {added}")
        return stated

    def _started(self, stated: object, node: str) -> datetime:
        try:
            started = datetime.fromisoformat(stated if isinstance(stated, str) else "")
            started = started.astimezone(UTC) if started.tzinfo else started
        except (ValueError, OverflowError) as error:
            raise RefusedError(f"when it started isn't a date: {printable(stated, 40)}") from error
        if started.tzinfo is None:
            raise RefusedError(f"when it started has no time zone: {printable(stated, 40)}")
        if started.year < FIRST_YEAR or started > self.now + CLOCKS_APART:
            wrong = "in the future" if started > self.now else "before there was this program"
            clock = "ahead" if started > self.now else "behind"
            text = f"it started {wrong}, at {started.isoformat()}: the clock of {node} is {clock}; set it"
            raise RefusedError(text)
        return started

    def _devices(self) -> tuple[FleetDevice, ...]:
        machine = self.content.machine
        inventory = {name: each for name, each in _mapping(machine, "inventory").items() if isinstance(each, dict)}
        listed = machine.get("devices")
        every = [*(listed if isinstance(listed, list) else []), *inventory]
        if len(every) > 2 * MACHINE_DEVICES:
            raise RefusedError(f"it has {len(every):,} devices, more than a machine can have")
        if odd := [each for each in every if not (isinstance(each, str) and DEVICE.fullmatch(each))]:
            raise RefusedError(f"a device in it is called {printable(odd[0], 40)!r}")
        names = list(dict.fromkeys(every))
        cases, replays = self._cases(names), self._replays(names)
        return tuple(self._device(name, inventory.get(name, {}), replays[name], cases[name]) for name in names)

    def _device(
        self, name: str, known: dict[str, Any], replays: dict[str, tuple[str, ...]], cases: dict[str, list[float]]
    ) -> FleetDevice:
        texts = {printable(key, 50): fact_text(value) for key, value in known.items() if key not in APART}
        shape = (len(cases), len(CASE_NUMBERS))
        return FleetDevice(
            name,
            kind=_kind(name, known, self.content.machine),
            serial=serial_text(known.get("serial")) or serial_text(known.get("uuid")),
            bits=self._environment(known.get("bits")),
            speed=self._environment(known.get("speed")),
            inventory={key: text for key, text in list(texts.items())[:MAX_KEYS] if text},
            replays=replays,
            cases=tuple(cases),
            numbers=np.array(list(cases.values()), dtype=np.float64).reshape(shape),
        )

    def _environment(self, known: object) -> str:
        """Return the hash of what is known to decide bits or speed; empty: nothing is."""
        if not isinstance(known, dict) or not known:
            return ""
        key = text_hash(json.dumps(known, sort_keys=True))
        self.environments[key] = known
        return key

    def _replays(self, names: Sequence[str]) -> dict[str, dict[str, tuple[str, ...]]]:
        """Return the hashes of the steps that each device's findings hold, by check and precision.

        Not of those that failed: a device that differs from itself has nothing to vote with, and has its own FAIL.
        """
        replays: dict[str, dict[str, tuple[str, ...]]] = {name: {} for name in names}
        for found in self.content.findings.values():
            for each in found:
                if "steps" in each.data and each.device in replays and each.status != "FAIL":
                    key = printable(f"{each.check} {each.precision}".strip(), 80)
                    if key in replays[each.device]:
                        raise RefusedError(f"{key} of {each.device} is in it twice")
                    replays[each.device][key] = self._hashes(each.data["steps"])
        return replays

    def _hashes(self, steps: object) -> tuple[str, ...]:
        if not isinstance(steps, list) or len(steps) > MAX_STEPS:
            raise RefusedError("the digests of a replay in it aren't digests of steps")
        return tuple(map(self._step_hash, steps))

    def _step_hash(self, step: object) -> str:
        whole = step if isinstance(step, dict) else {}
        loss, parts = whole.get("loss"), {"gradient of": whole.get("gradients"), "weight": whole.get("weights")}
        well = isinstance(loss, str) and LOSS.fullmatch(loss) is not None
        made = {"loss": str(loss)}
        for word, digests in parts.items():
            well = well and isinstance(digests, dict) and 0 < len(digests) <= MAX_KEYS
            if well and isinstance(digests, dict):
                well = all(isinstance(each, str) and DIGEST.fullmatch(each) for each in digests.values())
                made.update({f"{word} {printable(name)}": digest for name, digest in digests.items()})
        if not well:
            raise RefusedError("the digests of a replay in it aren't digests of steps")
        key = text_hash(repr(sorted(made.items())))
        self.steps[key] = made
        return key

    def _cases(self, names: Sequence[str]) -> dict[str, dict[str, list[float]]]:
        """Return each device's timings by case: the columns of `CASE_NUMBERS`."""
        timings = self.content.timings
        if len(timings) > MACHINE_TIMINGS:
            raise RefusedError(f"it has {len(timings):,} timings, more than a run makes")
        failed = {
            each.case
            for each in self.content.findings.get("fast", ())
            if each.status == "FAIL" and each.check in INVALIDATING
        }
        cases: dict[str, dict[str, list[float]]] = {name: {} for name in names}
        seen = Counter((each.device, each.case) for each in timings)
        for each in timings:
            if seen[each.device, each.case] > 1:
                raise RefusedError(f"{printable(each.case)} is in it twice")
            rounds = each.rounds
            if wrong := [took for took in rounds if not 0 < took <= MAX_ROUND] if rounds else ["no"]:
                raise RefusedError(f"{printable(each.case)} has {_wrong(wrong[0])}")
            if each.device in cases:
                invalid = each.fault is not None or each.case in failed
                case = _without_device(each.case, each.device)
                cases[each.device][case] = _numbers(rounds, each.samples, invalid=invalid)
        return cases

    def _facts(self) -> dict[str, str]:
        """Return what is known of the machine, in texts: `packages tensorflow`, `firmware bios`, `kernel`."""
        machine = self.content.machine
        facts = {name: fact_text(machine.get(name)) for name in FACTS}
        facts["python"] = fact_text(self.content.run.get("python"))
        hashed = "hashed " if facts["id"].startswith("hashed-") else ""
        facts["id_source"] = f"{hashed}{fact_text(machine.get('id_source'))}"
        if not facts["kernel"] and (kernel := KERNEL.match(facts["system"])):
            facts["kernel"] = kernel[1]
        for name in NESTED:
            rows = list(_mapping(machine, name).items())[:MAX_KEYS]
            facts.update({printable(f"{name} {key}", 80): fact_text(value) for key, value in rows})
        return {name: text for name, text in facts.items() if text}


def _own_findings(
    found: Mapping[str, Sequence[Finding]], plan: Sequence[Planned], verdict: Status, ended: str, *, complete: bool
) -> tuple[OwnFinding, ...]:
    """Return what makes the run's verdict what it is, the worst first; at least one where it isn't PASS."""
    judged = (DOCTOR, *MACHINE_GROUPS)  # of a reference, only a FAIL lowers the verdict
    own = [
        OwnFinding(each.status, name, message, printable(each.device, 50), printable(each.fix, MAX_MESSAGE))
        for group, of_group in found.items()
        for each in of_group
        if each.status == "FAIL" or (each.status == "INCONCLUSIVE" and group in judged)
        for name in [printable(f"{each.check} {each.precision}".strip(), 80)]
        for message in [printable(each.message, MAX_MESSAGE)]
    ]
    own.sort(key=lambda each: WORST_FIRST.index(each.status))
    if not complete:
        message = f"the run didn't finish: {ended or 'it was killed, or still runs'}"
        own.insert(0, OwnFinding("INCONCLUSIVE", "run", message, fix="run it again"))
    elif verdict != "PASS" and not any(each.status == verdict for each in own):
        left = [each for each in plan if each.state != "answered"]
        message = f"{len(left)} of {len(plan)} planned checks weren't answered"
        if left and left[0].why:
            message = f"{message}: {printable(left[0].why)}"
        own.insert(0, OwnFinding(verdict, "run", message if left else f"its verdict is {verdict}", fix="run it again"))
    return tuple(own[:MAX_FOUND])


def _numbers(rounds: Sequence[float], samples: Mapping[str, Sequence[float | None]], *, invalid: bool) -> list[float]:
    log, error = level(rounds)
    columns = {
        name: [each for each in column if each is not None and math.isfinite(each)] for name, column in samples.items()
    }
    reasons = columns.get("throttle_reasons", ())
    pick = {"temperature": max, "pcie_generation": min, "pcie_width": min}
    known = {
        **{name: float(pick.get(name, statistics.median)(column)) for name, column in columns.items() if column},
        "throttled": sum(map(bool, reasons)) / len(reasons) if reasons else math.nan,
        "level": log,
        "error": error,
        "seconds": statistics.median(rounds),
        "invalid": float(invalid),
    }
    return [known.get(name, math.nan) for name in CASE_NUMBERS]


def _without_device(case: str, device: str) -> str:
    """Return a case's name without its device: `forward[batch=1-device=cpu:0]` is `forward[batch=1]`."""
    here = f"device={device}"
    for part, instead in ((f"[{here}]", ""), (f"[{here}-", "["), (f"-{here}", "")):
        if part in case:
            return printable(case.replace(part, instead, 1))
    return printable(case)


def _wrong(seconds: object) -> str:
    return "no rounds" if seconds == "no" else f"a round of {printable(seconds, 20)} s"


def _kind(name: str, known: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    gpus, number = machine.get("gpus"), int(name.partition(":")[2])
    named = gpus[number] if name.startswith("gpu") and isinstance(gpus, list) and number < len(gpus) else ""
    other = machine.get("cpu") if name.startswith("cpu") else named
    return printable(known.get("kind") or other or "unknown")


def _seconds(stated: object) -> float:
    if stated is None:
        return 0.0
    if not isinstance(stated, int | float) or not 0 <= stated <= MAX_ROUND:
        raise RefusedError(f"it took {printable(stated, 20)} s")
    return float(stated)


def _workers(run: Mapping[str, Any], machines: Sequence[object]) -> dict[str, str]:
    """Return what the workers of a merged file are called, by the ids of their runs; empty: it doesn't say whose."""
    ids = run.get("workers")
    if not isinstance(ids, list) or not 0 < len(ids) == len(machines) <= MOST_WORKERS:
        return {}
    return {printable(own, 100): printable(name) for own, name in zip(ids, machines, strict=True)}


def _mapping(machine: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = machine.get(name)
    return value if isinstance(value, dict) else {}
