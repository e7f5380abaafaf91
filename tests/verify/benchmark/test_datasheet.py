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
L4 = Gpu(0, "NVIDIA L4", capability=(8, 9), cores=7_424, max_clock=2_040)
A40 = Gpu(0, "NVIDIA A40", capability=(8, 6), cores=10_752, max_clock=1_740)
L40S = Gpu(0, "NVIDIA L40S", capability=(8, 9), cores=18_176, max_clock=2_520)
PRO_6000 = Gpu(0, "NVIDIA RTX PRO 6000 Blackwell Server Edition", capability=(12, 0), cores=24_064, max_clock=2_617)
CPU = "processor\t: 0\ncpu MHz\t\t: 2000.0\nsiblings\t: 4\ncpu cores\t: 2\nflags\t\t: {}\n\nprocessor\t: 1\n"


@pytest.mark.parametrize(
    ("gpu", "matmul", "memory", "copy"),
    [
        # TFLOP/s and TB/s on the data sheets: 67 and 989 (at 1,830 MHz), 3.35; 8.1 and 65, 0.320.
        pytest.param(
            H100,
            {"float32": 66.9, "tf32": 535, "mixed_float16": 1070, "mixed_bfloat16": 1070},
            3.35,
            63.0,
            id="gpu=H100",
        ),
        pytest.param(T4, {"float32": 8.14, "mixed_float16": 65.1}, 0.320, 15.8, id="gpu=T4"),
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
            replace(FOUND, matmul={"float32": 20e12}),
            "INCONCLUSIVE",
            "products in float32: 20 TFLOP/s, 30% of",
            id="device=low-clock",
        ),
        pytest.param(replace(FOUND, matmul={"float32": 30e12}), "PASS", "", id="device=laptop"),
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
    """A GPU below a quarter of its data sheet fails, with what it reaches and should; before that it is inconclusive.

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


@pytest.mark.parametrize(
    ("gpu", "tf32", "bfloat16", "low_power"),
    [
        # Dense TFLOP/s with float32 sums of the data sheets, and the clocks they are of.
        (Gpu(0, "NVIDIA A10", capability=(8, 6), cores=9_216, max_clock=1_695), 62.5, 125, True),
        (Gpu(0, "NVIDIA A10G", capability=(8, 6), cores=10_240, max_clock=1_710), 35, 70, False),
        (A40, 74.8, 149.7, False),
        (Gpu(0, "NVIDIA RTX A6000", capability=(8, 6), cores=10_752, max_clock=1_800), 77.4, 154.8, False),
        (Gpu(0, "NVIDIA GeForce RTX 3090", capability=(8, 6), cores=10_496, max_clock=1_695), 35.6, 71, False),
        (L4, 60, 121, True),
        (Gpu(0, "NVIDIA L40", capability=(8, 9), cores=18_176, max_clock=2_490), 90.5, 181, False),
        (L40S, 183, 366, False),
        (Gpu(0, "NVIDIA RTX 6000 Ada Generation", capability=(8, 9), cores=18_176, max_clock=2_505), 182, 364, True),
        (Gpu(0, "NVIDIA GeForce RTX 4090", capability=(8, 9), cores=16_384, max_clock=2_520), 82.6, 165, False),
        (PRO_6000, 252, 504, True),
        (Gpu(0, "NVIDIA GeForce RTX 5090", capability=(12, 0), cores=21_760, max_clock=2_407), 104.8, 209.5, False),
    ],
    ids=lambda gpu: f"gpu={gpu.name}" if isinstance(gpu, Gpu) else None,
)  # fmt: skip
def test_cards_for_work(gpu, tf32, bfloat16, low_power):
    """Cards for work have twice the tensor cores' rate of those for games; some can't hold their clock."""
    found = of_gpu(gpu)
    rates = [found.matmul[name] / 1e12 for name in ("tf32", "mixed_bfloat16", "mixed_float16")]
    assert rates == pytest.approx([tf32, bfloat16, bfloat16], rel=0.015)
    assert found.low_power == low_power


@pytest.mark.parametrize(
    ("gpu", "precision", "reached", "status"),
    [
        # Sound ones, by forums.developer.nvidia.com/t/264462 and github.com/zzc0721/torch-performance-test-data.
        (T4, "mixed_float16", 24e12, "PASS"),
        (T4, "float32", 4.17e12, "PASS"),
        (L4, "mixed_bfloat16", 54.91e12, "PASS"),
        (L4, "float32", 12.53e12, "PASS"),
        (A40, "mixed_bfloat16", 122e12, "PASS"),
        (Gpu(0, "NVIDIA RTX A6000", capability=(8, 6), cores=10_752, max_clock=2_100), "mixed_float16", 120e12, "PASS"),
        (L40S, "mixed_float16", 264e12, "PASS"),
        (L40S, "float32", 46.88e12, "PASS"),
        (Gpu(0, "NVIDIA GeForce RTX 4090", capability=(8, 9), cores=16_384, max_clock=3_105), "float32", 46.48e12,
         "PASS"),
        (PRO_6000, "mixed_float16", 312e12, "PASS"),
        # An A40 at the half of what it should reach, which was a half of the half.
        (A40, "mixed_bfloat16", 60e12, "INCONCLUSIVE"),
        (L4, "mixed_bfloat16", 29e12, "INCONCLUSIVE"),
        (T4, "mixed_float16", 8e12, "FAIL"),
    ],
    ids=lambda gpu: f"gpu={gpu.name}" if isinstance(gpu, Gpu) else None,
)  # fmt: skip
def test_sound_cards_pass(gpu, precision, reached, status):
    """What sound cards were measured at passes, of those whose power limit holds their clock down as well."""
    (found,) = compare_with_datasheet(Calibration("gpu:0", {precision: reached}), of_gpu(gpu))
    assert found.status == status, found.message


def test_slice_is_not_the_whole():
    """A MIG slice's record is the whole GPU's, so that no nominal rate is known."""
    assert of_gpu(replace(H100, mig=True)) == Nominal()


def test_link_that_fell_back():
    """A link is compared with what card and slot can, not with what they have negotiated."""
    assert of_gpu(replace(H100, pcie_generation=1, pcie_width=1)).copy == pytest.approx(0.25e9)
    fallen = replace(H100, pcie_generation=1, pcie_width=1, max_pcie_generation=5, max_pcie_width=16)
    assert of_gpu(fallen).copy == pytest.approx(63e9, rel=0.01)


@pytest.mark.parametrize(
    ("reached", "clocks", "status", "words"),
    [
        pytest.param(
            0.30, {"tf32": 860}, "PASS", "30% of the nominal 16.3, 55% at the clock where its", id="limit=held"
        ),
        pytest.param(0.30, {}, "INCONCLUSIVE", "30% of the nominal 16.3; at least 50%", id="limit=none"),
        pytest.param(0.30, {"float32": 860}, "INCONCLUSIVE", "30% of the nominal 16.3; at", id="limit=elsewhere"),
        pytest.param(0.30, {"tf32": 1500}, "INCONCLUSIVE", "32% at the clock", id="limit=held, and slow"),
        pytest.param(
            0.23, {"tf32": 300}, "FAIL", "23% of the nominal 16.3, 122% at the clock", id="limit=held too low"
        ),
        pytest.param(0.52, {"tf32": 1600}, "PASS", "52% of the nominal 16.3", id="limit=above its highest clock"),
    ],
)
def test_power_limit(reached, clocks, status, words):
    """A card that its power limits is compared at the clock where it was held, in words; a fault stays one."""
    found = Calibration("gpu:0", {"tf32": reached * 16.3e12}, clocks=clocks)
    (products,) = compare_with_datasheet(found, Nominal({"tf32": 16.3e12}, clock=1590))
    assert products.status == status
    assert words in products.message
    assert ("power limit" in products.message) == bool(clocks.get("tf32", 2000) < 1590)


@pytest.mark.parametrize(
    ("generation", "width", "status", "words"),
    [
        (5, 16, "PASS", "generation 5 with 16 lanes"),
        (3, 16, "INCONCLUSIVE", "generation 3 with 16 lanes under load, of generation 5 with 16"),
        (5, 4, "INCONCLUSIVE", "generation 5 with 4 lanes"),
        (None, 16, None, ""),
    ],
)
def test_link_under_load(generation, width, status, words):
    """A link that is slower than card and slot can while copies run is inconclusive, however fast the copies seem."""
    most = of_gpu(replace(H100, max_pcie_generation=5, max_pcie_width=16)).link
    found = compare_with_datasheet(
        replace(FOUND, pcie_generation=generation, pcie_width=width), replace(NOMINAL, link=most)
    )
    links = [each for each in found if each.check == "link"]
    assert [each.status for each in links] == ([status] if status else [])
    assert all(words in each.message and each.device == "gpu:0" for each in links)
    assert [bool(each.fix) for each in links if each.status != "PASS"] == ([True] if status == "INCONCLUSIVE" else [])
    assert of_gpu(H100).link is None


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
