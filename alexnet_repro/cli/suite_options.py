"""The options of the verification, as pytest's and argparse's parsers both take them."""

import argparse
import contextlib
import math
import re
from collections.abc import Callable
from pathlib import Path

from alexnet_repro.verify.finding import LEVELS

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST_DURATION = 366 * 24 * 3600  # seconds
REFERENCES = "ALEXNET_REPRO_REFERENCES"  # a variable


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected {least} or more, got {text!r}")
        return int(text)

    return number


def duration(text: str) -> float:
    """Argument type: the seconds of `90s`, `10m`, `2h` or `7d`."""
    number, unit = text[:-1], text[-1:]
    if unit not in UNITS or not number.isdecimal() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number and s, m, h or d, as 10m; got {text!r}")
    if (seconds := int(number) * UNITS[unit]) > LONGEST_DURATION:
        raise argparse.ArgumentTypeError(f"expected a year at most, got {text!r}")
    return float(seconds)


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")


def _device(text: str) -> str:
    if re.fullmatch(r"cpu:0|gpu:[0-9]+", text):
        return text
    meant = re.fullmatch(r"/?(?:device:)?(cpu|gpu|cuda)?[:=]?([0-9]*)", text.lower())
    kind = "gpu" if meant and meant[1] != "cpu" else "cpu"
    number = meant[2] if meant and meant[2] and kind == "gpu" else "0"
    hint = f"; did you mean {kind}:{number}?" if meant and text else ""
    raise argparse.ArgumentTypeError(f"expected one device, cpu:0 or gpu: and its number, got {text!r}{hint}")


def add_suite_options(add: Callable[..., object]) -> None:
    """Add each option by `add`, argparse's `add_argument` or pytest's `addoption`."""
    device = "verify this device only, such as cpu:0 or gpu:1; may be repeated (default: every device)"
    add("--device", action="append", type=_device, metavar="NAME", help=device)
    level = (
        "how much to verify: quick (a minute: layers, an update, a replay, two timings of each device), standard "
        "(every check, a few batch sizes), or long (all batch sizes, XLA on and off, and a burn-in of ten minutes)"
    )
    add("--level", choices=LEVELS, default="standard", help=f"{level} (default: standard)")
    replays = "runs of the same steps that are compared (default: 3; at the quick level 2)"
    add("--replays", type=_at_least(2), metavar="N", help=replays)
    burn_in = "stress every device for this long (90s, 10m, 2h): memory patterns, copies, replays; a line per minute"
    add("--burn-in", type=duration, default=0.0, metavar="TIME", help=f"{burn_in} (default: at the long level 10m)")
    profile = "time each layer alone, forward and backward, beside its roofline; at most a minute"
    add("--profile", action="store_true", help=profile)
    deadline = "time limit of a check, after which it fails (default: 10m)"
    add("--deadline", type=duration, default=600.0, metavar="TIME", help=deadline)
    add("--cpu-replicas", type=_at_least(2), default=0, metavar="N", help=argparse.SUPPRESS)
    distribute = "verify the machines of a cluster together; start it on each, with TF_CONFIG set or under Slurm"
    add("--distribute", choices=("multiworker",), help=distribute)
    timeout = "time limit for the other workers to start (default: 60s)"
    add("--worker-timeout", type=duration, default=60.0, metavar="TIME", help=timeout)
    link = "speed of the network between two machines in Gb/s, as iperf3 measures it: with --distribute, the all-reduce"
    add("--link-gbps", type=_positive, metavar="N", help=f"{link} is compared with it (default: no bound)")
    add("--fail-inconclusive", action="store_true", help="let inconclusive checks fail, too")
    update = "write this machine's digests and timings, of several processes, to the references"
    add("--update-reference", action="store_true", help=update)
    processes = "processes that --update-reference times in, from 5 on (default: 8, the fewest that others can fail by)"
    add("--reference-processes", type=_at_least(5), default=8, metavar="N", help=processes)
    kept = f"folder of references that a site keeps, looked at before the suite's own (default: ${REFERENCES})"
    add("--references", type=Path, metavar="DIR", help=kept)
    add("--report", metavar="DIR", help="folder of results.json and junit.xml (default: reports/TIME)")
    hashed = "write no serial, UUID or machine id, but a hash by the key in ALEXNET_REPRO_HASH_KEY"
    add("--hash-serials", action="store_true", help=f"{hashed}: with one key, a fleet still tells them apart")
    ignore = "go on although the doctor failed, with the devices that work; the verdict is inconclusive at best"
    add("--ignore-doctor", action="store_true", help=ignore)
    add("--require-gpu", action="store_true", help="fail on a machine without a usable GPU")
