"""What the page says of a run, of a finding, and of several that the same thing would settle."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report import text as wording
from alexnet_repro.verify.report.run_record import RunRecord
from alexnet_repro.verify.report.tables import TextTable

LONGEST_TEXT = 1000  # characters
MAX_ROWS = 100
FRAMEWORKS = ("tensorflow", "jax", "torch", "keras")
Measure = tuple[Callable[[float], str], str, str]


def _times(value: float) -> str:
    return f"{value:.3g} ×"


def _percent(value: float) -> str:
    return wording.percent(value, 1)


# By check: the form of number and bound, what the number is of, and what the bound is.
MEASURES: Mapping[str, Measure] = {
    "gpu_speed_parity": (_percent, "slower", "at most"),
    "low_noise": (_percent, "spread", "at most"),
    "no_thermal_drift": (_times, "its time at first", "at most"),
    "nominal": (_percent, "of the data sheet's", "at least"),
    "peak_fraction": (_percent, "of the roofline", "at least"),
    "scaling": (_percent, "of linear scaling", "at least"),
    "speed": (_times, "the reference", "fails beyond"),
    "synchronized": (_times, "the time until its result is read", "at least"),
}


def short(text: str, file: str = "results.json") -> str:
    """Return a text of at most `LONGEST_TEXT` characters; one that was longer says which file has the rest."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}… (the rest is in {file})"


def title(findings: Sequence[Finding]) -> str:
    """Return what findings are about: one's name, or the checks of several, with their device and number."""
    if len(findings) == 1:
        return subject(findings[0])
    checks = list(dict.fromkeys(each.check for each in findings))
    names = ", ".join(checks[:4]) + (f" and {len(checks) - 4} other checks" if len(checks) > 4 else "")  # noqa: PLR2004
    devices = {each.device for each in findings}
    where = f"{devices.pop()} ".lstrip() if len(devices) == 1 else ""
    return f"{where}{names}: {len(findings)} cases"


def subject(finding: Finding) -> str:
    """Return what a finding is about: its check, and its case or else its device and precision."""
    return f"{finding.check} of {wording.label(finding.case)}" if finding.case else wording.name(finding)


def message(finding: Finding, *, apart: bool = False) -> str:
    """Return a finding's message, with its case as people name it; `apart`: without, where it begins with its case."""
    if not finding.case:
        return finding.message
    if apart:
        return finding.message.removeprefix(finding.case).lstrip(" :;") or "as it should be"
    return finding.message.replace(finding.case, wording.label(finding.case))


def number_with_unit(finding: Finding) -> str:
    """Return the number with its unit, and its bound; empty where there is none."""
    if finding.number is None:
        return ""
    if finding.check not in MEASURES:
        return f"{finding.number:.3g}" + ("" if finding.bound is None else f"; bound {finding.bound:.3g}")
    form, of, limit = MEASURES[finding.check]
    return f"{form(finding.number)} {of}" + ("" if finding.bound is None else f"; {limit} {form(finding.bound)}")


def case_table(findings: Sequence[Finding]) -> TextTable:
    """Return a row per finding, of the first `MAX_ROWS`; a column that has nothing to add is left out."""
    shown = findings[:MAX_ROWS]
    columns: dict[str, list[str]] = {
        "case": [wording.label(each.case) if each.case else wording.name(each) for each in shown],
        "verdict": [str(each.status) for each in shown] if len({each.status for each in findings}) > 1 else [],
        "measured": [number_with_unit(each) or wording.NONE for each in shown],
        "finding": [short(message(each, apart=True)) for each in shown],
        "evidence": [short(each.evidence) or wording.NONE for each in shown],
    }
    known = {heading: column for heading, column in columns.items() if set(column) - {wording.NONE}}
    return TextTable(tuple(known), list(zip(*known.values(), strict=True)))


def run_facts(record: RunRecord) -> list[tuple[str, str]]:
    """Return where, when, how and for how long a run was made, as names and values; without what isn't recorded."""
    run, seconds = record.run, record.run.get("seconds")
    hosts = run.get("hosts")
    took = _minutes(seconds) if isinstance(seconds, int | float) and 0 <= seconds < math.inf else ""
    revision = f" ({run['revision']})" if run.get("revision") else ""
    own = f"alexnet-repro {run['version']}{revision}" if run.get("version") else ""
    machines = [record.machine, *map(record.machine.get, map(str, _listed(record.machine.get("machines"))))]
    hardware, software = _hardware_and_software([each for each in machines if isinstance(each, Mapping)])
    known = {
        "Host": ", ".join(map(str, hosts)) if isinstance(hosts, list) else run.get("host"),
        "Hardware": ", ".join(hardware),
        "Run": ", ".join(filter(None, (_utc(run.get("started")), took, f"level {record.level}"))),
        "Software": ", ".join(filter(None, (own, *software))),
        "Command": run.get("command"),
    }
    return [(name, short(str(value))) for name, value in known.items() if value]


def _hardware_and_software(machines: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Return GPUs with their number, or that there are none, and processors; versions and drivers: each once."""
    gpus = Counter(str(gpu) for machine in machines for gpu in _listed(machine.get("gpus")))
    hardware = [f"{count} × {model}" for model, count in gpus.items()]
    hardware += dict.fromkeys(str(machine["cpu"]) for machine in machines if machine.get("cpu"))
    hardware += ["no GPU"] if not gpus and any(machine.get("gpus") == [] for machine in machines) else []
    packages = [each for machine in machines if isinstance(each := machine.get("packages"), Mapping)]
    versions = [f"{name} {each[name]}" for each in packages for name in FRAMEWORKS if name in each]
    versions += [f"driver {machine['driver']}" for machine in machines if machine.get("driver")]
    return hardware, list(dict.fromkeys(versions))


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _utc(started: Any) -> str:
    return str(started or "").replace("T", " ").replace("+00:00", " UTC")


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"  # noqa: PLR2004 - seconds of a minute
