"""One record of several machines: what each recorded, with the machine's name before each device's."""

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from alexnet_repro.verify.benchmark.timing import Timing, gpu_speed_parity
from alexnet_repro.verify.checks.repeatability import agreement
from alexnet_repro.verify.finding import GROUPS, MACHINE_GROUPS, Finding, worst_status
from alexnet_repro.verify.report.run_record import RunRecord
from alexnet_repro.verify.verdict import Planned, per_machine


def merged(path: Path, records: Mapping[str, RunRecord], *, comparable: bool = True) -> RunRecord:
    """Return the record of all machines, not yet written, with comparisons of GPUs of one model across them.

    Records are by machine, the first worker's first. `comparable`: whether GPUs of one model should be equally fast;
    not where workers share a machine.
    """
    machines = {name: record.machine for name, record in records.items()}
    first = next(iter(records.values()))
    whole = RunRecord(path, {"machines": list(machines), **machines}, {**first.run, "id": uuid.uuid4().hex})
    whole.run["hosts"] = [record.run.get("host", "") for record in records.values()]
    whole.run["workers"] = [record.run.get("id", "") for record in records.values()]
    whole.stated = worst_status(record.verdict for record in records.values())
    nothing = [Planned("run", "correct", state="not asked", why="nothing was planned there")]
    plans = {name: record.plan or nothing for name, record in records.items()}
    whole.plan = [each for name, of_machine in plans.items() for each in per_machine(name, of_machine)]
    if ended := [f"{name}: {record.run['ended']}" for name, record in records.items() if record.run.get("ended")]:
        whole.run["ended"] = "; ".join(ended)
    for group in dict.fromkeys(chain(GROUPS, *(record.findings for record in records.values()))):
        own = {
            name: [_of(name, each) for each in record.findings.get(group, ()) if each.scope != "cluster"]
            for name, record in records.items()
        }
        if group in MACHINE_GROUPS and any(own.values()):
            missing = Finding(group, "INCONCLUSIVE", "no check was run on this machine")
            own = {name: found or [replace(missing, device=name)] for name, found in own.items()}
        of_all = chain(*(record.findings.get(group, ()) for record in records.values()))
        shared = [each for each in of_all if each.scope == "cluster"]
        shared = [each for number, each in enumerate(shared) if each not in shared[:number]]
        whole.findings[group] = [*chain(*own.values()), *shared]
    models: dict[str, str] = {}
    for name, record in records.items():
        for each in record.timings:
            case = _case(name, each.device, each.case)
            whole.timings.append(replace(each, device=f"{name}/{each.device}", case=case))
        whole.calibrations += [replace(each, device=f"{name}/{each.device}") for each in record.calibrations]
        whole.layers += [replace(each, device=f"{name}/{each.device}") for each in record.layers]
        whole.overheads += [replace(each, device=f"{name}/{each.device}") for each in record.overheads]
        models |= {f"{name}/gpu:{gpu}": model for gpu, model in enumerate(record.machine.get("gpus", ()))}
    if comparable:
        fast = [each for each in whole.findings["fast"] if each.check != "gpu_speed_parity"]
        whole.findings["fast"] = [*fast, *_speed_parity(whole.timings, models)]
    environments = {
        name: machine.get("inventory", {}).get("gpu:0", {}).get("bits") for name, machine in machines.items()
    }
    whole.findings["repeatable"] += _bitwise_parity(whole.findings["repeatable"], models, environments)
    return whole


def _speed_parity(timings: Sequence[Timing], models: Mapping[str, str]) -> list[Finding]:
    """Compare GPUs of one model within each machine, and across machines where no host holds them up."""
    by_itself = [each for each in timings if each.bottleneck in ("compute", "memory")]
    found = gpu_speed_parity(by_itself, models)
    for machine in dict.fromkeys(map(_machine, models)):
        others = [each for each in timings if each not in by_itself and _machine(each.device) == machine]
        found += gpu_speed_parity(others, models)
    return found


def _bitwise_parity(
    found: Sequence[Finding], models: Mapping[str, str], environments: Mapping[str, Any]
) -> list[Finding]:
    """Compare `replay` on the first GPU of each machine with that of most machines' GPUs of the same model.

    Models are by device. Where machines' environments differ, in what decides bits, different bits are no fault.
    """
    groups: dict[tuple[str, str], dict[str, Finding]] = {}
    for each in found:
        if each.check == "replay" and each.device in models:
            groups.setdefault((models[each.device], each.precision), {}).setdefault(_machine(each.device), each)
    compared = []
    for firsts in groups.values():
        bits = [json.dumps(each.data.get("steps") if each.status == "PASS" else None) for each in firsts.values()]
        most = list(firsts.values())[bits.index(max(bits, key=bits.count))]
        for machine, each in firsts.items():
            if each is most:
                continue
            agreed = agreement("gpu_bitwise_parity", most, each, f"{each.device}, beside {most.device},")
            if agreed.status == "FAIL" and environments.get(machine) != environments.get(_machine(most.device)):
                message = f"{agreed.message}; their drivers, libraries or settings differ"
                agreed = replace(agreed, status="INCONCLUSIVE", message=message, fix="make them the same")
            compared.append(agreed)
    return compared


def _machine(device: str) -> str:
    return device.rpartition("/")[0]


def _of(name: str, finding: Finding) -> Finding:
    """Return a machine's finding, with the machine's name before its device, in its case and in its data."""
    device = f"{name}/{finding.device}" if finding.device else name
    case = finding.case and _case(name, finding.device, finding.case)
    return replace(finding, device=device, case=case, data=_data(name, dict(finding.data)))


def _case(name: str, device: str, case: str) -> str:
    """Return a case's name among all machines': with the machine's before its device, or else before its own."""
    here = f"device={device}"
    return case.replace(here, f"device={name}/{device}") if device and here in case else f"{name}/{case}"


def _data(name: str, value: Any) -> Any:
    """Return data in which each text that is a device's name has the machine's before it."""
    if isinstance(value, Mapping):
        return {_data(name, key): _data(name, each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_data(name, each) for each in value]
    return f"{name}/{value}" if isinstance(value, str) and re.fullmatch(r"[cg]pu:\d+", value) else value
