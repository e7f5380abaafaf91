"""Are the GPUs there, and within TensorFlow's reach? Pure functions from the environment to findings.

A GPU is named as nvidia-smi names it (GPU 0) where the driver reports on it, and as TensorFlow does
(gpu:0) where TensorFlow does; CUDA may number them in another order.
"""

import re
from collections.abc import Iterator

from alexnet_repro.verify.doctor.environment import CONTROL_FILES, Environment, is_named
from alexnet_repro.verify.doctor.nvidia import Nvidia
from alexnet_repro.verify.doctor.remedies import (
    CAPABILITIES,
    INSTALL_DRIVER,
    VISIBLE,
    asked_by,
    give_gpus,
    install_driver,
    lacks,
    on_the_path,
    withheld_by,
)
from alexnet_repro.verify.finding import Finding, Status

JOIN_GPU_GROUPS = "sudo usermod -aG video,render $USER; then log in again"
ASK_FOR_GPUS = "srun --gpus=1 …; or: sbatch --gpus=1 …"  # elsewhere in a like way

# As TensorFlow and vendors name it. `compute_90a` is for that GPU alone.
PTX = re.compile(r"compute_\d+$|\d+\.\d+\+PTX$")
ANOTHER_TENSORFLOW = "docker run --gpus all -it nvcr.io/nvidia/tensorflow:25.02-tf2-py3, or a TensorFlow built for"

# Parts of NVML's error messages: what they mean, the status, and the fix.
Answer = tuple[str, Status, str]
NVML_ERRORS: dict[str, Answer] = {
    "version mismatch": ("the driver's libraries and its kernel module differ: it was updated", "FAIL", "sudo reboot"),
    "Driver Not Loaded": (
        "the NVIDIA driver isn't loaded",
        "FAIL",
        f"sudo modprobe nvidia; if that fails: {INSTALL_DRIVER}",
    ),
    "Library Not Found": ("the NVIDIA driver's libraries aren't installed", "FAIL", INSTALL_DRIVER),
    "operating system has blocked": ("the operating system gives no access to the GPU", "FAIL", INSTALL_DRIVER),
    "nvidia-ml-py": ("the driver can't be queried", "INCONCLUSIVE", "pip install nvidia-ml-py"),
    "Unknown Error": (
        "the driver refuses to answer: a container loses its GPUs when the host's systemd reloads",
        "FAIL",
        "restart the container, with --device=/dev/nvidia0 --device=/dev/nvidiactl --device=/dev/nvidia-uvm",
    ),
    "Permissions": ("this user may not query the driver", "FAIL", JOIN_GPU_GROUPS),
    "no answer within": ("the driver hangs", "FAIL", "sudo dmesg | grep -i xid; then: sudo reboot"),
    # How the process that asks may end by itself, or be ended: that says nothing of the driver.
    **dict.fromkeys(
        ("exit status", "SIGKILL", "SIGTERM", "SIGXCPU", "it ended without", "can't be read"),
        ("the driver wasn't queried", "INCONCLUSIVE", "python -c 'import pynvml; pynvml.nvmlInit()'"),
    ),
}
UNKNOWN_ERROR: Answer = ("the NVIDIA driver doesn't answer", "FAIL", "nvidia-smi; sudo dmesg | grep -i nvrm")


def presence(here: Environment) -> Iterator[Finding]:
    """A GPU, and its device files."""
    seen = here.unlisted
    found = f"{len(here.device_files)} device files, {here.listed_by_driver} listed by the driver, "
    found += f"{here.on_pci_bus} on the PCI bus, {len(here.nvidia.gpus)} by NVML"
    found += "".join(f"; {sign}" for sign in (seen.jetson, seen.wsl, *seen.others) if sign)
    if seen.for_vms:
        message = f"{len(seen.for_vms)} NVIDIA GPUs are held for virtual machines: not checked"
        yield Finding("device files", "PASS", message, ", ".join(seen.for_vms))
    if not here.gpus_in_machine:
        yield _absence(here, found)
        return
    missing = " and ".join(name for name in CONTROL_FILES if name not in here.control_files)
    none_given = here.container and not here.device_files and not here.nvidia.gpus and not seen.given
    if none_given or (here.container and here.device_files and missing and not seen.jetson):
        given = "none of the GPUs" if none_given else f"GPUs without {missing}"
        message = f"this {here.container} container was given {given}"
        if none_given and (by := withheld_by(here)):
            message += f": {by} withholds them"
        elif none_given and (by := asked_by(here)).startswith(VISIBLE):
            message += f", though {by} asks for them: NVIDIA's runtime didn't start it"
        yield Finding("device files", "FAIL", message, found, give_gpus(here))
    if here.withheld:
        message = f"{len(here.withheld)} of {len(here.device_files)} GPUs aren't given to this job: not checked"
        yield Finding("device files", "PASS", message, ", ".join(here.withheld))
    for path, reason in () if here.withheld else here.nvidia.closed.items():
        forbidden = "not permitted" in reason  # by a group of devices; a user who lacks a right is denied it
        fix = give_gpus(here) if here.container else ASK_FOR_GPUS if forbidden else JOIN_GPU_GROUPS
        yield Finding("device files", "FAIL", f"{path} can't be opened", reason, fix)
    yield Finding("gpu", "PASS", f"{here.gpus_in_machine} in this machine", found)


