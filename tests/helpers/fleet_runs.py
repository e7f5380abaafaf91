"""Results files of sound nodes, and changes that make each something else."""

import copy

from benchmarks.tools.fleet_files import MadeFleet, made_steps
from tests.helpers.results_files import WELL, run, timing

CASES = ("train_step[device=cpu:0-batch=32-precision=float32]", "forward[batch=1-device=cpu:0-precision=float32]")
REPLAY = {**WELL, "check": "replay", "precision": "float32", "data": {"steps": made_steps(3)}}
TEMPLATE = run(
    repeatable=[REPLAY],
    timings=[timing(case, rounds=(1.0, 1.001, 1.002)) for case in CASES],
    machine={
        "devices": ["cpu:0"],
        "cpu": "a CPU, 2 processors",
        "system": "Linux-6.8.0-87-generic-x86_64-with-glibc2.36",
        "packages": {"tensorflow": "2.21.0", "numpy": "2.4.6"},
        "settings": {},
    },
)


def sound(node="node001", *, gpus=2, day=0):
    """Return the content of a sound node's file."""
    return MadeFleet(nodes=1, gpus=gpus).content(copy.deepcopy(TEMPLATE), node, day)


def write_fleet(folder, nodes=6, **fleet):
    """Write the files of a fleet of two GPUs per node, and return the folder."""
    MadeFleet(nodes, **{"gpus": 2, "noise": 0.002, **fleet}).write(TEMPLATE, folder)
    return folder
