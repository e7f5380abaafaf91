"""Fleets made by hand: a healthy one, one with every kind of fault, large ones, and names that mean harm.

What is judged is written here as literals; nothing of it is computed by the code under test.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from alexnet_repro.fleet.records import (
    CASE_NUMBERS,
    NOT_TIMED,
    STATUS_CODES,
    Cohort,
    Fleet,
    FleetAnswer,
    FleetDevice,
    FleetFinding,
    FleetRun,
    FleetSettings,
    OwnFinding,
    RefusedFile,
    SpeedTable,
)

DAY = datetime(2026, 11, 24, 10, 15, tzinfo=UTC)
GPU = "NVIDIA H100 80GB HBM3"
CASES = tuple(
    f"{kind}[batch={batch}-precision={precision}]"
    for kind in ("forward", "train_step", "evaluate")
    for batch in (32, 128)
    for precision in ("float32", "mixed_bfloat16")
)
MANY_CASES = tuple(
    f"{kind}[batch={batch}-precision={precision}]"
    for kind in ("forward", "train_step", "evaluate", "training")
    for batch in (1, 32, 64, 128, 256)
    for precision in ("float32", "mixed_bfloat16")
)
INVENTORY = {"driver": "570.86.15", "firmware": "96.00.89.00.01", "memory": "85520809984", "ecc_uncorrected": "0"}
MACHINE = {"system": "Ubuntu 24.04.3 LTS", "kernel": "6.8.0-87-generic", "firmware bios": "2.4.1", "python": "3.11.7"}
PACKAGES = {"packages tensorflow": "2.21.0", "packages keras": "3.15.1", "packages numpy": "2.4.6"}
FORGED = '"></p><script>document.title = "run"</script><img src=x onerror=alert(1)>'
HARMFUL = {
    "tag": FORGED,
    "long": "n" * 200,
    "right to left": "\u202e1n\u2066 שרת",
    "quotes": 'it\'s a "node" \\ `id` $(id)',
    "template": "{{ 7 * 7 }}{% raw %}",
    "control": "a\x00\x1b[31m\r\n\ud800b",
    "address": "javascript:alert(1)",
    "style": "</style><style>*{display:none}",
    "xml": "]]><!--&amp;-->",
}


def device(name="gpu:0", *, cases=CASES, factor=1.0, cell=None, seed=0, kind=GPU, **fields):
    """Return a device, slower by a factor in all cases, and in one case, `cell`, by another one."""
    levels = np.log(0.01 * factor) + np.random.default_rng(seed).normal(0, 0.004, len(cases))
    for case, slower in (cell or {}).items():
        levels[cases.index(case)] += np.log(slower)
    columns = {"level": levels, "seconds": np.exp(levels), "gpu_mhz": 1755.0 / factor, "invalid": 0.0, "error": 0.002}
    numbers = np.full((len(cases), len(CASE_NUMBERS)), np.nan)
    for column, values in columns.items():
        numbers[:, CASE_NUMBERS.index(column)] = values
    known = {"bits": "b0", "speed": "s0", "inventory": INVENTORY, "replays": {"replay float32": ("d0", "d1", "d2")}}
    return FleetDevice(name, kind, **{**known, "serial": f"{seed}-{name}", **fields}, cases=cases, numbers=numbers)


def node_run(node, *devices, verdict="PASS", days=0, machine=None, **fields):
    """Return a node's run, complete unless said otherwise."""
    own = {**MACHINE, **PACKAGES, "id": f"id of {node}", **(machine or {})}
    stated = {"complete": True, "version": "0.1.0", "seconds": 242.0, "identity": f"{node} {days}", **fields}
    path = f"/results/{node}/results.json"
    return FleetRun(path, node, DAY + timedelta(days=days), verdict, **stated, devices=devices, machine=own)


