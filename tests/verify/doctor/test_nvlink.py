"""The doctor's findings on NVLinks and their fabric, and what the driver's record holds of them."""

from dataclasses import replace

import pytest

from alexnet_repro.verify.doctor.nvlink import link_changes, nvlink
from tests.helpers.machines import A100, CPU, SYNTHETIC, TWO, Case, box, results

SWITCHED = replace(A100, nvlinks=("switch",) * 12, nvlink_replays=0, nvlink_recoveries=0, nvlink_crc_errors=0)
H100 = replace(SWITCHED, name="NVIDIA H100 80GB HBM3", capability=(9, 0), nvlinks=("switch",) * 18)
FABRIC = {"fabric_state": 3, "fabric_status": 0, "fabric_health": 0x1AA}
H100 = replace(H100, **FABRIC)
V100 = replace(A100, name="Tesla V100-SXM2-32GB", capability=(7, 0), nvlinks=("0000:1B:00.0",) * 6)
BUILT_FOR = replace(box().tensorflow, capabilities=("sm_60", "sm_70", "sm_80", "sm_89", "compute_90"))


def pair(gpu, **changes):
    """Return a machine with two of a GPU, the second with these changes."""
    return replace(box(gpu, replace(gpu, index=1, uuid="GPU-b", **changes)), tensorflow=BUILT_FOR)


def both(gpu, **changes):
    """Return a machine with two of a GPU, both with these changes."""
    return pair(replace(gpu, **changes))


CASES = {
    "Fabric Manager isn't running": Case(
        "github.com/NVIDIA/gpu-operator/issues/2511: Fabric, State: In Progress, Status: N/A",
        both(H100, fabric_state=2),
        "fabric, fabric",
        "FAIL",
        ("Fabric Manager hasn't registered it", "in progress", "systemctl status nvidia-fabricmanager"),
    ),
    "set up with an error": Case(
        "github.com/Azure/azhpc-images/pull/506: State: Completed, Status: Insufficient Resources",
        pair(H100, fabric_status=7),
        "fabric",
        "FAIL",
        ("set up with an error", "completed, status 7"),
    ),
    "routes unhealthy": Case(
        "docs.nvidia.com/deploy/nvml-api: NVML_GPU_FABRIC_HEALTH_MASK_ROUTE_UNHEALTHY_TRUE",
        pair(H100, fabric_health=0x19A),
        "fabric",
        "FAIL",
        ("its routes are unhealthy", "0x19a"),
    ),
    "bandwidth degraded": Case(
        "docs.nvidia.com/deploy/nvml-api: NVML_GPU_FABRIC_HEALTH_MASK_DEGRADED_BW_TRUE",
        pair(H100, fabric_health=0x1A9),
        "fabric",
        "INCONCLUSIVE",
        ("bandwidth is degraded",),
    ),
    "configured wrongly": Case(
        "docs.nvidia.com/deploy/nvml-api: INCORRECT_CONFIGURATION_INSUFFICIENT_NVLINKS",
        pair(H100, fabric_health=0x5AA),
        "fabric",
        "FAIL",
        ("configured wrongly",),
    ),
    "links to switches down": Case(
        SYNTHETIC,
        pair(SWITCHED, nvlinks=("switch",) * 10 + ("down",) * 2),
        "nvlink",
        "FAIL",
        ("10 of its NVLinks are up, and 12 of another", "links 10, 11 are down", "nvidia-smi nvlink -s -i 1"),
    ),
    "all links to switches down": Case(
        SYNTHETIC,
        pair(SWITCHED, nvlinks=("down",) * 12),
        "nvlink",
        "FAIL",
        ("0 of its NVLinks are up", "the others lead to nothing"),
    ),
    "two links between GPUs down": Case(
        "github.com/Azure/azhpc-diagnostics/issues/73: GPU 3, Tesla V100, Link 3 and 5: <inactive>",
        pair(V100, nvlinks=("0000:1A:00.0",) * 3 + ("down", "0000:1A:00.0", "down")),
        "nvlink",
        "INCONCLUSIVE",
        ("4 of its NVLinks are up, and 6 of another Tesla V100-SXM2-32GB", "links 3, 5 are down"),
    ),
}


@pytest.mark.parametrize("case", [pytest.param(case, id=f"machine={name}") for name, case in CASES.items()])
def test_links(case):
    """A link or a fabric that is out of order is named by its GPU, with the evidence and what to type."""
    assert case.mistakes() == []


