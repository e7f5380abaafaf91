"""The installed packages, of whose metadata anything may be missing or broken: what can't be read is passed over.

What is imported counts. Metadata may be of something else: pip renames that of a package which it couldn't remove to
`~ensorflow-2.20.0.dist-info`, and a second folder may be left of another version.
"""

import base64
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

LEFTOVER = ("~", "-")  # how pip's names of what it couldn't remove begin


@dataclass(frozen=True)
class Package:
    """An installed package, by its name in lower case with hyphens; no `distribution`: it has no metadata."""

    name: str
    version: str = "of an unknown version"
    distribution: Distribution | None = None

    def __str__(self) -> str:
        """Return name and version."""
        return f"{self.name} {self.version}"

    def text(self, name: str) -> str | None:
        """Return a file of its metadata; None: it isn't there, or can't be read."""
        try:
            return self.distribution.read_text(name) if self.distribution else None
        except Exception:  # noqa: BLE001 - whatever can't be read, or isn't UTF-8, says nothing
            return None

    def brings(self, module: str) -> bool:
        """Return whether it installed this module; by its name alone where it has no list of files."""
        if (record := self.text("RECORD")) is not None:
            return f"\n{module}/__init__.py," in f"\n{record}" or f"\n{module}.py," in f"\n{record}"
        return module == self.name or module in (self.text("top_level.txt") or "").split()

    def is_gone(self) -> bool:
        """Return whether none of the files that it installed is there; not where it has no list of them, or none."""
        files = [each for each in self._files() if ".dist-info/" not in each and not each.startswith(("..", "/"))]
        locate: Any = self.distribution.locate_file if self.distribution else Path
        return bool(files) and not any(locate(path).exists() for path in files)

    def libraries(self) -> set[Path]:
        """Return the shared libraries that it installed, as its list of files has them."""
        return {self.locate(path).resolve() for path in self._files() if ".so" in Path(path).name}

    def _files(self) -> list[str]:
        """Return the paths in its list of files."""
        paths = (line.rsplit(",", 2)[0].strip('"') for line in (self.text("RECORD") or "").splitlines())
        return [path for path in paths if path]

    def locate(self, module: str) -> Path:
        """Return the folder of a module that it brings."""
        return Path(str(self.distribution.locate_file(module) if self.distribution else module))

    @property
    def place(self) -> Path:
        """Return the folder or file of its metadata."""
        return Path(str(getattr(self.distribution, "_path", self.locate(""))))


def installed_packages(path: Sequence[str] | None = None, name: str | None = None) -> tuple[list[Package], list[Path]]:
    """Return the packages in these folders (default: `sys.path`), all or those of a name, and the metadata left over.

    Of two of one name the first on the path counts, as in imports; in one folder that whose files are there, or, where
    nothing tells them apart, the newer one, and then none is left over.
    """
    named: dict[str, list[Package]] = {}
    leftovers: list[Path] = []
    where: dict[str, Any] = {"path": [each for each in sys.path if isinstance(each, str)] if path is None else path}
    where |= {"name": name} if name else {}
    for each in filter(None, map(_read, distributions(**where))):
        if name and each.name != canonicalize_name(name):
            continue
        same = named.setdefault(each.name, [])
        if each.place.name.startswith(LEFTOVER) or each.is_gone():
            leftovers.append(each.place)
        elif not same or same[0].place.parent == each.place.parent:
            same.append(each)
    found = []
    for same in filter(None, named.values()):
        fits = {id(each): _fit(each) if len(same) > 1 else () for each in same}
        best = max(same, key=lambda each: (fits[id(each)], _order(each.version)))
        found.append(best)
        leftovers += [each.place for each in same if each.version != best.version and fits[id(each)] < fits[id(best)]]
    return found, [each for each in leftovers if each.exists()]  # not what is in an archive


def find_package(name: str, path: Sequence[str] | None = None) -> Package | None:
    """Return the package of this name, or else that which brings a module of this name, as `keras-nightly` does."""
    if found := installed_packages(path, name)[0]:
        return found[0]
    if module_folder(name, path) is None:
        return None
    return next((each for each in installed_packages(path)[0] if each.brings(name)), Package(name))


def package_version(name: str) -> str | None:
    """Return the version of a package, with the package's own name where it is another; None: it isn't installed.

    Where a module of this name is imported, and says that it is of another version, it is right.
    """
    if (found := find_package(name)) is None:
        return None
    loaded = getattr(sys.modules.get(name), "__version__", None)
    version = loaded if isinstance(loaded, str) and _public(loaded) != _public(found.version) else found.version
    return str(version) if found.name == canonicalize_name(name) else f"{version} ({found.name})"


def module_folder(name: str, path: Sequence[str] | None = None) -> Path | None:
    """Return the folder of a package of modules that Python would import; a folder without `__init__.py` is none."""
    spec = PathFinder.find_spec(name, None if path is None else list(path)) if name.isidentifier() else None
    return Path(spec.origin).parent if spec and spec.origin and spec.submodule_search_locations else None


def _read(distribution: Distribution) -> Package | None:
    try:
        metadata: Any = distribution.metadata
        name, version = (str(metadata.get(field) or "").strip() for field in ("Name", "Version"))
    except Exception:  # noqa: BLE001 - as above: it is no package
        return None
    return Package(canonicalize_name(name), version, distribution) if name and version else None


def _fit(package: Package) -> tuple[float, bool]:
    """Return the part of a package's Python files that are as it installed them; and whether its list names itself."""
    record = package.text("RECORD") or ""
    rows = [line.rsplit(",", 2) for line in record.splitlines() if ".py," in line]
    right = sum(_digest(package.locate(path.strip('"'))) == digest for path, digest, _ in rows)
    return right / max(1, len(rows)), f"{package.place.name}/" in record


def _order(version: str) -> Version:
    try:
        return Version(version)
    except InvalidVersion:
        return Version("0")


def _digest(path: Path) -> str:
    """Return a file's digest as RECORD has it; empty: it can't be read."""
    try:
        return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).decode().rstrip("=")
    except OSError:
        return ""


def _public(version: str) -> str:
    """Return a version without a vendor's label, spelled in one way."""
    try:
        return Version(version).public
    except InvalidVersion:
        return version
