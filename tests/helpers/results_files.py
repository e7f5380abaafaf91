"""Results files of small runs, in the format that `RunRecord` writes."""

import json

from jsonschema import Draft202012Validator

from tests.helpers.paths import ROOT

CASE = "train_step[device=cpu:0-batch=32-precision=float32]"
WELL = {"check": "shapes", "status": "PASS", "message": "all 14 layers", "device": "cpu:0"}
WRONG = {
    "check": "layers",
    "status": "FAIL",
    "message": "conv2d output: off by 0.5",
    "evidence": "1 of 10 elements",
    "fix": "python -m alexnet_repro doctor",
    "device": "gpu:1",
    "precision": "tf32",
    "number": 0.5,
    "bound": 0.25,
}
DOUBTFUL = {"check": "golden", "status": "INCONCLUSIVE", "message": "recorded elsewhere", "fix": "record it here"}
RUN = {
    "id": "0123456789abcdef0123456789abcdef",
    "node": "node1",
    "host": "node1",
    "pid": 4711,
    "started": "2026-11-24T10:15:00+00:00",
    "seconds": 241.5,
    "version": "0.1.0",
    "revision": "fcce852",
    "python": "3.12.1",
    "command": "pytest benchmarks --level=long",
    "level": "standard",
}
GROUPS = ("doctor", "correct", "repeatable", "fast", "reference")


SCHEMA = json.loads((ROOT / "docs/results.schema.json").read_text(encoding="utf-8"))


def problems(content):
    """Return where a file's content isn't as the published schema has it."""
    return [f"{each.json_path}: {each.message}" for each in Draft202012Validator(SCHEMA).iter_errors(content)]


def finding(**fields):
    """Return a finding with all its fields."""
    rest = {"evidence": "", "fix": "", "device": "", "precision": "", "number": None, "bound": None, "data": {}}
    return {**rest, **fields}


def timing(case=CASE, rounds=(1.0, 2.0, 3.0, 4.0, 5.0), **fields):
    """Return a timing of 32 images and 96 GFLOP per round."""
    return {
        "case": case,
        "device": "cpu:0",
        "precision": "float32",
        "rounds": list(rounds),
        "read_back": 1.0,
        "images": 32,
        "flop": 96 * 10**9,
        "heat": "",
        "fault": None,
        **fields,
    }


def run(*, verdict="PASS", complete=True, timings=(), machine=None, **found):
    """Return a file's content: a passing finding in each group, except in the groups that are named; all planned."""
    groups = {group: found.get(group, [WELL]) for group in GROUPS}
    planned = {"name": "test_any.py::test_any", "device": "cpu:0", "state": "answered", "why": "", "status": "PASS"}
    return {
        "schema": 4,
        "run": RUN,
        "plan": [{**planned, "group": group} for group in GROUPS[1:4]],
        "complete": complete,
        "verdict": verdict,
        "verdicts": {},
        "machine": {"devices": ["cpu:0"], "threads": {"processors": 2}} if machine is None else machine,
        "findings": {group: [finding(**each) for each in each_group] for group, each_group in groups.items()},
        "timings": list(timings),
    }


FAILED = run(verdict="FAIL", correct=[WELL, WRONG], reference=[DOUBTFUL], timings=[timing()])


EVERYTHING = run(
    correct=[
        {**WELL, "check": "learning", "data": {"batch": 20, "losses": [2.0, 1.0, "nan"], "accuracies": [0.1, 0.5, 1.0]}}
    ],
    reference=[
        {**WELL, "check": "speed", "number": 1.1, "bound": 1.03, "case": CASE, "data": {"low": 1.0, "high": 1.2}}
    ],
    timings=[
        timing(
            bytes=10**10,
            first=2.5,
            peak_memory=2 * 10**9,
            conditions={"load": 1.25, "cpu_mhz": 2600.0},
            samples={"seconds": [0.0, 5.0, 10.0], "cpu_mhz": [2600.0, None, 2400.0], "load": [1.0, 1.0, 1.0]},
        )
    ],
) | {"calibrations": [{"device": "cpu:0", "matmul": {"float32": 2e11}, "memory": 1e10}]}


def written(folder, content, name="results.json"):
    """Write a results file, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(content))
    return path
