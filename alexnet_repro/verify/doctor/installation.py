"""The installed TensorFlow, its requirements, the CUDA that it was built for, that CUDA's libraries; our own version.

All is read from the packages' metadata: TensorFlow needn't be importable. Each library is loaded by itself, in a
child process: TensorFlow doesn't name the missing one. Of CUDA's packages it is also read whether they fit together.
"""

import contextlib
import ctypes
import os
import re
import runpy
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Parsed
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from alexnet_repro.packages import Package, find_package, installed_packages, module_folder
from alexnet_repro.verify.subprocesses import answer_each

DRIVER = "the NVIDIA driver"
CUDNN = "nvidia-cudnn-cu12"
OUR_OWN = ("h5py", "keras", "numpy")  # of TensorFlow's requirements: nothing here runs without them

# By CUDA's major version: the libraries that TensorFlow opens (its *_stub.cc), those that they open
# themselves, and the wheel of each.
LIBRARIES = {
    12: {
        "libcuda.so.1": DRIVER,
        "libcudart.so.12": "nvidia-cuda-runtime-cu12",
        "libcublas.so.12": "nvidia-cublas-cu12",
        "libcublasLt.so.12": "nvidia-cublas-cu12",
        "libcufft.so.11": "nvidia-cufft-cu12",
        "libnvJitLink.so.12": "nvidia-nvjitlink-cu12",
        "libcusparse.so.12": "nvidia-cusparse-cu12",
        "libcusolver.so.11": "nvidia-cusolver-cu12",
        "libnvrtc.so.12": "nvidia-cuda-nvrtc-cu12",
        "libcudnn.so.9": CUDNN,
        "libcudnn_graph.so.9": CUDNN,
        "libcudnn_ops.so.9": CUDNN,
        "libcudnn_cnn.so.9": CUDNN,
        "libnccl.so.2": "nvidia-nccl-cu12",
        "libcupti.so.12": "nvidia-cuda-cupti-cu12",
    }
}
# TensorFlow 2.17 opens cuDNN 8: its parts; its version 8.9.7 is 8907, and 9.5.1 is 90501.
OLD_CUDNN, OLD_CUDNN_PARTS = 8, ("", "_ops_infer", "_cnn_infer", "_ops_train", "_cnn_train")


@dataclass(frozen=True)
class Requirement:
    """A package that TensorFlow needs."""

    name: str
    wanted: str
    installed: str | None
    met: bool


@dataclass(frozen=True)
class TensorFlow:
    """An installed TensorFlow."""

    distributions: tuple[str, ...]  # that installed it: "tensorflow 2.21.0"
    folder: str
    cuda_build: bool | None = None
    cuda: tuple[int, ...] | None = None
    cudnn: int | None = None  # its major version
    capabilities: tuple[str, ...] = ()  # sm_80: kernels; compute_90: PTX
    requirements: tuple[Requirement, ...] = ()
    wheels: Mapping[str, str] = field(default_factory=dict)  # CUDA's wheels, as pip's requirements, by name
    leftovers: tuple[str, ...] = ()  # metadata of packages that aren't what is imported


@dataclass(frozen=True)
class Library:
    """A library, its wheel, the path that was opened, the error, and the version that it says it is of."""

    name: str
    wheel: str
    path: str = ""
    error: str | None = None
    version: str = ""


@dataclass(frozen=True)
class CudaPackages:
    """Of the installed packages: those that overwrote each other's libraries, and JAX's parts, by name and version."""

    overwritten: tuple[tuple[str, ...], ...] = ()
    jax: Mapping[str, str] = field(default_factory=dict)


def revision(root: Path) -> str:
    """Return the code's git revision, with `-dirty` if files were changed; empty outside its own checkout.

    An installed package may lie in the checkout of something else, which has a revision, too.
    """
    ours = ["ls-files", "--error-unmatch", "alexnet_repro/__init__.py"]
    try:
        for command in (ours, ["describe", "--always", "--dirty", "--abbrev=12"]):
            git = ["git", "-C", str(root), *command]
            with tempfile.TemporaryFile() as output:  # not a pipe, which what git starts may keep open
                none = subprocess.DEVNULL
                subprocess.run(git, stdin=none, stdout=output, stderr=none, check=True, timeout=20)  # noqa: S603
                output.seek(0)
                found = output.read().decode(errors="replace").strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return found


def read_tensorflow(path: Sequence[str] | None = None) -> TensorFlow | None:
    """Return the TensorFlow that Python would import from these folders, by default `sys.path`; None: there is none.

    It may have been installed under any name, as tensorflow-cpu or a vendor's, or without metadata.
    """
    packages, leftovers = installed_packages(path)
    ours = [each for each in packages if each.brings("tensorflow")]
    folder = module_folder("tensorflow", path) or (ours[0].locate("tensorflow") if ours else None)
    if folder is None:
        return None
    # Others on the path are only shadowed; those in one folder have overwritten each other's files.
    same = [each for each in ours if each.locate("tensorflow").resolve() == folder.resolve()]
    same = same or [Package("tensorflow")]
    wanted = _requirements(same[0])
    versions = {each.name: each for each in packages}
    build: Mapping[str, Any] = {}
    with contextlib.suppress(Exception):  # a vendor's file may do anything
        build = dict(runpy.run_path(str(folder / "python/platform/build_info.py"))["build_info"])
    cuda = str(build.get("cuda_version", ""))
    return TensorFlow(
        distributions=tuple(map(str, same)),
        folder=str(folder),
        cuda_build=bool(build["is_cuda_build"]) if "is_cuda_build" in build else None,
        cuda=tuple(int(part) for part in cuda.split(".") if part.isdecimal()) or None,
        cudnn=int(major) if (major := str(build.get("cudnn_version", "")).partition(".")[0]).isdecimal() else None,
        capabilities=tuple(map(str, build.get("cuda_compute_capabilities") or ())),
        requirements=tuple(
            _requirement(each, versions.get(canonicalize_name(each.name)) or find_package(each.name, path))
            for each in wanted
            if _applies(each, "")
        ),
        wheels={
            each.name: f"{each.name}{each.specifier}"
            for each in wanted
            if each.name.startswith("nvidia-") and each.marker and _applies(each, "and-cuda")
        },
        leftovers=tuple(map(str, leftovers)),
    )


