"""The measurements of several devices: which there are, each made once in a process of its own when it is asked for."""

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from alexnet_repro.verify.benchmark.calibration import calibrate
from alexnet_repro.verify.benchmark.growth import GRADIENT_BYTES
from alexnet_repro.verify.benchmark.replicas import Question, ask
from alexnet_repro.verify.benchmark.scaling import Point, by_design, void
from alexnet_repro.verify.checks.registry import DEVICE_PRECISIONS
from alexnet_repro.verify.finding import Finding

IMAGES = {"cpu": 4, "gpu": 512}  # of each device in weak scaling; of all in strong, or the next that all can share
PRECISION = {"cpu": "float32", "gpu": "mixed_bfloat16"}  # a GPU's fastest: there, communicating weighs most
NO_TWO_GPUS = "it takes two GPUs that are there and asked for (to try it on parts of a CPU: --cpu-replicas=2)"
TENSORFLOWS = "it is by tf.distribute, and Keras's backend is another"


class NoAnswerError(Exception):
    """What was asked came to nothing, as `finding` says."""

    def __init__(self, finding: Finding) -> None:
        """Remember it."""
        super().__init__(finding.message)
        self.finding = finding


class Together:
    """All devices that are asked for, and what is known of them so far."""

    def __init__(
        self,
        devices: Sequence[str],
        cpu_replicas: int,
        deadline: float,
        seconds: float,
        side: int = 224,
        workers: int = 0,
    ) -> None:
        """Measure nothing yet.

        Args:
            devices: as `gpu:0`; or `cpu:0` to the last of the parts.
            cpu_replicas: in how many parts the CPU is split; 0: it isn't.
            deadline: seconds that an answer may take.
            seconds: how long to measure, at the least.
            side: of the images that the model sees.
            workers: among how many the devices are; 0: all are this process's.
        """
        kind = devices[0].rpartition("/")[2].partition(":")[0]  # among workers, after a machine's name
        self.devices, self.cpu_replicas = devices, cpu_replicas
        self.counts = numbers(workers or len(devices))
        """Of devices, or of workers, that are measured together."""
        self.images, self.precision = shareable(IMAGES[kind], self.counts), PRECISION[kind]
        self._deadline, self._seconds, self._side = deadline, seconds, side
        self._known: dict[tuple[Any, ...], list[dict[str, Any]] | Finding] = {}
        self._told: list[Finding] = []

    def alone(self) -> Mapping[str, Sequence[float]]:
        """Return the seconds of each round by itself, by device, while all of them were measured."""
        rounds: Mapping[str, Sequence[float]] = self._steps(self.counts[-1], self.images)["alone"]
        return rounds

    def all_reduces(self, count: int) -> list[dict[str, Any]]:
        """Return what all-reduces of several sizes take among the first so many."""
        return self._answers("all-reduce", count, 0)

    def point(self, kind: str, count: int) -> Point:
        """Return the first so many together, in `weak` or in `strong` scaling."""
        images = self.images // count if kind == "strong" else self.images
        steps = self._steps(count, images)
        return Point(
            kind,
            images,
            steps["together"],
            steps["alone"],
            statistics.median(self.all_reduces(count)[-1]["seconds"]),
            self.precision,
            self._one() if kind == "strong" else 0.0,
        )

    def findings(self, check: str, questions: Sequence[Callable[[], list[Finding]]]) -> Iterator[Finding]:
        """Yield what each question finds; what came to nothing is a failure the first time only: one cause, one."""
        for question in questions:
            try:
                found = question()
            except NoAnswerError as error:
                again = error.finding in self._told
                message = f"caused by failed check '{error.finding.check}': {error.finding.message}"
                followed = dataclasses.replace(
                    error.finding, status="INCONCLUSIVE", message=message, fix="fix that check first"
                )
                self._told.append(error.finding)
                found = [dataclasses.replace(followed if again else error.finding, check=check)]
            yield from map(self._judged, found)

    def _judged(self, finding: Finding) -> Finding:
        return by_design(finding) if self.cpu_replicas else finding

    def _one(self) -> float:
        """Return the seconds that one device takes for the images of all."""
        return statistics.median(self._steps(1, self.images)["alone"][self.devices[0]])

    def _steps(self, count: int, images: int) -> dict[str, Any]:
        return self._answers("steps", count, images)[0]

    def _answers(self, what: Literal["steps", "all-reduce"], count: int, images: int) -> list[dict[str, Any]]:
        key = (what, count, images)
        if key not in self._known:
            self._known[key] = self._asked(what, count, images)
        known = self._known[key]
        if isinstance(known, Finding):
            raise NoAnswerError(known)
        return known

    def _asked(self, what: Literal["steps", "all-reduce"], count: int, images: int) -> list[dict[str, Any]] | Finding:
        devices = tuple(self.devices[:count])
        question = Question(what, devices, self.cpu_replicas, images, self.precision, self._side, self._seconds)
        known: list[dict[str, Any]] = []
        for answer in ask(question, self._deadline, {"CUDA_VISIBLE_DEVICES": "-1"} if self.cpu_replicas else {}):
            if isinstance(answer, Finding):
                return answer
            if answer["fault"]:
                return void(what, answer["fault"])
            known.append(answer)
        return known


def through_host(devices: Sequence[str]) -> float:
    """Return the seconds of a copy of the gradients to the host and back, by the slowest at its calibrated rates."""
    rates = [calibrate(device, DEVICE_PRECISIONS["gpu"]) for device in devices]
    return max(GRADIENT_BYTES / each.to_host + GRADIENT_BYTES / each.to_device for each in rates)


def numbers(devices: int) -> list[int]:
    """Return 1, 2, 4, … and all of them."""
    return sorted({*(1 << power for power in range(devices.bit_length())), devices})


def shareable(batch: int, counts: Sequence[int]) -> int:
    """Return the least batch, not below this one, that each of these numbers of devices can share equally."""
    multiple = math.lcm(*counts)
    return -(-batch // multiple) * multiple
