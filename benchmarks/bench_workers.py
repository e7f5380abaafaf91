"""Workers that verify their machines side by side: how they meet, what is measured of all, and their one record."""

import hashlib
import json
import socket
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import keras
import pytest
from bench_summary import HERE, RECORD, WHOLE
from bench_together import NoAnswerError, Together, through_host

from alexnet_repro.all_gather import AllGather
from alexnet_repro.checks.golden import environment_of
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
from alexnet_repro.results.verdict import overall

CLUSTER = pytest.StashKey[Cluster]()
GATHER = pytest.StashKey[AllGather]()
DOUBT = pytest.StashKey[tuple[str, str] | None]()
SHARED = (
    "workers on one machine share its cores and its network: it means nothing",
    "start one worker on each machine",
)
HOSTS = ("virtual machines of one name run on hosts that differ", "ask whoever runs the virtual machines")
REFUSED = {
    "--device": "it takes all GPUs of each machine",
    "--cpu-replicas": "it takes each machine's CPU as it is",
    "--update-reference": "a reference is of one machine by itself",
}
DECIDING = ("deadline", "replays", "burn_in", "full", "benchmark_max_time", "benchmark_min_rounds")
PATIENCE = 10  # deadlines of a check: so much later than another's may a machine's own checks end
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
        (folder / "results.json").unlink(missing_ok=True)  # of an earlier run; this one may not come to that
    return folder / f"worker{config.stash[CLUSTER].task}"


def meet_others(config: pytest.Config) -> None:
    """Wait until all workers are there, with the same software, options and number of GPUs.

    Raises:
        ClusterError: they don't come together; see `alexnet_repro.handshake.meet`.
    """
    from alexnet_repro.strategies import num_gpus, versions

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
    config.stash[DOUBT] = HOSTS if any(virtual for _, virtual in boots) else None
    if len({boot for boot, _ in boots}) < len(boots):
        config.stash[DOUBT] = SHARED


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
        doubt: tuple[str, str] | None = None,
    ) -> None:
        """Measure nothing yet.

        Args:
            cluster: the workers.
            gather: what they tell each other by.
            local: this worker's devices, as `gpu:0`; the others have as many.
            deadline: seconds that an answer may take.
            seconds: how long to measure, at the least.
            side: of the images that the model sees.
            doubt: why speed means little on these machines, and what to type; `SHARED` or `HOSTS`.
        """
        devices = [f"{machine}/{device}" for machine in cluster.machines for device in local]
        super().__init__(devices, 0, deadline, seconds, side, len(cluster.addresses))
        self._cluster, self._gather, self.local, self._patience = cluster, gather, tuple(local), PATIENCE * deadline
        self.machines = cluster.machines
        self._environ = {"CUDA_VISIBLE_DEVICES": "-1"} if local[0].startswith("cpu") else {}
        self._doubt, self._rates = doubt, list[list[float] | str]()

    def models(self, own: Mapping[str, str]) -> dict[str, str]:
        """Return all devices' product names, by device, from each worker's own."""
        every = zip(self._cluster.machines, self.gathered("the models", dict(own)), strict=True)
        return {f"{machine}/{device}": model for machine, each in every for device, model in each.items()}

    def link_rates(self) -> list[list[float] | str]:
        """Return what plain TCP carries from each worker to the next; see `alexnet_repro.checks.links`."""
        if not self._rates:
            self._rates = link_rates(self._cluster, lambda own: self.gathered("the links", own))
        return self._rates

    def plainly(self, count: int) -> float | None:
        """Return the seconds that the gradients of the first so many take by the host and plain TCP.

        None on CPUs, between which TensorFlow's all-reduce goes by gRPC and is slower than that everywhere; and where
        it isn't known.
        """
        if self._environ:
            return None
        around = around_a_ring(self.link_rates()[:count])
        through = max(self.gathered("the copies", through_host(self.local)))
        return through + around if around else None

    def gathered(self, point: str, own: Any) -> list[Any]:
        """Return what each worker calls this with, at the point of that name.

        Raises:
            NoAnswerError: one is lost.
        """
        try:
            return self._gather(point, own, self._patience)
        except ClusterError as error:
            raise NoAnswerError(lost(error)) from error

    def _judged(self, finding: Finding) -> Finding:
        judged = finding
        if self._doubt == SHARED or (self._doubt and (finding.check, finding.status) == ("stragglers", "FAIL")):
            judged = by_design(finding, *self._doubt)
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
        point = f"{question.ask} of {count} with {question.images} images, together {bool(question.workers)}"
        self.gathered(f"before {point}", None)  # where one is lost, its children would be waited for in vain
        mine: list[Any] = []
        if self._cluster.task < count:
            asked = ask(replace(question, task=self._cluster.task), self._deadline, self._environ)
            mine = [asdict(each) if isinstance(each, Finding) else each for each in asked]
        every = self.gathered(point, mine)[:count]
        told = [
            (machine, each) for machine, answers in zip(self._cluster.machines, every, strict=False) for each in answers
        ]
        broken = [Finding(**{**each, "device": machine}) for machine, each in told if "status" in each]
        if broken:  # who hangs only waits for another, most often
            broken.sort(key=lambda each: "no answer within" in each.evidence)
            others = [f"{each.device}: {each.cause}" for each in broken[1:]]
            raise NoAnswerError(replace(broken[0], evidence="; ".join([broken[0].evidence, *others]).strip("; ")))
        faults = [f"{machine}: {each['fault']}" for machine, each in told if each["fault"]]
        if faults:
            raise NoAnswerError(void(question.ask, faults[0]))
        return every


def finish_together(config: pytest.Config, *, failed: bool) -> Record:
    """Return one record of all machines, which the first worker writes; where a worker is lost, this one's own.

    Args:
        config: of this worker.
        failed: whether one of its tests failed.
    """
    own, gather, cluster = config.stash[RECORD], config.stash[GATHER], config.stash[CLUSTER]
    if failed and overall(own.findings) != "FAIL" and not config.getoption("fail_inconclusive"):
        own.add("correct", Finding("tests", "FAIL", "a test ended with an error", mend="see this worker's own output"))
        own.write(complete=True)
    try:
        patience = PATIENCE * config.getoption("deadline")
        recorded = gather("the end", json.loads(own.path.read_text()), patience)
    except ClusterError as error:
        own.add("fast", lost(error))
        return own
    finally:
        gather.close()
    path = own.path.parents[1] / own.path.name if cluster.chief else own.path
    machines = dict(zip(cluster.machines, recorded, strict=True))
    whole = config.stash[WHOLE] = merged(path, machines, comparable=config.stash[DOUBT] != SHARED)
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
