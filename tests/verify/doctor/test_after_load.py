"""What the driver counts between two readings is a finding, by NVIDIA's limits; what it doesn't count is none."""

from dataclasses import replace

import pytest

from alexnet_repro.verify.doctor import after_load as module
from alexnet_repro.verify.doctor.after_load import after_load, changes, read_gpus
from alexnet_repro.verify.doctor.nvidia import Nvidia
from tests.helpers.machines import A100, CPU, T4, TWO, box

KNOWN = replace(
    A100,
    all_uncorrected=2,
    all_corrected=9,
    retired_pages=1,
    retirement_pending=False,
    remapped_rows=3,
    recovery=0,
    pcie_replays=100,
    throttled_by_heat=5 * 10**9,
)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({}, None, ()),
        ({"ecc_uncorrected": 1, "all_uncorrected": 3}, "FAIL", ("1 errors of its memory couldn't be corrected",)),
        # A driver that was loaded anew has forgotten its own counts, not those of the GPU's life.
        ({"all_uncorrected": 4}, "FAIL", ("2 errors of its memory couldn't be corrected", "nvidia-smi -r -i 0")),
        ({"remap_failed": True}, "FAIL", ("couldn't be replaced", "board replaced")),
        ({"remap_pending": True}, "FAIL", ("a bad row of its memory waits", "nvidia-smi -r -i 0")),
        ({"retirement_pending": True}, "FAIL", ("pages of its memory wait",)),
        ({"remapped_rows": 5}, "FAIL", ("2 bad rows of its memory were marked",)),
        ({"retired_pages": 2}, "FAIL", ("1 pages of its memory were retired",)),
        ({"recovery": 2}, "FAIL", ("the driver asks for a reboot", "grep -i xid")),
        ({"error": "GPU is lost"}, "FAIL", ("lost this GPU", "GPU is lost", "sudo reboot")),
        ({"pcie_replays": 180}, None, ()),  # 8 a minute
        ({"pcie_replays": 190}, "INCONCLUSIVE", ("9 times per minute, of 8", "reseat")),
        ({"ecc_corrected": 3, "all_corrected": 12}, "PASS", ("3 errors of its memory were corrected",)),
        ({"throttled_by_heat": 17 * 10**9}, "PASS", ("heat lowered its clocks for 12.0 s",)),
        ({"all_uncorrected": None, "pcie_replays": 0, "remapped_rows": 0}, None, ()),
    ],
)
def test_changes(change, status, words):
    """What can't be corrected, or waits, fails; replays beyond DCGM's limit are inconclusive; the rest is a note."""
    found = list(changes(KNOWN, replace(KNOWN, **change), 10.0))
    assert [each.status for each in found] == ([status] if status else [])
    assert all(each.fix and each.evidence and each.device == "GPU 0" for each in found)
    assert [word for word in words if word not in "\n".join(map(str, found))] == []


def test_what_was_there_before_is_no_change():
    """An old fault is the doctor's, and isn't found again."""
    ill = replace(KNOWN, ecc_uncorrected=7, remap_failed=True, remap_pending=True, recovery=1)
    assert list(changes(ill, ill, 10.0)) == []


@pytest.fixture
def now(monkeypatch):
    """Return a function that has the driver report this from now on."""

    def become(nvidia):
        monkeypatch.setattr(module, "read_nvidia", lambda _files, _deadline: nvidia)

    return become


@pytest.mark.parametrize(
    ("later", "found"),
    [
        pytest.param(TWO, [("PASS", "")], id="later=the same"),
        pytest.param(TWO[::-1], [("PASS", "")], id="later=in another order"),
        pytest.param((TWO[0],), [("FAIL", "GPU 1")], id="later=one is gone"),
        pytest.param((replace(TWO[0], remap_pending=True), TWO[1]), [("FAIL", "GPU 0")], id="later=a bad row"),
        pytest.param(
            (replace(TWO[0], ecc_corrected=1), TWO[1]), [("PASS", ""), ("PASS", "GPU 0")], id="later=corrected"
        ),
    ],
)
def test_whole_machine(now, later, found):
    """Each GPU is compared with itself, and one that is gone has failed; where nothing is wrong, that is said."""
    now(Nvidia(gpus=later))
    assert [(each.status, each.device) for each in after_load(box(*TWO), 10.0)] == found


def test_one_device(now):
    """A device's own GPU alone is compared, by CUDA's names; where it isn't known which it is, none."""
    now(Nvidia(gpus=(replace(TWO[0], remap_pending=True), TWO[1])))
    assert [each.status for each in after_load(box(*TWO), 1.0, "gpu:0")] == ["FAIL"]
    assert [each.status for each in after_load(box(*TWO), 1.0, "gpu:1")] == ["PASS"]
    swapped = box(*TWO, settings={"CUDA_VISIBLE_DEVICES": "1,0"})
    assert [each.status for each in after_load(swapped, 1.0, "gpu:1")] == ["FAIL"]
    assert after_load(box(T4, TWO[1]), 1.0, "gpu:0") == []


@pytest.mark.parametrize(
    ("error", "status"), [("no answer within 60 s, after 0 GPUs", "FAIL"), ("exit status 1", "INCONCLUSIVE")]
)
def test_driver_that_no_longer_answers(now, error, status):
    """A driver that hangs by now has failed; a process that only couldn't ask is inconclusive."""
    now(Nvidia(error=error))
    (found,) = after_load(box(A100), 1.0)
    assert (found.check, found.status) == ("after load", status)
    assert found.fix


def test_no_gpu(now):
    """Without a GPU, or of one that the driver had lost before, there is nothing to compare."""
    now(Nvidia(error="must not matter"))
    assert after_load(CPU, 1.0) == []
    assert after_load(box(replace(A100, error="GPU is lost")), 1.0) == []


def test_reading(now):
    """What the driver reports now is the machine's."""
    now(Nvidia(gpus=TWO))
    assert read_gpus().nvidia.gpus == TWO