def _requirements(package: Package) -> list[Parsed]:
    """Return a package's requirements, and our own; one that isn't written as they have to be is none."""
    found = []
    with contextlib.suppress(Exception):  # unreadable metadata
        for text in (package.distribution and package.distribution.requires) or ():
            with contextlib.suppress(InvalidRequirement):
                found.append(Parsed(text))
    return found + [Parsed(name) for name in OUR_OWN if name not in (each.name for each in found)]


def _applies(wanted: Parsed, extra: str) -> bool:
    with contextlib.suppress(ValueError, LookupError):  # of unknown names, or that can't be compared
        return wanted.marker is None or wanted.marker.evaluate({"extra": extra})
    return False


def _requirement(wanted: Parsed, found: Package | None) -> Requirement:
    met = found is not None
    with contextlib.suppress(InvalidVersion):  # one that can't be compared, as a system's own
        met = found is not None and wanted.specifier.contains(Version(found.version), prereleases=True)
    return Requirement(wanted.name, str(wanted.specifier), found.version if found else None, met)


def libraries_of(tensorflow: TensorFlow) -> dict[str, str]:
    """Return the wheels of the libraries that this TensorFlow opens, by the libraries' names; empty: unknown."""
    wheels = LIBRARIES.get(tensorflow.cuda[0] if tensorflow.cuda else 0, {})
    if tensorflow.cudnn != OLD_CUDNN or not wheels:
        return wheels
    parts = dict.fromkeys((f"libcudnn{part}.so.{OLD_CUDNN}" for part in OLD_CUDNN_PARTS), CUDNN)
    return {name: wheel for name, wheel in wheels.items() if wheel != CUDNN} | parts


def read_libraries(tensorflow: TensorFlow, deadline: float) -> Iterator[Library]:
    """Load each library as TensorFlow does, in a child process."""
    wheels = libraries_of(tensorflow)
    paths = [str(find(name, wheel, Path(tensorflow.folder))) for name, wheel in wheels.items()]
    answers = answer_each(__name__, [], paths, deadline)
    for (name, wheel), (path, answer) in zip(wheels.items(), answers, strict=True):
        yield Library(name, wheel, answer.get("file") or path, answer.get("error"), answer.get("version") or "")


def find(name: str, wheel: str, tensorflow_folder: Path) -> Path:
    """Return the file that TensorFlow would open; the bare name where the system's linker decides.

    First `LD_LIBRARY_PATH`, then the wheels beside TensorFlow (its RUNPATH), as ld.so(8) does.
    """
    folders = [Path(folder) for folder in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder]
    part = wheel.removeprefix("nvidia-").rpartition("-")[0].replace("-", "_")
    folders.append(tensorflow_folder.parent / "nvidia" / part / "lib")
    return next((folder / name for folder in folders if (folder / name).is_file()), Path(name))


def read_cuda_packages(path: Sequence[str] | None = None) -> CudaPackages:
    """Return what the metadata in these folders, by default `sys.path`, say of CUDA's packages."""
    packages = installed_packages(path)[0]
    owners: dict[Path, list[str]] = {}
    for each in packages:
        for library in each.libraries() if each.name.startswith("nvidia-") else ():
            owners.setdefault(library, []).append(str(each))
    return CudaPackages(
        overwritten=tuple(dict.fromkeys(tuple(sorted(names)) for names in owners.values() if len(names) > 1)),
        jax={each.name: each.version for each in packages if re.fullmatch(r"jaxlib|jax-cuda\d+-plugin", each.name)},
    )


def main(*paths: str) -> Iterator[tuple[str, dict[str, str | None]]]:
    """Load each library, in the child, and yield its error, or its file and what version it says it is of."""
    for path in paths:
        try:
            library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            yield path, {"error": str(error)}
        else:
            yield path, {"error": None, "file": _mapped(Path(path).name), "version": _cudnn_version(path, library)}


def _cudnn_version(path: str, library: ctypes.CDLL) -> str:
    """Return cuDNN's version, of the part that has it: `libcudnn.so` would end the process where that is missing."""
    part = Path(path).name.startswith(("libcudnn_graph.so", "libcudnn_ops_infer.so"))
    if not part or not hasattr(library, "cudnnGetVersion"):
        return ""
    library.cudnnGetVersion.restype = ctypes.c_size_t
    number: int = library.cudnnGetVersion()
    of_major = 1_000 if number // 1_000 == OLD_CUDNN else 10_000
    return f"{number // of_major}.{number % of_major // 100}.{number % 100}"


def _mapped(name: str) -> str:
    """Return the file of a library that this process has loaded, as Linux tells; empty: it isn't known."""
    with contextlib.suppress(OSError):
        files = (line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines())
        return next((file for file in files if Path(file).name.startswith(name.partition(".so")[0] + ".so")), "")
    return ""
