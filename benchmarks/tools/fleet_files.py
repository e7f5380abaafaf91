"""Results files of a made-up fleet, from one real run's: for tests, simulations, and the time that `fleet` takes.

    python -m benchmarks.tools.fleet_files RESULTS.json FOLDER --nodes=1000 [--gpus=8] [--days=1] [--noise=0.01]

Each node's file has the run's findings and timings for each of its devices, with serials of its own and times that
noise moves: of a node, of a device, of a case and of a round. Nothing in such a file was measured.
"""

import argparse
import copy
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

SCHEMA = 4
GPU = "NVIDIA H100 80GB HBM3"
FIRST_DAY = datetime(2026, 11, 1, 6, tzinfo=UTC)
VARIABLES = tuple(
    f"{layer}/{part}"
    for layer in ("dense_2", "dense_1", "dense", *(f"conv2d_{number}" for number in (4, 3, 2, 1)), "conv2d")
    for part in ("bias", "kernel")
)
DRIVER, VBIOS = "570.86.15", "96.00.89.00.01"
Results = dict[str, Any]


@dataclass(frozen=True)
class MadeFleet:
    """A fleet to be made: how many nodes, devices and days, and what is wrong with which."""

    nodes: int = 8
    gpus: int = 0  # of each node; 0: the template's own device
    days: int = 1  # runs of each node, a day apart
    noise: float = 0.01  # of a device's times beside another's, as the standard deviation of their logarithm
    seed: int = 0
    slow: Mapping[tuple[str, str], float] = field(default_factory=dict)  # by node and device, how many times the time
    flipped: Mapping[tuple[str, str], int] = field(default_factory=dict)  # the step from which bits differ, from 1
    change: Callable[[str, int, Results], None] | None = None  # of node, day and file: whatever else is to be other

    def names(self) -> list[str]:
        """Return the nodes' names, as `node007`."""
        digits = len(str(self.nodes))
        return [f"node{number:0{max(3, digits)}}" for number in range(1, self.nodes + 1)]

    def files(self, template: Results) -> Iterator[tuple[str, int, Results]]:
        """Yield node, day and content of each file; the template is a results file of schema 3 or 4."""
        for day in range(self.days):
            for node in self.names():
                yield node, day, self.content(template, node, day)

    def content(self, template: Results, node: str, day: int = 0) -> Results:
        """Return what a node's file of a day holds."""
        noise = random.Random(f"{self.seed} {node} {day}")  # noqa: S311 - no secret
        devices = [f"gpu:{number}" for number in range(self.gpus)] or template["machine"]["devices"][:1]
        own = template["machine"]["devices"][0]
        made: Results = {**template, "schema": SCHEMA}
        made["run"] = {
            **template["run"],
            "id": f"{noise.getrandbits(128):032x}",
            "node": node,
            "host": node,
            "started": (FIRST_DAY + timedelta(days=day, minutes=noise.uniform(0, 30))).isoformat(timespec="seconds"),
        }
        made["machine"] = self._machine(template["machine"], node, devices)
        made["plan"] = list(_for_each(template.get("plan", []), own, devices))
        made["findings"] = {
            group: [self._finding(node, each) for each in _for_each(found, own, devices)]
            for group, found in template["findings"].items()
        }
        timings = list(_for_each(template["timings"], own, devices))
        moved = {device: noise.gauss(0, self.noise) for device in devices}
        for each in timings:
            factor = math.exp(moved[each["device"]] + noise.gauss(0, self.noise / 2))
            factor *= self.slow.get((node, each["device"]), 1.0)
            each["rounds"] = [took * factor * math.exp(noise.gauss(0, 0.003)) for took in each["rounds"]]
        made["timings"] = timings
        made["calibrations"] = list(_for_each(template.get("calibrations", []), own, devices))
        if self.change:
            self.change(node, day, made)
        return made

    def write(self, template: Results, folder: Path) -> list[Path]:
        """Write the files as `FOLDER/NODE/DAY/results.json`; return their paths."""
        paths = []
        for node, day, content in self.files(template):
            path = folder / node / f"day{day}" / "results.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content, indent=1) + "\n")
            paths.append(path)
        return paths

    def _machine(self, template: Results, node: str, devices: list[str]) -> Results:
        identity = random.Random(f"{self.seed} {node}")  # noqa: S311 - no secret
        common = {"packages": template.get("packages", {}), "settings": template.get("settings", {})}
        inventory = {}
        for number, device in enumerate(devices):
            if gpu := device.startswith("gpu"):
                decides = {**common, "gpu": GPU, "capability": [9, 0], "driver": DRIVER}
            else:
                decides = {**common, "cpu": {"model": template.get("cpu", "")}, "threads": template.get("threads", {})}
            inventory[device] = {
                "kind": GPU if gpu else template.get("cpu", "a CPU"),
                "serial": str(identity.randrange(10**12, 10**13)) if gpu else None,
                "uuid": f"GPU-{identity.getrandbits(128):032x}" if gpu else None,
                "firmware": VBIOS if gpu else None,
                "pci": f"00000000:{16 + number:02X}:00.0" if gpu else None,
                "driver": DRIVER if gpu else None,
                "memory": 85_520_809_984 if gpu else 8 * 10**9,
                "power_limit": 700.0 if gpu else None,
                "pcie_generation": 5 if gpu else None,
                "pcie_width": 16 if gpu else None,
                "ecc_corrected": 0 if gpu else None,
                "ecc_uncorrected": 0 if gpu else None,
                "bits": decides,
                "speed": {**decides, "python": "3.11"},
            }
        gpus = {"gpus": [GPU] * self.gpus, "driver": DRIVER} if self.gpus else {}
        firmware = {"bios": "2.4.1", "microcode": "0xa10113e"}
        own = {"devices": devices, "id": f"{identity.getrandbits(64):016x}", "firmware": firmware}
        return {**template, **gpus, **own, "inventory": inventory}

    def _finding(self, node: str, found: Results) -> Results:
        first = self.flipped.get((node, found.get("device", "")))
        steps = found.get("data", {}).get("steps")
        if not steps or first is None:
            return found
        other = copy.deepcopy(steps)
        for step in other[first - 1 :]:
            for name in list(step["gradients"])[1:]:
                step["gradients"][name] = step["gradients"][name][::-1]
            step["weights"] = {name: digest[::-1] for name, digest in step["weights"].items()}
        return {**found, "data": {**found["data"], "steps": other}}


