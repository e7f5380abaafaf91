"""The cluster: the workers that train together, and this process's index, from TF_CONFIG or Slurm's variables."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
TRAIN = "python -m alexnet_repro train"


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
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ClusterError(f"TF_CONFIG isn't JSON ({error}); it should look like {EXAMPLE}") from error
    jobs = config.get("cluster") if isinstance(config, dict) else None
    if not isinstance(jobs, dict) or set(jobs) != {"worker"}:
        found = ", ".join(sorted(jobs)) if isinstance(jobs, dict) and jobs else "none"
        raise ClusterError(
            f"TF_CONFIG's cluster must have one job, worker (worker 0 is the chief), and has {found}; {EXAMPLE}"
        )
    workers, task = jobs["worker"], config.get("task")
    if not isinstance(workers, list) or not workers:
        raise ClusterError(f"TF_CONFIG's workers must be a list of host:port, got {str(workers)[:80]!r}; {EXAMPLE}")
    for each in workers:
        if not re.fullmatch(r".+:[0-9]{1,5}", str(each)) or not 0 < int(str(each).rpartition(":")[2]) < 2**16:
            raise ClusterError(f"TF_CONFIG: a worker's address must be host:port, got {str(each)[:80]!r}")
        if workers.count(each) > 1:
            raise ClusterError(f"TF_CONFIG: {each} is there twice; each worker needs its own address")
    kind, index = (task.get("type"), task.get("index")) if isinstance(task, dict) else (None, None)
    if kind != "worker":
        raise ClusterError(f"TF_CONFIG's task must be of type worker, got {kind!r}; {EXAMPLE}")
    if type(index) is not int or not 0 <= index < len(workers):
        raise ClusterError(f"TF_CONFIG's task index must be from 0 to {len(workers) - 1}, got {index!r}")
    return Cluster(tuple(workers), index)


def _of_slurm(environ: Mapping[str, str]) -> Cluster:
    """Return the cluster of a Slurm step, with ports that follow from the job's number.

    TensorFlow's resolver sorts nodes by name, which isn't the order of Slurm's tasks: n10 comes before n9. So a process
    is found by its node and its index on that node.
    """
    import tensorflow as tf

    first = SLURM_PORTS + int(environ.get("SLURM_JOB_ID", "0")) % SLURM_JOBS * SLURM_SPACING
    try:
        # Slurm itself assigns GPUs; given a number of them, TensorFlow doesn't call nvidia-smi.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=first, gpus_per_node=2**10, gpus_per_task=1, auto_set_gpu=False
        )
        addresses = tuple(resolver.cluster_spec().as_dict()["worker"])
        own = f"{environ['SLURMD_NODENAME']}:{first + int(environ['SLURM_LOCALID'])}"
    except (RuntimeError, ValueError, KeyError) as error:
        raise ClusterError(f"Slurm's variables can't be understood: {error}. Is it started by srun?") from error
    if own not in addresses:
        raise ClusterError(f"Slurm's variables don't agree: {own} isn't among the workers {', '.join(addresses)}")
    return Cluster(addresses, addresses.index(own))