def _absence(here: Environment, found: str) -> Finding:
    """No NVIDIA GPU: a fault where one is required, a doubt where a variable asks for one by name."""
    asked, withheld = asked_by(here), withheld_by(here)
    message = "no NVIDIA GPU in this machine: the GPU checks weren't run"
    fix = f"run it on a machine with a GPU{f'; {give_gpus(here)}' if here.container or withheld else ''}"
    if withheld:
        message += f"; {withheld} gives this container none"
    if here.unlisted.others:
        message += "; other GPUs aren't verified, for this suite uses CUDA"
    if here.require_gpu:
        return Finding("gpu", "FAIL", message, found, fix)
    if asked:
        give = give_gpus(here) if asked.startswith("NVIDIA") else "ask for a GPU"
        fix = f"{give}; to verify the CPU: unset {asked.partition('=')[0]}"
        return Finding("gpu", "INCONCLUSIVE", f"{message}, though {asked} asks for one", found, fix)
    return Finding("gpu", "PASS", message, found, fix if withheld else "")


def driver(here: Environment) -> Iterator[Finding]:
    """A driver that answers, for each GPU."""
    if not here.gpus_in_machine:
        return
    if here.nvidia.helper or here.nvidia.error:
        message, status, fix = _helpless(here.nvidia) if here.nvidia.helper else _unanswered(here)
        evidence = here.nvidia.helper or f"NVML: {here.nvidia.error}"
        yield Finding("driver", status, message, evidence, fix)
    else:
        cuda = ".".join(map(str, here.nvidia.cuda or ()))
        yield Finding("driver", "PASS", f"{here.nvidia.driver}, for CUDA up to {cuda}")
    for gpu in here.chosen_gpus:
        if gpu.error:
            fix = f"sudo nvidia-smi -r -i {gpu.index}; if it is still lost: sudo reboot"
            yield Finding("driver", "FAIL", "the driver has lost this GPU", gpu.error, fix, f"GPU {gpu.index}")


def _unanswered(here: Environment) -> Answer:
    """Return why the driver's answers aren't there, or aren't whole."""
    error, seen = here.nvidia.error or "", here.unlisted
    missing, unloaded = "Not Found" in error, error.endswith(("Not Found", "Not Loaded"))
    known = (value for words, value in NVML_ERRORS.items() if words.casefold() in error.casefold())
    message, status, fix = next(known, UNKNOWN_ERROR)
    if missing and lacks(here, "utility"):
        message = f"{CAPABILITIES}={here.settings[CAPABILITIES]} gives no NVML: the driver can't be queried"
        status, fix = "INCONCLUSIVE", give_gpus(here)
    elif missing and seen.wsl:
        message, fix = f"Windows' GPU is here, but its libraries in {seen.wsl} aren't found", on_the_path(seen.wsl)
    elif missing and seen.jetson and (seen.given or not here.container):
        message = "this Jetson has no NVML: memory, clocks and health of its GPU aren't known"
        status, fix = "INCONCLUSIVE", "sudo apt install nvidia-l4t-nvml # JetPack 6 and newer"
    elif unloaded and (here.container or withheld_by(here)):  # a container has no driver of its own
        fix = give_gpus(here)
    elif unloaded and "nouveau" in seen.pci:
        message, fix = "the kernel's nouveau driver holds the GPU: CUDA needs NVIDIA's", INSTALL_DRIVER
    elif INSTALL_DRIVER in fix and (seen.wsl or seen.jetson):
        fix = install_driver(here)
    return message, status, fix


