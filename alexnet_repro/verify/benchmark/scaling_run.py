"""Scaling measurements of several devices: each made once, in child processes, when it is first needed."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from alexnet_repro.training.distributed.cluster import Cluster, ClusterError
from alexnet_repro.training.distributed.coordination import AllGather
from alexnet_repro.verify.benchmark import scaling
from alexnet_repro.verify.benchmark.interconnect import Interconnect, interconnect
from alexnet_repro.verify.benchmark.replicas import Request, RequestKind, answers_to, rounds_within
from alexnet_repro.verify.benchmark.scaling import GRADIENT_BYTES, Point, inconclusive_speed, invalid_result
from alexnet_repro.verify.checks.registry import in_names_of
from alexnet_repro.verify.doctor.nvidia import Gpu
from alexnet_repro.verify.finding import Finding

IMAGES = {"cpu": 4, "gpu": 512}  # per device in weak scaling, in all in strong; rounded up so that all can share
PRECISION = {"cpu": "float32", "gpu": "mixed_bfloat16"}  # a GPU's fastest: there, communication weighs most
GATHER_DEADLINES = 10  # deadlines of a check: a machine's own checks may end so much later than another's
SHARED_MACHINE = (
    "workers on one machine share its cores and its network: speed means nothing",
    "start one worker on each machine",
)
VIRTUAL_MACHINES = ("virtual machines of one name run on hosts that differ", "ask the operator of the virtual machines")

Answers = list[dict[str, Any]]


@dataclass(eq=False)
class MeasurementError(Exception):
    """A measurement failed; `finding` is why."""

    finding: Finding


class ScalingRun:
    """Measurements of several devices of this machine, kept once made.

    Devices are as `gpu:0`, or `cpu:0` to the last of `cpu_replicas` parts of the CPU. Each measurement takes `seconds`
    at least, each answer `deadline` seconds at most. `models` are the product names of this machine's devices,
    `records` the driver's, of those GPUs of which it is known, `environ` the variables by which children see these GPUs
    alone, in this order. `workers` is how many have the devices; 0: all are this machine's.
    """

    def __init__(
        self,
        devices: Sequence[str],
        cpu_replicas: int = 0,
        *,
        deadline: float,
        seconds: float,
        models: Mapping[str, str] | None = None,
        workers: int = 0,
        records: Mapping[str, Gpu] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Measure nothing yet."""
        self._models = dict(models or {})
        self._kind = kind = devices[0].rpartition("/")[2].partition(":")[0]  # among workers, after a machine's name
        self.devices, self.cpu_replicas = devices, cpu_replicas
        self.network = False  # whether GPUs of several machines take part
        self._devices_each = len(devices) // workers if workers else 1
        self.counts = device_counts(workers or len(devices))  # of devices, or of workers, that are measured together
        self.images, self.precision = common_batch(IMAGES[kind], self.counts), PRECISION[kind]
        self.on_cpu, self._environ = kind == "cpu", environ or {}
        self._deadline, self._seconds, self._records = deadline, seconds, records or {}
        self._measured: dict[tuple[Any, ...], Answers | MeasurementError] = {}
        self._failures: list[Finding] = []

    def models(self) -> dict[str, str]:
        """Return the devices' product names, as far as they are known, by device."""
        return self._models

    def alone(self, count: int) -> Mapping[str, Sequence[float]]:
        """Return the seconds of each round of each device by itself, measured in turns with the first `count`."""
        rounds: Mapping[str, Sequence[float]] = self._once("steps", count, self.images)[0]["alone"]
        return rounds

    def all_reduces(self, count: int) -> Answers:
        """Return the all-reduces of several sizes among the first `count`."""
        return self._once("all-reduce", count, 0)

    def point(self, kind: str, count: int) -> Point:
        """Return the first `count` together, in `weak` or in `strong` scaling."""
        images = self.images // count if kind == "strong" else self.images
        steps = self._once("steps", count, images)[0]
        all_reduce = median(self.all_reduces(count)[-1]["seconds"])
        one = 0.0
        if kind == "strong":  # one device with the images of all; a worker's several cost nothing together
            alone = self._once("steps", 1, self.images)[0]
            one = float(self._devices_each * median(alone["together"] or next(iter(alone["alone"].values()))))
        return Point(kind, images, steps["together"], steps["alone"], all_reduce, self.precision, one)

    def simple_all_reduce_seconds(self, count: int) -> float | None:  # noqa: ARG002 - it counts among workers
        """Return the seconds of the gradients' copy to the host and back, by one device; None on parts of a CPU."""
        return None if self.on_cpu else self._through_host()

    def _through_host(self) -> float:
        """Return the seconds of the gradients' copy to the host and back, by the slowest device of all by itself."""
        rates = [both for answer in self._once("copies", self.counts[-1], 0) for both in answer["rates"].values()]
        return float(max(GRADIENT_BYTES / to_device + GRADIENT_BYTES / to_host for to_device, to_host in rates))

    def way(self, count: int) -> Interconnect | None:
        """Return the way between the first `count` GPUs; None if it isn't known, or goes through a network."""
        gpus = [self._records[device] for device in self.devices[:count] if device in self._records]
        return interconnect(gpus) if len(gpus) == count > 1 else None

    def findings(self, check: str, find: Callable[[int], list[Finding]], counts: Sequence[int]) -> Iterator[Finding]:
        """Yield the findings for each count; a measurement fails once, what else needs it is inconclusive."""
        for count in counts:
            try:
                found = find(count)
            except MeasurementError as error:
                failed = error.finding
                if failed in self._failures:
                    message = f"caused by failed check '{failed.check}': {failed.message}"
                    failed = replace(failed, status="INCONCLUSIVE", message=message, fix="fix that check first")
                self._failures.append(error.finding)
                found = [replace(failed, check=check)]
            yield from map(self._qualified, found)

    def _qualified(self, finding: Finding) -> Finding:
        return inconclusive_speed(finding) if self.cpu_replicas else finding

    def _once(self, kind: RequestKind, count: int, images: int) -> Answers:
        key = (kind, count, images)
        if key not in self._measured:
            try:
                self._measured[key] = self._measure(kind, count, images)
            except MeasurementError as error:
                self._measured[key] = error
        found = self._measured[key]
        if isinstance(found, MeasurementError):
            raise found
        return found

    def _measure(self, kind: RequestKind, count: int, images: int) -> Answers:
        names = {f"{self._kind}:{number}": device for number, device in enumerate(self.devices[:count])}
        request = Request(kind, list(names), self.cpu_replicas, images, self.precision, seconds=self._seconds)
        found = []
        for answer in answers_to(request, self._deadline, self._environ):
            if isinstance(answer, Finding):
                raise MeasurementError(in_names_of(self.devices, answer))
            if answer["fault"]:
                raise MeasurementError(invalid_result(kind, answer["fault"]))
            by_device = {name: each for name, each in answer.items() if isinstance(each, dict)}
            by_device = {name: {names[device]: of for device, of in each.items()} for name, each in by_device.items()}
            found.append({**answer, **by_device})
        return found


