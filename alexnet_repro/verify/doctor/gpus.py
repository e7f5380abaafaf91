"""Is each GPU there, and within TensorFlow's reach? Pure functions from the environment's record to findings.

A GPU is named as nvidia-smi names it (GPU 0) where the driver speaks of it, and as TensorFlow does
(gpu:0) where TensorFlow does; CUDA may number them in another order.
"""

from collections import Counter
from collections.abc import Iterator

from alexnet_repro.verify.doctor.environment import CONTROL_FILES, Environment
from alexnet_repro.verify.doctor.software import INSTALL_DRIVER
from alexnet_repro.verify.finding import Finding

GIB = 2**30

GIVE_GPUS = {
    "kubernetes": "ask for it in the pod's spec: resources: {limits: {nvidia.com/gpu: 1}}",
    "apptainer": "apptainer exec --nv …",
    "podman": "podman run --device nvidia.com/gpu=all …",
}
DOCKER_GPUS = "docker run --gpus all …"

# What NVML's words mean, and what to do.
NVML_ERRORS = {
    "version mismatch": ("the driver's libraries and its kernel module differ: it was updated", "sudo reboot"),
    "Driver Not Loaded": ("the NVIDIA driver isn't loaded", f"sudo modprobe nvidia; if that fails: {INSTALL_DRIVER}"),
    "Library Not Found": ("the NVIDIA driver's libraries aren't here", INSTALL_DRIVER),
    "nvidia-ml-py": ("the driver can't be asked", "pip install nvidia-ml-py"),
    "Unknown Error": (
        "the driver refuses to answer: a container loses its GPUs when the host's systemd reloads",
        "restart the container, with --device=/dev/nvidia0 --device=/dev/nvidiactl --device=/dev/nvidia-uvm",
    ),
    "Permissions": ("this user may not ask the driver", "sudo usermod -aG video,render $USER; then log in again"),
    "no answer": ("the driver hangs", "sudo dmesg | grep -i xid; then: sudo reboot"),
}


def presence(here: Environment) -> Iterator[Finding]:
    """A GPU, and its device files."""
    asked = here.require_gpu
    if not here.gpus_in_machine:
        yield Finding(
            "gpu",
            "FAIL" if asked else "PASS",
            "no NVIDIA GPU in this machine: the GPU part wasn't run",
            "no device files, none on the PCI bus, none listed by a driver",
            f"run it where a GPU is{f'; {_give(here)}' if here.container else ''}" if asked else "",
        )
        return
    found = f"{len(here.device_files)} device files, {here.listed_by_driver} listed by the driver, "
    found += f"{here.on_pci_bus} on the PCI bus, {len(here.nvidia.gpus)} by NVML"
    if here.container and not here.device_files and not here.nvidia.gpus:
        yield Finding(
            "device files", "FAIL", f"this {here.container} container was given none of the GPUs", found, _give(here)
        )
    missing = [name for name in CONTROL_FILES if name not in here.control_files]
    if here.container and here.device_files and missing:
        message = f"this {here.container} container was given GPUs without {' and '.join(missing)}"
        yield Finding("device files", "FAIL", message, found, _give(here))
    if here.withheld:
        message = f"{len(here.withheld)} of {len(here.device_files)} GPUs aren't given to this job: not looked at"
        yield Finding("device files", "PASS", message, ", ".join(here.withheld))
    for path, why in () if here.withheld else here.nvidia.closed.items():
        fix = _give(here) if here.container else "sudo usermod -aG video,render $USER; then log in again"
        yield Finding("device files", "FAIL", f"{path} can't be opened", why, fix)
    yield Finding("gpu", "PASS", f"{here.gpus_in_machine} in this machine", found)


def _give(here: Environment) -> str:
    return GIVE_GPUS.get(here.container or "", DOCKER_GPUS)


def driver(here: Environment) -> Iterator[Finding]:
    """A driver that answers, for each GPU."""
    if not here.gpus_in_machine:
        return
    error = here.nvidia.error
    if error:
        known = (value for words, value in NVML_ERRORS.items() if words.casefold() in error.casefold())
        message, fix = next(known, ("the NVIDIA driver doesn't answer", "nvidia-smi; sudo dmesg | grep -i nvrm"))
        if here.container and error.endswith(("Not Found", "Not Loaded")):  # it has no driver of its own
            fix = _give(here)
        doubt = "nvidia-ml-py" in error
        yield Finding("driver", "INCONCLUSIVE" if doubt else "FAIL", message, f"NVML: {error}", fix)
    else:
        cuda = ".".join(map(str, here.nvidia.cuda or ()))
        yield Finding("driver", "PASS", f"{here.nvidia.driver}, for CUDA up to {cuda}")
    for gpu in here.chosen_gpus:
        if gpu.error:
            fix = f"sudo nvidia-smi -r -i {gpu.index}; if it is still lost: sudo reboot"
            yield Finding("driver", "FAIL", "the driver has lost this GPU", gpu.error, fix, f"GPU {gpu.index}")


