"""What a machine and its devices are in a fleet: names, serials, firmware; what isn't known is null."""

import socket
from dataclasses import asdict, replace

import pytest

from alexnet_repro.verify.doctor import fingerprint
from alexnet_repro.verify.doctor.inventory import (
    device_inventory,
    machine_identity,
    machine_serials,
    node_name,
    serial_of,
)
from alexnet_repro.verify.doctor.nvidia import Gpu
from tests.helpers.machines import A100, CPU, GIB, T4, box, write

DMI = "sys/class/dmi/id"
H100 = replace(
    A100,
    name="NVIDIA H100 80GB HBM3",
    serial="1320221015912",
    vbios="96.00.89.00.01",
    board="900-2G520-0000-000",
    pci_bus_id="00000000:1B:00.0",
    power_limit=650_000,
    default_power_limit=700_000,
    pcie_generation=4,
    pcie_width=8,
    max_pcie_generation=5,
    max_pcie_width=16,
    ecc_corrected=3,
    ecc_uncorrected=0,
    all_corrected=12,
    all_uncorrected=1,
    remapped_rows=2,
)


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        pytest.param({"ALEXNET_REPRO_NODE": "r7n3", "SLURMD_NODENAME": "gpu-12"}, "r7n3", id="name=a person"),
        pytest.param({"SLURMD_NODENAME": "gpu-12"}, "gpu-12", id="name=Slurm"),
        pytest.param({"ALEXNET_REPRO_NODE": " \n"}, "a-pod-x7f2k", id="name=blanks"),
        pytest.param({}, "a-pod-x7f2k", id="name=its host"),
        pytest.param({"ALEXNET_REPRO_NODE": "r7\nn3\t"}, "r7 n3", id="name=two lines"),
        pytest.param({"ALEXNET_REPRO_NODE": "x" * 9999}, "x" * 255, id="name=a long name"),
    ],
)
def test_node_name(monkeypatch, environ, name):
    """A person's name for the node comes before Slurm's, and that before the host's; it is one line."""
    monkeypatch.setattr(socket, "gethostname", lambda: "a-pod-x7f2k")
    assert node_name(environ) == name


@pytest.mark.parametrize(
    ("files", "found"),
    [
        pytest.param({}, None, id="files=none"),
        pytest.param({"etc/machine-id": "3d12\n"}, "3d12", id="files=machine-id"),
        pytest.param({f"{DMI}/product_serial": "CZ123\n", "etc/machine-id": "3d12\n"}, "CZ123", id="files=serial"),
        pytest.param(
            {f"{DMI}/product_serial": "To be filled by O.E.M.\n", "etc/machine-id": "3d12\n"},
            *("3d12",),
            id="files=a placeholder",
        ),
        pytest.param({f"{DMI}/product_serial": "0000000\n"}, None, id="files=zeros"),
        pytest.param({"proc/device-tree/serial-number": "1421321\0"}, "1421321", id="files=of an ARM board"),
    ],
)
def test_machine_id(tmp_path, files, found):
    """It is the serial, else the id that Linux gave; what stands in place of a serial is none."""
    identity = machine_identity(write(tmp_path, files))
    assert identity["id"] == found
    assert identity["id_source"] == ("" if found is None else "machine-id" if found == "3d12" else "serial")


def test_firmware_of_a_machine(tmp_path):
    """BIOS, microcode and product are those that Linux tells; all serials that can be read are known."""
    files = {
        f"{DMI}/bios_version": "2.19.1\n",
        f"{DMI}/sys_vendor": "Dell Inc.\n",
        f"{DMI}/product_name": "PowerEdge XE9680\n",
        f"{DMI}/product_serial": "8XK2V14\n",
        f"{DMI}/product_uuid": "4c4c4544-0058\n",
        "etc/machine-id": "3d12\n",
        "proc/cpuinfo": "processor\t: 0\nmicrocode\t: 0x2b000603\n\nprocessor\t: 1\nmicrocode\t: 0x1\n",
    }
    assert machine_identity(write(tmp_path, files)) == {
        "id": "8XK2V14",
        "id_source": "serial",
        "machine_id": "3d12",
        "product": "Dell Inc. PowerEdge XE9680",
        "firmware": {"bios": "2.19.1", "microcode": "0x2b000603"},
    }
    assert machine_serials(tmp_path) == ["8XK2V14", "3d12", "4c4c4544-0058"]