class ClusterScalingRun(ScalingRun):
    """Measurements of all devices of all workers: each worker makes the same calls in the same order.

    `local` are this worker's devices, as `gpu:0`; the others have as many. `doubt` is why speed means little on these
    machines, and the fix: `SHARED_MACHINE` or `VIRTUAL_MACHINES`. `link_gbps` is the speed of the network between two
    machines in Gb/s; None: unknown.
    """

    def __init__(
        self,
        cluster: Cluster,
        all_gather: AllGather,
        local: Sequence[str],
        *,
        deadline: float,
        seconds: float,
        models: Mapping[str, str],
        environ: Mapping[str, str],
        doubt: tuple[str, str] | None = None,
        link_gbps: float | None = None,
    ) -> None:
        """Measure nothing yet."""
        devices = [f"{machine}/{device}" for machine in cluster.machines for device in local]
        super().__init__(
            devices, deadline=deadline, seconds=seconds, models=models, environ=environ, workers=len(cluster.addresses)
        )
        self._cluster, self._all_gather, self._local = cluster, all_gather, local
        self._doubt, self._link_gbps, self.network = doubt, link_gbps, not self.on_cpu

    def models(self) -> dict[str, str]:
        """Return all devices' product names, by device, from each worker's own."""
        every = zip(self._cluster.machines, self._gather("the models", self._models), strict=True)
        return {f"{machine}/{device}": model for machine, each in every for device, model in each.items()}

    def simple_all_reduce_seconds(self, count: int) -> float | None:
        """Return the seconds of copies to the host, once around a ring of links of the named speed, and back.

        None on CPUs, between which TensorFlow's all-reduce goes by gRPC and is slower than that everywhere; and where
        no speed was named.
        """
        if self.on_cpu or not self._link_gbps:
            return None
        return self._through_host() + scaling.ring_seconds(
            count, GRADIENT_BYTES, scaling.Link(self._link_gbps * 1e9 / 8, 0.0)
        )

    def _qualified(self, finding: Finding) -> Finding:
        shared = self._doubt == SHARED_MACHINE
        if self._doubt and (shared or (finding.check, finding.status) == ("stragglers", "FAIL")):
            finding = inconclusive_speed(finding, *self._doubt)
        return replace(finding, scope="cluster")

    def _measure(self, kind: RequestKind, count: int, images: int) -> Answers:
        workers = self._cluster.addresses[:count]
        if kind == "all-reduce":
            return self._request(count, Request(kind, workers=workers))[0]
        if kind == "copies":
            return [answer for (answer,) in self._request(count, Request(kind, self._local))]
        own = Request(kind, self._local, 0, images, self.precision, seconds=self._seconds)
        alone = [answer for (answer,) in self._request(count, own)]
        machines = zip(self._cluster.machines, alone, strict=False)
        rounds = {f"{machine}/{name}": each for machine, found in machines for name, each in found["alone"].items()}
        together = alone
        if count > 1:
            number = rounds_within(self._seconds, max(map(median, rounds.values())))
            together = [answer for (answer,) in self._request(count, replace(own, workers=workers, rounds=number))]
            if len({each["digest"] for each in together}) > 1:
                message = f"{count} workers made the same updates, and their weights aren't the same"
                raise MeasurementError(invalid_result(kind, message))
        return [{"together": together[0]["together"], "alone": rounds}]

    def _request(self, count: int, request: Request) -> list[Answers]:
        """Have the first `count` workers answer at the same time; returns each one's answers."""
        point = f"{request.kind} of {count} with {request.images} images, together {bool(request.workers)}"
        self._gather(f"before {point}", None)  # where one is lost, its children would be waited for until they time out
        start, mine = time.monotonic(), list[dict[str, Any]]()
        if self._cluster.task < count:
            answers = answers_to(replace(request, task=self._cluster.task), self._deadline, self._environ)
            mine = [{"failed": asdict(each)} if isinstance(each, Finding) else each for each in answers]
        every = self._gather(point, [time.monotonic() - start, mine])[:count]
        named = list(zip(self._cluster.machines, every, strict=False))
        by_time = sorted(named, key=lambda each: each[1][0])  # the others only wait for who failed first
        failed = [(machine, each["failed"]) for machine, (_, own) in by_time for each in own if "failed" in each]
        if failed:
            first, *others = (Finding(**{**each, "device": machine}) for machine, each in failed)
            evidence = [first.evidence, *(f"{each.device}: {each.message}" for each in others)]
            raise MeasurementError(replace(first, evidence="; ".join(filter(None, evidence))))
        faults = [f"{machine}: {each['fault']}" for machine, (_, own) in named for each in own if each["fault"]]
        if faults:
            raise MeasurementError(invalid_result(request.kind, faults[0]))
        return [answers for _, answers in every]

    def _gather(self, point: str, own: Any) -> list[Any]:
        """Return each worker's `own` at the point of that name."""
        try:
            return self._all_gather(point, own, GATHER_DEADLINES * self._deadline)
        except ClusterError as error:
            raise MeasurementError(lost_worker(error)) from error


def lost_worker(error: ClusterError) -> Finding:
    """Return the finding of a worker that is gone."""
    fix = "see that worker's own output; then start all of them again"
    return Finding("workers", "FAIL", str(error), fix=fix, kind="crash", scope="cluster")


def device_counts(devices: int) -> list[int]:
    """Return 1, 2, 4, … and all of them."""
    return sorted({*(1 << power for power in range(devices.bit_length())), devices})


def common_batch(batch: int, counts: Sequence[int]) -> int:
    """Return the smallest batch, no smaller than `batch`, that each of these numbers of devices can share equally."""
    multiple = math.lcm(*counts)
    return -(-batch // multiple) * multiple
