"""Runs checks in child processes: a hang, or an error that sticks to the device, is the result of one check.

`CheckRunner` is the parent's side; `main` is the child's.
"""

import gc
import json
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, replace
from itertools import takewhile
from typing import Any

import keras

from alexnet_repro.backend.determinism import determinism_variables, enable_determinism
from alexnet_repro.backend.memory import enable_memory_growth
from alexnet_repro.backend.variables import with_xla_flag
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.overhead import overhead_cells
from alexnet_repro.verify.checks.overhead_cell import OverheadCell
from alexnet_repro.verify.checks.registry import (
    LAYER_CHECKS,
    CheckId,
    attributed,
    crashed,
    expand,
    in_names_of,
    run_check,
    with_log,
)
from alexnet_repro.verify.doctor.environment import Environment
from alexnet_repro.verify.doctor.software import beside_settings
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.subprocesses import answer_each

ChildFindings = Generator[Finding, None, None]
WITH_DETERMINISM = ("replay", "digest")  # checks that compare bits


class CheckRunner:
    """Runs the planned checks, in one child per device and kind of check, one child at a time; keeps every finding."""

    def __init__(
        self, config: CheckConfig, planned: Mapping[str, Sequence[CheckId]], here: Environment, deadline: float
    ) -> None:
        """Start nothing yet. `planned` are the checks of each device, in order; each may take `deadline` seconds."""
        self.config, self.here, self.deadline, self._planned = config, here, deadline, planned
        self._child: ChildFindings | None = None
        self._left: list[tuple[str, CheckId]] = []  # what the child is yet to answer, by device and check
        self._results: dict[tuple[str, CheckId], Finding] = {}

    @property
    def results(self) -> list[Finding]:
        """Every finding so far, in their order."""
        return list(self._results.values())

    def result(self, device: str, check: CheckId) -> Finding:
        """Return a check's finding on a device, waiting for it if need be."""
        while (device, check) not in self._results:
            left = [each for each in self._planned.get(device, ()) if (device, each) not in self._results]
            left = left if check in left else [check]
            finding = beside_settings(attributed(self._next(device, left), self.results), self.here)
            self._results[device, left[0]] = finding
        return self._results[device, check]

    def close(self) -> None:
        """End the child, which has the device until then."""
        if self._child:
            self._child.close()
        self._child, self._left = None, []

    def _next(self, device: str, left: Sequence[CheckId]) -> Finding:
        """Return the finding of the first check that is left, by a child that goes on as far as it may."""
        if self._child is None or self._left[0] != (device, left[0]):
            self.close()
            key = self._child_key(device, left[0])
            own = list(takewhile(lambda each: self._child_key(device, each) == key, left))
            self._child = self._run(device, own, deterministic=key[1])
            self._left = [(device, each) for each in own]
        finding = next(self._child)
        del self._left[0]
        if not self._left:
            self.close()
        return finding

    def digests(self, devices: Sequence[str]) -> dict[str, dict[str, Finding]]:
        """Return another run's digests by device and precision: each device in a new process, all at the same time."""
        self.close()

        def run(device: str) -> dict[str, Finding]:
            found = self._run(device, expand(["digest"], device), deterministic=True)
            return {finding.precision: finding for finding in found}

        with ThreadPoolExecutor(len(devices)) as threads:
            return dict(zip(devices, threads.map(run, devices), strict=True))

    def between_gpus(self) -> Finding:
        """Return whether copies between all GPUs that are wanted arrive, from a child that sees them all."""
        self.close()
        config, wanted = replace(self.config, device="gpu:0"), tuple(self.here.seen_gpus)
        environ = self.here.only(*wanted)
        checks = [CheckId("gpu_to_gpu_copies")]
        options: dict[str, Any] = {"deterministic": False, "deadline": self.deadline, "environ": environ}
        with closing(run_in_child(config, checks, **options)) as child:
            found = next(child)
        if found.status == "PASS" and (seen := found.data.get("gpus")) != len(wanted):
            message, fix = f"their process saw {seen} of {len(wanted)} GPUs", "sudo dmesg | grep -i xid; nvidia-smi -L"
            found = replace(found, status="FAIL", message=message, fix=fix)
        return in_names_of(list(wanted), found)

    def overhead(self, device: str) -> tuple[list[OverheadCell], list[Finding]]:
        """Return the times of each combination of determinism, precision and XLA, or the finding that says why not."""
        self.close()
        environ = {deterministic: self._environ(device, deterministic=deterministic) for deterministic in (False, True)}
        one_process = self.here.for_one_process(device)
        config = replace(self.config, device=device)
        cells, failed = overhead_cells(config, environ, self.deadline, one_process=one_process)
        return cells, [beside_settings(each, self.here) for each in failed]

    def _child_key(self, device: str, check: CheckId) -> tuple[str, bool, bool]:
        """Return what has a child of its own: device, determinism, and whether XLA chooses no kernels by timing.

        A CPU's child turns determinism on when it comes to it: no variable is read at its start, as by a GPU's.
        """
        no_autotuning = check.check == "layers" and keras.backend.backend() == "jax"
        # In bfloat16 as in training: layers passed so on JAX on an H100. Why not in the others, see `_run`.
        no_autotuning |= check.check == "compiled_layers" and check.precision != "mixed_bfloat16"
        on_gpu = device.startswith("gpu")
        return device, check.check in WITH_DETERMINISM and on_gpu, no_autotuning and on_gpu

    def _environ(self, device: str, *, deterministic: bool) -> dict[str, str]:
        """Return the variables to change of a child that sees this device alone."""
        level = {"TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0")}
        return {**level, **self.here.only(device), **(determinism_variables() if deterministic else {})}

    def _run(self, device: str, checks: Sequence[CheckId], *, deterministic: bool) -> ChildFindings:
        environ = self._environ(device, deterministic=deterministic)
        if device.startswith("gpu") and any(check.check in LAYER_CHECKS for check in checks):
            # cuDNN's fastest transforms add an error of their own, larger than rounding, which is no fault of a device.
            # Determinism is no way around them: in profile-h100.json a deterministic step takes the largest of them.
            environ["TF_ENABLE_WINOGRAD_NONFUSED"] = os.environ.get("TF_ENABLE_WINOGRAD_NONFUSED", "0")
            # On JAX 0.11 on an H100 a 9x9 Winograd transform computed a kernel's gradient although that variable was
            # set, with an error like the one that had failed `layers` there. Not chosen by timing it was a direct sum,
            # whose zeros are exact.
            if self._child_key(device, checks[0])[2]:
                environ["XLA_FLAGS"] = with_xla_flag(os.environ.get("XLA_FLAGS", ""), "--xla_gpu_autotune_level=0")
        config = replace(self.config, device=device)
        return run_in_child(config, checks, deterministic=deterministic, deadline=self.deadline, environ=environ)


