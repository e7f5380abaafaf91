"""The installed TensorFlow, its requirements, the CUDA that it was built for, that CUDA's libraries; our own version.

All is read from the packages' metadata: TensorFlow needn't be importable. Each library is loaded by itself, in a
child process: TensorFlow doesn't name the missing one.
"""

import contextlib
import ctypes
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import Distribution, PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement as Parsed
from packaging.utils import canonicalize_name

from alexnet_repro.verify.subprocesses import answer_each

FAMILY = ("tensorflow", "tf-nightly", "intel-tensorflow")  # distributions of TensorFlow begin with one of these
DRIVER = "the NVIDIA driver"

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
        "libcudnn.so.9": "nvidia-cudnn-cu12",
        "libcudnn_graph.so.9": "nvidia-cudnn-cu12",
        "libcudnn_ops.so.9": "nvidia-cudnn-cu12",
        "libcudnn_cnn.so.9": "nvidia-cudnn-cu12",
        "libnccl.so.2": "nvidia-nccl-cu12",
        "libcupti.so.12": "nvidia-cuda-cupti-cu12",
    }
}


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
    capabilities: tuple[str, ...] = ()  # sm_80: kernels; compute_90: PTX
    requirements: tuple[Requirement, ...] = ()
    wheels: Mapping[str, str] = field(default_factory=dict)  # CUDA's wheels, as pip's requirements, by name


@dataclass(frozen=True)
class Library:
    """A library, its wheel, the path that was opened, and the error."""

    name: str
    wheel: str
    path: str = ""
    error: str | None = None


def package_version(name: str) -> str | None:
    """Return an installed package's version; None where it isn't installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


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
    """Return the TensorFlow that Python would import from these folders, by default `sys.path`; None: there is none."""
    found = list(distributions(path=list(sys.path if path is None else path)))
    ours = [distribution for distribution in found if _is_tensorflow(distribution)]
    if not ours:
        return None
    folder = Path(str(ours[0].locate_file("tensorflow")))
    # Later ones on the path are only shadowed; those in one folder have overwritten each other's files.
    same = [each for each in ours if Path(str(each.locate_file("tensorflow"))) == folder]
    wanted = [Parsed(text) for text in same[0].requires or []]
    versions = {canonicalize_name(each.name): each.version for each in reversed(found)}  # the first on the path counts
    build: Mapping[str, Any] = {}
    with contextlib.suppress(OSError, KeyError, SyntaxError):
        build = runpy.run_path(str(folder / "python/platform/build_info.py"))["build_info"]
    cuda = str(build.get("cuda_version", ""))
    return TensorFlow(
        distributions=tuple(f"{each.name} {each.version}" for each in same),
        folder=str(folder),
        cuda_build=bool(build["is_cuda_build"]) if "is_cuda_build" in build else None,
        cuda=tuple(map(int, cuda.split("."))) if cuda.replace(".", "").isdecimal() else None,
        capabilities=tuple(map(str, build.get("cuda_compute_capabilities", ()))),
        requirements=tuple(
            _requirement(each, versions.get(canonicalize_name(each.name)))
            for each in wanted
            if not each.marker or each.marker.evaluate({"extra": ""})
        ),
        wheels={
            each.name: f"{each.name}{each.specifier}"
            for each in wanted
            if each.name.startswith("nvidia-") and each.marker and each.marker.evaluate({"extra": "and-cuda"})
        },
    )


def _is_tensorflow(distribution: Distribution) -> bool:
    name = canonicalize_name(distribution.name or "")
    record = distribution.read_text("RECORD") if name.startswith(FAMILY) else ""
    if record is None:  # installed by conda or from source
        return name in FAMILY
    return "\ntensorflow/__init__.py," in f"\n{record}"


def _requirement(wanted: Parsed, installed: str | None) -> Requirement:
    met = installed is not None and wanted.specifier.contains(installed, prereleases=True)
    return Requirement(wanted.name, str(wanted.specifier), installed, met)


def read_libraries(tensorflow_folder: str, cuda_major: int, deadline: float) -> Iterator[Library]:
    """Load each library as TensorFlow does, in a child process."""
    wheels = LIBRARIES.get(cuda_major, {})
    paths = [str(find(name, wheel, Path(tensorflow_folder))) for name, wheel in wheels.items()]
    answers = answer_each(__name__, [], paths, deadline)
    for (name, wheel), (path, answer) in zip(wheels.items(), answers, strict=True):
        yield Library(name, wheel, path, answer.get("error"))


def find(name: str, wheel: str, tensorflow_folder: Path) -> Path:
    """Return the file that TensorFlow would open; the bare name where the system's linker decides.

    First `LD_LIBRARY_PATH`, then the wheels beside TensorFlow (its RUNPATH), as ld.so(8) does.
    """
    folders = [Path(folder) for folder in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder]
    part = wheel.removeprefix("nvidia-").rpartition("-")[0].replace("-", "_")
    folders.append(tensorflow_folder.parent / "nvidia" / part / "lib")
    return next((folder / name for folder in folders if (folder / name).is_file()), Path(name))


def main(*paths: str) -> Iterator[tuple[str, dict[str, str | None]]]:
    """Load each library, in the child, and yield its error."""
    for path in paths:
        try:
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            yield path, {"error": str(error)}
        else:
            yield path, {"error": None}