@pytest.mark.parametrize("text", [None, "", "0", "N/A", "System Serial Number", "Default string"])
def test_no_serial(text):
    """What firmware has in place of a serial would make all machines one."""
    assert serial_of(text) is None


def test_inventory_of_a_gpu():
    """A GPU has its serial, place, firmware, memory, limits, link and error counts, in W and bytes."""
    found = device_inventory("gpu:0", box(H100), H100.name, bits={"driver": "x"}, speed={})
    assert asdict(found) == {
        "kind": "NVIDIA H100 80GB HBM3",
        "serial": "1320221015912",
        "uuid": "GPU-a",
        "board": "900-2G520-0000-000",
        "firmware": "96.00.89.00.01",
        "pci": "00000000:1B:00.0",
        "driver": "580.95.5",
        "memory": 80 * GIB,
        "power_limit": 650.0,
        "power_limit_default": 700.0,
        "pcie_generation": 4,
        "pcie_width": 8,
        "pcie_generation_max": 5,
        "pcie_width_max": 16,
        "ecc": True,
        "ecc_corrected": 3,
        "ecc_uncorrected": 0,
        "ecc_corrected_total": 12,
        "ecc_uncorrected_total": 1,
        "remapped_rows": 2,
        "retired_pages": None,
        "mig": False,
        "bits": {"driver": "x"},
        "speed": {},
    }


@pytest.mark.parametrize(
    ("device", "here", "known"),
    [
        pytest.param("gpu:0", box(Gpu(index=0, name="Old")), {"kind": "Old", "driver": "580.95.5"}, id="driver=old"),
        pytest.param("gpu:0", box(T4, A100), {"kind": "Old", "driver": "580.95.5"}, id="gpu=not known for sure"),
        pytest.param("cpu:0", CPU, {"kind": "Old", "memory": 64 * GIB}, id="device=a CPU"),
    ],
)
def test_what_isnt_known_is_null(monkeypatch, device, here, known):
    """What a driver doesn't report is null, never 0, and of a GPU that may be another nothing is known."""
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"total": 64 * GIB}))
    found = asdict(device_inventory(device, here, "Old", bits={}, speed={}))
    assert {name: value for name, value in found.items() if value is not None and value != {}} == known


def test_each_device_is_recorded():
    """A machine's record has each device's kind and environments, also of a GPU that the backend doesn't see."""
    here = box(H100, replace(H100, index=1, uuid="GPU-b", serial="2"))
    found = fingerprint.machine_record(replace(here, results=here.results[:1]))
    assert list(found["inventory"]) == ["cpu:0", "gpu:0", "gpu:1"]
    unseen = fingerprint.machine_record(replace(here, results=()))["inventory"]
    assert {name: (each["kind"], bool(each["bits"])) for name, each in unseen.items() if name != "cpu:0"} == {
        "gpu:0": ("NVIDIA H100 80GB HBM3", False),
        "gpu:1": ("NVIDIA H100 80GB HBM3", False),
    }
    seen = fingerprint.machine_record(here)
    assert seen["inventory"]["gpu:1"]["bits"] == fingerprint.environment_of("gpu:1", here)
    assert seen["inventory"]["gpu:1"]["speed"] == fingerprint.speed_environment("gpu:1", here)
    assert (seen["devices"], seen["gpu_uuids"], seen["driver"]) == ([], ["GPU-a", "GPU-b"], "580.95.5")
    assert set(seen) >= {"system", "container", "cpu", "gpus", "threads", "packages", "settings"}
