"""How would training grow to 8, 64 and 1,024 GPUs? A model of an update's time, from nominal or measured figures.

T(n) = compute(images per device) + all-reduce(n) + input(images of all), one after the other: the optimizer has all
gradients summed in one call, after the last of them is there, so that nothing overlaps. docs/growing.md explains it.

python -m benchmarks.tools.scaling_model                         # H100s by their data sheet: the documentation's table
python -m benchmarks.tools.scaling_model --ports=8               # with a network port for each GPU
python -m benchmarks.tools.scaling_model --results=results.json  # from what pytest benchmarks measured between GPUs
python -m benchmarks.tools.scaling_model --workers=2,3 --check=4 # fit the model to processes on this machine; check it

Only what --results reads was measured on GPUs.
"""

import argparse
import socket
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from alexnet_repro import documented
from alexnet_repro.verify.benchmark.replicas import Request, answers_to
from alexnet_repro.verify.benchmark.scaling import GRADIENT_BYTES, Link, fit_link, ring_seconds
from alexnet_repro.verify.doctor.device_probe import NO_GPU
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.run_record import read_results

DEVICES, IMAGES, BATCH = (1, 8, 64, 1024), 512, 4096  # of the table: images on each GPU, then in all
PEAK, MEMORY = 989.4e12, 3.35e12  # H100 SXM: dense bfloat16 FLOP/s, HBM3 bytes/s (NVIDIA H100 data sheet)
STEP_WEIGHTS = 6  # times that they are moved: forward, back, their gradients written, and three times by the update
MFU = 0.5  # of the train step at its best batch: a goal, not a measurement
# Bytes/s each way, and seconds per hop of a ring in NCCL's own model, protocol Simple (src/graph/tuning.cc of
# NVIDIA/nccl): NVLink 4; one port of 400 Gb/s.
NVLINK, PORT = Link(450e9, 3.4e-6), Link(50e9, 9.6e-6)
# `DataLoader.draw_train_indices`, on one core of an AMD EPYC: seconds per draw, and per image of it.
DRAW, DRAW_IMAGE = 0.11e-3, 3.7e-9
TRAINING_IMAGES = 60_000


class Figures(NamedTuple):
    """The model's input: measured, or nominal."""

    image: float  # seconds per image and device, forward and back
    update: float  # seconds per update beside that, however few images: reading and writing weights, launching
    draw: float  # seconds per image of the whole batch, on the host; every worker draws for all
    inside: Link  # between two devices of a machine
    outside: Link  # between two machines: all that a machine's ports carry together
    devices_per_machine: int = 8  # NVIDIA DGX H100, data sheet
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


class UpdateTime(NamedTuple):
    """The parts of an update's time, in seconds; two are the all-reduce's."""

    compute: float
    bandwidth: float  # bytes over the bandwidth
    latency: float  # hops times their latency
    input: float


def update_time(devices: int, images: int, figures: Figures) -> UpdateTime:
    """Return the time of an update with `images` images on each of `devices` devices."""
    link = figures.ring(devices)
    return UpdateTime(
        compute=images * figures.image + figures.update,
        bandwidth=ring_seconds(devices, figures.gradient_bytes, link._replace(latency=0.0)),
        latency=ring_seconds(devices, 0, link),
        input=devices * images * figures.draw,
    )


def efficiency(devices: int, images: int, figures: Figures, *, strong: bool = False) -> float:
    """Return linear scaling's time over that of the devices, from one with as many images (strong: as many in all)."""
    share = devices if strong else 1
    return sum(update_time(1, images * share, figures)) / share / sum(update_time(devices, images, figures))


def nominal(ports: int = 1) -> Figures:
    """Return the figures of a cluster of H100s by their data sheets, with network ports per machine."""
    image, update = documented.TRAIN_STEP_FLOP / (MFU * PEAK), STEP_WEIGHTS * GRADIENT_BYTES / MEMORY + DRAW
    return Figures(image, update, DRAW_IMAGE, NVLINK, PORT._replace(bandwidth=ports * PORT.bandwidth))