def _helpless(nvidia: Nvidia) -> Answer:
    """Return what is wrong with the module that asks the driver: nothing of the driver's."""
    name, install = nvidia.intruder, "pip install --upgrade --force-reinstall nvidia-ml-py"
    if not name:
        return "nvidia-ml-py is broken, or too old", "INCONCLUSIVE", install
    kind, remove = ("module", f"mv {name} {name}.other") if "/" in name else ("package", f"pip uninstall -y {name}")
    return f"another {kind} named pynvml is installed", "INCONCLUSIVE", f"{remove} && {install}"


def visibility(here: Environment) -> Iterator[Finding]:
    """CUDA_VISIBLE_DEVICES hides no GPU that is needed, and names none that doesn't exist."""
    named, count = here.named_gpus, here.gpus_in_machine
    if named is None or not count:
        return
    setting = f"CUDA_VISIBLE_DEVICES={here.settings['CUDA_VISIBLE_DEVICES']}"
    wrong = ", ".join(name for name in named if not _exists(name, here))
    check = "visible devices"
    if not named:
        message = f"CUDA_VISIBLE_DEVICES hides all {count} GPUs"
        slurm = setting.casefold().endswith("=nodevfiles")  # which Slurm sets for a job that asks for no GPU
        yield Finding(check, "FAIL", message, setting, ASK_FOR_GPUS if slurm else "unset CUDA_VISIBLE_DEVICES")
    elif wrong:
        message = f"CUDA_VISIBLE_DEVICES names {wrong}, which doesn't exist: CUDA ignores it and all after it"
        fix = f"export CUDA_VISIBLE_DEVICES={','.join(map(str, range(count)))}"
        yield Finding(check, "FAIL", message, f"{setting}; {count} GPUs", fix)
    else:
        yield Finding(check, "PASS", f"{len(named)} of {count} GPUs named; the others aren't checked", setting)


def _exists(name: str, here: Environment) -> bool:
    if name.isdecimal():
        return int(name) < here.gpus_in_machine
    gpus = here.nvidia.gpus  # which may not tell of their slices
    return name.startswith("MIG-") or not gpus or any(is_named(gpu, name) for gpu in gpus)


def kernels(here: Environment) -> Iterator[Finding]:
    """TensorFlow has kernels for each GPU, or PTX that the driver may compile: whether it can, the probes show.

    `sm_80` is machine code for 8.0 and later 8.x. `compute_90` is machine code and PTX, which is for all later GPUs as
    well; but the thousand small kernels that TensorFlow generates are there as PTX alone.
    """
    built = here.tensorflow.capabilities if here.tensorflow else ()
    cuda = here.tensorflow.cuda if here.tensorflow else None
    older_driver = bool(cuda and here.nvidia.cuda and here.nvidia.cuda < cuda[:2])
    for gpu in here.chosen_gpus:
        if gpu.capability is None or not built:
            continue
        major, minor = gpu.capability
        device = f"GPU {gpu.index}"
        has = f"{gpu.name}, compute capability {major}.{minor}; built for {', '.join(built)}"
        ours = [name for name in built if (major, 0) <= _capability(name) <= (major, minor)]
        ptx = [name for name in built if PTX.match(name) and _capability(name) <= (major, minor)]
        other = f"{ANOTHER_TENSORFLOW} sm_{major}{minor}"
        if not ours and ptx:
            message = "no machine code for it: the driver compiles what TensorFlow brings as PTX, at first for minutes"
            yield Finding("kernels", "PASS", message, has, other, device)
        elif not ours:
            age = "too new" if (major, minor) > max(map(_capability, built)) else "too old"
            message = f"this TensorFlow has no kernels for it: {age}"
            yield Finding("kernels", "FAIL", message, has, other, device)
        elif older_driver and all(name.startswith("compute_") for name in ours):
            message = "TensorFlow's kernels for it are partly PTX, which a driver older than its CUDA may not compile"
            evidence = f"{has}; driver {here.nvidia.driver}"
            yield Finding("kernels", "PASS", message, evidence, install_driver(here), device)
        else:
            yield Finding("kernels", "PASS", has, device=device)


def _capability(name: str) -> tuple[int, int]:
    digits = re.sub(r"\D", "", name)  # of sm_80, compute_90a, or 9.0, as a vendor may have it
    return int(digits[:-1] or 0), int(digits[-1:] or 0)