def speed_table(runs, statuses=None, cohort=GPU):
    """Return how each device's times stand to the median of all; `statuses` by node, of whatever is over 1.04."""
    members = [(run.node, each.name) for run in runs for each in run.devices]
    devices = [each for run in runs for each in run.devices]
    cases = tuple(dict.fromkeys(case for each in devices for case in each.cases))
    levels = np.full((len(devices), len(cases)), np.nan)
    for row, each in enumerate(devices):
        levels[row, [cases.index(case) for case in each.cases]] = each.numbers[:, 0]
    ratios = np.exp(levels - np.nanmedian(levels, axis=0)).astype(np.float32)
    own = np.array([STATUS_CODES.index((statuses or {}).get(node, "PASS")) for node, _ in members])
    codes = np.where(ratios > 1.04, own[:, None], 0).astype(np.int8)
    codes[np.isnan(ratios)] = NOT_TIMED
    bounds = np.full(ratios.shape, 1.015, np.float32)
    return SpeedTable(cohort, tuple(members), cases, ratios, bounds, codes, np.nanmedian(ratios, axis=1))


def fleet_answer(runs, findings=(), *, cohorts=(), statuses=None, earlier=(), refused=(), **settings):
    """Return the answer of current runs, each node's verdict the worst of its own findings'."""
    fleet = Fleet(refused=list(refused))
    for run in (*earlier, *runs):
        fleet.runs.setdefault(run.node, []).append(run)
    order = ("FAIL", "INCONCLUSIVE", "PASS")
    nodes = dict.fromkeys(fleet.runs, "PASS") | dict.fromkeys(settings.get("expected", ()), "PASS")
    for each in findings:
        for node in filter(None, (each.node, *each.nodes)):
            nodes[node] = min(nodes[node], each.status, key=order.index)
    nodes = dict(sorted(nodes.items(), key=lambda item: order.index(item[1])))
    found = sorted(findings, key=lambda each: order.index(each.status))
    tables = [speed_table(runs, statuses)] if runs else []
    return FleetAnswer(fleet, FleetSettings(**settings), list(cohorts), tables, found, nodes)


def bits_cohort(members, message, status="PASS"):
    """Return the cohort of devices in one environment, compared in bits."""
    return Cohort(f"{GPU}, replay float32", "bits", "b0", tuple(members), status, message)


def speed_cohort(members, message="8 devices, 12 cases", status="PASS"):
    """Return the cohort of devices in one environment, compared in speed."""
    return Cohort(GPU, "speed", "s0", tuple(members), status, message)


def healthy_fleet(count=8):
    """Return nodes `n1` to `n8` of one GPU each, alike in all but noise."""
    runs = [node_run(f"n{number}", device(seed=number)) for number in range(1, count + 1)]
    members = [(run.node, "gpu:0") for run in runs]
    cohorts = [bits_cohort(members, f"{count} of {count} devices have the same bits"), speed_cohort(members)]
    return fleet_answer(runs, cohorts=cohorts)


SLOW = FleetFinding(
    "speed",
    "FAIL",
    "takes 1.12 × the others' time in all 12 cases; its clock is 1,410 MHz, the others' 1,755",
    "n03",
    "gpu:1",
    GPU,
    "noise explains up to 1.02 ×; tolerance 3 %",
    "nvidia-smi -q -d CLOCK,POWER,TEMPERATURE",
    "train_step[batch=128-precision=float32]",
    1.12,
    1.03,
)
DIFFERS = FleetFinding(
    "bits",
    "FAIL",
    "replay float32: from step 2 the gradient of dense_1/kernel differs from 21 of 22 devices",
    "n05",
    "gpu:0",
    f"{GPU}, replay float32",
    "9f86d081 instead of 60303ae2",
    "see to the GPU: dcgmi diag -r 3",
    data={"step": 2},
)
CUT_OFF = FleetFinding(
    "own",
    "INCONCLUSIVE",
    "the run didn't finish: it was killed, or still runs",
    "n07",
    fix="run it again: pytest benchmarks",
)
ALONE = FleetFinding(
    "bits",
    "INCONCLUSIVE",
    "nobody shares its environment: packages tensorflow 2.20.0, the others 2.21.0",
    "n09",
    "gpu:0",
    GPU,
    fix="give it the others' software: pip install tensorflow==2.21.0",
)
ALONE_INVENTORY = FleetFinding(
    "inventory",
    "INCONCLUSIVE",
    "other software than 10 of 11 nodes: packages tensorflow 2.20.0, the others 2.21.0",
    "n09",
    fix="give it the others' software: pip install tensorflow==2.21.0",
)
MISSING = FleetFinding(
    "missing", "INCONCLUSIVE", "not heard of", "n12", fix="see whether it runs, and run it there: pytest benchmarks"
)
ECC = FleetFinding(
    "health",
    "FAIL",
    "3 uncorrectable ECC errors",
    "n03",
    "gpu:0",
    fix="replace the GPU, or reset it: nvidia-smi -r -i 0",
)
DRIFT = FleetFinding(
    "history",
    "INCONCLUSIVE",
    "2 % a week slower for five weeks (a drift)",
    "n02",
    "gpu:1",
    number=1.1,
    bound=1.03,
    case="train_step[batch=128-precision=float32]",
    fix="clean its heat sink, and watch nvidia-smi -q -d TEMPERATURE",
)


