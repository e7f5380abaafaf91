"""What GPUs of one machine can carry between them, by what the driver says of NVLink and PCIe."""

from collections.abc import Sequence
from typing import NamedTuple

from alexnet_repro.verify.doctor.nvidia import Gpu

# Bytes/s of one NVLink, each way, as NCCL reckons, by the compute capability from which on: ncclTopoNVLinkBw in its
# src/graph/topo.h (2.29). So eight H100s carry 371 GB/s: "an effective NVLink bandwidth of 370GB/s", its authors say
# (github.com/NVIDIA/nccl-tests/issues/212).
NVLINK_BYTES = {(10, 0): 40.1e9, (9, 0): 20.6e9, (8, 0): 20e9, (7, 0): 20e9, (6, 0): 18e9}
BRIDGED_BYTES = {(8, 6): 12e9}
# Of PCIe 3.0 x16, and of the slowest link between two processors (PCI_BW, QPI_BW and ARM_BW there).
PCIE_3_BYTES, PROCESSORS_BYTES = 12e9, 6e9
# Shares of that which an all-reduce should reach; below the first it is inconclusive, below the second it fails. Of
# nccl-tests' bus bandwidth over NVLink are published: 96 % of eight A100s (github.com/NVIDIA/nccl/issues/527: 231
# GB/s), 83 % (nccl-tests/issues/149: 200), 55 % of two RTX 2080 Ti (nccl-tests/issues/44: 22), 47 % of two H100s on
# PCIe (nccl/issues/1161: 116). TensorFlow packs the gradients before it and unpacks them after, hence half of the
# least. By PCIe 3.0 to 5.0 in place of eight H100s' NVLinks it would be 3 to 13 %, by sockets at 3 GB/s 1 %. Cards
# without NVLink: 28 GB/s of eight RTX 5090 (nccl/issues/1639); sockets may be as fast as the slowest of such, so that
# none fails by this.
NVLINK_SHARES, PCIE_SHARES = (0.25, 0.1), (0.5, 0.0)


class Interconnect(NamedTuple):
    """The way between GPUs."""

    way: str  # as "18 NVLinks of each"
    bandwidth: float  # bytes/s that each GPU sends, and at the same time receives, as NCCL reckons
    doubt: float  # the share of it below which an all-reduce is inconclusive
    fault: float  # the share below which it fails


def interconnect(gpus: Sequence[Gpu]) -> Interconnect | None:
    """Return the way among two or more GPUs, by the drivers' records; None if it isn't known."""
    return _by_nvlink(gpus) or _by_pcie(gpus)


def _by_nvlink(gpus: Sequence[Gpu]) -> Interconnect | None:
    """Return the way by NVLink alone: a ring needs two neighbours of each GPU, or switches."""
    places = {_place(gpu.pci_bus_id): number for number, gpu in enumerate(gpus) if gpu.pci_bus_id}
    rates, counts, sure = [], [], True
    neighbours: dict[int, set[int]] = {}
    for number, gpu in enumerate(gpus):
        switched = [lead for lead in gpu.nvlinks if lead in ("switch", "unknown")]
        direct = [places[_place(lead)] for lead in gpu.nvlinks if _place(lead) in places]
        capability = gpu.capability or (0, 0)
        newest = next((rate for since, rate in NVLINK_BYTES.items() if capability >= since), None)
        rate = BRIDGED_BYTES.get((capability[0], capability[1]), newest)
        if rate is None or not (switched or direct):
            return None
        neighbours[number] = set(range(len(gpus))) - {number} if switched else set(direct)
        sure = sure and "unknown" not in switched
        counts.append(len(switched or direct))
        rates.append(counts[-1] * rate)
    reached, wave = {0}, {0}
    while wave:
        wave = set().union(*(neighbours[number] for number in wave)) - reached
        reached |= wave
    if len(reached) < len(gpus) or min(map(len, neighbours.values())) < min(2, len(gpus) - 1):
        return None
    doubt, fault = NVLINK_SHARES
    way = f"{min(counts)} NVLink{'s' * (min(counts) > 1)} of each"
    return Interconnect(way, min(rates), doubt, fault if sure else 0.0)


def _place(bus_id: str) -> str:
    """Return a PCI bus as all of NVML's functions write it: the domain has four digits or eight."""
    domain, _, rest = bus_id.lower().partition(":")
    return f"{domain.lstrip('0')}:{rest}" if rest else ""


def _by_pcie(gpus: Sequence[Gpu]) -> Interconnect | None:
    """Return the way by PCIe, and by the links between processors where it goes through them."""
    ways = []
    for gpu in gpus:
        generation, width = gpu.max_pcie_generation or gpu.pcie_generation, gpu.pcie_width or gpu.max_pcie_width
        if not generation or not width:
            return None
        ways.append((PCIE_3_BYTES * 2.0 ** (generation - 3) * width / 16, f"PCIe {generation}.0 ×{width}"))
    slowest, way = min(ways)
    return Interconnect(way, min(slowest, PROCESSORS_BYTES), *PCIE_SHARES)