def visibility(here: Environment) -> Iterator[Finding]:
    """CUDA_VISIBLE_DEVICES hides nothing that is wanted, and names nothing that isn't there."""
    named, count = here.named_gpus, here.gpus_in_machine
    if named is None or not count:
        return
    said = f"CUDA_VISIBLE_DEVICES={here.settings['CUDA_VISIBLE_DEVICES']}"
    uuids = tuple(gpu.uuid for gpu in here.nvidia.gpus)
    wrong = [name for name in named if not _there(name, count, uuids)]
    if not named:
        yield Finding(
            "visible devices",
            "FAIL",
            f"CUDA_VISIBLE_DEVICES hides all {count} GPUs",
            said,
            "unset CUDA_VISIBLE_DEVICES",
        )
    elif wrong:
        yield Finding(
            "visible devices",
            "FAIL",
            f"CUDA_VISIBLE_DEVICES names {', '.join(wrong)}, which isn't there: CUDA ignores it and all after it",
            f"{said}; {count} GPUs",
            f"export CUDA_VISIBLE_DEVICES={','.join(map(str, range(count)))}",
        )
    else:
        yield Finding(
            "visible devices", "PASS", f"{len(named)} of {count} GPUs named; the others aren't looked at", said
        )


def _there(name: str, count: int, uuids: tuple[str, ...]) -> bool:
    if name.isdecimal():
        return int(name) < count
    return name.startswith("MIG-") or not uuids or any(uuid.startswith(name) for uuid in uuids)


def kernels(here: Environment) -> Iterator[Finding]:
    """TensorFlow has kernels for each GPU, and a driver that can compile those that it has as PTX alone.

    `sm_80` is machine code for 8.0 and later 8.x. `compute_90` is machine code and PTX; but the thousand small kernels
    that TensorFlow generates are there as PTX alone.
    """
    built = here.tensorflow.capabilities if here.tensorflow else ()
    for gpu in here.chosen_gpus:
        if gpu.capability is None or not built:
            continue
        major, minor = gpu.capability
        has = f"{gpu.name}, compute capability {major}.{minor}; built for {', '.join(built)}"
        device = f"GPU {gpu.index}"
        ours = [name for name in built if (major, 0) <= _capability(name) <= (major, minor)]
        if not ours:
            newer = (major, minor) > max(map(_capability, built))
            yield Finding(
                "kernels",
                "FAIL",
                f"this TensorFlow has no kernels for it: {'too new' if newer else 'too old'}",
                has,
                "docker run --gpus all -it nvcr.io/nvidia/tensorflow:25.02-tf2-py3, or a TensorFlow built for "
                f"sm_{major}{minor}",
                device,
            )
        elif _older_driver(here) and all(name.startswith("compute_") for name in ours):
            yield Finding(
                "kernels",
                "INCONCLUSIVE",
                "some of this TensorFlow's kernels for it are PTX, which a driver older than its CUDA may not compile",
                f"{has}; driver {here.nvidia.driver}",
                INSTALL_DRIVER,
                device,
            )
        else:
            yield Finding("kernels", "PASS", has, device=device)


def _older_driver(here: Environment) -> bool:
    built = here.tensorflow.cuda if here.tensorflow else None
    return bool(built and here.nvidia.cuda and here.nvidia.cuda < built[:2])


def _capability(name: str) -> tuple[int, int]:
    digits = name.partition("_")[2].rstrip("af")
    return int(digits[:-1]), int(digits[-1])


def mixed_gpu_models(here: Environment) -> Iterator[Finding]:
    """GPUs that work together are alike."""
    kinds = Counter((gpu.name, gpu.memory_total) for gpu in here.chosen_gpus if not gpu.error)
    if len(kinds) > 1:
        most = max(kinds, key=lambda kind: kinds[kind])
        alike = ",".join(gpu.uuid for gpu in here.chosen_gpus if (gpu.name, gpu.memory_total) == most)
        yield Finding(
            "mixed_gpu_models",
            "INCONCLUSIVE",
            "the GPUs differ: together they run at the slowest one's pace, and can't be compared with each other",
            ", ".join(f"{count} × {name} ({(memory or 0) / GIB:.0f} GiB)" for (name, memory), count in kinds.items()),
            f"export CUDA_VISIBLE_DEVICES={alike}",
        )
