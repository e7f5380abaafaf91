"""Asks a device its checks in a child process, so that a hang or an error that sticks is the answer to one of them."""

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.registry import CheckId, crashed, run
from alexnet_repro.verify.doctor.device_probe import error_lines
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.subprocesses import each


def check_device(
    config: CheckConfig,
    checks: Sequence[CheckId],
    *,
    deterministic: bool,
    deadline: float,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Finding]:
    """Yield each check's finding as it comes; after one that didn't come to its end, a new process asks the rest.

    Args:
        config: the device, by its name here; `environ` must show the child this one alone of its kind.
        checks: what to ask.
        deterministic: whether operations are to give the same bits each time.
        deadline: seconds that a check may take.
        environ: environment variables to change.
    """
    there = dataclasses.replace(config, device=f"{config.device.partition(':')[0]}:0")
    options = json.dumps({"deterministic": deterministic, "subject": asdict(there)})
    names = [str(check) for check in checks]
    for name, answer in each(__name__, [options], names, deadline, environ):
        check, log = CheckId.parse(name), error_lines(answer.pop("log", ""))
        if "status" in answer:
            finding = Finding(**answer)
        else:
            finding = crashed(check.check, "; ".join(filter(None, (answer["error"], log))))
        yield dataclasses.replace(finding, device=config.device, precision=check.precision)


def main(options: str, names: Sequence[str]) -> None:
    """Run in the child: one line a check; stop after one that didn't come to its end, since a CUDA error sticks."""
    from alexnet_repro.backend.determinism import enable_determinism
    from alexnet_repro.backend.memory import enable_memory_growth

    enable_memory_growth()
    chosen = json.loads(options)
    if chosen["deterministic"]:
        enable_determinism()
    for name in names:
        finding = run(CheckId.parse(name), CheckConfig(**chosen["subject"]))
        print(json.dumps(asdict(finding)), flush=True)
        if finding.kind == "crash":
            return


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
