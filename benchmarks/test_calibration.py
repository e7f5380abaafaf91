"""What rates does each device reach by itself, and are they those of its data sheet?"""

from alexnet_repro.backend.devices import thread_counts
from alexnet_repro.verify.benchmark.datasheet import Nominal, compare_with_datasheet, of_cpu, of_gpu
from benchmarks.session import VerificationSession
from benchmarks.timed import rates_of


def test_calibration(device: str, verification: VerificationSession) -> None:
    """Matrix products in each precision, memory and copies come near the nominal rates, where those are known."""
    found, here = rates_of(verification, device), verification.machine
    if device.startswith("cpu"):
        should = of_cpu(thread_counts()["processors"], here.cpu_quota)
    else:
        gpu = here.gpu_of(device)
        should = of_gpu(gpu) if gpu else Nominal()
    verification.report_findings("fast", *compare_with_datasheet(found, should))
