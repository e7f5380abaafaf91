"""The probes of the driver and the CUDA libraries, here and as NVML could answer elsewhere."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest

from alexnet_repro.verify.doctor import installation, nvidia
from alexnet_repro.verify.doctor.installation import find, read_libraries
from alexnet_repro.verify.doctor.nvidia import Gpu, read_nvidia
from tests.helpers.machines import TENSORFLOW, distribution, write


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ("first/libcudnn.so.9 site/nvidia/cudnn/lib/libcudnn.so.9", "first/libcudnn.so.9"),
        ("site/nvidia/cudnn/lib/libcudnn.so.9", "site/nvidia/cudnn/lib/libcudnn.so.9"),
        ("site/nvidia/cuda_runtime/lib/libcudnn.so.9", None),
    ],
)
def test_order_of_library_folders(tmp_path, monkeypatch, files, found):
    """In LD_LIBRARY_PATH, then in the wheels beside TensorFlow, then where the system's linker finds its name."""
    write(tmp_path, dict.fromkeys(files.split(), ""))
    monkeypatch.setenv("LD_LIBRARY_PATH", f":{tmp_path / 'first'}")
    path = find("libcudnn.so.9", "nvidia-cudnn-cu12", tmp_path / "site/tensorflow")
    assert path == (tmp_path / found if found else Path("libcudnn.so.9"))


def test_library_that_cant_be_loaded_is_named(tmp_path, monkeypatch):
    """One that is there is loaded; one that is damaged or missing has the linker's own message."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(write(tmp_path, {"libdamaged.so.1": "no library"})))
    names = ("libm.so.6" if sys.platform == "linux" else "libm.dylib", "libdamaged.so.1", "libmissing.so.1")
    monkeypatch.setattr(installation, "LIBRARIES", {12: dict.fromkeys(names, "nvidia-none-cu12")})
    good, damaged, missing = read_libraries(replace(TENSORFLOW, folder="/nowhere/tensorflow"), 60)
    assert (good.error, good.wheel) == (None, "nvidia-none-cu12")
    assert "libdamaged.so.1" in damaged.error
    assert damaged.path == str(tmp_path / "libdamaged.so.1")
    assert "libmissing.so.1" in missing.error


def test_this_machines_driver():
    """GPUs or an error, never neither; device files that can't be opened are named."""
    found = read_nvidia(["/dev/no-such-device"], 60)
    assert found.error or found.gpus
    assert list(found.closed) == ["/dev/no-such-device"]


def refuse(error):
    """Return a function that raises NVML's error, whatever its arguments."""

    def raises(*_):
        raise pynvml.NVMLError(error)

    return raises


# Older modules have but an older function.
FABRIC = next(name for name in ("nvmlDeviceGetGpuFabricInfoV", "nvmlDeviceGetGpuFabricInfo") if hasattr(pynvml, name))


@pytest.fixture
def driver(monkeypatch):
    """Return a function that has NVML give these answers, nothing else supported, and reads what the child answers."""

    def ask(**answers):
        for name in dir(pynvml):
            if name.startswith(("nvmlDeviceGet", "nvmlSystemGet")):
                monkeypatch.setattr(pynvml, name, refuse(pynvml.NVML_ERROR_NOT_SUPPORTED))
        defaults = {
            "nvmlInit": lambda: None,
            "nvmlSystemGetDriverVersion": lambda: "580.95.05",
            "nvmlSystemGetCudaDriverVersion": lambda: 13000,
            "nvmlDeviceGetCount": lambda: 1,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
        }
        for name, answer in {**defaults, **answers}.items():
            monkeypatch.setattr(pynvml, name, answer)
        given = [(name, {**json.loads(json.dumps(answer)), "log": ""}) for name, answer in nvidia.main()]
        monkeypatch.setattr(nvidia, "answers", lambda *_: iter(given))
        return read_nvidia([], 1)

    return ask


class _Memory:
    total, used = 80 * 2**30, 2**20


class _Process:
    pid, usedGpuMemory = 42, 512 * 2**20  # noqa: N815 - NVML's name


