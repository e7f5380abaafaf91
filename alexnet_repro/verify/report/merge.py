"""One record of many machines: what each worker recorded, with its machine's name before each device's."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from alexnet_repro.verify.benchmark.timing import Timing, gpu_speed_parity
from alexnet_repro.verify.checks.repeatability import agreement
from alexnet_repro.verify.finding import GROUPS, MACHINE_GROUPS, Finding
from alexnet_repro.verify.report.run_record import Record


def merged(path: Path, recorded: Mapping[str, Mapping[str, Any]], *, comparable: bool = True) -> Record:
    """Return the record of all machines, not yet written, with what their GPUs are beside each other.

    Args:
        path: where it is to be written.
        recorded: by machine, the first worker's first: the JSON that `Record` writes.
        comparable: whether GPUs of one model are to be equally fast; not where workers share a machine.
    """
    machines = {name: content["machine"] for name, content in recorded.items()}
    whole = Record(path, machine={"machines": list(machines), **machines})
    timings: list[Timing] = []
    models: dict[str, str] = {}
    for number, (name, content) in enumerate(recorded.items()):
        for group in GROUPS:
            whole.findings[group] += [_of(name, each) for each in _own(content, group)]
            if number == 0:
                whole.findings[group] += [
                    Finding(**each) for each in content["findings"][group] if each["scope"] == "cluster"
                ]
        timings += [Timing(**_renamed(name, each)) for each in content["timings"]]
        whole.calibrations += [_renamed(name, each) for each in content["calibrations"]]
        models |= {f"{name}/gpu:{gpu}": model for gpu, model in enumerate(content["machine"].get("gpus", ()))}
    for group in MACHINE_GROUPS:
        asked = {name for name, content in recorded.items() if _own(content, group)}
        whole.findings[group] += [
            Finding(group, "INCONCLUSIVE", "nothing was asked of this machine", device=name)
            for name in recorded
            if asked and name not in asked
        ]
    if comparable:
        own = [each for each in whole.findings["fast"] if each.check != "gpu_speed_parity"]
        whole.findings["fast"] = [*own, *all_speed_parity(timings, models)]
    environments = {name: machine.get("gpu_environment") for name, machine in machines.items()}
    whole.findings["repeatable"] += same_bits(whole.findings["repeatable"], models, environments)
    whole.timings = [vars(each) for each in timings]
    return whole


def all_speed_parity(timings: Sequence[Timing], models: Mapping[str, str]) -> list[Finding]:
    """Return whether GPUs of one model are equally fast: across machines at what they limit, within one at all.

    What waits for a host is as fast as that is.
    """
    by_itself = [each for each in timings if each.bottleneck in ("compute", "memory")]
    found = gpu_speed_parity(by_itself, models)
    for machine in dict.fromkeys(_machine(device) for device in models):
        others = [each for each in timings if each not in by_itself and _machine(each.device) == machine]
        found += gpu_speed_parity(others, models)
    return found


def same_bits(found: Sequence[Finding], models: Mapping[str, str], environments: Mapping[str, Any]) -> list[Finding]:
    """Return whether the first GPU of each machine answered as most machines' of the same model did.

    Args:
        found: all machines' findings, of which those of `replay` are looked at.
        models: the GPUs' product names, by device.
        environments: what decides bits, by machine; where it differs, other bits are no fault.
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
                message = f"{agreed.message}; their drivers or libraries aren't the same"
                agreed = replace(agreed, status="INCONCLUSIVE", message=message, fix="make them the same")
            compared.append(agreed)
    return compared


def _machine(device: str) -> str:
    return device.rpartition("/")[0]


def _own(content: Mapping[str, Any], group: str) -> list[Finding]:
    """Return what a machine found out of itself."""
    return [Finding(**each) for each in content["findings"][group] if each["scope"] != "cluster"]


def _of(name: str, finding: Finding) -> Finding:
    device = f"{name}/{finding.device}" if finding.device else name
    texts = {each: _text(name, getattr(finding, each)) for each in ("message", "evidence", "case")}
    data = json.loads(_text(name, json.dumps(dict(finding.data))))
    return Finding(**{**vars(finding), **texts, "device": device, "data": data})


def _renamed(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a timing, or rates, of a machine's device."""
    case = {"case": _text(name, content["case"])} if "case" in content else {}
    return {**content, "device": f"{name}/{content['device']}", **case}


def _text(name: str, text: str) -> str:
    """Return a text in which every device has its machine's name before it."""
    return re.sub(r"(?<![\w/.:])(?=[cg]pu:\d)", lambda _: f"{name}/", text)
