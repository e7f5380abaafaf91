"""The cluster: the workers that train together, and this process's index, from TF_CONFIG or Slurm's variables."""

import contextlib
import itertools
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
TRAIN = "python -m alexnet_repro train"
CHIEFS = ("chief", "master")  # what platforms call a worker 0 of its own


def launch_help(command: str = TRAIN) -> str:
    """Return what starts workers: the command, on each machine or by Slurm."""
    return f"""\
on each machine, with its own index:
  TF_CONFIG='{EXAMPLE}' \\
    {command} --distribute=multiworker
or under Slurm, one task per machine:
  srun --nodes=2 --ntasks-per-node=1 --gpus-per-node=8 {command} --distribute=multiworker
"""


SLURM_PORTS, SLURM_SPACING, SLURM_JOBS = 20_000, 16, 600
"""First port, ports per job, and jobs until they repeat: below the ports that Linux assigns by itself."""
# One name, or several as r[1-2]n[01-03,7].
NODE = r"(?:[^\s,\[\]]|\[[0-9]{1,12}(?:-[0-9]{1,12})?(?:,[0-9]{1,12}(?:-[0-9]{1,12})?)*\])+"
COUNT = r"\d{1,5}(\(x\d{1,5}\))?"  # of tasks, as 2(x3)
MAX_WORKERS = 2**16
BY_HAND = "set TF_CONFIG instead, or see what `scontrol show hostnames` and `env | grep SLURM` print"


class ClusterError(OSError):
    """Workers can't begin, or continue, together; the message names the worker, and what to do."""


@dataclass(frozen=True)
class Cluster:
    """The workers of one training, and this process's place among them."""

    addresses: tuple[str, ...]  # `host:port` of each worker, by index
    task: int  # this process's index

    @property
    def chief(self) -> bool:
        """Whether this worker is the one that prints and saves."""
        return self.task == 0

    def name(self, task: int) -> str:
        """Return a worker's name in messages."""
        return f"worker {task} ({self.addresses[task]})"

    @property
    def machines(self) -> tuple[str, ...]:
        """Each machine's name: its host, or the whole address if a host has several workers."""
        hosts = [self.endpoint(task)[0] for task in range(len(self.addresses))]
        return tuple(hosts if len(set(hosts)) == len(hosts) else self.addresses)

    def endpoint(self, task: int) -> tuple[str, int]:
        """Return a worker's host and port."""
        host, _, port = self.addresses[task].rpartition(":")
        return host.strip("[]"), int(port)


def cluster_here(environ: Mapping[str, str] = os.environ, command: str = TRAIN) -> Cluster:
    """Return the cluster that the environment describes: `TF_CONFIG` where it is set, else Slurm's variables.

    Messages name the `command` that is to be started on each machine.

    Raises:
        ClusterError: there is neither, or what is there is wrong; the message says what to type.
    """
    if environ.get("TF_CONFIG"):
        return _of_tf_config(environ["TF_CONFIG"])
    if "SLURM_STEP_NODELIST" in environ:
        return _of_slurm(environ)
    if "SLURM_JOB_ID" in environ:
        raise ClusterError(
            "this is in a Slurm job, but in no step of it: put srun before the command, as in\n"
            f"  srun --ntasks-per-node=1 {command} --distribute=multiworker"
        )
    raise ClusterError(f"no workers are given: TF_CONFIG isn't set, and this isn't Slurm. Type {launch_help(command)}")


def _of_tf_config(text: str) -> Cluster:
    config = _json(text)
    jobs = config.get("cluster") if isinstance(config, dict) else None
    jobs = {name: job for name, job in jobs.items() if job} if isinstance(jobs, dict) else {}
    task = config.get("task") if isinstance(config, dict) else None
    kind, index = (task.get("type"), task.get("index")) if isinstance(task, dict) else (None, None)
    if kind == "evaluator":
        raise ClusterError("TF_CONFIG's task is an evaluator: start workers alone; training evaluates by itself")
    jobs.pop("evaluator", None)
    chiefs = [name for name in jobs if name in CHIEFS]
    if not jobs or {*jobs} - {"worker", *chiefs} or len(chiefs) > 1:
        raise ClusterError(
            f"TF_CONFIG's cluster must have one job, worker (worker 0 is the chief), and has "
            f"{', '.join(sorted(jobs)) or 'none'}: make each process a worker, as in {EXAMPLE}"
        )
    for job in jobs.values():
        if not isinstance(job, list):
            raise ClusterError(f"TF_CONFIG's workers must be a list of host:port, got {str(job)[:80]!r}; {EXAMPLE}")
    chief = jobs[chiefs[0]] if chiefs else []
    workers = [*chief, *jobs.get("worker", [])]
    for each in workers:
        if not re.fullmatch(r".+:[0-9]{1,5}", str(each)) or not 0 < int(str(each).rpartition(":")[2]) < 2**16:
            raise ClusterError(f"TF_CONFIG: a worker's address must be host:port, got {str(each)[:80]!r}")
        if workers.count(each) > 1:
            raise ClusterError(f"TF_CONFIG: {each} is there twice; each worker needs its own address")
    if not isinstance(kind, str) or kind not in jobs:
        raise ClusterError(
            f"TF_CONFIG's task must be of type {' or '.join(sorted(jobs))}, got {kind!r}; "
            'it should look like "task": {"type": "worker", "index": 0}, each process with its own index'
        )
    if type(index) is not int or not 0 <= index < len(jobs[kind]):
        hint = "; write it without quotes" if isinstance(index, str) and index.isdecimal() else ""
        raise ClusterError(f"TF_CONFIG's task index must be from 0 to {len(jobs[kind]) - 1}, got {index!r}{hint}")
    return Cluster(tuple(workers), index + (len(chief) if kind == "worker" else 0))


