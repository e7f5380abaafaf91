"""A device's handle is that of its own GPU, or slice, whatever CUDA's variables call it."""

from dataclasses import replace

import pytest

from alexnet_repro.verify.doctor import handles
from alexnet_repro.verify.doctor.handles import gpu_handle, slice_handle
from tests.helpers.machines import A100, T4, TWO
from tests.helpers.nvml import nvml_of, refusing, show

LONG = (replace(A100, uuid="GPU-8932f937-d72c"), replace(A100, index=1, uuid="GPU-8932aaaa-c106"))
MIXED = (replace(T4, index=0), replace(A100, index=1))
SLICES = {1: ("MIG-5a6b-1", "MIG-5c7d-2")}


@pytest.fixture
def cuda(monkeypatch):
    """CUDA, which numbers the second GPU first."""
    monkeypatch.setattr(handles, "_pci_bus", lambda number: (b"0000:01:00.0", b"0000:00:00.0")[number])


@pytest.mark.parametrize(
    ("gpus", "variables", "device", "index"),
    [
        pytest.param(TWO, {}, "gpu:1", 1, id="named=no"),
        pytest.param(TWO, {"visible": "1,0"}, "gpu:0", 1, id="named=numbers"),
        pytest.param(LONG, {"visible": "GPU-8932aaaa-c106"}, "gpu:0", 1, id="named=UUID"),
        pytest.param(LONG, {"visible": "GPU-8932a"}, "gpu:0", 1, id="named=abbreviated"),
        pytest.param(LONG, {"visible": "GPU-89"}, "gpu:0", None, id="named=two"),
        pytest.param(LONG, {"visible": "GPU-other"}, "gpu:0", None, id="named=another"),
        pytest.param(TWO, {"visible": "0"}, "gpu:1", None, id="named=fewer"),
        pytest.param(TWO, {"visible": "MIG-5c"}, "gpu:0", 1, id="named=slice"),
        pytest.param(TWO, {"visible": "MIG-ff"}, "gpu:0", None, id="named=other_slice"),
        pytest.param(MIXED, {}, "gpu:0", 1, id="models=mixed"),
        pytest.param(MIXED, {}, "gpu:1", 0, id="models=mixed, second"),
        pytest.param(MIXED, {"visible": "1"}, "gpu:0", 1, id="models=mixed, numbered"),
        pytest.param(MIXED, {"visible": "GPU-t"}, "gpu:0", 0, id="models=mixed, UUID"),
        pytest.param(MIXED, {"visible": "1", "order": "PCI_BUS_ID"}, "gpu:0", 1, id="models=mixed, in order"),
    ],
)
@pytest.mark.usefixtures("cuda")
def test_which_gpu(monkeypatch, gpus, variables, device, index):
    """Names may be abbreviated; among different models CUDA's own order counts; what isn't known isn't guessed."""
    show(monkeypatch, nvml_of(*gpus, slices=SLICES), *gpus, **variables)
    if index is None:
        with pytest.raises((LookupError, IndexError)):
            gpu_handle(device)
    else:
        assert gpu_handle(device)[1] == index


def test_another_gpu_is_lost(monkeypatch):
    """One that the driver has lost doesn't hide the others."""
    nvml = nvml_of(*TWO, nvmlDeviceGetHandleByIndex=lambda index: index or refusing())
    show(monkeypatch, nvml, *TWO)
    assert gpu_handle("gpu:1")[1] == 1


def test_name_that_is_no_text(monkeypatch):
    """A GPU whose name is no text, as under Windows, is found all the same."""
    show(monkeypatch, nvml_of(*TWO, nvmlDeviceGetName=lambda _: b"\xf8".decode()), *TWO)
    assert gpu_handle("gpu:1")[1] == 1


@pytest.mark.parametrize(
    ("visible", "handle"),
    [("MIG-5c", "MIG-5c7d-2"), ("MIG-5a6b-1", "MIG-5a6b-1"), ("MIG-5", None), ("1", None), ("0", 0)],
)
def test_slice_of_a_gpu(monkeypatch, visible, handle):
    """What can be used of a GPU in slices is the one that is named; which of them CUDA takes otherwise isn't known."""
    show(monkeypatch, nvml_of(*TWO, slices=SLICES), *TWO, visible=visible)
    if handle is None:
        with pytest.raises(LookupError):
            slice_handle("gpu:0")
    else:
        assert slice_handle("gpu:0")[1] == handle


class Cuda:
    """The driver's library, whose first device is at 65:00.0; `error` is what it answers."""

    def __init__(self, error=0):
        self.error = error

    def cuInit(self, _flags):  # noqa: N802 - CUDA's name
        return self.error

    def cuDeviceGet(self, device, number):  # noqa: N802
        device._obj.value = 10 + number
        return 0

    def cuDeviceGetPCIBusId(self, bus, _length, device):  # noqa: N802
        bus.value = {10: b"0000:65:00.0"}[device.value]
        return 0


def test_pci_bus(monkeypatch):
    """CUDA knows a number's bus; where it doesn't answer, the GPU isn't known."""
    monkeypatch.setattr(handles.ctypes, "CDLL", lambda _: Cuda())
    assert handles._pci_bus(0) == b"0000:65:00.0"
    monkeypatch.setattr(handles.ctypes, "CDLL", lambda _: Cuda(error=999))
    with pytest.raises(LookupError):
        handles._pci_bus(0)
