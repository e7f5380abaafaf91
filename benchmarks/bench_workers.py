"""Workers that verify their machines side by side: how they meet, what is measured of all, and their one record."""

import json
import socket
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from bench_summary import RECORD, WHOLE
from bench_together import NoAnswerError, Together, through_host

from alexnet_repro.all_gather import AllGather
from alexnet_repro.checks.links import link_rates
from alexnet_repro.checks.replicas import Question, ask, rounds_within
from alexnet_repro.cluster import Cluster, ClusterError, cluster_here
from alexnet_repro.handshake import meet
from alexnet_repro.hardware.finding import Finding
from alexnet_repro.results.links import around_a_ring
from alexnet_repro.results.merged import TOGETHER, merged
from alexnet_repro.results.record import Record
from alexnet_repro.results.scaling import by_design, void
from alexnet_repro.results.speed_reference import boot_of

CLUSTER = pytest.StashKey[Cluster]()
GATHER = pytest.StashKey[AllGather]()
SHARED = "workers on one machine share its cores and its network: it means nothing"
HOSTS = "virtual machines of one name run on hosts that differ"
UNSHARED = "start one worker on each machine"
BESIDE = 10  # deadlines of a check: so much later than another's may a machine's own checks end
BOOT = Path("/proc/sys/kernel/random/boot_id")


def folder_of(config: pytest.Config, folder: Path) -> Path:
    """Return where this process's own results go; among workers, remember its place among them.

    Raises:
        UsageError: nothing tells who they are, or an option was given that doesn't go with it.
    """
    if config.getoption("distribute") is None or config.option.collectonly:
        return folder
    for option in ("--device", "--cpu-replicas"):
        if config.getoption(option):
            raise pytest.UsageError(f"--distribute takes all GPUs of each machine: leave out {option}")
    try:
        config.stash[CLUSTER] = cluster_here()
    except ClusterError as error:
        text = str(error).replace("python -m alexnet_repro train", "pytest benchmarks")
        raise pytest.UsageError(text) from error
    return folder / f"worker{config.stash[CLUSTER].task}"


def meet_others(config: pytest.Config) -> None:
    """Wait until all workers are there, with the same software, options and number of GPUs.

    Raises:
        ClusterError: they don't come together; see `alexnet_repro.handshake.meet`.
    """
    from alexnet_repro.strategies import num_gpus, versions

    cluster, say = config.stash[CLUSTER], config.get_terminal_writer().line
    options = [str(each) for each in config.invocation_params.args if not str(each).startswith("--report")]
    own = {"versions": versions(), "devices": {"GPUs": num_gpus()}, "options": {"pytest": options}}
    say(f"{cluster.name(cluster.task)} is ready; waiting for all {len(cluster.addresses)}")
    connections = meet(cluster, own, config.getoption("worker_timeout"))
    config.stash[GATHER] = AllGather(cluster, connections, say)


