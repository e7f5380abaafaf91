"""What a device should reach follows from what its driver says, and one that doesn't come near it is no standard."""

from dataclasses import replace

import pytest

from alexnet_repro.verify.benchmark.datasheet import (
    Nominal,
    compare_with_datasheet,
    of_cpu,
    of_gpu,
)
from alexnet_repro.verify.benchmark.timing import Calibration
from alexnet_repro.verify.doctor.nvidia import Gpu

H100 = Gpu(0, "NVIDIA H100 80GB HBM3", capability=(9, 0), cores=16_896, max_clock=1_980, max_memory_clock=2_619,
           memory_bus=5_120, pcie_generation=5, pcie_width=16)  # fmt: skip
T4 = Gpu(0, "Tesla T4", capability=(7, 5), cores=2_560, max_clock=1_590, max_memory_clock=5_001, memory_bus=256,
         pcie_generation=3, pcie_width=16)  # fmt: skip
CPU = "processor\t: 0\ncpu MHz\t\t: 2000.0\nsiblings\t: 4\ncpu cores\t: 2\nflags\t\t: {}\n\nprocessor\t: 1\n"


@pytest.mark.parametrize(
    ("gpu", "matmul", "memory", "copy"),
    [
        # TFLOP/s and TB/s on the data sheets: 67 and 989 (at 1,830 MHz), 3.35; 8.1, 65 (half that with float32 sums).
        pytest.param(
            H100,
            {"float32": 66.9, "tf32": 535, "mixed_float16": 1070, "mixed_bfloat16": 1070},
            3.35,
            63.0,
            id="gpu=H100",
        ),
        pytest.param(T4, {"float32": 8.14, "mixed_float16": 32.6}, 0.320, 15.8, id="gpu=T4"),
        pytest.param(Gpu(0, "unknown", capability=(99, 0), cores=100, max_clock=1), {}, None, None, id="gpu=unknown"),
        pytest.param(Gpu(0), {}, None, None, id="gpu=silent"),
    ],
)
def test_gpu(gpu, matmul, memory, copy):
    """Multiprocessors, clocks, bus and link give the data sheet's figures; what is unknown isn't guessed."""
    found = of_gpu(gpu)
    assert {name: rate / 1e12 for name, rate in found.matmul.items()} == pytest.approx(matmul, rel=0.01)
    assert found.memory == (memory and pytest.approx(memory * 1e12, rel=0.01))
    assert found.copy == (copy and pytest.approx(copy * 1e9, rel=0.01))


@pytest.mark.parametrize(
    ("flags", "matmul"),
    [
        ("fpu sse2 avx fma avx512f avx512_bf16", {"float32": 128e9, "mixed_bfloat16": 128e9}),
        ("fpu sse2 avx fma avx512f avx512_bf16 amx_bf16", {"float32": 128e9, "mixed_bfloat16": 128e9}),
        ("sse2 avx fma", {"float32": 64e9}),
        ("sse2", {"float32": 16e9}),
        ("fpu", {}),
    ],
)
def test_cpu(tmp_path, flags, matmul):
    """Of four hardware threads on two cores each core counts once, by the widest instructions it has."""
    (tmp_path / "cpuinfo").write_text(CPU.format(flags))
    assert of_cpu(4, cpuinfo=tmp_path / "cpuinfo").matmul == matmul


@pytest.mark.parametrize(
    ("threads", "flags", "rate"),
    [
        pytest.param(2, "fma", 128e9, id="machine=real"),
        pytest.param(2, "fma hypervisor", 64e9, id="machine=virtual"),
        pytest.param(4, "fma hypervisor", 64e9, id="machine=virtual, with threads"),
    ],
)
def test_virtual_processor(tmp_path, threads, flags, rate):
    """A virtual machine's processor counts as half a core, though its Linux shows whole ones, and not as a quarter."""
    (tmp_path / "cpuinfo").write_text(CPU.format(flags).replace("\t: 4", f"\t: {threads}"))
    assert of_cpu(4, cpuinfo=tmp_path / "cpuinfo").matmul == {"float32": rate}