def test_driver_that_reports_everything(driver):
    """Each of NVML's answers ends up in its own field."""
    found = driver(
        nvmlDeviceGetName=lambda _: "NVIDIA A100-SXM4-80GB",
        nvmlDeviceGetUUID=lambda handle: {"slice 0": "MIG-0", "slice 1": "MIG-1"}.get(handle, "GPU-a"),
        nvmlDeviceGetSerial=lambda _: "1320221015912",
        nvmlDeviceGetVbiosVersion=lambda _: "92.00.45.00.03",
        nvmlDeviceGetBoardPartNumber=lambda _: b"699-2G506-0202-000",
        nvmlDeviceGetCudaComputeCapability=lambda _: (8, 0),
        nvmlDeviceGetMemoryInfo=lambda *_: _Memory,
        nvmlDeviceGetComputeRunningProcesses=lambda _: [_Process],
        nvmlSystemGetProcessName=lambda _: "python",
        nvmlDeviceGetPersistenceMode=lambda _: 0,
        nvmlDeviceGetMigMode=lambda _: [1, 1],
        nvmlDeviceGetMaxMigDeviceCount=lambda _: 7,
        nvmlDeviceGetMigDeviceHandleByIndex=lambda _, i: (
            f"slice {i}" if i < 2 else refuse(pynvml.NVML_ERROR_NOT_FOUND)()
        ),
        nvmlDeviceGetEccMode=lambda _: [1, 1],
        nvmlDeviceGetTotalEccErrors=lambda _, kind, counter: (
            {pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED: 3}.get(kind, 5) + (counter == pynvml.NVML_AGGREGATE_ECC)
        ),
        nvmlDeviceGetDefaultEccMode=lambda _: [1],
        nvmlDeviceGetRowRemapperHistogram=lambda _: SimpleNamespace(none=7),
        nvmlDeviceGetFieldValues=lambda _, fields: [
            SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal={230: 2}[fields[0]]))
        ],
        nvmlDeviceGetViolationStatus=lambda _, policy: SimpleNamespace(
            violationTime={pynvml.NVML_PERF_POLICY_THERMAL: 8}[policy]
        ),
        nvmlDeviceGetEnforcedPowerLimit=lambda _: 150_000,
        nvmlDeviceGetPowerManagementDefaultLimit=lambda _: 400_000,
        nvmlDeviceGetPcieReplayCounter=lambda _: 9,
        nvmlDeviceGetGraphicsRunningProcesses=lambda _: [
            SimpleNamespace(usedGpuMemory=600),
            SimpleNamespace(usedGpuMemory=None),
        ],
        nvmlDeviceGetRetiredPages=lambda _, message: [1] * (1 + message),
        nvmlDeviceGetRetiredPagesPendingStatus=lambda _: 1,
        nvmlDeviceGetRemappedRows=lambda _: (1, 2, 1, 0),
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda _: 0x40,
        nvmlDeviceGetTemperature=lambda *_: 91,
    )
    assert (found.driver, found.cuda, found.error) == ("580.95.05", (13, 0), None)
    assert found.gpus == (
        Gpu(
            index=0,
            name="NVIDIA A100-SXM4-80GB",
            uuid="GPU-a",
            serial="1320221015912",
            vbios="92.00.45.00.03",
            board="699-2G506-0202-000",
            capability=(8, 0),
            memory_total=80 * 2**30,
            memory_used=2**20,
            processes=("pid 42 (python, 512 MiB)",),
            persistence=False,
            mig=True,
            mig_slices=2,
            mig_uuids=("MIG-0", "MIG-1"),
            ecc=True,
            ecc_uncorrected=3,
            ecc_corrected=5,
            default_ecc=True,
            all_uncorrected=4,
            all_corrected=6,
            retired_pages=3,
            retirement_pending=True,
            remap_pending=True,
            remap_failed=False,
            remapped_rows=3,
            full_banks=7,
            recovery=2,
            throttle_reasons=0x40,
            temperature=91,
            throttled_by_heat=8,
            power_limit=150_000,
            default_power_limit=400_000,
            pcie_replays=9,
            desktop_memory=600,
        ),
    )


