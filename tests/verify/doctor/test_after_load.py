"""What the driver counts between two readings is a finding, by NVIDIA's limits; what it doesn't count is none."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from alexnet_repro.verify.doctor import after_load as module
from alexnet_repro.verify.doctor.after_load import LoadWatch, changes, errors_in_the_log
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
    ids=lambda value: f"change={value}" if isinstance(value, dict) else None,
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


@pytest.mark.parametrize(
    ("xids", "found"),
    [
        ({}, []),
        ({31: 2}, [("PASS", "Xid 31, an error of a program, 2 times")]),
        ({79: 1, 13: 1}, [("PASS", "Xid 13, an error of a program"), ("FAIL", "Xid 79, an error of the hardware")]),
        ({48: 1}, [("FAIL", "Xid 48")]),
    ],
    ids=lambda value: f"xids={' '.join(map(str, value))}" if isinstance(value, dict) else f"found={len(value)}",
)
def test_errors_in_the_log(xids, found):
    """A program's error leaves the GPU well by NVIDIA's list; any other is a fault."""
    said = list(errors_in_the_log(KNOWN, xids))
    assert [each.status for each in said] == [status for status, _ in found]
    assert all(words in each.message and each.fix for each, (_, words) in zip(said, found, strict=True))


@pytest.fixture
def now(monkeypatch):
    """Return a function that has the driver report this from now on, and these Xids by UUID."""

    def become(nvidia, **xids):
        monkeypatch.setattr(module, "read_gpus", lambda here: replace(here, nvidia=nvidia))
        of_uuid = {uuid.replace("_", "-"): {xid: 1} for uuid, xid in xids.items()}
        watch = lambda uuids: SimpleNamespace(  # noqa: E731
            stop=lambda: {uuid: found for uuid, found in of_uuid.items() if uuid in uuids}
        )
        monkeypatch.setattr(module, "XidWatch", watch)

    return become


def statuses(here, device=""):
    """Return what a load is found to have done, with the GPUs named."""
    return [(each.status, each.device) for each in LoadWatch(here, device).findings()]


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
    """Each GPU is compared with itself, and one that is gone has failed; where nothing is wrong, it passes."""
    now(Nvidia(gpus=later))
    assert statuses(box(*TWO)) == found


def test_one_device(now):
    """A device's own GPU alone is compared, by CUDA's names; where it isn't known which it is, none."""
    now(Nvidia(gpus=(replace(TWO[0], remap_pending=True), TWO[1])), GPU_b=31)
    assert statuses(box(*TWO), "gpu:0") == [("FAIL", "GPU 0")]
    assert statuses(box(*TWO), "gpu:1") == [("PASS", ""), ("PASS", "GPU 1")]
    assert statuses(box(*TWO, settings={"CUDA_VISIBLE_DEVICES": "1,0"}), "gpu:1") == [("FAIL", "GPU 0")]
    assert statuses(box(T4, TWO[1]), "gpu:0") == []


def test_xid_under_load(now):
    """An Xid of the hardware is a fault, though the driver counts nothing."""
    now(Nvidia(gpus=TWO), GPU_b=79)
    assert statuses(box(*TWO)) == [("FAIL", "GPU 1")]


@pytest.mark.parametrize(
    ("error", "status"), [("no answer within 60 s, after 0 GPUs", "FAIL"), ("exit status 1", "INCONCLUSIVE")]
)
def test_driver_that_no_longer_answers(now, error, status):
    """A driver that hangs by now has failed; a process that only couldn't ask is inconclusive."""
    now(Nvidia(error=error))
    (found,) = LoadWatch(box(A100)).findings()
    assert (found.check, found.status) == ("after load", status)
    assert found.fix


def test_no_gpu(now):
    """Without a GPU, or of one that the driver had lost before, there is nothing to compare."""
    now(Nvidia(error="must not matter"))
    assert statuses(CPU) == []
    assert statuses(box(replace(A100, error="GPU is lost"))) == []