@pytest.mark.parametrize(
    ("reached", "status"),
    [
        pytest.param(1.68e12, "PASS", id="kernels=AMX"),
        pytest.param(0.219e12, "PASS", id="kernels=AVX-512"),
        pytest.param(0.267e12, "PASS", id="kernels=JAX"),
        pytest.param(0.04e12, "INCONCLUSIVE", id="kernels=slow"),
    ],
)
def test_bfloat16_by_any_kernels(tmp_path, reached, status):
    """Whichever instructions a backend multiplies bfloat16 by, it should be no slower than float32.

    The rates are those of two processors of 2.6 GHz of a virtual machine.
    """
    text = CPU.format("avx512f avx512_bf16 amx_bf16 hypervisor").replace("2000.0", "2600.0").replace("\t: 4", "\t: 2")
    (tmp_path / "cpuinfo").write_text(text)
    rates = Calibration("cpu:0", {"float32": 0.38e12, "mixed_bfloat16": reached})
    found = compare_with_datasheet(rates, of_cpu(2, cpuinfo=tmp_path / "cpuinfo"))
    assert [each.status for each in found] == ["PASS", status]


@pytest.mark.parametrize(
    ("quota", "reached", "share"),
    [
        pytest.param(None, 0.0128e12, "20% of the nominal 0.064", id="quota=none"),
        pytest.param(0.5, 0.0064e12, "80% of the nominal 0.008 of a quota of 0.5 processors", id="quota=half"),
        pytest.param(2.0, 0.0064e12, "20% of the nominal 0.032 of a quota of 2 processors", id="quota=two"),
    ],
)
def test_quota(tmp_path, quota, reached, share):
    """A container that may take half a processor's time of four isn't compared with four; the quota is named."""
    (tmp_path / "cpuinfo").write_text(CPU.format("fma"))
    (found,) = compare_with_datasheet(
        Calibration("cpu:0", {"float32": reached}), of_cpu(4, quota, tmp_path / "cpuinfo")
    )
    assert share in found.message
    assert (found.status == "PASS") == (quota == 0.5)
    assert ("docker run --cpus" in found.fix) == (quota == 2.0)
    assert "nvidia-smi" not in found.fix


def test_fix_is_of_the_device():
    """A CPU's fix isn't nvidia-smi."""
    fixes = {
        device: compare_with_datasheet(Calibration(device, {"float32": 1e9}), Nominal({"float32": 1e12}))[0].fix
        for device in ("cpu:0", "gpu:0")
    }
    assert ("nvidia-smi" in fixes["cpu:0"], "nvidia-smi" in fixes["gpu:0"]) == (False, True)
    assert "lscpu" in fixes["cpu:0"]


def test_unknown_cpu(tmp_path):
    """Without /proc/cpuinfo nothing is known."""
    assert of_cpu(4, cpuinfo=tmp_path / "absent") == Nominal()
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: asimd\n")
    assert of_cpu(4, cpuinfo=tmp_path / "cpuinfo") == Nominal()


FOUND = Calibration("gpu:0", {"float32": 50e12}, memory=2.5e12, to_device=10e9, to_host=8e9)
NOMINAL = Nominal({"float32": 67e12}, 3.35e12, 63e9)