INACTIVE = tuple("down" if link % 6 in (4, 5) else "0000:1B:00.0" for link in range(18))
SOUND = {
    "none": box(*TWO),
    "CPU": CPU,
    "cards without bridges": both(A100, nvlinks=("down",) * 12),
    # Of an H100 on PCIe links 4, 5, 10, 11, 16 and 17 lead nowhere: github.com/Azure/azurehpc-health-checks/issues/162
    "H100 on PCIe": both(H100, nvlinks=INACTIVE, fabric_state=0, fabric_health=None),
    "one card without a bridge": pair(V100, nvlinks=("down",) * 6),
    "no fabric": both(SWITCHED, fabric_state=0, fabric_status=0, fabric_health=0),
    "healthy fabric": both(H100),
    "fabric whose health isn't known": both(H100, fabric_health=0),
    "one GPU in MIG mode": pair(SWITCHED, nvlinks=("down",) * 12, mig=True),
    "a lost GPU": pair(SWITCHED, nvlinks=(), error="GPU is lost"),
}


@pytest.mark.parametrize("here", [pytest.param(here, id=f"machine={name}") for name, here in SOUND.items()])
def test_sound_links(here):
    """Where nothing is wrong, the finding is how many links are up; where there are none, there is none."""
    found = list(nvlink(here))
    assert {each.status for each in found} <= {"PASS"}
    linked = [gpu for gpu in here.nvidia.gpus if set(gpu.nvlinks) - {"down"}]
    assert [each.device for each in found] == [f"GPU {gpu.index}" for gpu in linked]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"fabric_state": 2}, id="fabric=in progress"),
        pytest.param({"fabric_health": 0x4AA}, id="fabric=no partition"),
    ],
)
def test_one_gpu_may_do_without_a_fabric(changes):
    """Of a single GPU it is a note: CUDA's own start says whether it needs it."""
    here = replace(box(replace(H100, **changes)), tensorflow=BUILT_FOR)
    (found,) = nvlink(here)
    assert (found.check, found.status) == ("fabric", "PASS")
    assert found.message.endswith("a GPU by itself may do without")
    assert "nvidia-fabricmanager" in found.fix


def test_fabric_manager_behind_a_failed_start():
    """Where CUDA doesn't start for want of it, TensorFlow sees no GPU, without an error; the fix is the manager's."""
    seen = results("cpu:0", ())
    log = "E0000 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: "
    log += "CUDA_ERROR_SYSTEM_NOT_READY: system not yet initialized"
    seen = tuple(replace(each, log=log) if each.check == "devices" else each for each in seen)
    case = Case(SYNTHETIC, box(*TWO, results=seen), "devices", "FAIL", ("0 of 2 GPUs", "Fabric Manager", "systemctl"))
    assert case.mistakes() == []


def test_errors_since_the_driver_was_loaded_are_a_note():
    """Whenever they were, links correct them: what they come to during the run is judged."""
    (found,) = nvlink(box(replace(SWITCHED, nvlink_replays=3, nvlink_crc_errors=9)))
    assert found.status == "PASS"
    assert (
        found.message == "12 of 12 NVLinks are up; since the driver was loaded they counted replays: 3, CRC errors: 9"
    )
    assert "nvlink -e -i 0" in found.fix


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        # DCGM's unit tests of MonitorNVLink4Fields: replays and recoveries always fail, CRC errors from 100 per second.
        pytest.param({"nvlink_replays": 6}, "FAIL", "replays: 1", id="change=replays"),
        pytest.param({"nvlink_recoveries": 1}, "FAIL", "recoveries: 1", id="change=recoveries"),
        pytest.param({"nvlink_crc_errors": 11_999}, "PASS", "CRC errors: 11999", id="change=99 per second"),
        pytest.param({"nvlink_crc_errors": 12_000}, "FAIL", "CRC errors: 12000", id="change=100 per second"),
        pytest.param({"nvlinks": ("switch",) * 11 + ("down",)}, "FAIL", "1 of its NVLinks went down", id="change=down"),
    ],
)
def test_links_after_load(changes, status, words):
    """Within two minutes more errors than DCGM allows fail, and so does a link that went down."""
    before = replace(SWITCHED, nvlink_replays=5)
    (found,) = link_changes(before, replace(before, **changes), 2.0)
    assert (found.check, found.status, found.device) == ("nvlink", status, "GPU 0")
    assert words in found.message
    assert "nvlink -e -i 0" in found.fix


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(A100, A100, id="links=none"),
        pytest.param(SWITCHED, SWITCHED, id="change=none"),
        pytest.param(replace(SWITCHED, nvlink_replays=5), SWITCHED, id="change=driver loaded anew"),
        pytest.param(SWITCHED, replace(SWITCHED, nvlink_replays=None), id="change=no longer known"),
        pytest.param(SWITCHED, replace(A100, error="GPU is lost"), id="after=lost"),
    ],
)
def test_links_that_load_left_alone(before, after):
    """Where no count grew and no link went down, or that isn't known, there is no finding."""
    assert list(link_changes(before, after, 2.0)) == []
