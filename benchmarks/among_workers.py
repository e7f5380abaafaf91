"""What is measured of all devices of all workers, each once when it is asked for."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

from alexnet_repro.training.distributed.all_gather import AllGather
from alexnet_repro.training.distributed.cluster import Cluster, ClusterError
from alexnet_repro.verify.benchmark.link_speeds import around_a_ring
from alexnet_repro.verify.benchmark.links import link_rates, port_speed
from alexnet_repro.verify.benchmark.replicas import Question, ask, rounds_within
from alexnet_repro.verify.benchmark.scaling import by_design, void
from alexnet_repro.verify.finding import Finding
from benchmarks.together import NoAnswerError, Together, through_host

PATIENCE = 10  # deadlines of a check: so much later than another's may a machine's own checks end
SHARED = (
    "workers on one machine share its cores and its network: it means nothing",
    "start one worker on each machine",
)
HOSTS = ("virtual machines of one name run on hosts that differ", "ask whoever runs the virtual machines")


class AmongWorkers(Together):
    """All devices of all workers. Every worker asks the same in the same order, and is told the same."""

    def __init__(
        self,
        cluster: Cluster,
        gather: AllGather,
        local: Sequence[str],
        deadline: float,
        seconds: float,
        doubt: tuple[str, str] | None = None,
    ) -> None:
        """Measure nothing yet.

        Args:
            cluster: the workers.
            gather: what they tell each other by.
            local: this worker's devices, as `gpu:0`; the others have as many.
            deadline: seconds that an answer may take.
            seconds: how long to measure, at the least.
            doubt: why speed means little on these machines, and what to type; `SHARED` or `HOSTS`.
        """
        devices = [f"{machine}/{device}" for machine in cluster.machines for device in local]
        super().__init__(devices, 0, deadline, seconds, workers=len(cluster.addresses))
        self._cluster, self._gather, self.local, self._patience = cluster, gather, tuple(local), PATIENCE * deadline
        self.machines = cluster.machines
        self._environ = {"CUDA_VISIBLE_DEVICES": "-1"} if local[0].startswith("cpu") else {}
        self._doubt, self._rates = doubt, list[list[float] | str]()

    def models(self, own: Mapping[str, str]) -> dict[str, str]:
        """Return all devices' product names, by device, from each worker's own."""
        every = zip(self._cluster.machines, self.gathered("the models", dict(own)), strict=True)
        return {f"{machine}/{device}": model for machine, each in every for device, model in each.items()}

    def link_rates(self) -> list[list[float] | str]:
        """Return what plain TCP carries from each worker to the next; see `alexnet_repro.verify.benchmark.links`."""
        if not self._rates:
            self._rates = link_rates(self._cluster, lambda own: self.gathered("the links", own))
        return self._rates

    def port_speeds(self) -> list[int]:
        """Return the Mb/s of each worker's port towards the next."""
        following = (self._cluster.task + 1) % len(self._cluster.addresses)
        return self.gathered("the ports", port_speed(self._cluster.endpoint(following)[0]))

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
        return replace(judged, scope="cluster")

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
            others = [f"{each.device}: {each.message}" for each in broken[1:]]
            raise NoAnswerError(replace(broken[0], evidence="; ".join([broken[0].evidence, *others]).strip("; ")))
        faults = [f"{machine}: {each['fault']}" for machine, each in told if each["fault"]]
        if faults:
            raise NoAnswerError(void(question.ask, faults[0]))
        return every


def lost(error: ClusterError) -> Finding:
    """Return the finding of a worker that is gone."""
    fix = "see what that worker says itself; then start all of them again"
    return Finding("workers", "FAIL", str(error), fix=fix, kind="crash", scope="cluster")