class AmongWorkers(Together):
    """All devices of all workers. Every worker asks the same in the same order, and is told the same."""

    def __init__(
        self,
        cluster: Cluster,
        gather: AllGather,
        local: Sequence[str],
        deadline: float,
        seconds: float,
        side: int = 224,
    ) -> None:
        """Measure nothing yet.

        Args:
            cluster: the workers.
            gather: what they tell each other by.
            local: this worker's devices, as `gpu:0`; the others have as many.
            deadline: seconds that an answer may take.
            seconds: how long to measure, at the least.
            side: of the images that the model sees.
        """
        devices = [f"{machine}/{device}" for machine in cluster.machines for device in local]
        super().__init__(devices, 0, deadline, seconds, side, len(cluster.addresses))
        self._cluster, self._gather, self.local, self._patience = cluster, gather, tuple(local), BESIDE * deadline
        self.machines = cluster.machines
        self._environ = {"CUDA_VISIBLE_DEVICES": "-1"} if local[0].startswith("cpu") else {}
        self._shared, self._rates = False, list[list[float] | str]()

    def models(self, own: Mapping[str, str]) -> dict[str, str]:
        """Return all devices' product names, by device, from each worker's own."""
        every = zip(self._cluster.machines, self.gathered(dict(own)), strict=True)
        return {f"{machine}/{device}": model for machine, each in every for device, model in each.items()}

    def link_rates(self) -> list[list[float] | str]:
        """Return what plain TCP carries from each worker to the next; see `alexnet_repro.checks.links`."""
        boots = self.gathered(BOOT.read_text() if BOOT.exists() else socket.gethostname())
        self._shared = len(set(boots)) < len(boots)
        self._rates = link_rates(self._cluster, self.gathered)
        return self._rates

    def plainly(self) -> float | None:
        """Return the seconds that the gradients take by the host and plain TCP; None on CPUs, or if that isn't known.

        TensorFlow's all-reduce between CPUs goes by gRPC, and is slower than that everywhere.
        """
        if self._environ:
            return None
        through, around = max(self.gathered(through_host(self.local))), around_a_ring(self._rates)
        return through + around if around else None

    def gathered(self, own: Any) -> list[Any]:
        """Return what each worker calls this with.

        Raises:
            NoAnswerError: one is lost.
        """
        try:
            return self._gather(own, self._patience)
        except ClusterError as error:
            raise NoAnswerError(lost(error)) from error

    def _judged(self, finding: Finding) -> Finding:
        judged = finding
        if self._shared:
            judged = by_design(finding, SHARED, UNSHARED)
        elif (finding.check, finding.status) == ("stragglers", "FAIL") and boot_of(self.local[0]):
            judged = by_design(finding, HOSTS, "ask whoever runs the virtual machines")
        return replace(judged, data={**judged.data, TOGETHER: len(self._cluster.addresses)})

    def _one(self) -> float:
        """Return the seconds that one device would take for the images of all, if a worker's cost nothing together."""
        steps = self._steps(1, self.images)
        together = steps["together"] or next(iter(steps["alone"].values()))
        return len(self.local) * statistics.median(together)

    def _asked(self, what: Literal["steps", "all-reduce"], count: int, images: int) -> list[dict[str, Any]] | Finding:
        workers = self._cluster.addresses[:count]
        own = Question("steps", self.local, 0, images, self.precision, self._side, self._seconds)
        try:
            if what == "all-reduce":
                return self._of_first(count, Question(what, side=self._side, workers=workers))[0]
            alone = [answer for (answer,) in self._of_first(count, own)]
            machines = zip(self._cluster.machines, alone, strict=False)
            rounds = {f"{machine}/{name}": each for machine, told in machines for name, each in told["alone"].items()}
            if count == 1:
                return [{"together": alone[0]["together"], "alone": rounds}]
            number = rounds_within(self._seconds, max(map(statistics.median, rounds.values())))
            together = [answer for (answer,) in self._of_first(count, replace(own, workers=workers, rounds=number))]
        except NoAnswerError as error:
            return error.finding
        if len({each["digest"] for each in together}) > 1:
            return void(what, f"{count} workers made the same updates, and their weights aren't the same")
        return [{"together": together[0]["together"], "alone": rounds}]

    def _of_first(self, count: int, question: Question) -> list[list[dict[str, Any]]]:
        """Have the first so many workers answer at the same time; returns what each answered.

        Raises:
            NoAnswerError: a worker is lost, or one's answers came to nothing, or are wrong.
        """
        self.gathered("ready")  # where one is lost, its children would be waited for in vain
        mine: list[Any] = []
        if self._cluster.task < count:
            asked = ask(replace(question, task=self._cluster.task), self._deadline, self._environ)
            mine = [asdict(each) if isinstance(each, Finding) else each for each in asked]
        every = self.gathered(mine)[:count]
        told = [
            (machine, each) for machine, answers in zip(self._cluster.machines, every, strict=False) for each in answers
        ]
        broken = [Finding(**{**each, "device": machine}) for machine, each in told if "status" in each]
        if broken:
            others = [f"{each.device}: {each.cause}" for each in broken[1:]]
            raise NoAnswerError(replace(broken[0], evidence="; ".join([broken[0].evidence, *others]).strip("; ")))
        faults = [f"{machine}: {each['fault']}" for machine, each in told if each["fault"]]
        if faults:
            raise NoAnswerError(void(question.ask, faults[0]))
        return every


def finish_together(config: pytest.Config) -> Record:
    """Return one record of all machines, which the first worker writes; where a worker is lost, this one's own."""
    own, gather, cluster = config.stash[RECORD], config.stash[GATHER], config.stash[CLUSTER]
    try:
        recorded = gather(json.loads(own.path.read_text()), BESIDE * config.getoption("deadline"))
    except ClusterError as error:
        own.add("fast", lost(error))
        return own
    finally:
        gather.close()
    path = own.path.parents[1] / own.path.name if cluster.chief else own.path
    whole = config.stash[WHOLE] = merged(path, dict(zip(cluster.machines, recorded, strict=True)))
    if cluster.chief:
        whole.write(complete=all(each["complete"] for each in recorded))
    return whole


def leave_others(config: pytest.Config) -> Record:
    """Return this machine's own record, and have the others hear that it is gone."""
    config.stash[GATHER].close()
    return config.stash[RECORD]


def lost(error: ClusterError) -> Finding:
    """Return the finding of a worker that is gone."""
    mend = "see what that worker says itself; then start all of them again"
    return Finding("workers", "FAIL", str(error), mend=mend, data={"broken": True})
