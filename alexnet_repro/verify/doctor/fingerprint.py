"""What identifies this machine and its software: bits and speed are compared only where it is the same.

Unlike the rest of the doctor it imports Keras.
"""

import contextlib
import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras

from alexnet_repro.backend.devices import thread_counts
from alexnet_repro.packages import installed_packages, package_version
from alexnet_repro.verify.doctor.environment import Environment
from alexnet_repro.verify.doctor.installation import DRIVER
from alexnet_repro.verify.doctor.inventory import device_inventory
from alexnet_repro.verify.doctor.settings import KERAS, SETTINGS, recorded_settings

# Packages whose kernels, random numbers or choices decide bits; on a GPU, those of CUDA and of its compilers as well.
NUMERIC_PACKAGES = (
    *("keras", "numpy", "tensorflow", "jax", "jaxlib", "torch"),
    *("nvidia-cublas", "nvidia-cublas-cu12", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13"),
)
CUDA_PACKAGES = ("nvidia-", "jax-cuda", "triton", "pytorch-triton")
# Environment variables that change speed alone, by threads of NumPy's.
SPEED_SETTINGS = ("OMP_NUM_THREADS",)
CPUINFO = Path("/proc/cpuinfo")
# On x86, then on ARM.
CPU_FIELDS = (
    *("vendor_id", "cpu family", "model", "stepping", "cache size"),
    *("CPU implementer", "CPU variant", "CPU part", "CPU revision", "Features"),
)


def cpu_fields(cpuinfo: Path = CPUINFO) -> dict[str, str]:
    """Return what Linux tells of the first processor, by field; nothing on another system.

    Not py-cpuinfo's: it takes a second, and spells flags otherwise than the digests on file.
    """
    try:
        first = cpuinfo.read_text().split("\n\n")[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}


def cpu_identity(cpuinfo: Path = CPUINFO) -> dict[str, Any]:
    """Return the processor's kind and its vector instructions, which decide bits."""
    if not (fields := cpu_fields(cpuinfo)):
        return {"model": platform.processor() or platform.machine()}
    flags = fields.get("flags", "").split()
    vectors = sorted(flag for flag in flags if flag in ("avx", "avx2", "fma") or flag.startswith(("avx512", "amx")))
    return {**{name: fields[name] for name in CPU_FIELDS if name in fields}, "vectors": vectors}


def kind_of(device: str, names: Mapping[str, str], cpuinfo: Path = CPUINFO) -> str:
    """Return a device's name: a GPU's among `names`, by device, or the CPU's model and number of processors."""
    if device.startswith("gpu"):
        return names[device]
    fields = cpu_fields(cpuinfo)
    family = " ".join(f"{name} {fields[name]}" for name in ("cpu family", "model") if name in fields)
    name = " ".join(filter(None, (fields.get("model name"), family))) or platform.processor() or platform.machine()
    return f"{name}, {thread_counts()['processors']} processors"


def boot_of(device: str, cpuinfo: Path = CPUINFO, boot: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Return a hash of a virtual machine's last start, for its CPU; empty for a GPU, and on real hardware.

    Virtual machines of one name run on different hosts, and may move when they start anew. Linux
    marks one by the flag `hypervisor`.
    """
    if device.startswith("cpu") and "hypervisor" in cpu_fields(cpuinfo).get("flags", "").split():
        with contextlib.suppress(OSError):
            return hashlib.sha256(boot.read_bytes().strip()).hexdigest()[:12]
    return ""


def packages(*, gpu: bool) -> dict[str, str]:
    """Return the versions of the installed packages that decide bits, on a GPU or on a CPU, by name."""
    found = {name: version for name in NUMERIC_PACKAGES if (version := package_version(name))}
    every = {each.name: each.version for each in installed_packages()[0]} if gpu else {}
    cuda = {name for name in every if name.startswith(CUDA_PACKAGES) and name != "nvidia-ml-py"}  # it only queries
    return found | {name: every[name] for name in sorted(cuda)}


def _libraries_of_no_package(here: Environment) -> list[str]:
    """Return the file names, which end in versions, of CUDA's libraries that TensorFlow takes from the system."""
    paths = [Path(each.path).resolve() for each in here.libraries if each.path.startswith("/") and each.wheel != DRIVER]
    return sorted({path.name for path in paths if not {"site-packages", "dist-packages"} & {*path.parts}})


def environment_of(device: str, here: Environment) -> dict[str, Any]:
    """Return all that is known to decide bits on a device."""
    gpu = not device.startswith("cpu")
    common: dict[str, Any] = {"packages": packages(gpu=gpu), "settings": _settings(device, here, speed=False)}
    if gpu and (names := _libraries_of_no_package(here)):
        common["libraries"] = names
    if device.startswith("cpu"):
        threads = thread_counts()
        if keras.backend.backend() == "tensorflow":
            threads["inter_op"] = 0  # the order of whole operations decides no bits
        return {**common, "cpu": cpu_identity(), "threads": threads}
    name = here.seen_gpus[device]
    capability = next((gpu.capability for gpu in here.nvidia.gpus if gpu.name == name), None)
    return {**common, "gpu": name, "capability": list(capability or ()), "driver": here.nvidia.driver}


def speed_environment(device: str, here: Environment) -> dict[str, Any]:
    """Return all that is known to decide speed on a device; for a GPU, the CPU that launches its work as well."""
    settings = {name: SETTINGS[name].parse(os.environ.get(name, "")) for name in SPEED_SETTINGS}
    settings = {name: count for name, count in settings.items() if count not in (None, here.defaults.get(name))}
    if keras.backend.backend() != "tensorflow":
        settings["KERAS_BACKEND"] = keras.backend.backend()
    found = {**environment_of("cpu:0", here), **environment_of(device, here), "threads": thread_counts()}
    python = ".".join(platform.python_version_tuple()[:2])
    settings = {**_settings(device, here, speed=True), **settings}
    return {**found, **_quota(here), "settings": settings, "python": python}


def _settings(device: str, here: Environment, *, speed: bool) -> dict[str, str]:
    """Return the settings by meaning; Keras's are those that it computes with."""
    own = {"floatx": str(keras.config.floatx()), "epsilon": str(keras.config.epsilon())}
    settings = {**here.settings, **{f"{KERAS}{name}": value for name, value in own.items()}}
    gpu = device.startswith("gpu")
    return recorded_settings(settings, here.backend, here.defaults, gpu=gpu, speed=speed)


def machine_of(here: Environment) -> dict[str, Any]:
    """Return what else is worth knowing of this machine, beside a result; no name of it."""
    cpu = {"cpu": kind_of("cpu:0", {}), **_quota(here)}
    return {"system": here.system, "container": here.container, **cpu, "gpus": list(here.seen_gpus.values())}


def machine_record(here: Environment) -> dict[str, Any]:
    """Return a machine, its software, and of each device what it is and what decides its bits and its speed.

    `devices`, those that are verified, are none yet. A GPU that the backend doesn't see has no environment.
    """
    inventory = {}
    for device in ("cpu:0", *here.all_gpus):
        if device in here.seen_devices:
            kind = kind_of(device, here.seen_gpus)
            of_device = {"bits": environment_of(device, here), "speed": speed_environment(device, here)}
        else:
            gpu = here.gpu_of(device)
            kind, of_device = gpu.name if gpu else "", {"bits": {}, "speed": {}}
        inventory[device] = asdict(device_inventory(device, here, kind, **of_device))
    software = inventory["cpu:0"]["speed"]
    return {
        "devices": [],
        **machine_of(here),
        "gpu_uuids": [gpu.uuid for gpu in here.nvidia.gpus],
        "threads": thread_counts(),
        "driver": here.nvidia.driver,
        **{name: software[name] for name in ("packages", "settings")},
        "inventory": inventory,
    }


def _quota(here: Environment) -> dict[str, float]:
    """Return what a quota leaves of the processors' time; nothing where there is none."""
    return {"cpu_quota": here.cpu_quota} if here.cpu_quota else {}