def _json(text: str) -> Any:
    """Return what TF_CONFIG holds; what is quoted twice isn't taken, since TensorFlow's own programs wouldn't."""
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        config, wrong = text.strip().strip("'"), f"TF_CONFIG isn't JSON ({error}); it should look like {EXAMPLE}"
    else:
        wrong = ""
    if isinstance(config, str):
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(json.loads(config), dict):
                wrong = f"TF_CONFIG is quoted twice; it should be {config}"
    if wrong:
        raise ClusterError(wrong)
    return config


def _of_slurm(environ: Mapping[str, str]) -> Cluster:
    """Return the cluster of a Slurm step, in the order of its nodes, with ports that follow from the job's number.

    A process is found by its node and its index on that node, however Slurm numbered the tasks. Not by TensorFlow's
    resolver, which knows only node lists with their brackets at the end.
    """
    job = re.sub(r"[^0-9]", "", environ.get("SLURM_JOB_ID", ""))[-18:]
    first = SLURM_PORTS + int(job or 0) % SLURM_JOBS * SLURM_SPACING
    tasks = list[int]()
    for part in _slurm(environ, "SLURM_STEP_TASKS_PER_NODE", rf"{COUNT}(,{COUNT})*").split(","):
        each, _, times = part.removesuffix(")").partition("(x")
        tasks += [int(each)] * int(times or 1)
    nodes = _nodes(_slurm(environ, "SLURM_STEP_NODELIST", rf"{NODE}(,{NODE})*"))
    total = int(_slurm(environ, "SLURM_STEP_NUM_TASKS", r"\d{1,5}"))
    if len(nodes) != len(tasks) or sum(tasks) != total:
        found = f"{len(nodes)} nodes, tasks for {len(tasks)}, {sum(tasks)} of {total} tasks"
        raise ClusterError(f"Slurm's variables don't agree: {found}; {BY_HAND}")
    by_node = zip(nodes, tasks, strict=True)
    addresses = tuple(f"{node}:{first + each}" for node, number in by_node for each in range(number))
    own = f"{_slurm(environ, 'SLURMD_NODENAME', '.+')}:{first + int(_slurm(environ, 'SLURM_LOCALID', r'[0-9]{1,5}'))}"
    if own not in addresses:
        raise ClusterError(f"Slurm's variables don't agree: {own} isn't among the workers {', '.join(addresses)}")
    return Cluster(addresses, addresses.index(own))


def _slurm(environ: Mapping[str, str], name: str, pattern: str) -> str:
    if (value := environ.get(name)) is None:
        raise ClusterError(f"Slurm's variables aren't all here, without {name}: is it started by srun? Or {BY_HAND}")
    if not re.fullmatch(pattern, value, re.ASCII):
        raise ClusterError(f"Slurm's variables can't be understood: {name} is {value[:80]!r}; {BY_HAND}")
    return value


def _nodes(text: str) -> list[str]:
    """Return the nodes of a list such as `r[1-2]n[01-03,7],login`, as `scontrol show hostnames` does."""
    found = list[str]()
    for node in re.findall(NODE, text):
        parts = re.split(r"\[(.*?)\]", node)  # what is in brackets is every second one
        choices = [_numbers(part) if inside % 2 else [part] for inside, part in enumerate(parts)]
        if math.prod(map(len, choices)) > MAX_WORKERS:
            raise ClusterError(f"Slurm's variables can't be understood: {node[:80]} is over {MAX_WORKERS:,} nodes")
        found += map("".join, itertools.product(*choices))
    return found


def _numbers(text: str) -> Sequence[str]:
    """Return the numbers of `01-03,7`, as wide as each is written."""
    found = list[str]()
    for each in text.split(","):
        begin, _, end = each.partition("-")
        numbers = range(int(begin), min(int(end or begin), int(begin) + MAX_WORKERS) + 1)
        found += [f"{number:0{len(begin)}}" for number in numbers]
    return found