def faulty_fleet():
    """Return twelve expected nodes of two GPUs: each kind of fault once, and the others well."""
    runs, earlier = [], []
    for number in range(1, 12):
        node, machine = f"n{number:02}", {"packages tensorflow": "2.20.0"} if number == 9 else {}
        of = {"bits": "b1"} if number == 9 else {}
        first = device("gpu:0", seed=number, **of)
        second = device("gpu:1", seed=number + 50, factor=1.12 if number == 3 else 1.1 if number == 2 else 1.0, **of)
        ended = {"complete": False, "ended": "", "verdict": "INCONCLUSIVE"} if number == 7 else {}
        runs.append(node_run(node, *([first] if number == 7 else [first, second]), machine=machine, **ended))
    for week in range(5, 0, -1):
        one, other = device("gpu:0", seed=2), device("gpu:1", seed=52, factor=1.1 - 0.02 * week)
        earlier.append(node_run("n02", one, other, days=-7 * week))
    members = [(run.node, each.name) for run in runs for each in run.devices if run.node != "n09"]
    cohorts = [
        bits_cohort(members, "18 of 19 devices have the same bits; n05 gpu:0 differs", "FAIL"),
        Cohort(
            f"{GPU}, replay float32, tensorflow 2.20.0",
            "bits",
            "b1",
            (("n09", "gpu:0"), ("n09", "gpu:1")),
            "INCONCLUSIVE",
            "2 devices of one node: a majority takes three",
        ),
        speed_cohort(members, "19 devices, 12 cases; n03 gpu:1 is slow", "FAIL"),
    ]
    refused = [RefusedFile("/results/old/results.json", "its schema is 3, this version reads 4")]
    found = [SLOW, DIFFERS, ECC, CUT_OFF, ALONE, ALONE_INVENTORY, MISSING, DRIFT]
    answer = fleet_answer(
        runs,
        found,
        cohorts=cohorts,
        statuses={"n03": "FAIL", "n02": "INCONCLUSIVE"},
        earlier=earlier,
        refused=refused,
        expected=tuple(f"n{number:02}" for number in range(1, 13)),
    )
    answer.fleet.environments["b0"] = {"kind": GPU, "packages": {"tensorflow": "2.21.0"}, "driver": "570.86.15"}
    answer.fleet.environments["b1"] = {"kind": GPU, "packages": {"tensorflow": "2.20.0"}, "driver": "570.86.15"}
    return answer


SLOW_RACK = FleetFinding(
    "speed",
    "FAIL",
    "its 40 nodes take 1.09 × the others' time in all 40 cases; their power draw is 480 W, the others' 690",
    group="rack=r07",
    evidence="960 nodes of 24 other racks",
    fix="see to the rack's power and cooling",
    number=1.09,
    bound=1.03,
)


