"""The environment: one record of machine, settings, TensorFlow, driver, libraries and devices.

Nothing here imports TensorFlow or Keras; probes that could hang run in child processes.
"""

import contextlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count, takewhile
from pathlib import Path

from alexnet_repro.backend.limits import cpu_quota, usable_processors
from alexnet_repro.backend.memory_limits import MemoryLimit, memory_limits
from alexnet_repro.files import keras_home, keras_json
from alexnet_repro.verify.doctor.device_probe import NO_GPU, ProbeResult
from alexnet_repro.verify.doctor.installation import CudaPackages, Library, TensorFlow
from alexnet_repro.verify.doctor.nvidia import EXCLUSIVE, Gpu, Nvidia, read_nvidia
from alexnet_repro.verify.doctor.settings import KERAS, SETTINGS
from alexnet_repro.verify.doctor.unlisted import Unlisted, read_unlisted

GIB = 2**30
DRIVER_DEADLINE = 60.0  # seconds

CONTROL_FILES = ("nvidiactl", "nvidia-uvm")  # which CUDA needs beside each GPU's own

# By their full names: TF_ is Terraform's prefix too, and holds its passwords.
RECORDED_SETTINGS = (
    *(name for name in SETTINGS if not name.startswith(KERAS)),
    *("CUDA_CACHE_DISABLE", "CUDA_CACHE_MAXSIZE", "CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES"),
    *("KERAS_BACKEND", "KERAS_HOME", "LD_LIBRARY_PATH", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_VISIBLE_DEVICES"),
    *("JAX_PLATFORMS", "TF_NUM_INTEROP_THREADS"),
)
# Of which TensorFlow's oneDNN is on by default: its DefaultOneDnnPolicy; on ARM a Neoverse V1.
ONEDNN_FLAGS = frozenset(("avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"))
ONEDNN_PART = "0xd40"
# Limits of oneDNN's instructions that leave out none of a processor that has these: its cpu_isa_traits.hpp.
AMX_FLAGS = frozenset(("avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"))
AMX_LIMITS = ("avx10_1_512_amx", "avx10_1_512_amx_fp16")


@dataclass(frozen=True)
class Volume:
    """A folder that files are written to, its free bytes (None: unknown), and why it can't be written to, if so."""

    purpose: str
    path: str
    free: int | None
    problem: str = ""


@dataclass(frozen=True)
class Environment:
    """The diagnosis's record; the later fields are filled as their probes answer."""

    require_gpu: bool = False
    backend: str = "tensorflow"  # of Keras
    wanted: tuple[str, ...] = ()  # devices, as `gpu:1`; none: all
    python: str = ""
    system: str = ""
    container: str | None = None  # its kind
    settings: Mapping[str, str] = field(default_factory=dict)  # as `keras.floatx`, what keras.json has
    defaults: Mapping[str, str] = field(default_factory=dict)  # those of settings that depend on the machine
    device_files: tuple[str, ...] = ()
    control_files: tuple[str, ...] = ()  # those of CONTROL_FILES that exist
    listed_by_driver: int = 0
    on_pci_bus: int = 0  # without those that are held for virtual machines
    unlisted: Unlisted = field(default_factory=Unlisted)
    shared_memory: int | None = None
    memory: tuple[MemoryLimit, ...] = ()  # what limits it, that with the least left first
    processors: int = 0  # that this process may use
    cpu_quota: float | None = None  # how many processors' time a cgroup leaves; None: as many as there are
    volumes: tuple[Volume, ...] = ()
    tensorflow: TensorFlow | None = None
    nvidia: Nvidia = field(default_factory=Nvidia)
    cuda_packages: CudaPackages = field(default_factory=CudaPackages)
    libraries: tuple[Library, ...] = ()
    results: tuple[ProbeResult, ...] = ()

    @property
    def wants_gpus(self) -> bool:
        """Return whether GPUs are to be examined: not where the CPU alone is wanted."""
        return self.require_gpu or not self.wanted or any(device.startswith("gpu") for device in self.wanted)

    @property
    def gpus_in_machine(self) -> int:
        """Return the number of GPUs that this process should be able to use: given to it, or else in the machine."""
        files = len(self.device_files) - len(self.withheld)
        unlisted = int(bool(self.unlisted.wsl or self.unlisted.jetson))
        return files or len(self.nvidia.gpus) or self.listed_by_driver or self.on_pci_bus or unlisted

    @property
    def withheld(self) -> tuple[str, ...]:
        """Return the device files of GPUs that a batch system gave to others: the driver lists all those that open."""
        closed = tuple(self.nvidia.closed)
        open_ones = len(self.device_files) - len(closed)
        return closed if 0 < open_ones == len(self.nvidia.gpus) else ()

    @property
    def named_gpus(self) -> tuple[str, ...] | None:
        """Return the devices that CUDA_VISIBLE_DEVICES names, up to the first invalid one, as CUDA does."""
        visible = self.settings.get("CUDA_VISIBLE_DEVICES")
        if visible is None:
            return None
        names = tuple(takewhile(lambda name: name not in ("", "-1"), visible.replace(" ", "").split(",")))
        # A first name of another form, as Slurm's NoDevFiles, hides all; a later one is a mistake.
        return names if names and (names[0].isdecimal() or names[0].startswith(("GPU-", "MIG-"))) else ()

    @property
    def chosen_gpus(self) -> tuple[Gpu, ...]:
        """Return the driver's GPUs that are to be used; all, where CUDA may number them in another order."""
        if not self.wanted:
            return self._named(self.named_gpus)
        return self._named(tuple(self.wanted_gpus.values()))

    def cuda_name(self, device: str) -> str:
        """Return what CUDA_VISIBLE_DEVICES calls a GPU of the backend: an index, or a UUID, maybe abbreviated.

        Raises:
            IndexError: it doesn't name as many.
        """
        number = device.partition(":")[2]
        return self.named_gpus[int(number)] if self.named_gpus else number

    def gpu_of(self, device: str) -> Gpu | None:
        """Return the driver's GPU that a device of the backend is, or is a slice of.

        None where it isn't known: among different models CUDA numbers the fastest first, unless CUDA_DEVICE_ORDER says
        otherwise; and it takes no abbreviated UUID that several have.
        """
        with contextlib.suppress(IndexError):
            found = self._named((self.cuda_name(device),))
            return found[0] if len(found) == 1 else None
        return None

    @property
    def seen_gpus(self) -> dict[str, str]:
        """Return the product names of the GPUs that the backend sees, by device, as a child listed them.

        None where none did; where GPUs are wanted by name, of those alone.
        """
        listed = (each.data for each in self.results if (each.device, each.check) == ("cpu:0", "devices"))
        devices = self.wanted_gpus if self.wanted else ()
        names = map(str, next(listed, {}).get("gpus", ()))
        return dict(zip(devices or (f"gpu:{number}" for number in count()), names, strict=False))

    @property
    def seen_devices(self) -> tuple[str, ...]:
        """Return the devices that the backend can use."""
        return ("cpu:0", *self.seen_gpus)

    @property
    def wanted_gpus(self) -> dict[str, str]:
        """Return those of `cuda_names` that are wanted: all, where no device is named."""
        return {device: name for device, name in self.cuda_names.items() if not self.wanted or device in self.wanted}

    @property
    def cuda_names(self) -> dict[str, str]:
        """Return the name in CUDA_VISIBLE_DEVICES of each GPU that the backend should see, by device."""
        names = self.named_gpus or tuple(map(str, range(self.expected_gpus)))
        return {f"gpu:{number}": name for number, name in enumerate(names[: self.expected_gpus])}

    @property
    def all_gpus(self) -> tuple[str, ...]:
        """Return the devices that the backend should see, and those that it sees though no driver reports them."""
        return tuple(dict.fromkeys((*self.cuda_names, *self.seen_gpus)))

    @property
    def gpu_records(self) -> dict[str, Gpu]:
        """Return the driver's record of each GPU that the backend should see, by device, where it is known for sure."""
        return {device: gpu for device in self.cuda_names if (gpu := self.gpu_of(device))}

    def only(self, *devices: str) -> dict[str, str]:
        """Return the environment variables by which a child process sees these devices alone, its `gpu:0` and so on."""
        gpus = [self.cuda_name(device) for device in devices if device.startswith("gpu")]
        return {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else dict(NO_GPU)

    def for_one_process(self, device: str) -> bool:
        """Return whether only one process at a time may use a device; where its GPU isn't known, whether one of all."""
        gpu = self.gpu_of(device)
        gpus = (gpu,) if gpu else self.nvidia.gpus
        return device.startswith("gpu") and any(each.compute_mode in EXCLUSIVE for each in gpus)

    @property
    def needed_gpus(self) -> int:
        """Return the number of GPUs that the backend must see: those that are wanted by name, or all."""
        return len(self.wanted_gpus) or self.expected_gpus

    def _named(self, named: tuple[str, ...] | None) -> tuple[Gpu, ...]:
        gpus = self.nvidia.gpus
        if named is None:
            return gpus
        by_number = len({gpu.name for gpu in gpus}) <= 1 or self.settings.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
        if any(name.isdecimal() for name in named) and not by_number:
            return gpus
        return tuple(gpu for gpu in gpus if any(is_named(gpu, name) for name in named))

    @property
    def expected_gpus(self) -> int:
        """Return the number of GPUs that the backend should see; of MIG slices, a process gets just one."""
        count = self.gpus_in_machine if self.named_gpus is None else min(self.gpus_in_machine, len(self.named_gpus))
        return min(count, 1) if any(gpu.mig for gpu in self._named(self.named_gpus)) else count


def is_named(gpu: Gpu, name: str) -> bool:
    """Return whether CUDA_VISIBLE_DEVICES may mean this GPU, or a slice of it, by a name that may be abbreviated."""
    if name.startswith("MIG-"):
        return any(uuid.startswith(name) for uuid in gpu.mig_uuids) if gpu.mig_uuids else bool(gpu.mig)
    return int(name) == gpu.index if name.isdecimal() else gpu.uuid.startswith(name)


def read_machine(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> Environment:
    """Return the environment as files and settings show it; it takes milliseconds and uses no device."""
    unlisted = read_unlisted(root)
    nvidia_files = [path.name.removeprefix("nvidia") for path in (root / "dev").glob("nvidia*")]
    shared_memory = root / "dev/shm"
    return Environment(
        python=platform.python_version(),
        system=platform.platform(),
        container=_container(root, environ),
        settings={name: environ[name] for name in RECORDED_SETTINGS if name in environ} | _keras_json(environ),
        defaults=_defaults(root),
        device_files=tuple(
            str(root / f"dev/nvidia{number}")
            for number in sorted(int(name) for name in nvidia_files if name.isdecimal())
        ),
        control_files=tuple(name for name in CONTROL_FILES if (root / "dev" / name).exists()),
        listed_by_driver=len(list((root / "proc/driver/nvidia/gpus").glob("*"))),
        on_pci_bus=len(unlisted.pci),
        unlisted=unlisted,
        shared_memory=shutil.disk_usage(shared_memory).total if shared_memory.is_dir() else None,
        memory=tuple(memory_limits(root)),
        processors=usable_processors(),
        cpu_quota=cpu_quota(root),
        volumes=tuple(_volumes(environ)),
    )


def read_gpus(here: Environment | None = None) -> Environment:
    """Return a machine, or this one, with what the driver reports now to a child process."""
    return replace(here or read_machine(), nvidia=read_nvidia((), DRIVER_DEADLINE))


def _keras_json(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the numeric values of Keras's file; none where it can't be read: importing Keras says so."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads(keras_json(environ).read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return {
                name: str(found[own]) for name in SETTINGS if (own := name.removeprefix(KERAS)) != name and own in found
            }
    return {}


def _defaults(root: Path) -> dict[str, str]:
    threads = ("TF_NUM_INTRAOP_THREADS", "PJRT_NPROC", "NPROC", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    found = dict.fromkeys(threads, str(usable_processors()))
    with contextlib.suppress(OSError):
        words = set((root / "proc/cpuinfo").read_text().split("\n\n")[0].split())
        if words >= AMX_FLAGS:
            limits = "|".join(AMX_LIMITS[1:] if "amx_fp16" in words else AMX_LIMITS)
            found |= dict.fromkeys((f"{prefix}_MAX_CPU_ISA" for prefix in ("ONEDNN", "DNNL", "MKLDNN")), limits)
        found["TF_ENABLE_ONEDNN_OPTS"] = "1" if words & {*ONEDNN_FLAGS, ONEDNN_PART} else "0"
    return found


def _container(root: Path, environ: Mapping[str, str]) -> str | None:
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "kubernetes"
    if "APPTAINER_CONTAINER" in environ or "SINGULARITY_CONTAINER" in environ:
        return "apptainer"
    if (root / "run/.containerenv").exists():
        return "podman"
    if (root / ".dockerenv").exists():
        return "docker"
    return environ.get("container") or None  # as systemd-nspawn and LXC set it


def _volumes(environ: Mapping[str, str]) -> Iterator[Volume]:
    """Yield the folders of what is written by default; data that is there already needs none."""
    yield _volume("weights", Path.cwd)
    home = keras_home(environ)
    places = (Path(environ.get("ALEXNET_REPRO_DATA", "")), home / "datasets/fashion-mnist")
    if not any(os.path.lexists(place / f"t10k-images-idx3-ubyte{end}") for place in places for end in ("", ".gz")):
        yield _volume("data", lambda: home)
    yield _volume("temporary files", lambda: Path(tempfile.gettempdir()))


def _volume(purpose: str, folder: Callable[[], Path]) -> Volume:
    path: Path | None = None
    try:
        path = folder()
        place = next(each for each in (path, *path.parents) if os.path.lexists(each))  # where it is, or will be
        free = shutil.disk_usage(place).free
        with tempfile.TemporaryFile(dir=place):  # not os.access: root may do all, but on a read-only disk nobody may
            pass
    except OSError as error:  # also where there is no working folder any more, or none for temporary files
        return Volume(purpose, str(path or error.filename or "."), None, error.strerror or str(error))
    return Volume(purpose, str(path), free)
