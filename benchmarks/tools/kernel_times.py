"""A profile of the train step on a GPU: its kernels, largest first, as TensorFlow's profiler records them.

    python -m benchmarks.tools.kernel_times --batch=512 --precision=mixed_bfloat16 [--xla=off] [--deterministic]

The step is timed first, without the profiler. With --json=FILE the profile is kept as data, with full kernel names.
"""

import argparse
import dataclasses
import json
import math
import shlex
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import keras

from alexnet_repro import DataLoader, best_train_step, synthetic_fashion
from alexnet_repro.backend.determinism import enable_determinism
from alexnet_repro.backend.devices import gpu_names, synchronize
from alexnet_repro.backend.memory import enable_memory_growth
from alexnet_repro.backend.precision import PRECISIONS
from alexnet_repro.verify.benchmark.reference import provenance
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.learning import LEARNABLE
from alexnet_repro.verify.doctor.fingerprint import packages
from alexnet_repro.verify.doctor.nvidia import read_nvidia
from benchmarks.peers.timed import of_device, step_seconds

XLA = {"auto": None, "on": True, "off": False}
LARGEST, WAITS, WIDTH = 25, 5, 90  # of the table: kernels, waits, and characters of a name


class Profile(NamedTuple):
    """What a GPU did per step. Rows are µs, how often, and a kernel's name, the largest first."""

    busy: float  # µs in which any kernel ran
    kernels: list[tuple[float, float, str]]
    waits: list[tuple[float, float, str]]  # in which none ran, by the kernel that ended them


def summed(space: Any, steps: int) -> Profile:
    """Return what the GPU did, from a profile of some `steps`."""
    events = []
    planes = [plane for plane in space.planes if plane.name == "/device:GPU:0"]
    streams = ((plane, line) for plane in planes for line in plane.lines if "stream" in line.name.lower())
    for plane, line in streams:  # the other lines repeat them
        for event in line.events:
            start = line.timestamp_ns * 1000 + event.offset_ps
            events.append((start, start + event.duration_ps, plane.event_metadata[event.metadata_id].name))
    events.sort()
    kernels, waits, busy = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list), 0
    end = events[0][0] if events else 0
    for start, stop, name in events:  # streams overlap: what two run at once counts once
        kernels[name].append(stop - start)
        if start > end:
            waits[name].append(start - end)
        busy += max(0, stop - max(start, end))
        end = max(end, stop)

    def rows(found: dict[str, list[int]]) -> list[tuple[float, float, str]]:
        return sorted(((sum(ps) / 1e6 / steps, len(ps) / steps, name) for name, ps in found.items()), reverse=True)

    return Profile(busy / 1e6 / steps, rows(kernels), rows(waits))


def recorded(work: Callable[[], Any], calls: int) -> Any:
    """Return the profile of some calls, an `XSpace`."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace

    with TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(calls):
            work()
        synchronize()
        tf.profiler.experimental.stop()
        (path,) = Path(folder).rglob("*.xplane.pb")
        return XSpace.FromString(path.read_bytes())


def profile(options: argparse.Namespace) -> dict[str, Any]:
    """Return the step's configuration, seconds and kernels, as `lines` takes them."""
    batch, for_xla, loader = options.batch, XLA[options.xla], DataLoader.from_arrays(*synthetic_fashion(), seed=0)
    recipe = dataclasses.replace(LEARNABLE, draw_size=batch, batch_size=batch)
    config = CheckConfig("gpu:0", options.precision)
    with config.running():
        model, _ = config.model(for_xla=for_xla)
        step = best_train_step(model, loader, recipe, jit_compile="auto" if for_xla is None else for_xla)
        updates = step.updates_per_call
        indices = loader.draw_train_indices(updates * batch).reshape(updates, batch)
        start = time.perf_counter()
        step(indices)
        synchronize()
        first = time.perf_counter() - start
        seconds = step_seconds(lambda: step(indices), lambda _: synchronize(), of_device("gpu"), updates)
        calls = math.ceil(10 / updates)
        found = summed(recorded(lambda: step(indices), calls), calls * updates)
    case = {"batch": batch, "precision": options.precision, "xla": "on" if step.classifier.jit_compile else "off"}
    case |= {"deterministic": options.deterministic, "updates_per_call": updates}
    took = {"first_call_seconds": first, "seconds": seconds, "busy_microseconds": found.busy}
    calls = sum(calls for _, calls, _ in found.kernels)
    return {"step": case, **took, "calls": calls, "kernels": found.kernels, "waits": found.waits}


def lines(found: dict[str, Any]) -> list[str]:
    """Return the table, and below it the whole step's times."""
    busy, wall = found["busy_microseconds"], statistics.median(found["seconds"]) * 1e6
    listed, others = found["kernels"][:LARGEST], found["kernels"][LARGEST:]
    waits = found.get("waits", [])[:WAITS]
    if others:
        listed = [*listed, (sum(each[0] for each in others), sum(each[1] for each in others), f"{len(others)} others")]
    return [
        " ".join(f"{name}={value}" for name, value in found["step"].items()),
        "µs per step  calls per step   share  kernel",
        *(f"{taken:11,.1f}  {calls:14.2f}  {taken / busy:6.1%}  {name[:WIDTH]}" for taken, calls, name in listed),
        f"step: {wall:,.0f} µs, median of {len(found['seconds'])} rounds",
        f"GPU busy: {busy:,.0f} µs, {busy / wall:.1%} of the step; shares are of it",
        *(f"idle before {name[:WIDTH]}: {idle:,.0f} µs, {times:.2f} times per step" for idle, times, name in waits),
        f"kernels, copies and fills: {found['calls']:.1f} per step",
        f"first call: {found['first_call_seconds']:.1f} s, tracing and compiling included",
    ]


def main(arguments: Sequence[str]) -> int:
    """Print the table; return the exit status: 1 if the profiler saw no kernels, 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128, help="images (default: %(default)s)")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="(default: %(default)s)")
    parser.add_argument("--xla", choices=XLA, default="auto", help="auto: as Keras decides")
    parser.add_argument("--deterministic", action="store_true", help="deterministic kernels, as train uses them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep it as data")
    options = parser.parse_args(arguments)
    if keras.backend.backend() != "tensorflow" or not enable_memory_growth():
        backend = keras.backend.backend()
        print(f"no GPU for TensorFlow, Keras is on {backend}: see python -m alexnet_repro doctor", file=sys.stderr)
        return 2
    if options.deterministic:
        enable_determinism()
    found = profile(options)
    if not found["kernels"]:
        print("the profiler saw no kernels: is CUPTI installed (nvidia-cuda-cupti), and allowed?", file=sys.stderr)
        return 1
    print("\n".join([gpu_names()[0], *lines(found)]))
    if options.json:
        command = f"python -m benchmarks.tools.kernel_times {shlex.join(arguments)}"
        environment = {"gpu": gpu_names()[0], "driver": read_nvidia((), 20).driver, "packages": packages(gpu=True)}
        kept = {**provenance(Path(__file__).parents[2], command), "environment": environment, "profiles": [found]}
        options.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
