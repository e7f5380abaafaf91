"""Workers that verify their machines side by side: how they meet, and how their one record comes to be."""

import socket
from collections.abc import Sequence
from pathlib import Path

import keras
import pytest

from alexnet_repro.layout import VERIFY
from alexnet_repro.training.distributed.cluster import ClusterError, cluster_here
from alexnet_repro.training.distributed.coordination import AllGather
from alexnet_repro.training.distributed.rendezvous import rendezvous
from alexnet_repro.verify.benchmark.scaling_run import GATHER_DEADLINES, SHARED_MACHINE, VIRTUAL_MACHINES, lost_worker
from alexnet_repro.verify.doctor.environment import Environment
from alexnet_repro.verify.doctor.fingerprint import boot_of
from alexnet_repro.verify.report.merge import merged
from alexnet_repro.verify.report.run_record import RunRecord, from_data
from benchmarks.level import burn_in_seconds, check_config

REFUSED = {
    "--device": "it takes all GPUs of each machine",
    "--cpu-replicas": "it takes each machine's CPU as it is",
    "--update-reference": "a reference is of one machine by itself",
}
SAME_OPTIONS = ("deadline", "level", "link_gbps", "benchmark_max_time", "benchmark_min_rounds")
BOOT = Path("/proc/sys/kernel/random/boot_id")


class WorkerGroup:
    """This worker's place among those of `--distribute=multiworker`, and what they exchange."""

    def __init__(self, config: pytest.Config, folder: Path) -> None:
        """Find the workers. UsageError: none are named; wrong options."""
        if keras.backend.backend() != "tensorflow":
            raise pytest.UsageError(f"--distribute needs TensorFlow, and KERAS_BACKEND is {keras.backend.backend()}")
        for option, why in REFUSED.items():
            if config.getoption(option):
                raise pytest.UsageError(f"{option} doesn't go with --distribute: {why}")
        try:
            self.cluster = cluster_here(command=VERIFY)
        except ClusterError as error:
            raise pytest.UsageError(str(error)) from error
        self.own_folder = folder / f"worker{self.cluster.task}"
        self.gather: AllGather | None = None
        """What they exchange data by; None until they have met."""
        self.doubt: tuple[str, str] | None = None
        """Why speed means little on these machines, and the fix; None if it means something."""
        self._config, self._timeout = config, config.getoption("worker_timeout")

    def meet(self, machine: Environment) -> None:
        """Wait until all workers are there, with the same software, options and number of GPUs; or a ClusterError."""
        from alexnet_repro.training.distributed.strategy import worker_versions

        cluster, say = self.cluster, self._config.get_terminal_writer().line
        gpus = len(machine.seen_gpus)
        own = {
            "versions": worker_versions(),
            "devices": {"GPUs": gpus},
            "options": {name: self._config.getoption(name) for name in SAME_OPTIONS}
            | {"replays": check_config(self._config).replays, "burn_in": burn_in_seconds(self._config)},
        }
        say(f"{cluster.name(cluster.task)} is ready; waiting for all {len(cluster.addresses)}")
        self.gather = AllGather(cluster, rendezvous(cluster, own, self._timeout), say)
        same_machine = BOOT.read_text() if BOOT.exists() else socket.gethostname()
        boots = self.gather("the start", [same_machine, boot_of("cpu:0")], self._timeout)
        if len({boot for boot, _ in boots}) < len(boots):
            self.doubt = SHARED_MACHINE
        elif any(virtual for _, virtual in boots):
            self.doubt = VIRTUAL_MACHINES

    def check_collected(self, node_ids: Sequence[str]) -> None:
        """Raise a ClusterError unless all workers run the same tests."""
        first, *others = self.gather("the tests", node_ids, self._timeout)
        for task, other in enumerate(others, 1):
            if other != first:
                name = self.cluster.name
                raise ClusterError(f"{name(task)} runs other tests: {len(other)}, and {name(0)} {len(first)}")

    def finish(self, own: RunRecord, *, all_ran: bool) -> RunRecord:
        """Return one record of all machines, which the chief writes; where a worker is lost, this one's own.

        `all_ran` is whether this worker ran all of its tests: otherwise it leaves, which the others notice.
        """
        if not all_ran:
            if self.gather:
                self.gather.close()
            return own
        try:
            recorded = self.gather("the end", own.as_data(), GATHER_DEADLINES * self._config.getoption("deadline"))
        except ClusterError as error:
            own.add("fast", lost_worker(error))
            own.write(complete=True)
            return own
        finally:
            self.gather.close()
        chief = self.cluster.chief
        path = own.path.parents[1] / own.path.name if chief else own.path
        machines = {name: from_data(path, each) for name, each in zip(self.cluster.machines, recorded, strict=True)}
        whole = merged(path, machines, comparable=self.doubt != SHARED_MACHINE)
        whole.complete = all(each.complete for each in machines.values())
        if chief:
            whole.write(complete=whole.complete)
        return whole
