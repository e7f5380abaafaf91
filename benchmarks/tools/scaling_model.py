"""How would training grow to 8, 64 and 1,024 GPUs? A model of an update's time, from nominal or measured figures.

T(n) = compute(images per device) + all-reduce(n) + input(images of all), one after the other: the optimizer has all
gradients summed in one call, after the last of them is there, so that nothing overlaps. docs/growing.md explains it.

python -m benchmarks.tools.scaling_model                         # H100s by their data sheet: the documentation's table
python -m benchmarks.tools.scaling_model --ports=8               # with a network port for each GPU
python -m benchmarks.tools.scaling_model --results=results.json  # from what pytest benchmarks measured between GPUs
python -m benchmarks.tools.scaling_model --workers=2,3 --check=4 # fit the model to processes on this machine; check it

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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from alexnet_repro import documented
from alexnet_repro.verify.benchmark.replicas import Request, answers_to
from alexnet_repro.verify.benchmark.roofline import STEP_WEIGHTS
from alexnet_repro.verify.benchmark.scaling import GRADIENT_BYTES, Link, fit_link, ring_seconds
from alexnet_repro.verify.benchmark.scaling_run import CPU_ONLY
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.run_record import read_results

DEVICES = (1, 8, 64, 1024)
PER_MACHINE = 8  # NVIDIA DGX H100, data sheet
PEAK, MEMORY = 989.4e12, 3.35e12  # H100 SXM: dense bfloat16 FLOP/s, HBM3 bytes/s (NVIDIA H100 data sheet)
MFU = 0.5  # of the train step at its best batch: a goal, not a measurement
NVLINK, PORT = 450e9, 50e9  # bytes/s each way: NVLink 4; one port of 400 Gb/s
# Seconds per hop of a ring in NCCL's own model, protocol Simple (src/graph/tuning.cc of NVIDIA/nccl): NVLink, network.
NVLINK_HOP, NETWORK_HOP = 3.4e-6, 9.6e-6
# `DataLoader.draw_train_indices`, on one core of an AMD EPYC: seconds per draw, and per image of it.
DRAW, DRAW_IMAGE = 0.11e-3, 3.7e-9
TRAINING_IMAGES = 60_000
MIN_EFFICIENCY = 0.9  # below it, something has broken
LOCALHOST = "127.0.0.1"
KNOBS = {
    "bandwidth": "more ports per machine (`--ports=8`), gradients in bfloat16, or more images per GPU in an update",
    "latency": "a tree or two levels instead of one ring (`NCCL_ALGO=Tree`): hops grow with the machines' logarithm",
    "input": "every worker draws the indices of all images; let it draw its own",
    "data": "an update takes more images than the data set has; take more data, or fewer images per GPU",
}
HEADINGS = (
    "GPUs", "images each", "in all", "compute", "bytes", "hops", "input", "update, ms", "images/s", "efficiency",
    "updates per epoch", "breaks",
)  # fmt: skip


@dataclass(frozen=True)
class Figures:
    """The model's input: measured, or nominal."""

    image: float
    """Seconds per image and device, forward and back."""
    update: float
    """Seconds per update beside that, however few images: reading and writing weights, launching."""
    draw: float
    """Seconds per image of the whole batch, on the host; every worker draws for all."""
    inside: Link
    """Between two devices of a machine."""
    outside: Link
    """Between two machines: all that a machine's ports carry together."""
    devices_per_machine: int = PER_MACHINE
    gradient_bytes: int = GRADIENT_BYTES

    def ring(self, devices: int) -> Link:
        """Return the hops of one ring through all devices: the narrowest sets the pace, latencies are the mean.

        NCCL's own model (`src/graph/tuning.cc`) adds up latencies in the same way.
        """
        hops, between = max(devices - 1, 1), -(-devices // self.devices_per_machine) - 1
        if not between:
            return self.inside
        latency = ((hops - between) * self.inside.latency + between * self.outside.latency) / hops
        return Link(min(self.inside.bandwidth, self.outside.bandwidth), latency)


@dataclass(frozen=True)
class UpdateTime:
    """The parts of an update's time, in seconds."""

    devices: int
    images: int
    """Per device."""
    compute: float
    bandwidth: float
    """Of the all-reduce: bytes over the bandwidth."""
    latency: float
    """Of the all-reduce: hops times their latency."""
    input: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.compute + self.bandwidth + self.latency + self.input

    @property
    def rate(self) -> float:
        """Images/s of all devices."""
        return self.devices * self.images / self.seconds

    @property
    def costliest(self) -> str:
        """The costliest part beside computing: bandwidth, latency or input."""
        return max(("bandwidth", "latency", "input"), key=lambda name: float(getattr(self, name)))

    @property
    def updates_per_epoch(self) -> float:
        """Number of updates that see all training images once."""
        return TRAINING_IMAGES / (self.devices * self.images)


def update_time(devices: int, images: int, figures: Figures) -> UpdateTime:
    """Return the time of an update with `images` images on each of `devices` devices."""
    link = figures.ring(devices)
    return UpdateTime(
        devices,
        images,
        compute=images * figures.image + figures.update,
        bandwidth=ring_seconds(devices, figures.gradient_bytes, link._replace(latency=0.0)),
        latency=ring_seconds(devices, 0, link),
        input=devices * images * figures.draw,
    )


def efficiency(devices: int, images: int, figures: Figures, *, strong: bool = False) -> float:
    """Return linear scaling's time over that of the devices, from one with as many images (strong: as many in all)."""
    share = devices if strong else 1
    linear = update_time(1, images * share, figures).seconds / share
    return linear / update_time(devices, images, figures).seconds


def nominal(peak: float = PEAK, mfu: float = MFU, ports: int = 1) -> Figures:
    """Return the figures of a cluster of H100s by their data sheets."""
    return Figures(
        image=documented.TRAIN_STEP_FLOP / (mfu * peak),
        update=STEP_WEIGHTS * GRADIENT_BYTES / MEMORY + DRAW,
        draw=DRAW_IMAGE,
        inside=Link(NVLINK, NVLINK_HOP),
        outside=Link(ports * PORT, NETWORK_HOP),
    )


def measured(figures: Figures, found: Sequence[Finding]) -> Figures:
    """Return `figures` with what a run measured between and on the GPUs of one machine in their place.

    Raises:
        ValueError: the run measured no all-reduce.
    """
    reduced = [each.data for each in found if each.check == "all-reduce" and each.scope != "cluster"]
    rows = [(each["devices"], *row) for each in reduced for row in each["measured"]]
    if not rows:
        raise ValueError("no all-reduce was measured in that run: it takes two GPUs, pytest benchmarks -k scaling")
    figures = replace(figures, inside=fit_link(rows))
    alone = [each.data for each in found if each.check == "stragglers" and "seconds" in each.data]
    if not alone:
        return figures
    return replace(figures, image=max(max(each["seconds"].values()) / each["images"] for each in alone), update=0.0)


def breaks(update: UpdateTime, share: float) -> list[str]:
    """Return what has broken at this efficiency, keys of `KNOBS`."""
    data = ["data"] if update.updates_per_epoch < 1 else []
    return [*data, *([update.costliest] if share < MIN_EFFICIENCY else [])]


def table(figures: Figures, images: int, batch: int) -> list[str]:
    """Return a Markdown table: `images` on each GPU, then `batch` in all."""
    lines = [f"| {' | '.join(HEADINGS)} |", f"|{'---:|' * (len(HEADINGS) - 1)}---|"]
    cases = [(devices, images, False) for devices in DEVICES]
    cases += [(devices, batch // devices, True) for devices in DEVICES[1:]]
    for devices, each, strong in cases:
        share = efficiency(devices, each, figures, strong=strong)
        update = update_time(devices, each, figures)
        parts = (update.compute, update.bandwidth, update.latency, update.input, update.seconds)
        times = " | ".join(f"{seconds * 1e3:.2f}" for seconds in parts)
        lines.append(
            f"| {devices:,} | {each:,} | {devices * each:,} | {times} | {update.rate:,.0f} | {share * 100:.3g} % "
            f"| {update.updates_per_epoch:,.3g} | {', '.join(breaks(update, share))} |"
        )
    return lines


def all_reduces_on_loopback(workers: int) -> list[dict[str, Any]]:
    """Measure all-reduces of several sizes among processes of this machine.

    Raises:
        ValueError: a worker failed; the message is its finding.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(workers)]
        for each in sockets:
            each.bind((LOCALHOST, 0))
        addresses = tuple(f"{LOCALHOST}:{each.getsockname()[1]}" for each in sockets)

    def answers(task: int) -> list[dict[str, Any] | Finding]:
        return list(answers_to(Request("all-reduce", workers=addresses, task=task), deadline=120, environ=CPU_ONLY))

    with ThreadPoolExecutor(workers) as threads:
        every = [each for found in threads.map(answers, range(workers)) for each in found]
    wrong = [str(each) if isinstance(each, Finding) else each["fault"] for each in every]
    if any(wrong):
        raise ValueError(next(filter(None, wrong)))
    return [each for each in every[: len(every) // workers] if not isinstance(each, Finding)]


def compared_with_loopback(fitted: Sequence[int], checked: Sequence[int]) -> list[str]:
    """Measure all-reduces among these numbers of workers, fit the model to the first, and return both side by side."""
    rows = {
        count: [(count, each["bytes"], statistics.median(each["seconds"])) for each in all_reduces_on_loopback(count)]
        for count in (*fitted, *checked)
    }
    link = fit_link([row for count in fitted for row in rows[count]])
    lines = [f"fitted: {link.bandwidth / 1e9:.3g} GB/s, {link.latency * 1e6:,.0f} µs per hop", ""]
    lines += ["| workers | bytes | measured, ms | model, ms | |", "|---:|---:|---:|---:|---|"]
    for count, size, seconds in (row for each in rows.values() for row in each):
        model = ring_seconds(count, size, link)
        note = "" if count in fitted else "not fitted"
        lines.append(f"| {count} | {size:,} | {seconds * 1e3:,.1f} | {model * 1e3:,.1f} | {note} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or what was fitted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512, help="per GPU and update (default: 512)")
    parser.add_argument("--batch", type=int, default=4096, help="images of all in an update (default: 4096)")
    parser.add_argument("--tflops", type=float, default=PEAK / 1e12, help="a GPU's peak (default: an H100's, bfloat16)")
    parser.add_argument("--mfu", type=float, default=MFU, help="share of it that is reached (default: 0.5, the goal)")
    parser.add_argument("--ports", type=int, default=1, help="of 400 Gb/s, per machine (default: 1)")
    parser.add_argument("--results", type=Path, help="take what a run measured between the GPUs of a machine")
    parser.add_argument(
        "--workers", type=_integers, help="fit the model to these numbers of processes on loopback: 2,3"
    )
    parser.add_argument("--check", type=_integers, default=[], help="and compare it with these, not fitted: 4")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.workers:
            print("\n".join(compared_with_loopback(chosen.workers, chosen.check)))
            return 0
        figures = nominal(chosen.tflops * 1e12, chosen.mfu, chosen.ports)
        if chosen.results:
            figures = measured(figures, read_results(chosen.results).findings["fast"])
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join([*table(figures, chosen.images, chosen.batch), "", *map(": ".join, KNOBS.items())]))
    return 0


def _integers(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