def made_steps(count: int = 3, seed: int = 0) -> list[Results]:
    """Return digests of train steps as `replay` gives them, of no real step."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    digests = partial(dict.fromkeys, VARIABLES)
    return [
        {
            "loss": draw.uniform(2.0, 2.6).hex(),
            "gradients": {name: f"{draw.getrandbits(128):032x}" for name in digests()},
            "weights": {name: f"{draw.getrandbits(128):032x}" for name in digests()},
        }
        for _ in range(count)
    ]


def _for_each(rows: list[Results], own: str, devices: list[str]) -> Iterator[Results]:
    """Yield copies of a device's rows for each of the devices, and the rows of no device once."""
    for row in rows:
        if row.get("device") != own:
            yield row
            continue
        for device in devices:
            renamed = {key: row[key].replace(own, device) for key in ("case", "name") if row.get(key)}
            yield {**row, "device": device, **renamed}


def main() -> None:
    """Make the files that the arguments ask for, and say how many and how large they are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("template", type=Path)
    parser.add_argument("folder", type=Path)
    for name, default in (("nodes", 8), ("gpus", 0), ("days", 1), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--noise", type=float, default=0.01)
    options = vars(parser.parse_args())
    template, folder = json.loads(options.pop("template").read_text()), options.pop("folder")
    paths = MadeFleet(**options).write(template, folder)
    print(f"{len(paths)} files, {sum(each.stat().st_size for each in paths) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