def large_fleet(racks=25, per_rack=40, cases=MANY_CASES):
    """Return racks of nodes with one GPU: rack `r07` is slow, one node in it differs in bits, two others are slow."""
    runs, columns = [], {"rack": {}, "switch": {}}
    for rack in range(1, racks + 1):
        for place in range(1, per_rack + 1):
            node = f"r{rack:02}n{place:02}"
            columns["rack"][node], columns["switch"][node] = f"r{rack:02}", f"s{(rack - 1) // 8 + 1}"
            one = {("r03", 5): 1.11, ("r19", 31): 1.25}.get((f"r{rack:02}", place), 1.0)
            cell = {cases[7]: 1.3} if (rack, place) == (12, 20) else None
            factor = 1.09 if rack == 7 else one
            runs.append(node_run(node, device(cases=cases, factor=factor, cell=cell, seed=rack * 100 + place)))
    members = [(run.node, "gpu:0") for run in runs]
    slow = dict.fromkeys(("r03n05", "r19n31", "r12n20"), "FAIL")
    findings = [replace(SLOW_RACK, nodes=tuple(node for node, rack in columns["rack"].items() if rack == "r07"))]
    for node, ratio, where in (
        ("r03n05", 1.11, "all 40 cases"),
        ("r19n31", 1.25, "all 40 cases"),
        ("r12n20", 1.3, "1 case"),
    ):
        findings.append(
            FleetFinding(
                "speed",
                "FAIL",
                f"takes {ratio} × the others' time in {where}",
                node,
                "gpu:0",
                GPU,
                number=ratio,
                bound=1.03,
                case=cases[7],
                fix="nvidia-smi -q -d CLOCK,POWER,TEMPERATURE",
            )
        )
    findings.append(
        FleetFinding(
            "bits",
            "FAIL",
            "replay float32: from step 1 the loss differs from 999 of 1000 devices",
            "r07n09",
            "gpu:0",
            GPU,
            fix="see to the GPU: dcgmi diag -r 3",
        )
    )
    cohorts = [
        bits_cohort(members, f"{len(members) - 1} of {len(members)} devices have the same bits", "FAIL"),
        speed_cohort(members, f"{len(members)} devices, {len(cases)} cases", "FAIL"),
    ]
    findings = [each for each in findings if not each.node or each.node in columns["rack"]]
    statuses = slow | {node: "FAIL" for node, rack in columns["rack"].items() if rack == "r07"}
    return fleet_answer(runs, findings, cohorts=cohorts, statuses=statuses, columns=columns, by=("rack", "switch"))


def harmful_fleet():
    """Return nodes, devices, cases, groups and files whose every text means harm."""
    runs, findings, rack = [], [], {}
    for number, text in enumerate(HARMFUL.values()):
        one = device(text, cases=(f"{text}[batch={text}]", *CASES[1:]), seed=number, kind=text, inventory={text: text})
        runs.append(node_run(text, one, machine={text: text, "system": text}, found=(OwnFinding("FAIL", text, text),)))
        rack[text] = text
        areas = ("own", "bits", "speed", "history", "health", "inventory", "missing", "files")
        findings.extend(
            FleetFinding(area, "FAIL", text, text, text, text, text, text, f"{text}[batch={text}]", np.nan, np.inf)
            for area in areas
        )
        group = {"group": f"{text}={text}", "nodes": (text,)}
        findings.append(FleetFinding("speed", "INCONCLUSIVE", text, fix=f"sudo {text}", **group))
    cohorts = [Cohort(text, "bits", text, ((text, text),), "FAIL", text) for text in HARMFUL.values()]
    refused = [RefusedFile(text, text) for text in HARMFUL.values()]
    answer = fleet_answer(runs, findings, cohorts=cohorts, refused=refused, columns={"rack": rack}, by=("rack", "none"))
    answer.fleet.environments.update({text: {text: {text: text}} for text in HARMFUL.values()})
    return answer


EMPTY = FleetAnswer(Fleet(), FleetSettings(), (), (), (), {}, Path())
