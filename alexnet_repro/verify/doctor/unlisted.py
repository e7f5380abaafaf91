"""Signs of GPUs that NVIDIA's driver doesn't list here: Windows', a Jetson's, withheld ones, and other makers'."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PCI = "sys/bus/pci/devices"
NVIDIA = "0x10de"
OTHERS = {"0x1002": "AMD", "0x8086": "Intel"}  # by PCI's number of the vendor
GPU_CLASSES = ("0x0300", "0x0302", "0x0380", "0x1200")  # VGA, 3D and other display controllers, accelerators
# Kernel drivers that hold a device for a virtual machine.
FOR_VMS = ("vfio", "pci-stub", "pciback")
# Where Windows puts its driver's libraries: learn.microsoft.com/windows/wsl; NVIDIA's are there if its driver is.
WSL_LIBRARIES = "usr/lib/wsl/lib"
OS_RELEASE = "proc/sys/kernel/osrelease"  # the host's, in a container too
# What a Jetson has and nothing else; a container has the first ones where it was given the GPU.
JETSON_FILES = ("dev/nvhost-*", "dev/nvgpu", "etc/nv_tegra_release")
JETSON_TEXTS = {
    "proc/device-tree/model": ("jetson", "tegra"),
    "proc/device-tree/compatible": ("nvidia,tegra",),
    OS_RELEASE: ("-tegra",),
}


@dataclass(frozen=True)
class Unlisted:
    """What files show of GPUs, beside NVIDIA's own device files."""

    wsl: str = ""  # the folder of CUDA's library, where Windows' NVIDIA driver brings it
    jetson: str = ""  # the file that shows it
    pci: tuple[str, ...] = ()  # kernel drivers of NVIDIA's GPUs on the bus; empty: none is bound
    for_vms: tuple[str, ...] = ()  # NVIDIA's GPUs on the bus that are held for virtual machines, as "address (driver)"
    others: tuple[str, ...] = ()  # of other makers, as "AMD (amdgpu)"

    @property
    def given(self) -> bool:
        """Return whether this process was given Windows' GPU, or a Jetson's."""
        return bool(self.wsl) or self.jetson.startswith("/dev/")


def read_unlisted(root: Path) -> Unlisted:
    """Return the signs below `root`."""
    pci: list[str] = []
    for_vms: list[str] = []
    others: list[str] = []
    for address, vendor, driver in _pci_gpus(root):
        if vendor != NVIDIA:
            others.append(f"{OTHERS[vendor]} ({driver or 'no kernel driver'})")
        elif any(part in driver for part in FOR_VMS):
            for_vms.append(f"{address} ({driver})")
        else:
            pci.append(driver)
    if (root / "dev/kfd").exists():
        others.append("AMD's /dev/kfd")
    wsl = ""
    if (root / "dev/dxg").exists():
        wsl = f"/{WSL_LIBRARIES}" if (root / WSL_LIBRARIES / "libcuda.so.1").exists() else ""
        others += [] if wsl else [f"Windows' /dev/dxg, without NVIDIA's libraries in /{WSL_LIBRARIES}"]
    elif "microsoft" in text_of(root / OS_RELEASE).casefold():
        others.append("Windows' Linux, which was given no /dev/dxg")
    if not others and not pci:
        others += [f"/dev/dri/{path.name}" for path in sorted((root / "dev/dri").glob("renderD*"))]
    if sys.platform == "darwin" and not others:
        others.append("Apple (Metal)")
    return Unlisted(wsl, _jetson(root), tuple(pci), tuple(for_vms), tuple(dict.fromkeys(others)))


def _pci_gpus(root: Path) -> Iterator[tuple[str, str, str]]:
    """Yield address, vendor and kernel driver of each GPU on the PCI bus."""
    for device in sorted((root / PCI).glob("*")):
        vendor = text_of(device / "vendor").strip()
        if text_of(device / "class").startswith(GPU_CLASSES) and (vendor == NVIDIA or vendor in OTHERS):
            lines = dict(line.split("=", 1) for line in text_of(device / "uevent").splitlines() if "=" in line)
            yield device.name, vendor, lines.get("DRIVER", "")


def _jetson(root: Path) -> str:
    for pattern in JETSON_FILES:
        if found := sorted(root.glob(pattern)):
            return f"/{found[0].relative_to(root).as_posix()}"
    for name, words in JETSON_TEXTS.items():
        text = text_of(root / name).casefold()
        if any(word in text for word in words):
            return f"/{name}"
    return ""


def text_of(path: Path) -> str:
    """Return what a file holds; empty: it isn't there, or can't be read."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""