@pytest.mark.parametrize(
    ("found", "status", "words"),
    [
        pytest.param(FOUND, "PASS", "", id="device=well"),
        pytest.param(
            replace(FOUND, matmul={"float32": 15e12}),
            "FAIL",
            "products in float32: 15 TFLOP/s, 22% of",
            id="device=slow",
        ),
        pytest.param(
            replace(FOUND, matmul={"float32": 30e12}),
            "INCONCLUSIVE",
            "products in float32: 30 TFLOP/s, 45% of",
            id="device=laptop",
        ),
        pytest.param(replace(FOUND, memory=0.8e12), "FAIL", "memory: 800 GB/s, 24% of", id="device=slow-memory"),
        pytest.param(replace(FOUND, memory=1e12), "INCONCLUSIVE", "memory: 1e+03 GB/s, 30% of", id="device=low-memory"),
        pytest.param(replace(FOUND, to_device=1.8e9), "PASS", "", id="device=virtual"),
        pytest.param(
            replace(FOUND, to_host=0.6e9), "INCONCLUSIVE", "copies from it: 0.6 GB/s, 4% of", id="device=slow-host"
        ),
        pytest.param(replace(FOUND, to_host=0.4e9), "FAIL", "copies from it: 0.4 GB/s, 2% of", id="device=slow-link"),
        pytest.param(replace(FOUND, device="cpu:0", memory=1e12), "INCONCLUSIVE", "memory", id="device=slow-cpu"),
    ],
)
def test_compare(found, status, words):
    """A GPU below a quarter of its data sheet fails, with what it reaches and should; below a half it is inconclusive.

    Copies fail where they are slower than a virtual machine's.
    """
    others = [finding for finding in compare_with_datasheet(found, NOMINAL) if finding.status != "PASS"]
    assert [finding.status for finding in others] == ([] if status == "PASS" else [status])
    assert all(words in finding.message and finding.fix and finding.device == found.device for finding in others)


@pytest.mark.parametrize(
    ("gpu", "matmul"),
    [
        # Data sheets: 44 TFLOP/s in float32, 74 in TF32 and 148 in bfloat16; 4.4 in float32, and no tensor cores.
        (Gpu(0, "NVIDIA H20", capability=(9, 0), cores=9_984, max_clock=1_980),
         {"float32": 39.5, "tf32": 79.1, "mixed_float16": 158, "mixed_bfloat16": 158}),
        (Gpu(0, "NVIDIA H200", capability=(9, 0), cores=16_896, max_clock=1_980),
         {"float32": 66.9, "tf32": 535, "mixed_float16": 1070, "mixed_bfloat16": 1070}),
        (Gpu(0, "NVIDIA GeForce GTX 1650", capability=(7, 5), cores=896, max_clock=1_665), {"float32": 2.98}),
    ],
    ids=["gpu=H20", "gpu=H200", "gpu=GTX 1650"],
)  # fmt: skip
def test_lesser_cards(gpu, matmul):
    """Cards that have less than others of their capability are compared with their own data sheet."""
    assert {name: rate / 1e12 for name, rate in of_gpu(gpu).matmul.items()} == pytest.approx(matmul, rel=0.01)


def test_slice_is_not_the_whole():
    """A MIG slice's record is the whole GPU's, so that no nominal rate is known."""
    assert of_gpu(replace(H100, mig=True)) == Nominal()


def test_link_that_fell_back():
    """A link is compared with what card and slot can, not with what they have negotiated."""
    assert of_gpu(replace(H100, pcie_generation=1, pcie_width=1)).copy == pytest.approx(0.25e9)
    fallen = replace(H100, pcie_generation=1, pcie_width=1, max_pcie_generation=5, max_pcie_width=16)
    assert of_gpu(fallen).copy == pytest.approx(63e9, rel=0.01)


def test_products_that_are_not_known():
    """A GPU of which only memory and link are known isn't passed by those alone."""
    found = compare_with_datasheet(FOUND, Nominal(memory=3.35e12))
    assert [(each.status, "its products" in each.message) for each in found] == [
        ("PASS", False),
        ("INCONCLUSIVE", True),
    ]


def test_unknown_device_is_inconclusive():
    """Where no rate is known by the data sheet, the finding says so."""
    [finding] = compare_with_datasheet(FOUND, Nominal())
    assert (finding.check, finding.status) == ("nominal", "INCONCLUSIVE")
