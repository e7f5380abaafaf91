"""How would training grow to 8, 64 and 1,024 GPUs? By a model of an update's time, from nominal or measured figures.

python -m benchmarks.tools.scaling_model                         # H100s by their data sheet: what the documentation
shows
python -m benchmarks.tools.scaling_model --ports=8               # with a port of the network for each GPU
python -m benchmarks.tools.scaling_model --results=results.json  # from what pytest benchmarks measured between GPUs
python -m benchmarks.tools.scaling_model --workers=2,3 --check=4 # fit the model to processes on this machine, and
check it

Nothing here is a measurement of GPUs but what --results reads.
"""

import argparse
import os
import socket
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from alexnet_repro import documented
from alexnet_repro.verify.benchmark import growth
from alexnet_repro.verify.benchmark.replicas import Question, ask
from alexnet_repro.verify.benchmark.roofline import STEP_WEIGHTS
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.read import read_results

DEVICES = (1, 8, 64, 1024)
PER_MACHINE = 8  # NVIDIA DGX H100, data sheet
PEAK, MEMORY = 989.4e12, 3.35e12  # H100 SXM: dense bfloat16 FLOP/s, HBM3 bytes/s (NVIDIA H100 data sheet)
MFU = 0.5  # of the train step at its best batch: a goal, not a measurement
NVLINK, PORT = 450e9, 50e9  # bytes/s each way: NVLink 4; one port of 400 Gb/s
# Seconds a hop of a ring in NCCL's own model, protocol Simple (src/graph/tuning.cc of NVIDIA/nccl): NVLink, network.
NVLINK_HOP, NETWORK_HOP = 3.4e-6, 9.6e-6
# `DataLoader.draw_train_indices`, on one core of an AMD EPYC: seconds a draw, and for each image of it.
DRAW, DRAW_IMAGE = 0.11e-3, 3.7e-9
MIN_EFFICIENCY = 0.9  # below it, something has broken
LOCAL = "127.0.0.1"
KNOBS = {
    "bandwidth": "more ports a machine (`--ports=8`), gradients in bfloat16, or more images a GPU in an update",
    "latency": "a tree or two levels instead of one ring (`NCCL_ALGO=Tree`): hops grow with the machines' logarithm",
    "input": "every worker draws the numbers of all images; let it draw its own",
    "data": "an update takes more images than the data set has; take more data, or fewer images a GPU",
}
HEADINGS = (
    "GPUs", "images each", "in all", "compute", "bytes", "hops", "input", "update, ms", "images/s", "efficiency",
    "updates an epoch", "breaks",
)  # fmt: skip


def nominal(peak: float = PEAK, mfu: float = MFU, ports: int = 1) -> growth.Figures:
    """Return the figures of a cluster of H100s by their data sheets."""
    network = growth.Network(growth.Link(NVLINK, NVLINK_HOP), growth.Link(ports * PORT, NETWORK_HOP), PER_MACHINE)
    return growth.Figures(
        image=documented.TRAIN_STEP_FLOP / (mfu * peak),
        update=STEP_WEIGHTS * growth.GRADIENT_BYTES / MEMORY + DRAW,
        draw=DRAW_IMAGE,
        network=network,
    )


def measured(figures: growth.Figures, found: Sequence[Finding]) -> growth.Figures:
    """Return `figures` with what a run measured between and on the GPUs of one machine in their place.

    Raises:
        ValueError: the run measured no all-reduce.
    """
    rows = [
        (each.data["devices"], *row)
        for each in found
        if each.check == "all-reduce" and each.scope != "cluster"
        for row in each.data["measured"]
    ]
    if not rows:
        raise ValueError("no all-reduce was measured in that run: it takes two GPUs, pytest benchmarks -k scaling")
    network = replace(figures.network, inside=growth.fit(rows))
    alone = [each.data for each in found if each.check == "stragglers" and "seconds" in each.data]
    image = max(max(each["seconds"].values()) / each["images"] for each in alone) if alone else figures.image
    return replace(figures, image=image, update=0.0 if alone else figures.update, network=network)


def breaks(update: growth.Update, efficiency: float) -> list[str]:
    """Return what has broken, keys of `KNOBS`."""
    data = ["data"] if update.updates_an_epoch < 1 else []
    return [*data, *([update.costliest] if efficiency < MIN_EFFICIENCY else [])]


