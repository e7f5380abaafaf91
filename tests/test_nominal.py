"""What a device should reach follows from what its driver says, and one that doesn't come near it is no standard."""

from dataclasses import replace

import pytest

from alexnet_repro.hardware.calibrate import Calibration
from alexnet_repro.hardware.nominal import Nominal, compare, of_cpu, of_gpu
from alexnet_repro.hardware.nvidia import Gpu

H100 = Gpu(0, "NVIDIA H100 80GB HBM3", capability=(9, 0), cores=16_896, clock_most=1_980, memory_clock_most=2_619,
           memory_bus=5_120, pcie_generation=5, pcie_width=16)  # fmt: skip
T4 = Gpu(0, "Tesla T4", capability=(7, 5), cores=2_560, clock_most=1_590, memory_clock_most=5_001, memory_bus=256,
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
        pytest.param(Gpu(0, "unknown", capability=(99, 0), cores=100, clock_most=1), {}, None, None, id="gpu=unknown"),
        pytest.param(Gpu(0), {}, None, None, id="gpu=silent"),
    ],
)
def test_gpu(gpu, matmul, memory, copy):
    """Multiprocessors, clocks, bus and link give the data sheet's figures; what isn't told isn't guessed."""
    found = of_gpu(gpu)
    assert {name: rate / 1e12 for name, rate in found.matmul.items()} == pytest.approx(matmul, rel=0.01)
    assert found.memory == (memory and pytest.approx(memory * 1e12, rel=0.01))
    assert found.copy == (copy and pytest.approx(copy * 1e9, rel=0.01))


@pytest.mark.parametrize(
    ("flags", "matmul"),
    [
        ("fpu sse2 avx fma avx512f avx512_bf16", {"float32": 128e9, "mixed_bfloat16": 256e9}),
        ("sse2 avx fma", {"float32": 64e9}),
        ("sse2", {"float32": 16e9}),
        ("fpu", {}),
    ],
)
def test_cpu(tmp_path, flags, matmul):
    """Of four hardware threads on two cores each core counts once, by the widest instructions it has."""
    (tmp_path / "cpuinfo").write_text(CPU.format(flags))
    assert of_cpu(4, tmp_path / "cpuinfo").matmul == matmul


def test_cpu_that_isnt_told(tmp_path):
    """Where Linux doesn't tell, nothing is known."""
    assert of_cpu(4, tmp_path / "absent") == Nominal()
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: asimd\n")
    assert of_cpu(4, tmp_path / "cpuinfo") == Nominal()


FOUND = Calibration("gpu:0", {"float32": 50e12}, memory=2.5e12, to_device=10e9, to_host=8e9)
NOMINAL = Nominal({"float32": 67e12}, 3.35e12, 63e9)


@pytest.mark.parametrize(
    ("found", "status", "words"),
    [
        pytest.param(FOUND, "PASS", "", id="device=well"),
        pytest.param(
            replace(FOUND, matmul={"float32": 30e12}),
            "FAIL",
            "products in float32: 30 TFLOP/s, 45% of",
            id="device=slow",
        ),
        pytest.param(replace(FOUND, memory=1e12), "FAIL", "memory: 1e+03 GB/s, 30% of", id="device=slow-memory"),
        pytest.param(replace(FOUND, to_host=1e9), "FAIL", "copies from it: 1 GB/s, 2% of", id="device=slow-link"),
        pytest.param(replace(FOUND, device="cpu:0", memory=1e12), "INCONCLUSIVE", "memory", id="device=slow-cpu"),
    ],
)
def test_compare(found, status, words):
    """A GPU far below its data sheet fails, with what it reaches and what it should; a CPU is in doubt."""
    others = [finding for finding in compare(found, NOMINAL) if finding.status != "PASS"]
    assert [finding.status for finding in others] == ([] if status == "PASS" else [status])
    assert all(words in finding.cause and finding.mend and finding.device == found.device for finding in others)


def test_unknown_device_is_in_doubt():
    """Where no rate is known by the data sheet, that is said."""
    [finding] = compare(FOUND, Nominal())
    assert (finding.check, finding.status) == ("nominal", "INCONCLUSIVE")
