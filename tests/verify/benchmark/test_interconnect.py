"""The way between GPUs, by what the driver says of them."""

from dataclasses import replace

import pytest

from alexnet_repro.verify.benchmark.interconnect import interconnect
from alexnet_repro.verify.doctor.nvidia import Gpu

PCIE = {"pcie_generation": 1, "max_pcie_generation": 4, "pcie_width": 16, "max_pcie_width": 16}  # when idle
H100 = Gpu(0, capability=(9, 0), nvlinks=("switch",) * 18, **PCIE)
A100 = replace(H100, capability=(8, 0), nvlinks=("switch",) * 12)


def machine(gpu, *leads):
    """Return copies of a GPU on buses of their own, whose NVLinks lead to these places of the others."""
    return [
        replace(gpu, index=number, pci_bus_id=f"00000000:0{number}:00.0", nvlinks=tuple(map(str, own)))
        for number, own in enumerate(leads)
    ]


def bus(*numbers):
    """Return where links lead to, as another of NVML's functions writes a GPU's bus."""
    return [f"0000:0{number}:00.0" for number in numbers]


V100 = Gpu(0, capability=(7, 0), **PCIE)
QUAD = [bus(1, 2, 3, 3), bus(0, 2, 2, 3), bus(0, 1, 1, 3), bus(0, 0, 1, 2)]  # half of a DGX-1: NV1, NV1 and NV2 of each
PAIRS = [bus(1), bus(0), bus(3), bus(2)]
WAYS = [
    pytest.param([H100] * 8, "18 NVLinks of each", 370.8e9, 0.1, id="gpus=8 H100"),
    pytest.param([H100] * 2, "18 NVLinks of each", 370.8e9, 0.1, id="gpus=2 H100"),
    pytest.param([A100] * 8, "12 NVLinks of each", 240e9, 0.1, id="gpus=8 A100"),
    pytest.param([replace(H100, capability=(10, 0))] * 8, "18 NVLinks of each", 721.8e9, 0.1, id="gpus=8 B200"),
    pytest.param([replace(H100, nvlinks=("unknown",) * 18)] * 2, "18 NVLinks of each", 370.8e9, 0.0, id="lead=unknown"),
    pytest.param([A100, replace(A100, nvlinks=("switch",) * 11)], "11 NVLinks of each", 220e9, 0.1, id="links=fewer"),
    pytest.param(machine(V100, *QUAD), "4 NVLinks of each", 80e9, 0.1, id="gpus=4 of a DGX-1"),
    pytest.param(machine(V100, *QUAD)[:2], "1 NVLink of each", 20e9, 0.1, id="gpus=2 of a DGX-1"),
    pytest.param(
        machine(replace(V100, capability=(8, 6)), *PAIRS)[:2], "1 NVLink of each", 12e9, 0.1, id="gpus=2 bridged cards"
    ),
    # Between pairs, or by a chain that doesn't close, it is PCIe's.
    pytest.param(machine(V100, *PAIRS), "PCIe 4.0 ×16", 6e9, 0.0, id="gpus=2 pairs"),
    pytest.param(machine(V100, bus(1), bus(0, 2), bus(1)), "PCIe 4.0 ×16", 6e9, 0.0, id="gpus=a chain"),
    pytest.param(machine(V100, ["cpu"] * 2, ["cpu"] * 2), "PCIe 4.0 ×16", 6e9, 0.0, id="lead=cpu"),
    pytest.param([replace(H100, nvlinks=("down",) * 18)] * 2, "PCIe 4.0 ×16", 6e9, 0.0, id="links=down"),
    pytest.param([replace(V100, max_pcie_generation=3, pcie_width=4)] * 2, "PCIe 3.0 ×4", 3e9, 0.0, id="lanes=4"),
    pytest.param([V100, replace(V100, pcie_width=1)], "PCIe 4.0 ×1", 1.5e9, 0.0, id="lanes=one slower"),
]


@pytest.mark.parametrize(("gpus", "way", "bandwidth", "fault"), WAYS)
def test_way(gpus, way, bandwidth, fault):
    """NVLinks count by where they lead, at NCCL's rates; else PCIe does, up to what processors carry between them."""
    found = interconnect(gpus)
    assert (found.way, found.bandwidth, found.fault) == (way, pytest.approx(bandwidth), fault)


@pytest.mark.parametrize(
    "gpu",
    [
        pytest.param(Gpu(0), id="record=empty"),
        pytest.param(replace(V100, max_pcie_generation=None, pcie_generation=None), id="generation=unknown"),
        pytest.param(Gpu(0, nvlinks=("switch",) * 12), id="capability=unknown"),
    ],
)
def test_unknown_way(gpu):
    """What the driver doesn't report makes no bound."""
    assert interconnect([gpu, gpu]) is None
