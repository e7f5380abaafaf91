"""Workers that verify their machines side by side: how they meet, and how their one record comes to be."""

import contextlib
import hashlib
import socket
from collections.abc import Sequence
from pathlib import Path

import keras
import pytest

from alexnet_repro.training.distributed.all_gather import AllGather
from alexnet_repro.training.distributed.cluster import Cluster, ClusterError, cluster_here
from alexnet_repro.training.distributed.handshake import meet
from alexnet_repro.verify.benchmark.scaling_run import (
    GATHER_DEADLINES,
    SHARED_MACHINE,
    VIRTUAL_MACHINES,
    lost_worker,
)
from alexnet_repro.verify.doctor.fingerprint import boot_of, environment_of
from alexnet_repro.verify.finding import Finding, overall
from alexnet_repro.verify.report.merge import merged
from alexnet_repro.verify.report.run_record import RunRecord, from_data
from benchmarks.summary import HERE, RECORD, WHOLE

CLUSTER = pytest.StashKey[Cluster]()
GATHER = pytest.StashKey[AllGather]()
DOUBT = pytest.StashKey[tuple[str, str] | None]()
REFUSED = {
    "--device": "it takes all GPUs of each machine",
    "--cpu-replicas": "it takes each machine's CPU as it is",
    "--update-reference": "a reference is of one machine by itself",
}
DECIDING = ("deadline", "replays", "burn_in", "full", "link_gbps", "benchmark_max_time", "benchmark_min_rounds")
BOOT = Path("/proc/sys/kernel/random/boot_id")


def folder_of(config: pytest.Config, folder: Path) -> Path:
    """Return where this process's own results go; among workers, remember its place among them.

    Raises:
        UsageError: nothing tells who they are, or an option was given that doesn't go with it.
    """
    if config.getoption("distribute") is None or config.option.collectonly:
        return folder
    if keras.backend.backend() != "tensorflow":
        raise pytest.UsageError(f"--distribute needs TensorFlow, and KERAS_BACKEND is {keras.backend.backend()}")
    for option, why in REFUSED.items():
        if config.getoption(option):
            raise pytest.UsageError(f"{option} doesn't go with --distribute: {why}")
    try:
        config.stash[CLUSTER] = cluster_here()
    except ClusterError as error:
        text = str(error).replace("python -m alexnet_repro train", "pytest benchmarks")
        raise pytest.UsageError(text) from error
    if config.stash[CLUSTER].chief:
        with contextlib.suppress(OSError):  # of an earlier run, if there was one; this one may not come to that
            (folder / "results.json").unlink()
    return folder / f"worker{config.stash[CLUSTER].task}"


def meet_others(config: pytest.Config) -> None:
    """Wait until all workers are there, with the same software, options and number of GPUs.

    Raises:
        ClusterError: they don't come together; see `alexnet_repro.training.distributed.handshake.meet`.
    """
    from alexnet_repro.training.distributed.strategy import num_gpus, versions

    cluster, say = config.stash[CLUSTER], config.get_terminal_writer().line
    if num_gpus():
        config.stash[RECORD].machine["gpu_environment"] = environment_of("gpu:0", config.stash[HERE])
    own = {
        "versions": versions(),
        "devices": {"GPUs": num_gpus()},
        "options": {name: config.getoption(name) for name in DECIDING},
    }
    say(f"{cluster.name(cluster.task)} is ready; waiting for all {len(cluster.addresses)}")
    gather = AllGather(cluster, meet(cluster, own, config.getoption("worker_timeout")), say)
    boots = gather("the start", [_boot(), boot_of("cpu:0")], config.getoption("worker_timeout"))
    config.stash[GATHER] = gather
    config.stash[DOUBT] = VIRTUAL_MACHINES if any(virtual for _, virtual in boots) else None
    if len({boot for boot, _ in boots}) < len(boots):
        config.stash[DOUBT] = SHARED_MACHINE


def check_collected(config: pytest.Config, nodes: Sequence[str]) -> None:
    """Make sure that all workers run the same tests; what each has failed last time, say, may differ.

    Raises:
        ClusterError: they don't.
    """
    digest = hashlib.sha256("\n".join(nodes).encode()).hexdigest()
    told = config.stash[GATHER]("the tests", [digest, len(nodes)], config.getoption("worker_timeout"))
    cluster = config.stash[CLUSTER]
    for task, (other, number) in enumerate(told):
        if other != told[0][0]:
            raise ClusterError(f"{cluster.name(task)} runs other tests: {number}, and {cluster.name(0)} {told[0][1]}")


def _boot() -> str:
    """Return what processes of one machine have in common."""
    return BOOT.read_text() if BOOT.exists() else socket.gethostname()


def finish_together(config: pytest.Config, *, failed: bool) -> RunRecord:
    """Return one record of all machines, which the first worker writes; where a worker is lost, this one's own.

    Args:
        config: of this worker.
        failed: whether one of its tests failed.
    """
    own, gather, cluster = config.stash[RECORD], config.stash[GATHER], config.stash[CLUSTER]
    if failed and overall(own.findings) != "FAIL" and not config.getoption("fail_inconclusive"):
        own.add("correct", Finding("tests", "FAIL", "a test ended with an error", fix="see this worker's own output"))
        own.write(complete=True)
    try:
        patience = GATHER_DEADLINES * config.getoption("deadline")
        recorded = gather("the end", own.as_data(), patience)
    except ClusterError as error:
        own.add("fast", lost_worker(error))
        return own
    finally:
        gather.close()
    path = own.path.parents[1] / own.path.name if cluster.chief else own.path
    machines = {name: from_data(path, each) for name, each in zip(cluster.machines, recorded, strict=True)}
    whole = config.stash[WHOLE] = merged(path, machines, comparable=config.stash[DOUBT] != SHARED_MACHINE)
    if cluster.chief:
        whole.write(complete=all(each.complete for each in machines.values()))
    return whole


def leave_others(config: pytest.Config) -> RunRecord:
    """Return this machine's own record, and have the others hear that it is gone."""
    config.stash[GATHER].close()
    return config.stash[RECORD]
