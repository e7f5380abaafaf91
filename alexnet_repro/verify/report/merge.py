"""One record of several machines: what each recorded, with the machine's name before each device's."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from alexnet_repro.verify.benchmark.timing import Timing, gpu_speed_parity
from alexnet_repro.verify.checks.repeatability import agreement
from alexnet_repro.verify.finding import GROUPS, MACHINE_GROUPS, Finding
from alexnet_repro.verify.report.run_record import RunRecord

DEVICE = re.compile(r"[cg]pu:\d+")


def merged(path: Path, records: Mapping[str, RunRecord], *, comparable: bool = True) -> RunRecord:
    """Return the record of all machines, not yet written, with comparisons of GPUs of one model across them.

    Args:
        path: where it is to be written.
        records: by machine, the first worker's first.
        comparable: whether GPUs of one model should be equally fast; not where workers share a machine.
    """
    machines = {name: record.machine for name, record in records.items()}
    whole = RunRecord(path, {"machines": list(machines), **machines})
    for group in GROUPS:
        own = {
            name: [each for each in record.findings[group] if each.scope != "cluster"]
            for name, record in records.items()
        }
        whole.findings[group] = [_of(name, each) for name, found in own.items() for each in found]
        if group in MACHINE_GROUPS and any(own.values()):
            whole.findings[group] += [
                Finding(group, "INCONCLUSIVE", "no check was run on this machine", device=name)
                for name, found in own.items()
                if not found
            ]
        first = next(iter(records.values()))
        whole.findings[group] += [each for each in first.findings[group] if each.scope == "cluster"]
    models: dict[str, str] = {}
    for name, record in records.items():
        whole.timings += [
            replace(each, device=f"{name}/{each.device}", case=_case(name, each.device, each.case))
            for each in record.timings
        ]
        whole.calibrations += [replace(each, device=f"{name}/{each.device}") for each in record.calibrations]
        models |= {f"{name}/gpu:{gpu}": model for gpu, model in enumerate(record.machine.get("gpus", ()))}
    if comparable:
        fast = [each for each in whole.findings["fast"] if each.check != "gpu_speed_parity"]
        whole.findings["fast"] = [*fast, *all_speed_parity(whole.timings, models)]
    environments = {name: machine.get("gpu_environment") for name, machine in machines.items()}
    whole.findings["repeatable"] += same_bits(whole.findings["repeatable"], models, environments)
    return whole


def all_speed_parity(timings: Sequence[Timing], models: Mapping[str, str]) -> list[Finding]:
    """Return whether GPUs of one model are equally fast: in each machine, and across them where the GPU is the limit.

    What waits for a host is as fast as the host.
    """
    by_itself = [each for each in timings if each.bottleneck in ("compute", "memory")]
    found = gpu_speed_parity(by_itself, models)
    for machine in dict.fromkeys(_machine(device) for device in models):
        others = [each for each in timings if each not in by_itself and _machine(each.device) == machine]
        found += gpu_speed_parity(others, models)
    return found


def same_bits(found: Sequence[Finding], models: Mapping[str, str], environments: Mapping[str, Any]) -> list[Finding]:
    """Return whether the first GPU of each machine has the bits of most machines' GPUs of the same model.

    Args:
        found: all machines' findings, of which those of `replay` are compared.
        models: the GPUs' product names, by device.
        environments: what decides bits, by machine; where it differs, different bits are no fault.
    """
    groups: dict[tuple[str, str], dict[str, Finding]] = {}
    for each in found:
        if each.check == "replay" and each.device in models:
            groups.setdefault((models[each.device], each.precision), {}).setdefault(_machine(each.device), each)
    compared = []
    for firsts in groups.values():
        bits = [json.dumps(each.data.get("steps")) for each in firsts.values()]
        most = list(firsts.values())[bits.index(max(bits, key=bits.count))]
        for machine, each in firsts.items():
            if each is most:
                continue
            agreed = agreement("gpu_bitwise_parity", most, each, f"{each.device}, beside {most.device},")
            if agreed.status == "FAIL" and environments.get(machine) != environments.get(_machine(most.device)):
                message = f"{agreed.message}; their drivers or libraries differ"
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
    return f"{name}/{value}" if isinstance(value, str) and DEVICE.fullmatch(value) else value
