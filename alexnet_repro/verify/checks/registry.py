"""Which checks there are, what each builds on, and which of them a device gets."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from alexnet_repro.backend.memory import free_memory
from alexnet_repro.verify.checks import data as data_checks
from alexnet_repro.verify.checks import layers as model_checks
from alexnet_repro.verify.checks import learning
from alexnet_repro.verify.checks import memory as memory_checks
from alexnet_repro.verify.checks import overhead as price
from alexnet_repro.verify.checks import repeatability as repeat_checks
from alexnet_repro.verify.checks import train_step as training_checks
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.finding import Finding

PRECISIONS = {
    "cpu": ("float32", "mixed_bfloat16"),
    "gpu": ("float32", "tf32", "mixed_bfloat16", "mixed_float16"),
}


@dataclass(frozen=True)
class Check:
    """A question, the function that asks it, and the questions that must be answered well for its answer to tell."""

    run: Callable[[CheckConfig], Finding]
    builds_on: tuple[str, ...] = ()
    in_each_precision: bool = False


CORRECT: dict[str, Check] = {
    "shapes": Check(model_checks.shapes),
    "image_labels": Check(data_checks.image_labels),
    "pipeline": Check(data_checks.pipeline),
    "resize": Check(data_checks.resize),
    "copies": Check(memory_checks.copies),
    "layers": Check(model_checks.layers, ("shapes",), in_each_precision=True),
    "update": Check(training_checks.update, ("shapes", "resize", "layers"), in_each_precision=True),
    "dropout": Check(training_checks.dropout, ("shapes", "resize", "layers", "update")),
    "learning": Check(
        learning.learning, ("shapes", "image_labels", "layers", "update", "dropout"), in_each_precision=True
    ),
    "checkpoint": Check(data_checks.checkpoint, ("shapes", "layers")),
}
REPEATABLE: dict[str, Check] = {"replay": Check(repeat_checks.replay, in_each_precision=True)}
# Asked for by other checks, not by themselves.
FURTHER: dict[str, Check] = {
    "digest": Check(repeat_checks.digest, in_each_precision=True),
    "memory": Check(memory_checks.memory),
    "gpu_to_gpu_copies": Check(memory_checks.gpu_to_gpu_copies),
    "overhead xla=off": Check(price.step_time_without_xla, in_each_precision=True),
    "overhead xla=on": Check(price.step_time_with_xla, in_each_precision=True),
}
ALL = CORRECT | REPEATABLE | FURTHER


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
        """Return what `str` made the text of."""
        check, _, precision = text.rpartition(" ")
        return cls(check, precision) if check in ALL else cls(text)


def asked(checks: Iterable[str], device: str) -> list[CheckId]:
    """Return the checks of these names, in each precision that the device is to have."""
    precisions = PRECISIONS[device.partition(":")[0]]
    return [
        CheckId(check, precision)
        for check in checks
        for precision in (precisions if ALL[check].in_each_precision else ("",))
    ]


def run(check: CheckId, config: CheckConfig) -> Finding:
    """Ask one question of a device; whatever goes wrong is the answer."""
    config = replace(config, precision=check.precision or "float32")
    try:
        finding = ALL[check.check].run(config)
    except Exception as error:  # noqa: BLE001 - it is the finding
        finding = crashed(check.check, error)
    free_memory()
    return replace(finding, check=check.check, device=config.device, precision=check.precision)


def crashed(check: str, error: Exception | str) -> Finding:
    """Return the finding of a check that crashed or timed out."""
    said = error if isinstance(error, str) else f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
    if isinstance(error, Exception) and memory_checks.is_out_of_memory(error):
        message, fix = (
            "the device ran out of memory",
            "nvidia-smi, or free -m on a CPU; then end the processes that hold its memory",
        )
    else:
        message = f"{check} crashed or timed out"
        fix = "python -m alexnet_repro doctor; sudo dmesg | grep -i xid # for what the driver says of it"
    return Finding(check, "FAIL", message, said, fix, kind="crash")


def attributed(finding: Finding, earlier: Sequence[Finding]) -> Finding:
    """Return a failure as in doubt if it follows from another: one cause, one failure.

    Args:
        finding: what a check found.
        earlier: what the checks before it found, on all devices.
    """
    if finding.status != "FAIL" or finding.kind == "crash":
        return finding
    causes = [
        each
        for each in earlier
        if each.status == "FAIL"
        and each.device == finding.device
        and each.check in ALL[finding.check].builds_on
        and each.precision in ("", finding.precision or "float32")
    ]
    if not causes:
        return finding
    first = CheckId(causes[0].check, causes[0].precision)
    message = f"caused by failed check '{first}': {finding.message}"
    return replace(finding, status="INCONCLUSIVE", message=message, fix="fix that check first")
