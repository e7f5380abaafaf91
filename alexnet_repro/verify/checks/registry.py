"""The list of checks, what each depends on, and in which precisions a device runs them.

To add a check: write a function from `CheckConfig` to `Finding` in the module of its subject, whose docstring says what
is promised; give it a name and an entry in `CORRECT`, `REPEATABLE` (run by benchmarks/test_correct.py and
benchmarks/test_repeatable.py) or `ON_REQUEST`, after the checks that it depends on; and add a fault that turns it red,
and no other check, to tests/faults/catalogue.py. Everything else (children, precisions, attribution) follows.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import keras

from alexnet_repro.backend.memory import free_memory
from alexnet_repro.verify.checks import data, layers, learning, memory, repeatability, train_step
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.doctor.endings import default_fix, error_lines, find_ending
from alexnet_repro.verify.finding import Finding

DEVICE_PRECISIONS = {
    "cpu": ("float32", "mixed_bfloat16"),
    "gpu": ("float32", "tf32", "mixed_float16", "mixed_bfloat16"),
}


class DeviceCheck(NamedTuple):
    """A check's function, and the checks that must pass for its failure to be a cause of its own."""

    run: Callable[[CheckConfig], Finding]
    depends_on: tuple[str, ...] = ()
    in_each_precision: bool = False
    needs_xla: bool = False


LAYER_CHECKS = ("layers", "compiled_layers")
CORRECT: dict[str, DeviceCheck] = {
    "shapes": DeviceCheck(layers.shapes),
    "image_labels": DeviceCheck(data.image_labels),
    "pipeline": DeviceCheck(data.pipeline),
    "resize": DeviceCheck(data.resize),
    "copies": DeviceCheck(memory.copies),
    "layers": DeviceCheck(layers.layers, ("shapes",), in_each_precision=True),
    "compiled_layers": DeviceCheck(
        layers.compiled_layers, ("shapes", "layers"), in_each_precision=True, needs_xla=True
    ),
    "update": DeviceCheck(train_step.update, ("shapes", "resize", *LAYER_CHECKS), in_each_precision=True),
    "dropout": DeviceCheck(train_step.dropout, ("shapes", "resize", *LAYER_CHECKS, "update")),
    "learning": DeviceCheck(
        learning.learning, ("shapes", "image_labels", *LAYER_CHECKS, "update", "dropout"), in_each_precision=True
    ),
    "checkpoint": DeviceCheck(data.checkpoint, ("shapes", "layers")),
}
REPEATABLE: dict[str, DeviceCheck] = {"replay": DeviceCheck(repeatability.replay, in_each_precision=True)}
# Run for other checks, not by themselves.
ON_REQUEST: dict[str, DeviceCheck] = {
    "digest": DeviceCheck(repeatability.digest, in_each_precision=True),
    "memory": DeviceCheck(memory.memory),
    "gpu_to_gpu_copies": DeviceCheck(memory.gpu_to_gpu_copies),
}
ALL_CHECKS = CORRECT | REPEATABLE | ON_REQUEST


@dataclass(frozen=True)
class CheckId:
    """One check in one precision; the precision is empty where it doesn't matter."""

    check: str
    precision: str = ""

    def __str__(self) -> str:
        """Return its name, as `layers float32`."""
        return f"{self.check} {self.precision}".strip()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the inverse of `str`."""
        check, _, precision = text.rpartition(" ")
        return cls(check, precision) if check in ALL_CHECKS else cls(text)


def expand(checks: Iterable[str], device: str) -> list[CheckId]:
    """Return the checks of these names, in each precision that is checked on the device; on PyTorch without XLA's.

    Keras trains there without a compiler, in the operations of `layers`, but by `jit_compile=True`.
    """
    without_xla = keras.backend.backend() == "torch"
    precisions = DEVICE_PRECISIONS[device.partition(":")[0]]
    return [
        CheckId(check, precision)
        for check in checks
        if not (ALL_CHECKS[check].needs_xla and without_xla)
        for precision in (precisions if ALL_CHECKS[check].in_each_precision else ("",))
    ]


def run_check(check: CheckId, config: CheckConfig) -> Finding:
    """Run one check on a device; an exception is a finding too."""
    config = replace(config, precision=check.precision or "float32")
    try:
        finding = ALL_CHECKS[check.check].run(config)
    except Exception as error:  # noqa: BLE001 - it is the finding
        finding = crashed(check.check, error, device=config.device)
    free_memory()
    return replace(finding, check=check.check, device=config.device, precision=check.precision)


def crashed(check: str, error: Exception | str, log: str = "", device: str = "") -> Finding:
    """Return the finding of a check that crashed or timed out; `log` is what its process wrote to stdout and stderr."""
    how = error if isinstance(error, str) else f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
    ending = find_ending(device, how, log)
    evidence = "; ".join(filter(None, (how, error_lines(log, device), ending.evidence if ending else "")))
    message = ending.message if ending else f"{check} crashed or timed out"
    fix = ending.fix if ending else f"python -m alexnet_repro doctor; {default_fix(device)}"
    data = {"error": how} | ({"cause": ending.name, "shared": ending.shared} if ending else {})
    return Finding(check, "FAIL", message, evidence, fix, data=data, kind="crash")


def with_log(finding: Finding, log: str, device: str) -> Finding:
    """Return a child's finding; if it crashed, with what its process wrote, which may say why."""
    if finding.kind != "crash":
        return finding
    return replace(crashed(finding.check, finding.data["error"], log, device), precision=finding.precision)


def in_names_of(devices: Sequence[str], finding: Finding) -> Finding:
    """Return a child's finding, by the names here of the GPUs that it sees: `devices`, in its order."""
    names = {f"gpu:{number}": device for number, device in enumerate(devices) if device.startswith("gpu")}
    message, evidence = (
        re.sub(r"\bgpu:\d+", lambda found: names.get(found[0], found[0]), text)
        for text in (finding.message, finding.evidence)
    )
    return replace(finding, message=message, evidence=evidence)


def attributed(finding: Finding, earlier: Sequence[Finding]) -> Finding:
    """Return a failure as INCONCLUSIVE if it is caused by an earlier one on its device: one cause, one failure."""
    for each in earlier if finding.status == "FAIL" and finding.data.get("shared") else ():
        if each.status == "FAIL" and each.data.get("cause") == finding.data["cause"]:
            message = f"as '{CheckId(each.check, each.precision)}' of {each.device}: {finding.message}"
            return replace(finding, status="INCONCLUSIVE", message=message)
    if finding.status != "FAIL" or finding.kind == "crash":
        return finding
    for each in earlier:
        if (
            each.status == "FAIL"
            and each.device == finding.device
            and each.check in ALL_CHECKS[finding.check].depends_on
            and each.precision in ("", finding.precision or "float32")
        ):
            message = f"caused by failed check '{CheckId(each.check, each.precision)}': {finding.message}"
            return replace(finding, status="INCONCLUSIVE", message=message, fix="fix that check first")
    return finding