@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_UNKNOWN, pynvml.NVML_ERROR_GPU_IS_LOST])
def test_error_of_an_optional_answer(driver, error):
    """What few drivers answer may fail in any way: the GPU isn't lost by that, nor by a field it doesn't know."""
    unknown = SimpleNamespace(nvmlReturn=pynvml.NVML_ERROR_NOT_SUPPORTED, value=SimpleNamespace(uiVal=5))
    found = driver(
        nvmlDeviceGetViolationStatus=refuse(error),
        nvmlDeviceGetPcieReplayCounter=refuse(error),
        nvmlDeviceGetFieldValues=lambda *_: [unknown],
        nvmlDeviceGetSerial=refuse(error),
        nvmlDeviceGetVbiosVersion=refuse(error),
        nvmlDeviceGetBoardPartNumber=refuse(error),
    )
    assert found.gpus == (Gpu(index=0),)
    assert driver(nvmlDeviceGetTemperature=refuse(error)).gpus[0].error


class _Pci:
    busId = b"00000000:1B:00.0"  # noqa: N815 - NVML's name


def fabric(_, info):
    """Fill in NVML's structure, as its function does."""
    info._obj.state, info._obj.status, info._obj.healthMask = pynvml.NVML_GPU_FABRIC_STATE_COMPLETED, 0, 0x1AA
    return pynvml.NVML_SUCCESS


def only(*links):
    """Return a function of a GPU and a link that answers for links in turn; an exception's number is raised."""

    def answer(_, link, *__):
        if link >= len(links):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return links[link]

    return answer


def test_links_of_a_driver(driver):
    """Where each link leads, the errors of those that are up, and the fabric; more links don't count."""
    (gpu,) = driver(
        nvmlDeviceGetPciInfo=lambda _: _Pci,
        nvmlDeviceGetNvLinkState=only(1, 0, 1, 1, 1),
        nvmlDeviceGetNvLinkRemoteDeviceType=only(
            pynvml.NVML_NVLINK_DEVICE_TYPE_GPU,
            None,
            pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH,
            pynvml.NVML_NVLINK_DEVICE_TYPE_IBMNPU,
            pynvml.NVML_NVLINK_DEVICE_TYPE_UNKNOWN,
        ),
        nvmlDeviceGetNvLinkRemotePciInfo=lambda *_: _Pci,
        nvmlDeviceGetNvLinkErrorCounter=lambda _, link, kind: 10**kind if link else 0,
        **{FABRIC: fabric},
    ).gpus
    assert gpu.pci_bus_id == "00000000:1B:00.0"
    assert gpu.nvlinks == ("00000000:1B:00.0", "down", "switch", "cpu", "unknown")
    assert (gpu.nvlink_replays, gpu.nvlink_recoveries, gpu.nvlink_crc_errors) == (3, 30, 3300)
    assert (gpu.fabric_state, gpu.fabric_status, gpu.fabric_health) == (3, 0, 0x1AA)


@pytest.mark.parametrize("error", ["UNKNOWN", "NOT_SUPPORTED", "INVALID_ARGUMENT"])
def test_links_that_a_driver_cant_tell_of(driver, error):
    """A driver's error about links or their fabric is no fault of the GPU: they are unknown."""
    fail = refuse(getattr(pynvml, f"NVML_ERROR_{error}"))
    (gpu,) = driver(**{"nvmlDeviceGetNvLinkState": fail, FABRIC: fail}).gpus
    assert (gpu.nvlinks, gpu.nvlink_replays, gpu.fabric_state, gpu.error) == ((), None, None, None)


