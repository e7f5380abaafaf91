"""All devices of a machine under examination: which child is asked what, and what was found so far."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import keras

from alexnet_repro.backend.determinism import determinism_variables
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.registry import PRECISIONS, REPEATABLE, CheckId, attributed
from alexnet_repro.verify.checks.run import check_device
from alexnet_repro.verify.doctor.environment import Environment
from alexnet_repro.verify.finding import Finding

WINOGRAD = "TF_ENABLE_WINOGRAD_NONFUSED"
# On JAX 0.11 on an H100 a 9x9 Winograd transform computed a kernel's gradient although that variable was set, with an
# error like the one that had failed `layers` there. Not chosen by timing it was a direct sum, whose zeros are exact.
FIRST_CHOICE = "--xla_gpu_autotune_level=0"

DETERMINISTIC = {*REPEATABLE, "digest"}


class CheckRunner:
    """Asks what is planned, one child a device and kind of question; remembers every finding."""

    def __init__(
        self, config: CheckConfig, planned: Mapping[str, Sequence[CheckId]], here: Environment, deadline: float
    ) -> None:
        """Ask nothing yet.

        Args:
            config: what is checked, on whichever device.
            planned: the checks of each device, in order.
            here: which GPUs there are, and by which names.
            deadline: seconds that a check may take.
        """
        self.config, self.here, self.deadline = config, here, deadline
        self._planned = planned
        self._running: dict[tuple[str, bool, bool], Iterator[Finding]] = {}
        self._found: dict[tuple[str, CheckId], Finding] = {}

    @property
    def found(self) -> list[Finding]:
        """Every finding so far, in their order."""
        return list(self._found.values())

    def find(self, device: str, check: CheckId) -> Finding:
        """Return what a check found on a device, waiting for it if need be."""
        running = self._running.setdefault(self._kind(device, check), self._start(device, check))
        while (device, check) not in self._found:
            finding = next(running, None)
            if finding is None:  # it wasn't planned
                running = self._running[self._kind(device, check)] = self._start(device, check)
            else:
                asked = CheckId(finding.check, finding.precision)
                self._found[device, asked] = attributed(finding, self.found)
        return self._found[device, check]

    def digests(self, devices: Sequence[str], check: str) -> dict[str, dict[str, Finding]]:
        """Return one more run's digests of each precision, by device: each in a new process, all at the same time."""

        def one(device: str) -> dict[str, Finding]:
            asked = [CheckId(check, precision) for precision in PRECISIONS[device.partition(":")[0]]]
            return {finding.precision: finding for finding in self._children(device, asked, deterministic=True)}

        with ThreadPoolExecutor(len(devices)) as threads:
            return dict(zip(devices, threads.map(one, devices), strict=True))

    def between_gpus(self) -> Finding:
        """Return whether copies between all GPUs arrive, asked in a child that sees them all."""
        config = replace(self.config, device="gpu:0")
        return next(check_device(config, [CheckId("gpu_to_gpu_copies")], deterministic=False, deadline=self.deadline))

    def matrix(self, device: str) -> dict[tuple[str, str, str], Finding]:
        """Return the price of each cell: by determinism (`off`, `on`), precision and XLA (`off`, `on`)."""
        cells = {}
        for determinism in ("off", "on"):
            asked = [
                CheckId(f"overhead xla={xla}", precision)
                for precision in PRECISIONS[device.partition(":")[0]]
                for xla in ("off", "on")
            ]
            for finding in self._children(device, asked, deterministic=determinism == "on"):
                cells[determinism, finding.precision, finding.check.removeprefix("overhead xla=")] = finding
        return cells

    def environ(self, device: str) -> dict[str, str]:
        """Return what shows a child this device alone."""
        kind, _, number = device.partition(":")
        if kind == "cpu":
            return {"CUDA_VISIBLE_DEVICES": "-1"}
        named = self.here.named_gpus
        return {"CUDA_VISIBLE_DEVICES": named[int(number)] if named else number}

    def _kind(self, device: str, check: CheckId) -> tuple[str, bool, bool]:
        """Return what has a child of its own; the last: whether XLA is not to choose kernels by timing."""
        first_choice = check.check == "layers" and device.startswith("gpu") and keras.backend.backend() == "jax"
        return device, check.check in DETERMINISTIC, first_choice

    def _start(self, device: str, check: CheckId) -> Iterator[Finding]:
        kind = self._kind(device, check)
        asked = [each for each in self._planned.get(device, ()) if self._kind(device, each) == kind]
        left = [each for each in asked if (device, each) not in self._found]
        return self._children(device, left if check in left else [check], deterministic=kind[1])

    def _children(self, device: str, asked: Sequence[CheckId], *, deterministic: bool) -> Iterator[Finding]:
        environ = {"TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0"), **self.environ(device)}
        if deterministic:
            environ |= determinism_variables()
        if any(each.check == "layers" for each in asked):
            # cuDNN's fastest transforms add an error of their own, larger than rounding: no fault of a device's.
            environ[WINOGRAD] = os.environ.get(WINOGRAD, "0")
            if self._kind(device, asked[0])[2]:
                environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FIRST_CHOICE}".strip()
        config = replace(self.config, device=device)
        return check_device(config, asked, deterministic=deterministic, deadline=self.deadline, environ=environ)
