"""The doctor's findings on GPUs that are ill, in use, in a mode of their own, or of different models."""

from dataclasses import replace

import pytest

from alexnet_repro.verify.doctor.health import health, mixed_gpu_models
from alexnet_repro.verify.finding import worst
from tests.helpers.machines import A100, GIB, MIB, SYNTHETIC, T4, TWO, Case, box, one

DCGM = "github.com/NVIDIA/DCGM"
CASES = {
    "nothing may compute": Case(
        "docs.nvidia.com/deploy/nvml-api: NVML_COMPUTEMODE_PROHIBITED",
        one(compute_mode=2),
        "compute mode",
        "FAIL",
        ("lets nothing compute", "nvidia-smi -i 0 -c 0"),
    ),
    "another process's memory": Case(
        "github.com/NVIDIA/gpu-operator/issues/2880: a Tesla T4 filled by inference processes that should be gone",
        box(replace(T4, memory_used=14 * GIB, processes=("pid 3794364 (python, 5144 MiB)",))),
        "memory",
        "FAIL",
        ("another process holds memory", "pid 3794364", "14.0 of 15.0 GiB", "fuser -v /dev/nvidia0"),
    ),
    "memory of a process that can't be seen": Case(
        "github.com/apache/mxnet/issues/17837: nvidia-smi shows no process, fuser does",
        one(memory_used=10 * GIB),
        "memory",
        "INCONCLUSIVE",
        ("not visible from here", "fuser -v /dev/nvidia0"),
    ),
    "uncorrected errors": Case(
        "docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt: XID 48",
        one(ecc_uncorrected=2, ecc_corrected=5),
        "ecc",
        "FAIL",
        ("couldn't be corrected", "2 uncorrected, 5 corrected", "nvidia-smi -r -i 0"),
    ),
    "pages to be retired": Case(
        "docs.nvidia.com/deploy/dynamic-page-retirement: Pending Page Blacklist: Yes",
        box(replace(T4, retired_pages=2, retirement_pending=True)),
        "ecc",
        "FAIL",
        ("wait to be retired", "2 in all", "nvidia-smi -r -i 0"),
    ),
    "many pages retired": Case(
        "docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt: at most 64 pages",
        box(replace(T4, retired_pages=60)),
        "ecc",
        "FAIL",
        ("wears out", "replaced"),
    ),
    "row to be remapped": Case(
        "docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt: XID 63, row-remapping pending flag",
        one(remap_pending=True),
        "ecc",
        "FAIL",
        ("waits to be replaced", "row remapping pending", "nvidia-smi -r -i 0"),
    ),
    "row that can't be remapped": Case(
        "docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt: XID 64, row-remapping failure flag",
        one(remap_failed=True),
        "ecc",
        "FAIL",
        ("couldn't be replaced", "ROW_REMAPPER", "board replaced"),
    ),
    "link that lost lanes": Case(
        SYNTHETIC,
        one(pcie_width=4, max_pcie_width=16),
        "link",
        "INCONCLUSIVE",
        ("4 lanes of 16", "reseat", "LnkSta"),
    ),
    "too hot": Case(
        "docs.nvidia.com/deploy/nvml-api: nvmlClocksThrottleReasonHwThermalSlowdown",
        one(throttle_reasons=0x48, temperature=93),
        "clocks",
        "FAIL",
        ("heat (hardware slowdown)", "0x48, 93 °C", "nvidia-smi -q -d PERFORMANCE"),
    ),
    "a slice of a GPU": Case(
        "github.com/pytorch/pytorch/issues/130181: a process can use a single MIG device",
        one(mig=True, mig_slices=2),
        "mig",
        "INCONCLUSIVE",
        ("only a slice", "2 slices", "-mig 0"),
    ),
    "a slice named": Case(
        SYNTHETIC,
        box(replace(A100, mig=True, mig_slices=2), TWO[1], settings={"CUDA_VISIBLE_DEVICES": "MIG-5a6b"}),
        "mig",
        "INCONCLUSIVE",
        ("only a slice",),
    ),
    "MIG without a slice": Case(
        SYNTHETIC,
        one(mig=True),
        "mig",
        "FAIL",
        ("without a slice", "-mig 0", "-cgi 0 -C"),
    ),
    "GPUs of two kinds": Case(
        "github.com/NVIDIA/nvidia-container-toolkit/issues/1227: A10 and T4 in one host",
        box(A100, replace(T4, index=1)),
        "mixed_gpu_models",
        "INCONCLUSIVE",
        ("the GPUs differ", "1 × Tesla T4 (15 GiB)", "export CUDA_VISIBLE_DEVICES=GPU-a"),
    ),
    "reset asked for": Case(
        "docs.nvidia.com/deploy/xid-errors: Xid 154, GPU recovery action",
        one(recovery=1),
        "ecc",
        "FAIL",
        ("the driver asks for a reset of this GPU", "recovery action 1", "grep -i xid", "nvidia-smi -r -i 0"),
    ),
    "recovery that isn't known": Case(SYNTHETIC, one(recovery=99), "ecc", "FAIL", ("asks for a recovery",)),
    "siblings of two memories": Case(
        "GeForce RTX 3080: 10 and 12 GB",
        box(
            replace(A100, name="NVIDIA GeForce RTX 3080", memory_total=10 * GIB),
            replace(TWO[1], name="NVIDIA GeForce RTX 3080", memory_total=12 * GIB),
        ),
        "mixed_gpu_models",
        "INCONCLUSIVE",
        ("the GPUs differ", "1 × NVIDIA GeForce RTX 3080 (12 GiB)"),
    ),
    "clocks that the hardware lowers": Case(
        f"{DCGM}: DcgmRecorder.cpp, CheckForThrottling",
        one(throttle_reasons=0x0C),
        "clocks",
        "INCONCLUSIVE",
        ("its power limit and a hardware slowdown",),
    ),
}
NOTES = {
    "power limit reached": (one(throttle_reasons=0x4), (), ""),
    "power limit lowered": (
        one(power_limit=150_000, default_power_limit=400_000),
        ("power",),
        "its power limit is 150 W, 400 W by default",
    ),
    "power limit as it was": (one(power_limit=400_000, default_power_limit=400_000), (), ""),
    "ECC off": (one(ecc=False), ("ecc",), "nvidia-smi -e 1 -i 0"),
    "ECC off by default": (one(ecc=False, default_ecc=False), (), ""),
    "ECC not there": (one(ecc=None), (), ""),
    "banks without spare rows": (one(full_banks=2, remapped_rows=17), ("ecc",), "2 of its memory's banks"),
    "banks with spare rows": (one(full_banks=0, remapped_rows=1, recovery=0), (), ""),
    "desktop": (
        one(memory_used=1900 * MIB, desktop_memory=1500 * MIB),
        ("memory",),
        "a desktop's windows",
    ),
    "siblings with retired pages": (
        box(A100, replace(TWO[1], memory_total=80 * GIB - 64 * 64 * 1024)),
        (),
        "",
    ),
    "siblings with and without ECC": (box(T4, replace(T4, index=1, memory_total=16 * GIB)), (), ""),
    "one process at a time": (one(compute_mode=3), ("compute mode",), "only one process at a time"),
}