def table(figures: growth.Figures, images: int, batch: int) -> list[str]:
    """Return a Markdown table: `images` on each GPU, then `batch` in all."""
    lines = [f"| {' | '.join(HEADINGS)} |", f"|{'---:|' * (len(HEADINGS) - 1)}---|"]
    cases = [(devices, images, growth.weak_efficiency(devices, images, figures)) for devices in DEVICES]
    cases += [(devices, batch // devices, growth.strong_efficiency(devices, batch, figures)) for devices in DEVICES[1:]]
    for devices, each, efficiency in cases:
        update = growth.update(devices, each, figures)
        parts = (update.compute, update.bandwidth, update.latency, update.input, update.seconds)
        times = " | ".join(f"{seconds * 1e3:.2f}" for seconds in parts)
        lines.append(
            f"| {devices:,} | {each:,} | {devices * each:,} | {times} | {update.rate:,.0f} | {efficiency * 100:.3g} % "
            f"| {update.updates_an_epoch:,.3g} | {', '.join(breaks(update, efficiency))} |"
        )
    return lines


def among_workers(workers: int) -> list[dict[str, Any]]:
    """Measure all-reduces of several sizes among processes of this machine, on loopback.

    Raises:
        ValueError: a worker came to nothing; the message is its finding.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(workers)]
        for each in sockets:
            each.bind((LOCAL, 0))
        addresses = [f"{LOCAL}:{each.getsockname()[1]}" for each in sockets]

    def answers(task: int) -> list[dict[str, Any] | Finding]:
        question = Question("all-reduce", workers=tuple(addresses), task=task)
        return list(ask(question, deadline=120, environ={"CUDA_VISIBLE_DEVICES": "-1"}))

    with ThreadPoolExecutor(workers) as threads:
        every = [each for found in threads.map(answers, range(workers)) for each in found]
    wrong = [str(each) if isinstance(each, Finding) else each["fault"] for each in every]
    if any(wrong):
        raise ValueError(next(filter(None, wrong)))
    return [each for each in every[: len(every) // workers] if not isinstance(each, Finding)]


def held_against_model(numbers: Sequence[int], checks: Sequence[int]) -> list[str]:
    """Measure all-reduces among so many workers each, fit the model, and return it beside all that was measured."""
    rows = {
        number: [(number, each["bytes"], statistics.median(each["seconds"])) for each in among_workers(number)]
        for number in (*numbers, *checks)
    }
    link = growth.fit([row for number in numbers for row in rows[number]])
    lines = [f"fitted: {link.bandwidth / 1e9:.3g} GB/s, {link.latency * 1e6:,.0f} µs a hop", ""]
    lines += ["| workers | bytes | measured, ms | model, ms | |", "|---:|---:|---:|---:|---|"]
    for number, size, seconds in (row for each in rows.values() for row in each):
        model = growth.ring_seconds(number, size, link)
        note = "" if number in numbers else "not fitted"
        lines.append(f"| {number} | {size:,} | {seconds * 1e3:,.1f} | {model * 1e3:,.1f} | {note} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or what was fitted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512, help="of each GPU in an update (default: 512)")
    parser.add_argument("--batch", type=int, default=4096, help="images of all in an update (default: 4096)")
    parser.add_argument("--tflops", type=float, default=PEAK / 1e12, help="a GPU's peak (default: an H100's, bfloat16)")
    parser.add_argument("--mfu", type=float, default=MFU, help="share of it that is reached (default: 0.5, the goal)")
    parser.add_argument("--ports", type=int, default=1, help="of 400 Gb/s, a machine (default: 1)")
    parser.add_argument("--results", type=Path, help="take what a run measured between the GPUs of a machine")
    parser.add_argument("--workers", type=_numbers, help="fit the model to so many processes on loopback: 2,3")
    parser.add_argument("--check", type=_numbers, default=[], help="and hold it against so many, not fitted: 4")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.workers:
            print("\n".join(held_against_model(chosen.workers, chosen.check)))
            return 0
        figures = nominal(chosen.tflops * 1e12, chosen.mfu, chosen.ports)
        if chosen.results:
            figures = measured(figures, read_results(chosen.results).findings["fast"])
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join([*table(figures, chosen.images, chosen.batch), "", *map(": ".join, KNOBS.items())]))
    return 0


def _numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
