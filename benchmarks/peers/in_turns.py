"""Two sides on one device, in turns of a process each: which is faster, at the best configuration of each?

    python -m benchmarks.peers.in_turns [--turns 2] [--limit 300] OURS THEIRS

OURS and THEIRS are command lines that print cases as JSON lines, as `our_step.py` and `pytorch_step.py` do. Each side
may have libraries of its own: "env LD_LIBRARY_PATH=/opt/cuda12 python -m benchmarks.peers.our_step --batch 512".

Prints each case as it comes, with its turn and side, and then a table: for each work, precision and batch, images/s of
the best configuration of each side (median of all rounds, least and most), and the ratio. With `--read FILE` it makes
the table from the lines of an earlier run. It needs Python alone.
"""

import argparse
import contextlib
import json
import shlex
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

Case = dict[str, Any]
SIDES = ("ours", "theirs")


def cases(lines: Iterable[str]) -> Iterator[Case]:
    """Yield the cases among printed lines."""
    for line in lines:
        with contextlib.suppress(ValueError):
            case = json.loads(line)
            if isinstance(case, dict) and "what" in case:
                yield case


def run_side(command: str, limit: float) -> Iterator[Case]:
    """Run one side's process and yield its cases as they come; after `limit` seconds it is killed."""
    with subprocess.Popen(shlex.split(command), stdout=subprocess.PIPE, encoding="utf-8") as process:  # noqa: S603
        end = threading.Timer(limit, process.kill)
        end.start()
        yield from cases(process.stdout or ())
        if status := process.wait():
            print(f"exit status {status}: {command}", file=sys.stderr)
        end.cancel()


def take_turns(sides: dict[str, str], turns: int, limit: float) -> Iterator[Case]:
    """Yield every case, with its side and turn."""
    for number in range(1, turns + 1):
        for side, command in sides.items():
            yield from ({"side": side, "turn": number, **case} for case in run_side(command, limit))


def table(found: Sequence[Case]) -> str:
    """Return how fast both sides are, by work, precision and batch; ValueError: they were on different devices."""
    devices = sorted({case["device"] for case in found})
    if len(devices) > 1:
        raise ValueError(f"the sides can't be compared: they ran on {' and '.join(devices)}")
    lines = [f"on {', '.join(devices)}; images/s: median of all rounds (least to most)"]
    works: dict[tuple[Any, ...], list[Case]] = {}
    for case in found:
        works.setdefault((case["what"], case["precision"], case["batch"]), []).append(case)
    for (what, precision, batch), both in works.items():
        lines.append(f"{what}, {precision}, batch of {batch}")
        medians: dict[str, float] = {}
        for side in SIDES:
            its = [case for case in both if case["side"] == side]
            reasons = dict.fromkeys((case["configuration"], case["failed"]) for case in its if "failed" in case)
            lines += [f"  {side}: none by {configuration}: {why}" for configuration, why in reasons]
            timed: dict[str, list[Case]] = {}
            for case in its:
                if "seconds" in case:
                    timed.setdefault(case["configuration"], []).append(case)
            if not timed:
                continue
            speeds = {name: [batch / each for case in timed[name] for each in case["seconds"]] for name in timed}
            best = max(speeds, key=lambda name: statistics.median(speeds[name]))
            medians[side] = statistics.median(speeds[best])
            memory = max(case["peak memory, bytes"] for case in timed[best]) / 1e6
            lines.append(
                f"  {side}: {medians[side]:,.1f} ({min(speeds[best]):,.1f} to {max(speeds[best]):,.1f}) by {best}; "
                f"{len(timed[best])} turns, {memory:,.0f} MB"
            )
        if len(medians) == 2:
            lines.append(f"  ours over theirs: {medians['ours'] / medians['theirs']:.3f}")
    return "\n".join(lines)


def main() -> None:
    """Take turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for side in SIDES:
        parser.add_argument(side, nargs="?")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--limit", type=float, default=300, help="seconds a process may take (%(default)s)")
    parser.add_argument("--read", type=Path, metavar="FILE", help="the lines of an earlier run")
    options = parser.parse_args()
    if options.read:
        found = list(cases(options.read.read_text(encoding="utf-8").splitlines()))
    elif options.theirs is None:
        parser.error("OURS and THEIRS are needed, or --read")
    else:
        found = []
        for case in take_turns({"ours": options.ours, "theirs": options.theirs}, options.turns, options.limit):
            print(json.dumps(case), flush=True)
            found.append(case)
    print(table(found))


if __name__ == "__main__":
    main()
