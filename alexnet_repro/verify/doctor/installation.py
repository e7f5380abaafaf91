"""The installed TensorFlow, the CUDA that it was built for, and its requirements.

All is read from the packages' metadata: TensorFlow needn't be importable.
"""

import runpy
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import Distribution, PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement as Parsed
from packaging.utils import canonicalize_name

FAMILY = ("tensorflow", "tf-nightly", "intel-tensorflow")  # distributions of TensorFlow begin with one of these


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


def package_version(name: str) -> str | None:
    """Return an installed package's version; None where it isn't installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def read_tensorflow(path: Sequence[str] | None = None) -> TensorFlow | None:
    """Return the TensorFlow that Python would import; None if there is none.

    Args:
        path: folders to look in; `sys.path` if not given.
    """
    found = list(distributions(path=list(sys.path if path is None else path)))
    ours = [distribution for distribution in found if _is_tensorflow(distribution)]
    if not ours:
        return None
    folder = Path(str(ours[0].locate_file("tensorflow")))
    # Later ones on the path are only shadowed; those in one folder have overwritten each other's files.
    same = [each for each in ours if Path(str(each.locate_file("tensorflow"))) == folder]
    wanted = [Parsed(text) for text in same[0].requires or []]
    versions: dict[str, str] = {}
    for each in found:
        versions.setdefault(canonicalize_name(each.name), each.version)
    build = _build(folder)
    cuda = str(build.get("cuda_version", ""))
    return TensorFlow(
        distributions=tuple(f"{each.name} {each.version}" for each in same),
        folder=str(folder),
        cuda_build=bool(build["is_cuda_build"]) if "is_cuda_build" in build else None,
        cuda=tuple(map(int, cuda.split("."))) if cuda.replace(".", "").isdecimal() else None,
        capabilities=tuple(map(str, build.get("cuda_compute_capabilities", ()))),
        requirements=tuple(_requirements(wanted, versions)),
        wheels={
            each.name: f"{each.name}{each.specifier}"
            for each in wanted
            if each.name.startswith("nvidia-") and each.marker and each.marker.evaluate({"extra": "and-cuda"})
        },
    )


def _is_tensorflow(distribution: Distribution) -> bool:
    name = canonicalize_name(distribution.name or "")
    if not name.startswith(FAMILY):
        return False
    record = distribution.read_text("RECORD")
    if record is None:  # installed by conda or from source
        return name in FAMILY
    return "\ntensorflow/__init__.py," in f"\n{record}"


def _build(folder: Path) -> Mapping[str, Any]:
    try:
        build: Mapping[str, Any] = runpy.run_path(str(folder / "python/platform/build_info.py"))["build_info"]
    except (OSError, KeyError, SyntaxError):
        return {}
    return build


def _requirements(wanted: Sequence[Parsed], versions: Mapping[str, str]) -> Iterator[Requirement]:
    for each in wanted:
        if each.marker and not each.marker.evaluate({"extra": ""}):
            continue
        installed = versions.get(canonicalize_name(each.name))
        met = installed is not None and each.specifier.contains(installed, prereleases=True)
        yield Requirement(each.name, str(each.specifier), installed, met)