@pytest.mark.parametrize("case", [pytest.param(case, id=f"case={name}") for name, case in CASES.items()])
def test_fault_is_named_with_evidence_and_fix(case):
    """Exactly these checks fail or are inconclusive, as bad as they are, and their words name the cause and the fix."""
    assert case.mistakes() == []


@pytest.mark.parametrize(
    ("here", "checks", "words"), [pytest.param(*each, id=f"note={name}") for name, each in NOTES.items()]
)
def test_what_is_no_fault(here, checks, words):
    """A sound GPU passes: what could be better is a note with its fix, and what is usual isn't said."""
    found = [*health(here), *mixed_gpu_models(here)]
    assert worst(found) == "PASS", found
    noted = [each for each in found if each.check != "health"]
    assert tuple(each.check for each in noted) == checks
    assert all(each.evidence and each.fix for each in noted)
    assert words in "\n".join(map(str, noted))


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        pytest.param({"memory_used": 3 * GIB, "desktop_memory": GIB}, "INCONCLUSIVE", id="memory=of others too"),
        pytest.param({"memory_used": 77 * GIB, "desktop_memory": 77 * GIB}, "FAIL", id="memory=little left"),
        pytest.param(
            {"memory_used": 2 * GIB, "desktop_memory": 2 * GIB, "processes": ("pid 7 (python)",)},
            "INCONCLUSIVE",
            id="memory=of what computes",
        ),
    ],
)
def test_desktop_excuses_nothing_else(changes, status):
    """Memory that isn't the desktop's, processes that compute, and too little that is left count as before."""
    assert worst(health(one(**changes))) == status
