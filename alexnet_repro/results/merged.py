"""One record of many machines: what each worker recorded, with its machine's name before each device's."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alexnet_repro.checks.repeat_checks import agreement
from alexnet_repro.hardware.finding import Finding
from alexnet_repro.results.record import Record
from alexnet_repro.results.timing import Timing, siblings
from alexnet_repro.results.verdict import GROUPS

TOGETHER = "workers"
"""In a finding's data: it is of all workers, who all have the same."""


def merged(path: Path, recorded: Mapping[str, Mapping[str, Any]]) -> Record:
    """Return the record of all machines, not yet written, with what their GPUs are beside each other.

    Args:
        path: where it is to be written.
        recorded: by machine, the first worker's first: the JSON that `Record` writes.
    """
    machines = {name: content["machine"] for name, content in recorded.items()}
    whole = Record(path, machine={"machines": list(machines), **machines})
    timings: list[Timing] = []
    models: dict[str, str] = {}
    for number, (name, content) in enumerate(recorded.items()):
        for group in GROUPS:
            for each in content["findings"][group]:
                if TOGETHER not in each["data"]:
                    whole.findings[group].append(_of(name, Finding(**each)))
                elif number == 0:
                    whole.findings[group].append(Finding(**each))
        timings += [Timing(**_renamed(name, each)) for each in content["timings"]]
        whole.calibrations += [_renamed(name, each) for each in content["calibrations"]]
        models |= {f"{name}/gpu:{gpu}": model for gpu, model in enumerate(content["machine"].get("gpus", ()))}
    own = [each for each in whole.findings["fast"] if each.check != "siblings"]
    whole.findings["fast"] = [*own, *siblings(timings, models)]
    whole.findings["repeatable"] += same_bits(whole.findings["repeatable"], models)
    whole.timings = [vars(each) for each in timings]
    return whole


def same_bits(found: Sequence[Finding], models: Mapping[str, str]) -> list[Finding]:
    """Return whether the first GPU of each further machine answered as the first one of the same model did.

    Args:
        found: all machines' findings, of which those of `replay` are looked at.
        models: the GPUs' product names, by device.
    """
    elders: dict[tuple[str, str], Finding] = {}
    heard: set[tuple[str, str, str]] = set()
    compared = []
    for each in found:
        model, machine = models.get(each.device), each.device.rpartition("/")[0]
        if each.check != "replay" or model is None or (model, each.precision, machine) in heard:
            continue
        heard.add((model, each.precision, machine))
        elder = elders.setdefault((model, each.precision), each)
        if elder is not each:
            run = f"{each.device}, beside {elder.device},"
            compared.append(agreement("siblings", elder, each, run))
    return compared


def _of(name: str, finding: Finding) -> Finding:
    device = f"{name}/{finding.device}" if finding.device else name
    texts = {each: _text(name, getattr(finding, each)) for each in ("cause", "evidence")}
    data = json.loads(_text(name, json.dumps(dict(finding.data))))
    return Finding(**{**vars(finding), **texts, "device": device, "data": data})


def _renamed(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a timing, or rates, of a machine's device."""
    case = {"case": _text(name, content["case"])} if "case" in content else {}
    return {**content, "device": f"{name}/{content['device']}", **case}


def _text(name: str, text: str) -> str:
    """Return a text in which cases of benchmarks are those of a machine's device."""
    return re.sub(r"device=(?=[cg]pu:\d)", lambda _: f"device={name}/", text)