def measured(figures: Figures, found: Sequence[Finding]) -> Figures:
    """Return `figures` with what a run measured on the GPUs of one machine; ValueError: it measured no all-reduce."""
    reduced = [each.data for each in found if each.check == "all-reduce" and each.scope != "cluster"]
    rows = [(each["devices"], *row) for each in reduced for row in each["measured"]]
    if not rows:
        raise ValueError("no all-reduce was measured in that run: it takes two GPUs, pytest benchmarks -k scaling")
    alone = [each.data for each in found if each.check == "stragglers" and "seconds" in each.data]
    image = max((max(each["seconds"].values()) / each["images"] for each in alone), default=figures.image)
    return figures._replace(inside=fit_link(rows), image=image, update=0.0 if alone else figures.update)


def breaks(devices: int, images: int, update: UpdateTime, share: float) -> list[str]:
    """Return what has broken at this efficiency: data, and what costs most beside computing."""
    costliest = max(("bandwidth", "latency", "input"), key=lambda name: float(getattr(update, name)))
    return [*(["data"] if devices * images > TRAINING_IMAGES else []), *([costliest] if share < 0.9 else [])]


def table(figures: Figures) -> list[str]:
    """Return a Markdown table: weak scaling, then strong."""
    parts = "compute | bytes | hops | input | update, ms"
    lines = [f"| GPUs | images each | in all | {parts} | images/s | efficiency | updates per epoch | breaks |"]
    lines.append(f"|{'---:|' * 11}---|")
    cases = [(devices, IMAGES, False) for devices in DEVICES]
    cases += [(devices, BATCH // devices, True) for devices in DEVICES[1:]]
    for devices, each, strong in cases:
        share, images = efficiency(devices, each, figures, strong=strong), devices * each
        update = update_time(devices, each, figures)
        times = " | ".join(f"{seconds * 1e3:.2f}" for seconds in (*update, sum(update)))
        lines.append(
            f"| {devices:,} | {each:,} | {images:,} | {times} | {images / sum(update):,.0f} | {share * 100:.3g} % "
            f"| {TRAINING_IMAGES / images:,.3g} | {', '.join(breaks(devices, each, update, share))} |"
        )
    return lines


def all_reduces_on_loopback(workers: int) -> list[tuple[int, int, float]]:
    """Return workers, bytes and median seconds of all-reduces among processes here; ValueError: a worker's finding."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(workers)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    requests = [Request("all-reduce", workers=addresses, task=task) for task in range(workers)]
    with ThreadPoolExecutor(workers) as threads:
        every = list(threads.map(lambda request: list(answers_to(request, 120, NO_GPU)), requests))
    for each in (answer for found in every for answer in found):
        if wrong := str(each) if isinstance(each, Finding) else each["fault"]:
            raise ValueError(wrong)
    return [(workers, each["bytes"], statistics.median(each["seconds"])) for each in every[0]]


def compared_with_loopback(fitted: Sequence[int], checked: Sequence[int]) -> list[str]:
    """Measure all-reduces among these numbers of workers, fit the model to the first, and return both side by side."""
    rows = [row for count in (*fitted, *checked) for row in all_reduces_on_loopback(count)]
    link = fit_link([row for row in rows if row[0] in fitted])
    lines = [f"fitted: {link.bandwidth / 1e9:.3g} GB/s, {link.latency * 1e6:,.0f} µs per hop", ""]
    lines += ["| workers | bytes | measured, ms | model, ms | |", "|---:|---:|---:|---:|---|"]
    for count, size, seconds in rows:
        model, note = ring_seconds(count, size, link), "" if count in fitted else "not fitted"
        lines.append(f"| {count} | {size:,} | {seconds * 1e3:,.1f} | {model * 1e3:,.1f} | {note} |")
    return lines


def main() -> int:
    """Print the table, or what was fitted."""

    def integers(text: str) -> list[int]:
        return [int(each) for each in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ports", type=int, default=1, help="of 400 Gb/s, per machine (default: 1)")
    parser.add_argument("--results", type=Path, help="take what a run measured between the GPUs of a machine")
    parser.add_argument("--workers", type=integers, help="fit the model to these numbers of processes on loopback: 2,3")
    parser.add_argument("--check", type=integers, default=[], help="and compare it with these, not fitted: 4")
    chosen = parser.parse_args()
    try:
        if chosen.workers:
            lines = compared_with_loopback(chosen.workers, chosen.check)
        else:
            figures = nominal(chosen.ports)
            if chosen.results:
                figures = measured(figures, read_results(chosen.results).findings["fast"])
            lines = table(figures)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
