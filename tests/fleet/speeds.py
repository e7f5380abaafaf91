"""Fleets of timings, made from numbers: what each device's levels are, and what it reported meanwhile."""

from datetime import UTC, datetime, timedelta

import numpy as np

from alexnet_repro.fleet.records import CASE_NUMBERS, Fleet, FleetDevice, FleetRun

CASES = 12
DAY = datetime(2026, 11, 1, 6, tzinfo=UTC)


def levels_of(nodes, *, devices=1, runs=1, noise=0.005, seed=0, cases=CASES):
    """Return levels `(runs, nodes, devices, cases)`, the newest run first: half of the variance is common to a run."""
    random = np.random.default_rng(seed)
    shape = (runs, nodes, devices)
    own = random.normal(scale=noise / np.sqrt(2), size=(*shape, cases))
    return random.normal(size=cases) + own + random.normal(scale=noise / np.sqrt(2), size=(*shape, 1))


def fleet_of(levels, *, kind="GPU", telemetry=None, speeds=None, days=None, names=None, environments=None):
    """Return a fleet: `telemetry` by (node, device) or node, of the newest run; `speeds` by node."""
    fleet = Fleet(environments=dict(environments or {}))
    runs, nodes, devices, cases = levels.shape
    usual = {"gpu_mhz": 1755.0, "temperature": 55.0, "watts": 300.0, "pcie_width": 16.0, "load": 1.0, "throttled": 0.0}
    for node in range(nodes):
        name = f"n{node:03d}"
        made = []
        for run in range(runs):
            held = []
            for device in range(devices):
                numbers = np.full((cases, len(CASE_NUMBERS)), np.nan)
                special = (telemetry or {}).get((node, device), (telemetry or {}).get(node, {})) if run == 0 else {}
                written = {"error": 0.001, "invalid": 0.0} | usual | special
                for column, value in written.items():
                    numbers[:, CASE_NUMBERS.index(column)] = value
                numbers[:, CASE_NUMBERS.index("level")] = levels[run, node, device]
                timed = np.isfinite(levels[run, node, device])
                found = tuple((names or [f"case[n={i}]" for i in range(cases)])[i] for i in np.flatnonzero(timed))
                speed = (speeds or {}).get(node, "e0")
                held.append(
                    FleetDevice(
                        f"gpu:{device}", kind, f"s{node}-{device}", speed=speed, cases=found, numbers=numbers[timed]
                    )
                )
            started = DAY - timedelta(days=(days or range(runs))[run])
            made.append(FleetRun(f"{name}-{run}.json", name, started, "PASS", complete=True, devices=tuple(held)))
        fleet.runs[name] = made[::-1]
    return fleet


def racks(nodes, size=8):
    """Return a column of the inventory: racks of some nodes each."""
    return {"rack": {f"n{node:03d}": f"r{node // size}" for node in range(nodes)}}
