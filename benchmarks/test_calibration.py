"""What rates does each device reach by itself, and are they those of its data sheet?"""

from alexnet_repro.backend.devices import thread_counts
from alexnet_repro.verify.benchmark.datasheet import Nominal, compare_with_datasheet, of_cpu, of_gpu
from alexnet_repro.verify.doctor.environment import is_named
from benchmarks.session import VerificationSession
from benchmarks.timed import rates_of


def test_calibration(device: str, verification: VerificationSession) -> None:
    """Matrix products in each precision, memory and copies come near the nominal rates, where those are known."""
    kind, _, number = device.partition(":")
    found, here = rates_of(verification, device), verification.machine
    if kind == "cpu":
        should = of_cpu(thread_counts()["processors"], here.cpu_quota)
    else:
        name = here.named_gpus[int(number)] if here.named_gpus else number
        gpu = next((gpu for gpu in here.nvidia.gpus if is_named(gpu, name)), None)
        should = of_gpu(gpu) if gpu else Nominal()
    verification.report_findings("fast", *compare_with_datasheet(found, should))