def test_older_driver_knows_an_older_fabric(driver):
    """Where the driver lacks the newer function the older one answers, which knows no health."""

    def older(_, info):
        info._obj.state = pynvml.NVML_GPU_FABRIC_STATE_IN_PROGRESS
        return pynvml.NVML_SUCCESS

    missing = refuse(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    (gpu,) = driver(**{FABRIC: missing, "nvmlDeviceGetGpuFabricInfo": older}).gpus
    assert (gpu.fabric_state, gpu.fabric_health) == (2, None)


def test_driver_that_reports_little(driver):
    """What isn't supported is unknown, not an error; a lost GPU is one, and the next is still queried."""
    lost = {
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda i: i or refuse(pynvml.NVML_ERROR_GPU_IS_LOST)(),
    }
    assert driver().gpus == (Gpu(index=0),)
    assert driver(**lost).gpus == (Gpu(index=0, error="GPU is lost"), Gpu(index=1))


def test_driver_that_doesnt_answer(driver):
    """The reason is NVML's own."""
    assert driver(nvmlInit=refuse(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)).error.endswith("version mismatch.")
    assert driver(nvmlInit=refuse(pynvml.NVML_ERROR_UNKNOWN)).error == "Unknown Error"


BEGINNING = """
class NVMLError(Exception): pass
def nvmlInit(): pass
def nvmlSystemGetCudaDriverVersion(): return 12040
def nvmlDeviceGetCount(): return 1
def nvmlDeviceGetHandleByIndex(index): return index
"""
BYTES = "def nvmlSystemGetDriverVersion(): return b'470.57.02'\ndef nvmlDeviceGetName(_): return b'Tesla T4'\n"
TEXT = "def nvmlSystemGetDriverVersion(): return '470.57.02'\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(BEGINNING + BYTES, "bytes", id="module=bytes"),
        pytest.param(BEGINNING + TEXT, "AttributeError", id="module=without symbols"),
        pytest.param("", "AttributeError", id="module=empty"),
        pytest.param("raise ImportError('libnvidia-ml')", "ImportError: libnvidia-ml", id="module=ImportError"),
        pytest.param("import no_such_module", "ModuleNotFoundError", id="module=of another module"),
        pytest.param("def f(:", "SyntaxError", id="module=SyntaxError"),
        pytest.param("raise SystemExit(3)", "SystemExit", id="module=SystemExit"),
        pytest.param("def nvmlInit(): raise OSError('no library')", "OSError: no library", id="module=OSError"),
    ],
)
def test_another_module_isnt_the_driver(tmp_path, monkeypatch, content, said):
    """Whatever a module named pynvml does, the driver's error is none, and the module and its package are named."""
    record = distribution("pynvml", "11.4.1", record="pynvml/__init__.py,,\n")
    monkeypatch.syspath_prepend(str(write(tmp_path, {**record, "pynvml/__init__.py": content})))
    monkeypatch.delitem(sys.modules, "pynvml")
    given = [(name, {**json.loads(json.dumps(answer)), "log": ""}) for name, answer in nvidia.main()]
    monkeypatch.setattr(nvidia, "answers", lambda *_: iter(given))
    found = read_nvidia([], 1)
    assert (found.error, found.intruder) == (None, "pynvml")
    assert str(tmp_path / "pynvml/__init__.py") in found.helper
    assert said in found.helper
    names = ["Tesla T4" if BYTES in content else ""] if BEGINNING in content else []
    assert found.gpus == tuple(Gpu(0, name=name) for name in names)


@pytest.mark.parametrize(
    ("files", "intruder"),
    [
        ({"pynvml.py": "", **distribution("nvidia-ml-py", "13.0", record="pynvml.py,,\n")}, ""),
        ({"pynvml.py": ""}, "pynvml.py"),
        ({"pynvml/x": ""}, "pynvml"),
    ],
    ids=["module=ours", "module=file", "module=folder"],
)
def test_module_without_a_package_of_its_own(tmp_path, monkeypatch, files, intruder):
    """A file or a folder that lies about is named by its path; a broken nvidia-ml-py is no other's module."""
    monkeypatch.setattr(sys, "path", [str(write(tmp_path, files))])
    monkeypatch.delitem(sys.modules, "pynvml")
    ((_, answer),) = nvidia.main()
    assert answer["intruder"] == (str(tmp_path / intruder) if intruder else "")
    assert "AttributeError" in answer["helper"]


def test_name_that_is_no_text(driver):
    """Some drivers under Windows answer with bytes that are no text: the name is unknown, and nothing is wrong."""

    def garbage(_):
        return b"\xf8".decode()

    assert driver(nvmlDeviceGetName=garbage).gpus == (Gpu(index=0),)
    assert driver(nvmlDeviceGetName=garbage).helper is None


def test_library_in_use_is_named(monkeypatch):
    """Of a library that the linker finds, the file that it took is named."""
    name = "libm.so.6" if sys.platform == "linux" else "libm.dylib"
    monkeypatch.setattr(installation, "LIBRARIES", {12: {name: "nvidia-none-cu12"}})
    (found,) = read_libraries(replace(TENSORFLOW, folder="/nowhere/tensorflow"), 60)
    assert Path(found.path).is_absolute() == (sys.platform == "linux")