def run_in_child(
    config: CheckConfig,
    checks: Sequence[CheckId],
    *,
    deterministic: bool,
    deadline: float,
    environ: Mapping[str, str] | None = None,
) -> ChildFindings:
    """Yield each check's finding as it comes; after one that crashed or timed out, a new process runs the rest.

    The device has its name in this process; `environ`, the variables to change, must show the child this device alone
    of its kind. Each check may take `deadline` seconds.
    """
    config_there = replace(config, device=f"{config.device.partition(':')[0]}:0")
    options = json.dumps({"deterministic": deterministic, "config": asdict(config_there)})
    names = [str(check) for check in checks]
    with closing(answer_each(__name__, [options], names, deadline, environ)) as child:
        for name, answer in child:
            check, log = CheckId.parse(name), answer.pop("log", "")
            if "status" in answer:
                finding = in_names_of([config.device], with_log(Finding(**answer), log, config.device))
            else:
                finding = crashed(check.check, answer["error"], log, config.device)
            yield replace(finding, check=check.check, device=config.device, precision=check.precision)


def main(options: str, *names: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run the checks in the child, and yield their findings; stop after a crash, since a CUDA error sticks."""
    gc.freeze()  # what was imported stays: a check frees its models without a look at that
    enable_memory_growth()
    given = json.loads(options)
    deterministic = False
    for name in names:
        check = CheckId.parse(name)
        if not deterministic and (given["deterministic"] or check.check in WITH_DETERMINISM):
            enable_determinism()
            deterministic = True
        finding = run_check(check, CheckConfig(**given["config"]))
        yield name, asdict(finding)
        if finding.kind == "crash":
            return
